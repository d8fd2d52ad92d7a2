//! Two lives of one cluster: what clients of the older one saw, held against the newer one and what its plan announced.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::agree::{self, Witness};
use crate::audit;
use crate::cluster::{Cluster, PATIENCE};
use crate::history::{Op, Outcome};
use crate::http::{Answer, Token};
use crate::judge;
use crate::load::{Load, LoadPlan};
use crate::wait::wait_until;

/// Acknowledged writes on each side of the snapshots: enough for several versions of each key, and done in a second.
const WRITES: usize = 40;

/// What clients of a life saw, to be judged when it is over.
pub struct OldLife {
    history: Vec<Op>,
    namespace: String,
    /// The group that has their namespace, where it was asked while it could be.
    group: Option<String>,
}

/// What came of the acknowledged writes of a life that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// All there.
    pub sure: usize,
    /// Announced as lost, and not there.
    pub gone: usize,
    /// Announced as what nobody can know.
    pub unknown: usize,
}

impl OldLife {
    /// Clients write for a moment.
    ///
    /// # Errors
    /// They are not answered in time.
    pub async fn lived(cluster: &Cluster) -> anyhow::Result<Self> {
        Self::with_snapshots(cluster, &[]).await
    }

    /// Clients write, snapshots of these groups are taken meanwhile, and they write on.
    ///
    /// # Errors
    /// They are not answered in time, or no snapshot is taken.
    pub async fn with_snapshots(cluster: &Cluster, groups: &[&str]) -> anyhow::Result<Self> {
        let (name, api) = agree::running(cluster).pop().context("no node runs")?;
        let status = api.get_json("/api/v1/status").await?;
        let life = status["incarnation"].as_u64().context("no incarnation")?;
        let plan = LoadPlan {
            // Each life has clients of its own.
            namespace: format!("life{life}"),
            // A read that saw what is lost would have to be forgiven too, and does not say what it saw.
            readers: 0,
            ..LoadPlan::default()
        };
        let load = Load::start(cluster, &plan);
        load.wait_progress(WRITES, PATIENCE).await?;
        for group in groups {
            cluster.snapshot(group).await?;
        }
        load.wait_progress(WRITES, PATIENCE).await?;
        let history = load.stop().await?;
        let what = format!("{name} tells of the clients' writes");
        let group = wait_until(&what, PATIENCE, || async {
            let events = audit::events(&api, Some(&plan.namespace)).await?;
            group_of(&events).context("no events")
        })
        .await?;
        Ok(Self {
            group: Some(group),
            ..Self::of(history)?
        })
    }

    /// What these clients saw, of which none has read.
    ///
    /// # Errors
    /// They did nothing.
    pub fn of(history: Vec<Op>) -> anyhow::Result<Self> {
        let key = &history.first().context("an empty history")?.key;
        let namespace = key.split('/').next().unwrap_or_default().to_owned();
        Ok(Self {
            history,
            namespace,
            group: None,
        })
    }

    /// The token and the key of the first write that was acknowledged.
    fn first(&self) -> anyhow::Result<(Token, &str)> {
        let acknowledged = self.history.iter().filter_map(|op| match op.outcome {
            Outcome::Done { token, .. } => Some((token, op.key.as_str())),
            _ => None,
        });
        let first = acknowledged.min_by_key(|(token, _)| token.index);
        first.context("nothing was acknowledged")
    }

    /// Asks a node with the first token.
    async fn present_token(&self, (name, api): &Witness) -> anyhow::Result<Answer> {
        let (token, key) = self.first()?;
        let what = format!("{name} answers who shows token {token}");
        wait_until(&what, PATIENCE, || async {
            let ask = api.get(&format!("/api/v1/config/{key}"));
            let ask = ask.consistency("read-your-writes");
            let ask = ask.header("x-confman-version", &token.to_string());
            let answer = ask.send().await?;
            // Who has just lost its leader is asked again.
            ensure!(answer.status < 500, "{}: {}", answer.status, answer.text());
            Ok(answer)
        })
        .await
    }

    /// The life was not the last word: it goes on at these nodes, as after a recovery that was taken back, with all that it acknowledged.
    ///
    /// # Errors
    /// Something is lost, the nodes differ, or one does not know a token any more.
    pub async fn goes_on(&self, cluster: &Cluster, living: &[usize]) -> anyhow::Result<()> {
        let nodes = witnesses(cluster, living);
        all_state_hashes(&nodes).await?;
        judge::judge(&nodes, &self.namespace, &self.history).await?;
        agree::audits_of(&nodes, None).await?;
        for node in &nodes {
            let answer = self.present_token(node).await?;
            ensure!(
                matches!(answer.status, 200 | 404),
                "{} refuses a token of its own life: {} {}",
                node.0,
                answer.status,
                answer.text()
            );
        }
        Ok(())
    }
}

/// Judges the life that a recovery or a restore has made, at the nodes that are members of it and ready: no acknowledged write of the old
/// life is lost beyond what the plan announced, what it said is gone is gone, the audit history is whole and alike everywhere and tells in
/// each group of the plan, the state hashes of every group are equal, and a token of the old life is answered with 409.
///
/// # Errors
/// The first thing that is not so.
pub async fn judge_new_life(
    cluster: &Cluster,
    living: &[usize],
    old: &OldLife,
    plan: &Value,
) -> anyhow::Result<Kept> {
    let nodes = witnesses(cluster, living);
    let groups = all_state_hashes(&nodes).await?;
    told_once(&nodes, &groups, plan).await?;
    let (_, api) = nodes.first().context("nobody lives")?;
    let of_load = audit::events(api, Some(&old.namespace)).await?;
    let group = old.group.clone().or_else(|| group_of(&of_load));
    let group = group.context("nothing of the clients is left, nor is known where it was")?;
    let (forgiven, kept) = forgive(&old.history, plan, &group)?;
    eprintln!("the old life: {kept:?}");
    judge::judge(&nodes, &old.namespace, &forgiven).await?;
    for node in &nodes {
        let answer = old.present_token(node).await?;
        ensure!(
            answer.status == 409,
            "{} answers a token of the old life with {}: {}",
            node.0,
            answer.status,
            answer.text()
        );
    }
    Ok(kept)
}

fn witnesses(cluster: &Cluster, living: &[usize]) -> Vec<Witness> {
    let one = |index: &usize| (cluster.node(*index).name.clone(), cluster.api(*index));
    living.iter().map(one).collect()
}

fn group_of(events: &[Value]) -> Option<String> {
    Some(events.first()?["group"].as_str()?.to_owned())
}

/// Every group that the first of them has: its replicas agree.
async fn all_state_hashes(nodes: &[Witness]) -> anyhow::Result<Vec<String>> {
    let (_, api) = nodes.first().context("nobody lives")?;
    let status = api.get_json("/api/v1/status").await?;
    let groups = status["groups"].as_array().context("no groups")?;
    let names = groups.iter().filter_map(|group| group["group"].as_str());
    let names: Vec<String> = names.map(str::to_owned).collect();
    ensure!(names.len() > 1, "too few groups: {status}");
    for group in &names {
        agree::state_hashes_of(nodes, group).await?;
    }
    Ok(names)
}

/// Every group tells once that the life began by this plan. Each has its own leader, and its own moment.
async fn told_once(nodes: &[Witness], groups: &[String], plan: &Value) -> anyhow::Result<()> {
    let life = incarnation(plan)?;
    wait_until("every group tells of the new life", PATIENCE, || async {
        let events = agree::audits_of(nodes, None).await?;
        let begun = events.iter().filter(|event| {
            let action = event["action"].as_str().unwrap_or_default();
            ["cluster.recovered", "cluster.restored"].contains(&action) && event["version"] == life
        });
        let mut told: Vec<&str> = begun
            .map(|event| {
                ensure!(event["key"] == plan["planId"], "another plan: {event}");
                same_account(event, plan)?;
                event["group"].as_str().context("no group")
            })
            .collect::<Result<_, _>>()?;
        let mut wanted: Vec<&str> = groups.iter().map(String::as_str).collect();
        told.sort_unstable();
        wanted.sort_unstable();
        ensure!(told == wanted, "{told:?} tell of it, and not {wanted:?}");
        Ok(())
    })
    .await
}

/// What the audit event of a recovery says is lost is what the plan had said.
fn same_account(event: &Value, plan: &Value) -> anyhow::Result<()> {
    if event["action"] != "cluster.recovered" {
        return Ok(());
    }
    let told = &event["newValue"];
    let planned = plan["groups"].as_array().context("no groups")?;
    let groups = told["groups"].as_array().context("it tells of no groups")?;
    ensure!(groups.len() == planned.len(), "{told}");
    for (told, planned) in groups.iter().zip(planned) {
        let loss = &planned["loss"];
        for (said, announced) in [
            (&told["group"], &planned["group"]),
            (&told["lostProven"], &loss["lostProven"]),
            (&told["keptUnproven"], &loss["keptUnproven"]),
            (&told["provenTo"], &loss["proven"]["position"]["index"]),
            (&told["unknownFrom"], &loss["unknown"]["from"]),
        ] {
            ensure!(said == announced, "{told} was announced as {planned}");
        }
    }
    Ok(())
}

/// The life that a plan of a recovery or of a restore begins.
fn incarnation(plan: &Value) -> anyhow::Result<u64> {
    let of_recovery = plan["newIncarnation"].as_u64();
    let of_restore = || plan["cluster"]["incarnation"].as_u64();
    of_recovery.or_else(of_restore).context("a plan of no life")
}

/// What a plan says of acknowledged entries of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Announced {
    /// From here on all are gone.
    gone_from: u64,
    /// From here on they may be there or not.
    unknown_from: u64,
}

fn announced(plan: &Value, group: &str) -> anyhow::Result<Announced> {
    let groups = plan["groups"].as_array().context("a plan without groups")?;
    let account = groups.iter().find(|account| account["group"] == group);
    let account = account.with_context(|| format!("no {group} in {plan}"))?;
    let loss = &account["loss"];
    if loss.is_null() {
        // A restore: what the snapshot has is all that there is.
        let index = account["index"].as_u64();
        // An order that one command carries out says it as the snapshot's record does.
        let index = index.or_else(|| account["position"]["index"].as_u64());
        let index = index.with_context(|| format!("no index in {account}"))?;
        return Ok(Announced {
            gone_from: index + 1,
            unknown_from: u64::MAX,
        });
    }
    let entries = |position: &Value| position["index"].as_u64().map_or(0, |index| index + 1);
    let kept = entries(&account["last"]).max(entries(&account["applied"]));
    let mut unknown_from = loss["unknown"]["from"].as_u64().unwrap_or(u64::MAX);
    let lost = loss["lostProven"].as_u64().context("no lostProven")?;
    let mut gone_from = if lost > 0 { kept } else { u64::MAX };
    if loss["lostAtMost"] == true {
        // Its own last entries may be others than those that were acknowledged.
        let unproven = loss["keptUnproven"].as_u64().context("no keptUnproven")?;
        unknown_from = unknown_from.min(kept.saturating_sub(unproven));
    }
    for dropped in loss["dropped"].as_array().into_iter().flatten() {
        if dropped["neverCommitted"] == false {
            let from = dropped["from"].as_u64().context("no from")?;
            gone_from = gone_from.min(from);
        }
    }
    Ok(Announced {
        gone_from,
        unknown_from,
    })
}

/// The history as the plan leaves it: what it says is gone was never there, what nobody can know may be there or not, and nothing else
/// is forgiven.
fn forgive(history: &[Op], plan: &Value, group: &str) -> anyhow::Result<(Vec<Op>, Kept)> {
    let announced = announced(plan, group)?;
    let mut kept = Kept {
        sure: 0,
        gone: 0,
        unknown: 0,
    };
    let mut forgiven = Vec::new();
    for op in history {
        let mut op = op.clone();
        if let Outcome::Done { token, .. } = op.outcome {
            if token.index >= announced.gone_from {
                kept.gone += 1;
                continue;
            }
            if token.index >= announced.unknown_from {
                kept.unknown += 1;
                op.outcome = Outcome::Unknown;
            } else {
                kept.sure += 1;
            }
        }
        forgiven.push(op);
    }
    if kept.gone + kept.unknown > 0 {
        // Who was told that there is nothing to delete may have seen what is lost.
        forgiven.retain(|op| !matches!(op.outcome, Outcome::Saw(_)));
    }
    Ok((forgiven, kept))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::Act;

    fn done(index: u64) -> Op {
        Op {
            id: format!("w{index}"),
            key: "life1/k".to_owned(),
            act: Act::Put("v".to_owned()),
            call: 0,
            end: 1,
            outcome: Outcome::Done {
                token: Token {
                    incarnation: 1,
                    term: 1,
                    index,
                },
                version: Some(index),
            },
        }
    }

    fn recovery(loss: Value) -> Value {
        json!({ "newIncarnation": 2, "groups": [
            { "group": "config/0", "last": { "index": 9 }, "applied": { "index": 7 }, "loss": loss },
        ] })
    }

    /// Of entries 0 to 19: how many are sure, gone and unknown.
    fn counts(plan: &Value) -> (usize, usize, usize) {
        let history: Vec<Op> = (0..20).map(done).collect();
        let (_, kept) = forgive(&history, plan, "config/0").unwrap();
        (kept.sure, kept.gone, kept.unknown)
    }

    #[test]
    fn nothing_is_forgiven_that_was_not_announced() {
        let whole = recovery(json!({ "lostProven": 0, "dropped": [], "unknown": null }));
        assert_eq!(counts(&whole), (20, 0, 0));
        assert!(forgive(&[], &whole, "config/1").is_err());
        let replaced = json!([{ "from": 5, "to": 8, "neverCommitted": true }]);
        let replaced = recovery(json!({ "lostProven": 0, "dropped": replaced, "unknown": null }));
        assert_eq!(counts(&replaced), (20, 0, 0));
    }

    #[test]
    fn what_was_announced_is_gone_or_unknown_from_where_the_plan_says() {
        let unknown = recovery(json!({ "lostProven": 0, "unknown": { "from": 8 } }));
        assert_eq!(counts(&unknown), (8, 0, 12));
        let behind = recovery(json!({ "lostProven": 4, "unknown": { "from": 14 } }));
        assert_eq!(counts(&behind), (10, 10, 0));
        let at_most = json!({ "lostProven": 4, "lostAtMost": true, "keptUnproven": 3 });
        assert_eq!(counts(&recovery(at_most)), (7, 10, 3));
        let given_up = json!([{ "from": 5, "to": 8, "neverCommitted": false }]);
        let given_up = recovery(json!({ "lostProven": 0, "dropped": given_up }));
        assert_eq!(counts(&given_up), (5, 15, 0));
        let restore = json!({ "cluster": { "incarnation": 3 }, "groups": [{ "group": "config/0", "index": 11 }] });
        assert_eq!(counts(&restore), (12, 8, 0));
        assert_eq!(incarnation(&restore).unwrap(), 3);
    }
}
