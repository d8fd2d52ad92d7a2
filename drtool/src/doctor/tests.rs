//! Transcripts of the doctor on made-up clusters and stores, and what must hold of any report.

use std::ffi::OsString;

use confman_client::wire::{Caller, DiskStatus, PeerReach, Time};
use confman_snapshot::ClusterId;
use confman_snapshot::repository::DrillVerdict;

use super::clocks::Clock;
use super::facts::{ClusterFacts, Newest, StoreFacts, StoreRead, Told};
use super::judge::{self, Facts};
use super::report::{Outcome, Report, Subject};
use super::settings;
use crate::codes;
use crate::drill::last::{Drills, Past};
use crate::live::judge as live;
use crate::live::tests::kit::{NOW_US, Town, town};

const UUID: &str = "9364aa70-e271-4c58-ae67-4d9335cf3d17";
const SNAPSHOT: &str = "00000000000000000880-0000000001-0000000004-0a1b2c3d";
const GIB: u64 = 1 << 30;

/// A town and its store, seen by the doctor.
struct Visit {
    town: Town,
    facts: ClusterFacts,
    store: StoreFacts,
    env: Vec<(&'static str, &'static str)>,
}

/// Three nodes and a store, all well.
fn visit() -> Visit {
    let mut town = town(3, 1);
    let ids = [1, 2, 3];
    for id in ids {
        let status = town.status(id);
        status.version = Some("0.1.0".to_owned());
        status.disk = Some(DiskStatus {
            free_bytes: 60 * GIB,
            total_bytes: 100 * GIB,
            data_bytes: 20 * GIB,
        });
        status.caller = Some(Caller {
            name: "ops".to_owned(),
            role: "admin".to_owned(),
        });
    }
    let reach = |id: usize| PeerReach {
        id: id as u64,
        name: format!("node{id}"),
        peer_addr: format!("n{id}:6101"),
        reached: true,
        seconds: 0.001,
        error: None,
    };
    let peers = ids.map(|id| {
        let others = ids.into_iter().filter(|other| *other != id);
        (format!("node{id}"), Ok(others.map(reach).collect()))
    });
    let clock = |whose: String, bound_us| Clock {
        whose,
        ahead_us: 1_500,
        bound_us,
    };
    Visit {
        facts: ClusterFacts {
            peers: peers.into(),
            clocks: ids.map(|id| clock(format!("node node{id}"), 400)).into(),
            ..ClusterFacts::default()
        },
        store: StoreFacts::Read(Box::new(StoreRead {
            url: "s3://bucket/prefix".to_owned(),
            ignored: Vec::new(),
            owners: vec![ClusterId::new(UUID, 1)],
            seconds: 0.012,
            snapshots: 6,
            newest: ["__meta/0", "config/0"]
                .map(|group| Newest {
                    group: group.to_owned(),
                    id: SNAPSHOT.parse().unwrap(),
                    recorded: true,
                    opened: Ok(NOW_US - 600_000_000),
                })
                .into(),
            clock: Ok(clock("store s3://bucket/prefix".to_owned(), 501_000)),
            drills: drilled(&[(DrillVerdict::Passed, 3)]),
        })),
        town,
        env: vec![("CONFMAN_API_KEY", "confman_key-of-ops")],
    }
}

/// Drills that ended so and so many days ago, newest first.
fn drilled(ends: &[(DrillVerdict, u64)]) -> Drills {
    let past = |(verdict, days): &(DrillVerdict, u64)| Past {
        verdict: Some(*verdict),
        time: Time::from_us(NOW_US - (*days as i64) * 86_400_000_000),
        age_seconds: days * 86_400,
        object: format!("reports/drill/{days}-days-ago.json"),
    };
    let passed = |end: &&(DrillVerdict, u64)| end.0 == DrillVerdict::Passed;
    Drills {
        last: ends.first().map(past),
        last_passed: ends.iter().find(passed).map(past),
        unknown: None,
    }
}

impl Visit {
    fn store(&mut self) -> &mut StoreRead {
        match &mut self.store {
            StoreFacts::Read(read) => read,
            other => panic!("{other:?}"),
        }
    }

    fn reach(&mut self, node: usize, peer: usize) -> &mut PeerReach {
        let reach = self.facts.peers[node - 1].1.as_mut().unwrap();
        reach.iter_mut().find(|r| r.id == peer as u64).unwrap()
    }

    fn report(mut self) -> Report {
        self.facts.accounts = self.town.nodes.clone();
        let env = self.env.iter();
        let env = env.map(|(k, v)| (OsString::from(k), OsString::from(v)));
        let judged = settings::judge(env.collect());
        let cluster = live::report(self.facts.asked(), None, NOW_US);
        let report = judge::report(Facts {
            settings: judged.checks,
            snapshots: judged.snapshots,
            key_given: true,
            tool_version: "0.1.0",
            facts: &self.facts,
            cluster: &cluster,
            store: &self.store,
            now_us: NOW_US,
        });
        for check in &report.checks {
            match check.code {
                None => assert_eq!(check.outcome, Outcome::Ok, "{check:?}"),
                Some(code) => {
                    assert!(codes::find(code).is_some(), "{code} has no page");
                    assert!(check.hint.is_some(), "{check:?}");
                    assert_ne!(check.outcome, Outcome::Ok, "{check:?}");
                }
            }
        }
        report
    }

    fn transcript(self) -> String {
        let report = self.report();
        format!("{}exit code {}\n", report.text(false), report.exit_code())
    }
}

/// What is not good, in order.
fn wrong(report: &Report) -> Vec<(&'static str, Outcome)> {
    let wrong = report
        .checks
        .iter()
        .filter_map(|c| Some((c.code?, c.outcome)));
    wrong.collect()
}

#[test]
fn all_is_well() {
    insta::assert_snapshot!(visit().transcript());
}

#[test]
fn many_things_are_wrong() {
    let mut visit = visit();
    visit.env = vec![("CONFMAN_SHRADS", "3"), ("CONFMAN_HEARTBEAT_MS", "soon")];
    visit.town.silence(3);
    visit.town.status(1).version = Some("0.2.0".to_owned());
    visit.town.status(2).disk = Some(DiskStatus {
        free_bytes: 3 * GIB,
        total_bytes: 100 * GIB,
        data_bytes: 20 * GIB,
    });
    *visit.reach(2, 1) = PeerReach {
        reached: false,
        error: Some("tcp connect error: connection refused".to_owned()),
        ..visit.reach(2, 1).clone()
    };
    visit.facts.peers.pop();
    visit.facts.clocks.pop();
    visit.facts.clocks[1].ahead_us = -3_600_000_000;
    let store = visit.store();
    store.owners = vec![
        ClusterId::new(UUID, 2),
        ClusterId::new("7d1f43f5-9d7a-4b9e-8f0e-5b1f5e1a0b11", 1),
    ];
    store.ignored = vec!["AWS_REGOIN".to_owned()];
    store.newest[1].opened = Err(Told {
        code: Some("STORE_NOT_FOUND"),
        what: "open \"snapshots/config/0/...\": it is not there".to_owned(),
        hint: None,
    });
    store.drills = drilled(&[(DrillVerdict::Failed, 1), (DrillVerdict::Passed, 40)]);
    insta::assert_snapshot!(visit.transcript());
}

#[test]
fn a_drill_that_failed_is_wrong_and_one_that_nobody_made_is_worth_knowing() {
    let after = |drills: Drills| {
        let mut visit = visit();
        visit.store().drills = drills;
        let report = visit.report();
        (wrong(&report), report.exit_code())
    };
    let passed = DrillVerdict::Passed;
    assert_eq!(after(drilled(&[(passed, 31)])), (vec![], 0));
    assert_eq!(
        after(drilled(&[(passed, 32)])),
        (vec![("DRILL_OLD", Outcome::Note)], 0)
    );
    assert_eq!(
        after(drilled(&[])),
        (vec![("DRILL_NEVER", Outcome::Note)], 0)
    );
    for ended in [DrillVerdict::Failed, DrillVerdict::Degraded] {
        assert_eq!(
            after(drilled(&[(ended, 1), (passed, 2)])),
            (vec![("DRILL_FAILED", Outcome::Warning)], 1)
        );
    }
    let unknown = Drills {
        unknown: Some("access denied".to_owned()),
        ..Drills::default()
    };
    assert_eq!(
        after(unknown),
        (vec![("DRILL_UNKNOWN", Outcome::Unknown)], 0)
    );
}

#[test]
fn t01_a_snapshot_that_is_dated_ahead_has_the_age_that_its_group_tells() {
    // Its group's time is an hour ahead of this machine's clock.
    let dated = |told: Option<u64>| {
        let mut visit = visit();
        let ahead_us = NOW_US + 3_600_000_000;
        visit.store().newest[1].opened = Ok(ahead_us);
        for account in &mut visit.town.nodes {
            let status = account.status.as_mut().unwrap();
            let group = status.groups.iter_mut().find(|g| g.group == "config/0");
            let snapshot = group.unwrap().snapshot.as_mut().unwrap();
            snapshot.time = Time::from_us(ahead_us);
            snapshot.age_seconds = told;
        }
        visit
    };
    let mut visit = dated(Some(9_000));
    let text = visit.transcript();
    assert!(
        text.contains("config/0: the snapshot that the group counts on is there")
            && text.contains("2 h 30 min old)"),
        "{text}"
    );
    // Nobody tells: what is known is that the two clocks do not agree.
    visit = dated(None);
    visit.store().newest[1].recorded = false;
    visit.store().newest[1].id = "00000000000000000879-0000000001-0000000004-0a1b2c3d"
        .parse()
        .unwrap();
    let text = visit.transcript();
    assert!(
        text.contains("dated 1 h 0 min ahead of this machine's clock)"),
        "{text}"
    );
}

#[test]
fn nobody_answers_and_no_store_is_named() {
    let mut visit = visit();
    for node in 1..=3 {
        visit.town.silence(node);
    }
    visit.facts.peers.clear();
    visit.facts.clocks.clear();
    visit.store = StoreFacts::NotNamed;
    insta::assert_snapshot!(visit.transcript());
}

#[test]
fn the_json_has_the_words_that_scripts_rely_on() {
    let mut visit = visit();
    visit.facts.clocks[0].ahead_us = 7_000_000;
    let json = serde_json::to_value(visit.report()).unwrap();
    assert_eq!(json["outcome"], "warning");
    assert_eq!(json["counts"]["warning"], 1);
    let checks = json["checks"].as_array().unwrap();
    let clock = checks.iter().find(|c| c["code"] == "CLOCK_OFF").unwrap();
    assert_eq!(clock["check"], "clocks");
    assert_eq!(clock["outcome"], "warning");
    assert_eq!(clock["view"], "node node1");
    assert!(clock["hint"].is_string() && clock["what"].is_string());
    assert_eq!(checks[0]["code"], serde_json::Value::Null);
}

#[test]
fn who_refuses_the_key_has_answered() {
    let mut visit = visit();
    visit.town.silence(2);
    visit.town.nodes[1].refused = true;
    visit.facts.refusal = Some(Told {
        code: None,
        what: "http://n2:6100 answered 401: the key is not known".to_owned(),
        hint: None,
    });
    let report = visit.report();
    let codes: Vec<_> = wrong(&report).into_iter().map(|(code, _)| code).collect();
    assert!(codes.contains(&"API_KEY_REFUSED"), "{codes:?}");
    assert!(!codes.contains(&"NODE_SILENT"), "{codes:?}");
    assert_eq!(report.exit_code(), 1);
}

#[test]
fn a_snapshot_is_overdue_by_the_thresholds_of_this_machine() {
    let mut visit = visit();
    for node in 1..=3 {
        visit.town.status(node).groups[1].committed_index = 1_200;
        visit.town.status(node).groups[1].applied_index = 1_200;
    }
    let within = |env: Vec<(&'static str, &'static str)>| Visit {
        env,
        ..self::visit()
    };
    assert_eq!(wrong(&within(vec![]).report()), []);
    visit.env = vec![("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "100")];
    assert_eq!(
        wrong(&visit.report()),
        [("SNAPSHOT_OVERDUE", Outcome::Warning)]
    );
}

#[test]
fn a_node_that_says_little_is_unknown_and_not_good() {
    let mut visit = visit();
    visit.town.status(1).disk = None;
    visit.facts.peers[0].1 = Err("404".to_owned());
    let report = visit.report();
    assert_eq!(
        wrong(&report),
        [
            ("CLUSTER_UNKNOWN", Outcome::Unknown),
            ("CLUSTER_UNKNOWN", Outcome::Unknown)
        ]
    );
    assert_eq!(report.exit_code(), 0);
}

#[test]
fn every_finding_of_status_has_its_place() {
    for code in crate::live::CODES {
        // The rest are refusals of `member`.
        if code.name.starts_with("SNAPSHOT_") || code.name == "NOTHING_PROTECTED" {
            assert_eq!(
                judge::subject(code.name),
                Subject::Snapshots,
                "{}",
                code.name
            );
        }
    }
    assert_eq!(judge::subject("NO_QUORUM"), Subject::Quorum);
    assert_eq!(judge::subject("STATE_DIFFERS"), Subject::State);
    assert_eq!(judge::subject("NODE_SILENT"), Subject::Nodes);
}

#[test]
fn i20_all_mistakes_of_the_environment_are_told_and_the_rest_is_used() {
    let env = [
        ("CONFMAN_SHRADS", "3"),
        ("CONFMAN_HEARTBEAT_MS", "soon"),
        ("CONFMAN_CLUSTER_TOKEN", "a"),
        ("CONFMAN_CLUSTER_TOKEN_FILE", "/nonexistent"),
        ("CONFMAN_ENDPOINTS", "http://n1:6100"),
        ("PATH", "/bin"),
    ];
    let judged = settings::judge(env.map(|(name, value)| (name.into(), value.into())).into());
    let told: Vec<&str> = judged.checks.iter().map(|c| c.what.as_str()).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    let left: Vec<_> = judged.usable.iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["CONFMAN_ENDPOINTS", "PATH"]);
    // Nobody said that this machine is a node: what a node would lack is no mistake.
    let judged = settings::judge(vec![("PATH".into(), "/bin".into())]);
    assert_eq!(judged.checks[0].outcome, Outcome::Ok, "{:?}", judged.checks);
}
