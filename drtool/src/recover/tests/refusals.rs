//! What there is no plan for, each with its name.

use super::kit::*;
use crate::recover::collection::{SnapshotFacts, Stage};
use crate::recover::plan::Plan;

const LOST: &[&str] = &["node1", "node3"];

#[test]
fn a_living_leader_refuses_whatever_else_is_true() {
    let mut seen = collection(vec![node(2, 3, at(2, 9), at(2, 9))]);
    seen.live = vec![live(1, Some(1))];
    assert_eq!(refused(&seen, &wishes(LOST)), ["RECOVER_QUORUM_ALIVE"]);
    // Who has no key is told less, and enough.
    seen.live[0].status = None;
    assert_eq!(refused(&seen, &wishes(LOST)), ["RECOVER_QUORUM_ALIVE"]);
}

/// Who has no key is told no more than that it is ready, and of which cluster.
#[test]
fn a_node_of_another_cluster_is_noted_and_refuses_nothing() {
    let mut seen = collection(vec![node(2, 3, at(2, 9), at(2, 9))]);
    seen.live = vec![live(1, Some(1))];
    seen.live[0].status = None;
    let said = |seen: &mut crate::recover::collection::Collection, uuid: &str| {
        let readiness = seen.live[0].readiness.as_mut().unwrap();
        readiness.cluster_uuid = Some(uuid.to_owned());
    };
    said(&mut seen, UUID);
    assert_eq!(refused(&seen, &wishes(LOST)), ["RECOVER_QUORUM_ALIVE"]);
    said(&mut seen, "another");
    let notes = planned(&seen, &wishes(LOST)).notes;
    let words = "another cluster answers at http://host1:6100: node1 of another";
    assert!(notes.iter().any(|n| n.contains(words)), "{notes:?}");
    // Not ready either, it is none of those whose directories may change.
    seen.live[0].readiness.as_mut().unwrap().ready = false;
    planned(&seen, &wishes(LOST));
}

#[test]
fn a_quorum_of_directories_is_to_be_started_and_not_recovered() {
    let both = vec![
        node(2, 3, at(2, 9), at(2, 9)),
        node(3, 3, at(2, 9), at(2, 9)),
    ];
    let seen = collection(both);
    assert_eq!(
        refused(&seen, &wishes(&["node1"])),
        ["RECOVER_QUORUM_POSSIBLE"]
    );
    // One directory and one node that runs.
    let mut seen = collection(vec![node(2, 3, at(2, 9), at(2, 9))]);
    seen.live = vec![live(3, None)];
    let codes = refused(&seen, &wishes(LOST));
    assert!(codes.contains(&"RECOVER_QUORUM_POSSIBLE"), "{codes:?}");
}

#[test]
fn a_quorum_with_a_damaged_directory_is_none() {
    let mut damaged = node(3, 3, at(2, 9), at(2, 9));
    damaged.findings.push(error("LOG_DAMAGED"));
    let seen = collection(vec![node(2, 3, at(2, 9), at(2, 9)), damaged]);
    assert_eq!(refused(&seen, &wishes(&["node1"])), ["RECOVER_TOO_FEW"]);
    let plan = planned(&seen, &wishes(LOST));
    assert_eq!(plan.survivor.info.name, "node2");
    assert!(plan.lost[1].why.contains("LOG_DAMAGED"), "{plan}");
}

#[test]
fn m13_members_that_nobody_collected_are_named_and_must_be_given_up_by_name() {
    let seen = collection(vec![node(2, 5, at(2, 9), at(2, 9))]);
    assert_eq!(
        refused(&seen, &wishes(&["node1", "node3"])),
        ["RECOVER_TOO_FEW"]
    );
    planned(&seen, &wishes(&["node1", "node3", "node4", "node5"]));
    assert_eq!(
        refused(
            &seen,
            &wishes(&["node1", "node3", "node4", "node5", "node6"])
        ),
        ["RECOVER_UNKNOWN_NAME"]
    );
    assert_eq!(
        refused(
            &seen,
            &wishes(&["node1", "node2", "node3", "node4", "node5"])
        ),
        ["RECOVER_NOT_LOST"]
    );
}

#[test]
fn an_address_that_is_somebody_elses_by_now_is_noted_and_stands_in_the_plan() {
    let mut seen = collection(vec![node(2, 3, at(2, 9), at(2, 9))]);
    let mut foreign = live(1, None);
    foreign.status = None;
    foreign.readiness = None;
    foreign.why = Some("unknown issuer".to_owned());
    foreign.not_ours = true;
    seen.live = vec![foreign];
    let plan = planned(&seen, &wishes(LOST));
    assert_eq!(plan.accepted.not_ours, [info(1).api_url].into());
    assert!(plan.to_string().contains("unknown issuer"), "{plan}");
    assert!(plan.to_string().contains("--not-ours"), "{plan}");
}

#[test]
fn silence_of_the_own_machine_alone_is_noted() {
    let silent = |url: &str| {
        let mut silent = live(1, None);
        (silent.status, silent.readiness) = (None, None);
        silent.url = url.to_owned();
        silent.why = Some("no answer".to_owned());
        silent
    };
    let mut seen = collection(vec![node(2, 3, at(2, 9), at(2, 9))]);
    let noted = |seen: &_| {
        let notes = planned(seen, &wishes(LOST)).notes;
        notes.iter().any(|note| note.contains("--endpoints"))
    };
    assert!(!noted(&seen), "nobody was asked");
    for url in [
        "http://localhost:6100",
        "http://127.0.0.1:6100",
        "https://[::1]:6100",
    ] {
        seen.live = vec![silent(url)];
        assert!(noted(&seen), "{url}");
    }
    // Asked at an address of the network too, they were looked for where they are.
    seen.live.push(silent("http://node1:6100"));
    assert!(!noted(&seen));
}

#[test]
fn a_running_node_is_to_be_stopped_first() {
    let mut seen = collection(vec![node(2, 3, at(2, 9), at(2, 9))]);
    seen.directories[0].in_use = Some("process 7".to_owned());
    assert_eq!(refused(&seen, &wishes(LOST)), ["RECOVER_RUNNING"]);
}

#[test]
fn what_is_foreign_is_refused() {
    let ours = node(2, 5, at(2, 9), at(2, 9));
    let lost = wishes(&["node1", "node3", "node4", "node5"]);
    let with = |change: &dyn Fn(&mut crate::recover::collection::IdentityFacts)| {
        let mut other = node(1, 5, at(2, 9), at(2, 9));
        change(other.identity.as_mut().unwrap());
        refused(&collection(vec![ours.clone(), other]), &lost)
    };
    let other_cluster = with(&|i| i.cluster_uuid = UUID.replace('0', "1"));
    let other_life = with(&|i| i.incarnation = 2);
    let other_lineage = with(&|i| i.lineage = "recovery-x".to_owned());
    let copy = with(&|i| i.node_id = 2);
    assert_eq!(other_cluster, ["RECOVER_FOREIGN"]);
    assert!(other_life.contains(&"RECOVER_FOREIGN"), "{other_life:?}");
    assert_eq!(other_lineage, ["RECOVER_FOREIGN"]);
    assert_eq!(copy, ["RECOVER_SAME_NODE"]);
    let mut seen = collection(vec![ours.clone()]);
    seen.store.as_mut().unwrap().clusters[0].cluster.uuid = UUID.replace('0', "1");
    assert_eq!(refused(&seen, &lost), ["RECOVER_FOREIGN"]);
    // M19: somebody else has recovered already.
    let mut seen = collection(vec![ours.clone()]);
    let store = seen.store.as_mut().unwrap();
    store.clusters.push(claim(2, "recovery-other"));
    assert_eq!(refused(&seen, &lost), ["RECOVER_NEWER_LIFE"]);
    let mut seen = collection(vec![ours]);
    let mut newer = live(4, None);
    newer.status.as_mut().unwrap().incarnation = 2;
    seen.live = vec![newer];
    assert_eq!(refused(&seen, &lost), ["RECOVER_NEWER_LIFE"]);
}

#[test]
fn a_fenced_or_unfinished_or_half_recovered_directory_is_no_survivor() {
    for (stage, word) in [
        (Stage::Fenced, "fenced"),
        (Stage::Formed, "finished joining"),
    ] {
        let mut seen = collection(vec![node(2, 3, at(2, 9), at(2, 9))]);
        seen.directories[0].identity.as_mut().unwrap().stage = stage;
        let refusals = crate::recover::decide::decide(&seen, &wishes(LOST)).unwrap_err();
        assert_eq!(refusals[0].code, "RECOVER_SURVIVOR");
        assert!(refusals[0].what.contains(word), "{}", refusals[0]);
    }
    let mut seen = collection(vec![node(2, 3, at(2, 9), at(2, 9))]);
    seen.directories[0].surgery = Some("recovery-x".to_owned());
    assert_eq!(refused(&seen, &wishes(LOST)), ["RECOVER_UNDER_WAY"]);
}

#[test]
fn directories_that_contradict_each_other_are_refused() {
    let lost = wishes(&["node3", "node4", "node5"]);
    // Equal position, different state.
    let mut other = node(2, 5, at(2, 9), at(2, 9));
    other.groups[1].state_hash = Some("another".to_owned());
    let seen = collection(vec![node(1, 5, at(2, 9), at(2, 9)), other]);
    assert_eq!(refused(&seen, &lost), ["RECOVER_DIVERGED"]);
    // Committed here, and not in the log that ends later: a disk that was set back.
    let mut committed = node(1, 5, at(2, 50), at(2, 50));
    let mut later = node(2, 5, at(3, 20), at(1, 10));
    for group in &mut committed.groups {
        group.leaders = vec![at(1, 0), at(2, 12)];
    }
    for group in &mut later.groups {
        group.leaders = vec![at(1, 0), at(3, 12)];
    }
    let seen = collection(vec![committed, later]);
    assert_eq!(refused(&seen, &lost), ["RECOVER_DIVERGED"]);
    // A recorded snapshot of the one against the state of the other.
    let mut recorded = node(2, 5, at(2, 30), at(2, 30));
    recorded.groups[1].snapshots = vec![SnapshotFacts {
        id: "s".to_owned(),
        position: at(2, 9),
        state_hash: "another".to_owned(),
    }];
    recorded.groups[1].leaders = vec![at(1, 0), at(2, 9)];
    recorded.groups[0].leaders = vec![at(1, 0), at(2, 9)];
    let seen = collection(vec![node(1, 5, at(2, 9), at(2, 9)), recorded]);
    assert_eq!(refused(&seen, &lost), ["RECOVER_DIVERGED"]);
}

#[test]
fn a_plan_that_was_changed_is_refused() {
    let seen = collection(vec![node(2, 3, at(2, 9), at(2, 9))]);
    let plan = planned(&seen, &wishes(LOST));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plan.json");
    plan.write(&path, false).unwrap();
    assert_eq!(Plan::read(&path).unwrap(), plan);
    assert!(plan.write(&path, false).is_err(), "it is there already");
    // Every field counts.
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("\"term\": 1002", "\"term\": 1003"),
        ("\"newIncarnation\": 2", "\"newIncarnation\": 1"),
        ("node1", "node9"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let refused = Plan::read(&path).unwrap_err();
        assert!(refused.to_string().contains("was changed"), "{refused}");
    }
    // Spaces do not.
    std::fs::write(&path, text.replace("\n  ", "\n      ")).unwrap();
    assert_eq!(Plan::read(&path).unwrap(), plan);
}

#[test]
fn i19_hostile_files_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.json");
    for text in [
        "",
        "{}",
        "[[[[[[[[",
        "{\"kind\":\"confman-recovery-plan\",\"version\":0}",
        "{\"kind\":\"confman-recovery-plan\",\"version\":2}",
        "{\"kind\":\"confman-recovery-plan\",\"version\":99}",
        "{\"kind\":\"confman-recovery-collection\",\"version\":1,\"directories\":{}}",
    ] {
        std::fs::write(&path, text).unwrap();
        Plan::read(&path).unwrap_err();
        crate::recover::collection::Collection::read(&path).unwrap_err();
    }
}

#[test]
fn a_plan_of_an_older_drtool_is_ended_with_that_one() {
    // What it says of nodes looks otherwise, and must not be what is complained of.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plan.json");
    let plan = r#"{"kind": "confman-recovery-plan", "version": 1, "groups": [{"from": "node2"}]}"#;
    std::fs::write(&path, plan).unwrap();
    let refused = Plan::read(&path).unwrap_err();
    assert!(refused.to_string().contains("an older drtool"), "{refused}");
    let told = refused.document().unwrap();
    let hint = told["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("end or undo it"), "{hint}");
}

#[test]
fn the_fingerprint_follows_what_a_running_node_changes() {
    let one = node(2, 3, at(2, 9), at(2, 9));
    let same = |change: &dyn Fn(&mut crate::recover::collection::Directory)| {
        let mut other = one.clone();
        change(&mut other);
        other.fingerprint() == one.fingerprint()
    };
    assert!(
        same(&|d| d.path = "/mnt/rescue".to_owned()),
        "it may be mounted elsewhere"
    );
    assert!(!same(&|d| d.groups[0].last = Some(at(2, 10))));
    assert!(!same(&|d| d.groups[1].vote.as_mut().unwrap().term = 3));
    assert!(!same(&|d| d.groups[1].applied = Some(at(2, 8))));
    assert!(!same(
        &|d| d.identity.as_mut().unwrap().stage = Stage::Fenced
    ));
    assert!(!same(&|d| d.unborn = Some("recovery-x".to_owned())));
}
