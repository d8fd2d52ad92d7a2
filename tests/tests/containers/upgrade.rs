//! Every node is restarted, and gets another image, one after the other, while clients write and read.

use confman_tests::cluster::PATIENCE;
use confman_tests::containers::cluster::ContainerCluster;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker and images: run .ci/containers"]
async fn i1_a_rolling_restart_and_an_upgrade_of_the_image_under_load_lose_nothing()
-> anyhow::Result<()> {
    let cluster = ContainerCluster::start("rolling", 3).await?;
    let load = cluster.load("restart");
    load.wait_progress(50, PATIENCE).await?;
    for index in 0..3 {
        cluster.stop(index).await?;
        load.wait_progress(20, PATIENCE).await?;
        cluster.start_node(index).await?;
        cluster.wait_ready(index).await?;
    }
    cluster.end(load, "restart").await?;

    let load = cluster.load("upgrade");
    load.wait_progress(50, PATIENCE).await?;
    for index in 0..3 {
        cluster.stop(index).await?;
        cluster.upgrade(index).await?;
        cluster.start_node(index).await?;
        cluster.wait_ready(index).await?;
        load.wait_progress(20, PATIENCE).await?;
    }
    cluster.end(load, "upgrade").await?;
    cluster.finish().await
}
