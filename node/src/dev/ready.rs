//! Waiting until the nodes of `confman dev` are ready, by asking each over HTTP as anyone would.

use std::time::Duration;

use anyhow::Context as _;
use confman_client::wire::Readiness;
use confman_client::{Client, ClientConfig, ClientTls, Endpoint};

use super::Told;
use super::fleet::Fleet;
use super::plan::NodePlan;

/// Enough for three nodes of a debug build on a busy machine that replay a long log.
const READY_WAIT: Duration = Duration::from_secs(120);
const ASK_WAIT: Duration = Duration::from_secs(2);
const ASK_PAUSE: Duration = Duration::from_millis(100);
/// How long nodes that have no cluster yet are waited for when one of them has ended: a birth takes every node, and one that was nearly
/// over may end well.
const BIRTH_WAIT: Duration = Duration::from_secs(3);

/// Waits until every node that runs is ready, and at least a majority runs.
///
/// # Errors
/// When too few are left, or a node has ended and the others have no cluster, or the bound has passed; says what each unready node
/// answered.
pub(super) async fn wait(fleet: &Fleet, nodes_total: usize, tls: &ClientTls) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + READY_WAIT;
    let mut unborn_since = None;
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
        let mut unborn = true;
        for node in running {
            let answer = ask(&node, tls).await;
            unborn &= matches!(&answer, Ok(answer) if !answer.ready && answer.node.is_none());
            match answer {
                Ok(answer) if answer.ready => {}
                Ok(answer) => unready.push(format!("{}: {}", node.name, reasons(&answer))),
                Err(error) => unready.push(format!("{}: {error:#}", node.name)),
            }
        }
        if unready.is_empty() {
            return Ok(());
        }
        let now = tokio::time::Instant::now();
        let ended = fleet.ended_by_themselves().await.join(", ");
        if ended.is_empty() || !unborn {
            unborn_since = None;
        } else if now.duration_since(*unborn_since.get_or_insert(now)) >= BIRTH_WAIT {
            // Their hints are for members that are to be waited for.
            let waits = unready.iter().filter_map(|text| text.lines().next());
            let waits = waits.collect::<Vec<_>>().join("; ");
            return Err(Told::unreachable(format!(
                "{ended} ended, and the others have no cluster without it: {waits}\nhint: what it said stands above and in its log; with that mended, run the same command again",
            ))
            .into());
        }
        if now >= deadline {
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

async fn ask(node: &NodePlan, tls: &ClientTls) -> anyhow::Result<Readiness> {
    let endpoint: Endpoint = node.api_url().parse()?;
    let mut config = ClientConfig::new(vec![endpoint.clone()]);
    config.tls = tls.clone();
    let client = Client::new(config)?;
    let asked = tokio::time::timeout(ASK_WAIT, client.readiness(&endpoint));
    Ok(asked.await.context("no answer in time")??)
}

/// What an unready node says about it.
fn reasons(answer: &Readiness) -> String {
    let unready = answer.groups.iter().filter(|group| !group.ready);
    let of_groups = unready.map(|g| {
        let reason = g.reason.as_deref().unwrap_or("not ready");
        format!("{}: {reason}", g.group)
    });
    let reasons: Vec<String> = answer.reason.iter().cloned().chain(of_groups).collect();
    reasons.join(", ")
}
