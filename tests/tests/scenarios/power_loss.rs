//! Every machine loses its power in the same moment: of what the nodes wrote their disks keep what was synced, and nothing else.

use std::time::Duration;

use confman_tests::cluster::{CONFIG, PATIENCE, Plan};
use confman_tests::load::{Load, LoadPlan};
use confman_tests::power::{Power, lose_all};
use confman_tests::random::Random;
use confman_tests::wait::wait_until;

use crate::crash::judge;

const ROUNDS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i1_a_power_loss_of_every_node_loses_nothing_that_was_acknowledged() -> anyhow::Result<()> {
    let test = "i1_a_power_loss_of_every_node_loses_nothing_that_was_acknowledged";
    let Some(power) = Power::of_test(test)? else {
        return Ok(());
    };
    // Snapshots and purges take part too.
    let cluster = Plan::new("power")
        .env("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "200")
        .env("CONFMAN_SNAPSHOT_LOG_MARGIN", "20")
        .start()
        .await?;
    for node in cluster.nodes() {
        node.stop(PATIENCE).await?;
    }
    power.attach(&cluster)?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;

    let plan = LoadPlan::default();
    let mut random = Random::new(plan.seed);
    let load = Load::start(&cluster, &plan);
    let mut undone = 0;
    for round in 0..ROUNDS {
        load.wait_progress(60, PATIENCE).await?;
        // At another moment each time.
        tokio::time::sleep(Duration::from_millis(random.below(300) as u64)).await;
        let acknowledged = load.acknowledged();
        undone += lose_all(&power, &cluster)?.writes;
        eprintln!("round {round}: {acknowledged} acknowledged");
        cluster.start_all()?;
        cluster.wait_all_ready().await?;
    }
    load.wait_progress(50, PATIENCE).await?;
    let history = load.stop().await?;
    judge(&cluster, &history).await?;
    // What every write waits for is synced; the state that is made of it is not, or this has tried nothing.
    assert!(undone > 0, "nothing was lost in {ROUNDS} power losses");
    wait_until("a snapshot", PATIENCE, || async {
        let group = cluster.group(0, CONFIG).await?;
        anyhow::ensure!(
            group["snapshot"]["index"].as_u64() > Some(0),
            "{}",
            group["snapshotError"]
        );
        Ok(())
    })
    .await?;
    cluster.finish()
}
