//! From an inspected data directory to the facts that a decision reads.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use confman_bootstrap::facts::{LocalData, LocalFacts, PeerFacts, Stage, StoreFacts};
use confman_bootstrap::{Decision, decide};
use confman_store::DataDir;
use confman_store::datadir::{Identity, IdentityState, MemberAtBirth};

fn identity(node_id: u64, members: &[u64], state: IdentityState) -> Identity {
    Identity {
        cluster_uuid: "11111111-1111-4111-8111-111111111111".to_owned(),
        incarnation: 1,
        node_id,
        name: "node2".to_owned(),
        shards: 1,
        members: members
            .iter()
            .map(|id| MemberAtBirth {
                id: *id,
                info: None,
            })
            .collect(),
        state: state.into(),
        reason: "the store has incarnation 2".to_owned(),
        created_us: 1,
        lineage: String::new(),
        incarnation_floor: 0,
    }
}

fn stage(local: &LocalFacts) -> Stage {
    match &local.data {
        LocalData::Good(identity) => identity.stage.clone(),
        other => panic!("not good: {other:?}"),
    }
}

#[test]
fn a_real_directory_goes_through_its_stages() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(&dir.path().join("node")).unwrap();
    let look = || LocalFacts::new("node2", data.inspect().unwrap());
    assert_eq!(look().data, LocalData::Empty);

    data.write_identity(&identity(2, &[1, 2, 3], IdentityState::Formed))
        .unwrap();
    assert_eq!(stage(&look()), Stage::Forming);
    data.write_identity(&identity(4, &[1, 2, 3], IdentityState::Formed))
        .unwrap();
    assert_eq!(stage(&look()), Stage::Rejoining);
    let mut ordered = identity(4, &[4, 5, 6], IdentityState::Formed);
    ordered.lineage = "plan".to_owned();
    data.write_identity(&ordered).unwrap();
    let plan = "plan".to_owned();
    assert_eq!(stage(&look()), Stage::Restoring { plan });
    data.write_identity(&identity(4, &[1, 2, 3], IdentityState::Fenced))
        .unwrap();
    let reason = "the store has incarnation 2".to_owned();
    // Fenced, whether or not its groups are there.
    match look().data {
        LocalData::Good(identity) => assert_eq!(identity.stage, Stage::Fenced { reason }),
        LocalData::Damaged { .. } => {}
        LocalData::Empty => panic!("a fenced directory is not empty"),
    }
}

/// A started node whose groups are gone, and an identity with a wrong bit: refused, not begun anew.
#[test]
fn i14_a_directory_that_lost_a_part_is_refused_and_not_formed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node");
    let data = DataDir::open(&path).unwrap();
    let decide_now = || {
        let local = LocalFacts::new("node2", data.inspect().unwrap());
        let nothing = StoreFacts::Reached {
            clusters: Vec::new(),
            order: None,
        };
        decide(&local, &PeerFacts::default(), &nothing).decision
    };
    data.write_identity(&identity(2, &[1, 2, 3], IdentityState::Initialized))
        .unwrap();
    assert!(
        matches!(decide_now(), Decision::Refuse { .. }),
        "{:?}",
        decide_now()
    );

    let file = data.paths().identity();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&file, bytes).unwrap();
    assert!(
        matches!(decide_now(), Decision::Refuse { .. }),
        "{:?}",
        decide_now()
    );
}
