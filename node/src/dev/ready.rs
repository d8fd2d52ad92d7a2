//! Waiting until the nodes of `confman dev` are ready, by asking each over HTTP as anyone would.

use std::time::Duration;

use anyhow::Context as _;
use confman_client::{Client, ClientConfig, ClientTls, Endpoint};

use super::Told;
use super::fleet::Fleet;
use super::plan::NodePlan;

/// Enough for three nodes of a debug build on a busy machine that replay a long log.
const READY_WAIT: Duration = Duration::from_secs(120);
const ASK_WAIT: Duration = Duration::from_secs(2);
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// Waits until every node that runs is ready, and at least a majority runs.
///
/// # Errors
/// When too few are left, or the bound has passed; says what each unready node answered.
pub(super) async fn wait(fleet: &Fleet, nodes_total: usize, tls: &ClientTls) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + READY_WAIT;
    loop {
        let running = fleet.running().await;
        if running.len() * 2 <= nodes_total {
            return Err(Told::unreachable(format!(
                "{} of {nodes_total} nodes run, too few to agree\nhint: what they said stands above and in their logs",
                running.len()
            ))
            .into());
        }
        let mut unready = Vec::new();
        for node in running {
            match ask(&node, tls).await {
                Ok(None) => {}
                Ok(Some(reasons)) => unready.push(format!("{}: {reasons}", node.name)),
                Err(error) => unready.push(format!("{}: {error:#}", node.name)),
            }
        }
        if unready.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Told::unreachable(format!(
                "not ready within {} s: {}",
                READY_WAIT.as_secs(),
                unready.join("; ")
            ))
            .into());
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

/// None when ready, else what the node says about it.
async fn ask(node: &NodePlan, tls: &ClientTls) -> anyhow::Result<Option<String>> {
    let endpoint: Endpoint = node.api_url().parse()?;
    let mut config = ClientConfig::new(vec![endpoint.clone()]);
    config.tls = tls.clone();
    let client = Client::new(config)?;
    let asked = tokio::time::timeout(ASK_WAIT, client.readiness(&endpoint));
    let readiness = asked.await.context("no answer in time")??;
    if readiness.ready {
        return Ok(None);
    }
    let unready = readiness.groups.iter().filter(|group| !group.ready);
    let of_groups = unready.map(|g| {
        format!(
            "{}: {}",
            g.group,
            g.reason.as_deref().unwrap_or("not ready")
        )
    });
    let reasons: Vec<String> = readiness.reason.iter().cloned().chain(of_groups).collect();
    Ok(Some(reasons.join(", ")))
}
