//! Golden stories of the decision table: facts above the line, the verdict as an operator reads it below.
//!
//! `UPDATE_STORIES=1 cargo test -p confman-bootstrap --test decide_stories` writes the verdicts anew; read
//! the difference before you keep it.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use confman_bootstrap::decide;
use confman_bootstrap::facts::{
    LocalData, LocalFacts, LocalIdentity, PeerAnswer, PeerFact, PeerFacts, Stage, StoreFacts,
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
                }
            }
            ["store", clusters @ ..] => {
                store = StoreFacts::Reached {
                    clusters: clusters.iter().map(|c| cluster(c)).collect(),
                };
            }
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
