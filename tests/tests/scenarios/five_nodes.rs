//! Five nodes: two may go, and it goes on.

use confman_tests::agree;
use confman_tests::cluster::{CONFIG, PATIENCE, Plan};
use confman_tests::load::{Load, LoadPlan};
use confman_tests::{audit, order, register};
use serde_json::json;

use crate::crash::final_values;

#[tokio::test(flavor = "multi_thread")]
async fn i1_five_nodes_go_on_with_two_gone() -> anyhow::Result<()> {
    let cluster = Plan::new("five").nodes(5).start().await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let load = Load::start(
        &cluster,
        &LoadPlan {
            writers: 3,
            readers: 2,
            ..LoadPlan::default()
        },
    );
    load.wait_progress(50, PATIENCE).await?;
    // The leader and one more.
    let other = (leader + 1) % 5;
    cluster.node(leader).kill()?;
    cluster.node(other).kill()?;
    load.wait_progress(100, PATIENCE).await?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    load.wait_progress(50, PATIENCE).await?;
    let history = load.stop().await?;
    cluster.write("end/k", &json!("v")).await?;
    agree::state_hashes(&cluster, CONFIG).await?;
    let events = agree::audits(&cluster, Some("load")).await?;
    let finally = final_values(&cluster, &history).await?;
    order::check(&history, &finally).map_err(anyhow::Error::msg)?;
    register::check(&history).map_err(anyhow::Error::msg)?;
    audit::check(&history, &events).map_err(anyhow::Error::msg)?;
    cluster.finish()
}
