//! The page `wrong-clock`, carried out beside a node whose clock is off.

use anyhow::ensure;
use confman_tests::cluster::{PATIENCE, Plan};
use confman_tests::runbook::Runbook;

const OFF_SECS: i64 = 3_600;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn wrong_clock() -> anyhow::Result<()> {
    let cluster = Plan::new("runbook-wrong-clock").start().await?;
    let node = cluster.node(1);
    let file = node.data_dir.with_extension("clock-off");
    std::fs::write(&file, OFF_SECS.to_string())?;
    node.set_env("CLOCK_OFF_FILE", &file.to_string_lossy());
    node.stop(PATIENCE).await?;
    node.start()?;
    cluster.wait_all_ready().await?;
    Runbook::new("wrong-clock", &cluster)
        .about(1)
        .place("{node}", &[1])
        .carry_out(async |tool| {
            ensure!(tool == "chronyc makestep", "{tool}");
            // A node that looks meanwhile sees one or the other.
            let new = file.with_extension("new");
            std::fs::write(&new, "0")?;
            Ok(std::fs::rename(new, &file)?)
        })
        .await?;
    cluster.finish()
}
