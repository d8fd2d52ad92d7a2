//! A node is killed, frozen, and loses its volume.

use confman_tests::cluster::PATIENCE;
use confman_tests::containers::cluster::{ContainerCluster, story};

/// Who is hit.
#[derive(Debug, Clone, Copy)]
enum Who {
    Leader,
    Follower,
}

impl Who {
    async fn find(self, cluster: &ContainerCluster) -> anyhow::Result<usize> {
        let leader = cluster.wait_leader().await?;
        Ok(match self {
            Self::Leader => leader,
            Self::Follower => (leader + 1) % cluster.nodes.len(),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker and images: run .ci/containers"]
async fn i1_a_leader_or_a_follower_that_is_killed_or_frozen_loses_nothing() -> anyhow::Result<()> {
    story("killed", 3, async |cluster| {
        for (who, killed, frozen) in [
            (Who::Leader, "killed", "frozen"),
            (Who::Follower, "follower-killed", "follower-frozen"),
        ] {
            let load = cluster.load(killed);
            load.wait_progress(50, PATIENCE).await?;
            let node = who.find(cluster).await?;
            cluster.kill(node).await?;
            load.wait_progress(100, PATIENCE).await?;
            cluster.start_node(node).await?;
            cluster.end(load, killed).await?;

            let load = cluster.load(frozen);
            load.wait_progress(50, PATIENCE).await?;
            let node = who.find(cluster).await?;
            cluster.pause(node).await?;
            // The others go on without it, and a leader does not know that when it wakes up.
            load.wait_progress(100, PATIENCE).await?;
            cluster.unpause(node).await?;
            cluster.end(load, frozen).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker and images: run .ci/containers"]
async fn i14_a_node_whose_volume_is_gone_comes_back_from_the_store_as_another() -> anyhow::Result<()>
{
    story("wiped", 3, async |cluster| {
        let load = cluster.load("wiped");
        load.wait_progress(200, PATIENCE).await?;
        cluster.snapshot().await?;
        let before = node_id(cluster, 2).await?;
        cluster.kill(2).await?;
        cluster.wipe(2).await?;
        load.wait_progress(50, PATIENCE).await?;
        cluster.start_node(2).await?;
        cluster.end(load, "wiped").await?;
        let after = node_id(cluster, 2).await?;
        assert!(after > before, "id {before} was used again: {after}");
        let log = cluster.log(2).await?;
        assert!(log.contains("restored config/0: snapshot"), "{log}");
        Ok(())
    })
    .await
}

async fn node_id(cluster: &ContainerCluster, index: usize) -> anyhow::Result<u64> {
    let status = cluster.api(index).get_json("/api/v1/status").await?;
    let id = status["node"]["id"].as_u64();
    id.ok_or_else(|| anyhow::anyhow!("no id in {status}"))
}
