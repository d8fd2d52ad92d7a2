//! Every node is restarted, and gets another version, one after the other, while clients write and read.

use anyhow::ensure;
use confman_tests::cluster::PATIENCE;
use confman_tests::containers::cluster::story;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker and images: run .ci/containers"]
async fn i1_a_rolling_restart_and_an_upgrade_to_another_version_under_load_lose_nothing()
-> anyhow::Result<()> {
    story("rolling", 3, async |cluster| {
        let load = cluster.load("restart");
        load.wait_progress(50, PATIENCE).await?;
        for index in 0..3 {
            cluster.stop(index).await?;
            load.wait_progress(20, PATIENCE).await?;
            cluster.start_node(index).await?;
            cluster.wait_ready(index).await?;
        }
        cluster.end(load, "restart").await?;

        let (old, new) = cluster.versions_of_images().await?;
        ensure!(old != new, "both images are of {old}");
        let load = cluster.load("upgrade");
        load.wait_progress(50, PATIENCE).await?;
        for index in 0..3 {
            let before = cluster.version(index).await?;
            ensure!(before == old, "node {index} is of {before}, not of {old}");
            cluster.stop(index).await?;
            cluster.upgrade(index).await?;
            cluster.start_node(index).await?;
            cluster.wait_ready(index).await?;
            let after = cluster.version(index).await?;
            ensure!(after == new, "node {index} is of {after}, not of {new}");
            load.wait_progress(20, PATIENCE).await?;
        }
        cluster.end(load, "upgrade").await?;
        Ok(())
    })
    .await
}
