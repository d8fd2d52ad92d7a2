//! The network between three nodes is cut one way and both ways, loses packets, is slow, and is long.

use anyhow::ensure;
use confman_tests::cluster::{CONFIG, PATIENCE};
use confman_tests::containers::cluster::{linked_story, story};
use confman_tests::containers::network::Direction;
use confman_tests::delay::{Delay, reach};
use confman_tests::wait::wait_until;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker and images: run .ci/containers"]
async fn i1_a_leader_that_is_cut_off_stops_leading_and_serves_nothing_stale() -> anyhow::Result<()>
{
    story("cut", 3, async |cluster| {
        for (namespace, direction) in [
            ("cut-both", Direction::Both),
            // It sends and hears no answer; it hears and its words are lost.
            ("cut-in", Direction::In),
            ("cut-out", Direction::Out),
        ] {
            let load = cluster.load(namespace);
            load.wait_progress(50, PATIENCE).await?;
            let leader = cluster.wait_leader().await?;
            let rest: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
            let pod = &cluster.nodes[leader].pod;
            pod.cut(&cluster.others(leader), direction).await?;
            wait_until("the others have another leader", PATIENCE, || async {
                let new = cluster.wait_leader_among(&rest).await?;
                ensure!(new != leader, "{new} leads");
                Ok(())
            })
            .await?;
            load.wait_progress(100, PATIENCE).await?;
            // Alone it confirms nothing: a linearizable read is refused, and what it has is to be had as what it is.
            let alone = cluster.api(leader);
            let ask = alone.get("/api/v1/config/load/none");
            let answer = ask.timeout(PATIENCE).send().await?;
            ensure!(answer.status >= 500, "{namespace}: {}", answer.text());
            let ask = alone
                .get("/api/v1/config/load/none")
                .consistency("eventual");
            ask.send().await?.expect(&[404])?;
            pod.heal().await?;
            cluster.end(load, namespace).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker and images: run .ci/containers"]
async fn a_follower_that_lost_one_link_only_troubles_nobody() -> anyhow::Result<()> {
    story("link", 3, async |cluster| {
        let load = cluster.load("link");
        load.wait_progress(50, PATIENCE).await?;
        let leader = cluster.wait_leader().await?;
        let follower = (leader + 1) % 3;
        let term = |group: &serde_json::Value| group["term"].as_u64().unwrap_or_default();
        let before = term(&cluster.group(leader, CONFIG).await?);
        // It hears the third node, which hears the leader: without pre-vote it would call one election after the other.
        let pod = &cluster.nodes[follower].pod;
        pod.cut(&[&cluster.nodes[leader].pod], Direction::Both)
            .await?;
        load.wait_progress(300, PATIENCE).await?;
        let group = cluster.group(leader, CONFIG).await?;
        ensure!(
            group["role"] == "leader" && term(&group) == before,
            "{group}"
        );
        pod.heal().await?;
        cluster.end(load, "link").await?;
        Ok(())
    })
    .await
}

/// What a node sends, which the load alone would fill many times over.
const SLOW_KILOBITS: u32 = 80;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker and images: run .ci/containers"]
async fn packets_that_are_lost_or_slow_lose_nothing() -> anyhow::Result<()> {
    story("lossy", 3, async |cluster| {
        let load = cluster.load("lossy");
        load.wait_progress(50, PATIENCE).await?;
        for index in 0..3 {
            let pod = &cluster.nodes[index].pod;
            pod.lose(&cluster.others(index), 10).await?;
        }
        load.wait_progress(100, PATIENCE).await?;
        for node in &cluster.nodes {
            node.pod.heal().await?;
        }
        cluster.end(load, "lossy").await?;

        let load = cluster.load("slow");
        load.wait_progress(50, PATIENCE).await?;
        let leader = cluster.wait_leader().await?;
        cluster.nodes[leader].pod.slow(SLOW_KILOBITS).await?;
        load.wait_progress(100, PATIENCE).await?;
        cluster.nodes[leader].pod.heal().await?;
        cluster.end(load, "slow").await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker and images: run .ci/containers"]
async fn i1_a_follower_or_a_leader_that_is_far_away_costs_no_election_and_loses_nothing()
-> anyhow::Result<()> {
    linked_story("far", 3, async |cluster| {
        let load = cluster.load("far");
        load.wait_progress(50, PATIENCE).await?;
        let leader = cluster.wait_leader().await?;
        let follower = (leader + 1) % 3;
        let term = cluster.group(leader, CONFIG).await?["term"].clone();
        for (node, delay) in [
            // Another continent.
            (follower, Delay::millis(60, 20)),
            // The moon, almost: three heartbeats are sent before one is answered.
            (follower, Delay::millis(400, 50)),
            // Then nothing is committed without a round trip to where it is far.
            (leader, Delay::millis(60, 20)),
        ] {
            cluster.far(node, delay)?;
            let took = reach(&cluster.api(leader), &cluster.nodes[follower].name).await?;
            ensure!(took >= 2 * delay.each_way, "{delay:?} is {took:?}");
            load.wait_progress(100, PATIENCE).await?;
            let group = cluster.group(leader, CONFIG).await?;
            ensure!(
                group["role"] == "leader" && group["term"] == term,
                "{delay:?}: {group}"
            );
        }
        cluster.near();
        cluster.end(load, "far").await?;
        Ok(())
    })
    .await
}
