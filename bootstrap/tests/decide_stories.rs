//! Golden stories of the decision table: facts above the line, the verdict as an operator reads it below.
//!
//! `UPDATE_STORIES=1 cargo test -p confman-bootstrap --test decide_stories` writes the verdicts anew; read
//! the difference before you keep it.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use confman_bootstrap::decide;
use confman_bootstrap::facts::{
    LocalData, LocalFacts, LocalIdentity, OrderFact, OrderState, PeerAnswer, PeerFact, PeerFacts,
    Stage, StoreFacts,
};
use confman_snapshot::model::ClusterId;

fn stories() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn every_story_ends_as_written() {
    let update = std::env::var_os("UPDATE_STORIES").is_some();
    let mut told = 0;
    let mut wrong = Vec::new();
    for file in stories() {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut retold = Vec::new();
        for block in text.trim_end().split("\n\n") {
            let facts = block.split("\n----").next().unwrap();
            let verdict = tell(facts);
            retold.push(format!("{facts}\n----\n{verdict}"));
            told += 1;
        }
        let retold = retold.join("\n\n") + "\n";
        if update {
            std::fs::write(&file, &retold).unwrap();
        } else if retold != text {
            wrong.push(format!("{}:\n{retold}", file.display()));
        }
    }
    assert!(told >= 40, "only {told} stories were found");
    assert!(
        wrong.is_empty(),
        "these stories end otherwise:\n{}",
        wrong.join("\n")
    );
}

/// Reads the facts of one story and returns the verdict in words.
fn tell(facts: &str) -> String {
    let mut local = None;
    let mut peers = PeerFacts::default();
    let mut store = StoreFacts::Reached {
        clusters: Vec::new(),
        order: None,
    };
    for line in facts.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["#", ..] => {}
            ["local", name, rest @ ..] => {
                local = Some(LocalFacts {
                    name: (*name).to_owned(),
                    data: read_local(rest, line),
                });
            }
            ["peer", name, rest @ ..] => peers.peers.push(PeerFact {
                name: (*name).to_owned(),
                answer: read_answer(rest, line),
            }),
            ["store", "off"] => store = StoreFacts::Off,
            ["store", "unreachable", why @ ..] => {
                store = StoreFacts::Unreachable { why: why.join(" ") };
            }
            ["store", "nothing"] => {
                store = StoreFacts::Reached {
                    clusters: Vec::new(),
                    order: None,
                }
            }
            ["store", clusters @ ..] => {
                store = StoreFacts::Reached {
                    clusters: clusters.iter().map(|c| cluster(c)).collect(),
                    order: None,
                };
            }
            ["order", words @ ..] => match &mut store {
                StoreFacts::Reached { order, .. } => *order = Some(read_order(words, line)),
                _ => panic!("an order without a store: {line:?}"),
            },
            _ => panic!("no such fact: {line:?}"),
        }
    }
    decide(&local.expect("a story has a local line"), &peers, &store).to_string()
}

fn read_local(words: &[&str], line: &str) -> LocalData {
    let identity = |c: &str, id: &str, name: &str, stage: Stage| {
        LocalData::Good(LocalIdentity {
            cluster: cluster(c),
            node_id: id.parse().unwrap(),
            name: name.to_owned(),
            stage,
        })
    };
    match words {
        ["empty"] => LocalData::Empty,
        ["damaged", finding @ ..] => LocalData::Damaged {
            finding: finding.join(" "),
        },
        ["complete", c, id, name] => identity(c, id, name, Stage::Complete),
        ["forming", c, id, name] => identity(c, id, name, Stage::Forming),
        ["rejoining", c, id, name] => identity(c, id, name, Stage::Rejoining),
        ["restoring", c, id, name, plan] => {
            let plan = (*plan).to_owned();
            identity(c, id, name, Stage::Restoring { plan })
        }
        ["fenced", c, id, name, reason @ ..] => identity(
            c,
            id,
            name,
            Stage::Fenced {
                reason: reason.join(" "),
            },
        ),
        _ => panic!("no such local fact: {line:?}"),
    }
}

/// `order red/2 plan-a open gives-us 1001 to node1 node2`: state, the id for this node (`nothing` for none, `taken 1001` for
/// one that was taken up) and the members.
fn read_order(words: &[&str], line: &str) -> OrderFact {
    let [life, plan, state, given @ ..] = words else {
        panic!("no such order: {line:?}");
    };
    let state = match *state {
        "open" => OrderState::Open,
        "spent" => OrderState::Spent,
        "unusable" => OrderState::Unusable {
            why: "the restore order has version 2, this program carries out up to 1".to_owned(),
        },
        _ => panic!("no such order: {line:?}"),
    };
    let (member, taken, names) = match given {
        ["gives-us", "nothing", "to", names @ ..] => (None, false, names),
        ["gives-us", "taken", id, "to", names @ ..] => (id.parse().ok(), true, names),
        ["gives-us", id, "to", names @ ..] => (id.parse().ok(), false, names),
        _ => panic!("no such order: {line:?}"),
    };
    OrderFact {
        life: cluster(life),
        plan: (*plan).to_owned(),
        state,
        member,
        taken,
        names: names.iter().map(|n| (*n).to_owned()).collect(),
    }
}

fn read_answer(words: &[&str], line: &str) -> PeerAnswer {
    let member = |c: &str, leader: Option<&str>, you_are_retired| PeerAnswer::Member {
        cluster: cluster(c),
        leader: leader.map(str::to_owned),
        you_are_retired,
    };
    match words {
        ["silent", why @ ..] => PeerAnswer::Silent { why: why.join(" ") },
        ["empty"] => PeerAnswer::Empty,
        ["forming", c] => PeerAnswer::Forming {
            cluster: cluster(c),
        },
        ["fenced", c] => PeerAnswer::Fenced {
            cluster: cluster(c),
        },
        ["member", c, "no-leader"] => member(c, None, false),
        ["member", c, "leader", leader] => member(c, Some(leader), false),
        ["member", c, "leader", leader, "retires-us"] => member(c, Some(leader), true),
        _ => panic!("no such answer: {line:?}"),
    }
}

/// `red/2` is incarnation 2 of the cluster `red`.
fn cluster(text: &str) -> ClusterId {
    let (uuid, incarnation) = text.split_once('/').unwrap();
    ClusterId::new(uuid, incarnation.parse().unwrap())
}
