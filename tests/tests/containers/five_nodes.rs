//! Five nodes, each with an address of its own: a minority is cut off with the leader in it.

use anyhow::ensure;
use confman_tests::cluster::PATIENCE;
use confman_tests::containers::cluster::story;
use confman_tests::containers::network::Direction;
use confman_tests::wait::wait_until;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker and images: run .ci/containers"]
async fn i1_two_of_five_that_are_cut_off_with_the_leader_do_not_stop_the_rest() -> anyhow::Result<()>
{
    story("five", 5, async |cluster| {
        let load = cluster.load("five");
        load.wait_progress(50, PATIENCE).await?;
        let leader = cluster.wait_leader().await?;
        let minority = [leader, (leader + 1) % 5];
        let majority: Vec<usize> = (0..5).filter(|index| !minority.contains(index)).collect();
        let beyond: Vec<_> = majority.iter().map(|i| &cluster.nodes[*i].pod).collect();
        for index in minority {
            cluster.nodes[index]
                .pod
                .cut(&beyond, Direction::Both)
                .await?;
        }
        wait_until("the majority has a leader of its own", PATIENCE, || async {
            let new = cluster.wait_leader_among(&majority).await?;
            ensure!(majority.contains(&new), "{new} leads");
            Ok(())
        })
        .await?;
        load.wait_progress(100, PATIENCE).await?;
        for index in minority {
            cluster.nodes[index].pod.heal().await?;
        }
        cluster.end(load, "five").await?;

        // Two gone for real, one of them for good: its volume is lost.
        let load = cluster.load("two-gone");
        load.wait_progress(50, PATIENCE).await?;
        cluster.snapshot().await?;
        let leader = cluster.wait_leader().await?;
        let other = (leader + 2) % 5;
        cluster.kill(leader).await?;
        cluster.kill(other).await?;
        load.wait_progress(100, PATIENCE).await?;
        cluster.wipe(other).await?;
        cluster.start_node(leader).await?;
        cluster.start_node(other).await?;
        cluster.end(load, "two-gone").await?;
        Ok(())
    })
    .await
}
