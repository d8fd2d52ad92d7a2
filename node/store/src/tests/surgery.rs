//! A survivor's log after surgery: what it says, that it can be done again, and that a lone Raft leads over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use confman_snapshot::model::{GroupId, NodeInfo, Position};
use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::kit::*;
use super::purge::append;
use crate::command::*;
use crate::convert;
use crate::error::StoreError;
use crate::group::{GroupStore, OpenOptions};
use crate::log::LogStore;
use crate::paths::DataPaths;
use crate::records::*;
use crate::surgery::{Operation, operate};
use crate::types::{Entry, EntryPayload, LogId, Member, RaftMembership, TypeConfig, Vote};

fn info(name: &str) -> NodeInfo {
    NodeInfo {
        name: name.to_owned(),
        api_url: format!("http://{name}:1"),
        peer_addr: format!("{name}:2"),
    }
}

fn operation(last: Position) -> Operation {
    Operation {
        term: 1_003,
        node: 2,
        last: Some(last),
        applied: None,
        members: vec![(2, info("node2"))],
    }
}

/// A log of a three-node group: a membership, then puts; the state has applied all but the last two.
async fn survivor(dir: &std::path::Path) -> Position {
    let (mut log, machine, state) = open_group(dir, &GroupId::config(0)).unwrap();
    log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
    let at = |index| convert::log_id(&Position::new(3, 1, index));
    let members: BTreeMap<u64, Member> = (1..=3)
        .map(|id| (id, Member::from(&info(&format!("node{id}")))))
        .collect();
    let three = RaftMembership::new(vec![(1..=3).collect()], members).unwrap();
    let mut entries = vec![Entry {
        log_id: at(0),
        payload: EntryPayload::Membership(three),
    }];
    for index in 1..=6 {
        let op = put("app", &format!("k{index}"), "v");
        entries.push(Entry {
            log_id: at(index),
            payload: EntryPayload::Normal(command(1_700_000_000 * SECOND, op)),
        });
    }
    append(&mut log, entries.clone()).await;
    let committed: LogId = at(4);
    log.save_committed(Some(committed)).await.unwrap();
    machine
        .apply_now(entries.into_iter().take(5).collect())
        .unwrap();
    state.flush_durable().unwrap();
    drop((log, machine, state));
    Position::new(3, 1, 6)
}

#[tokio::test]
async fn surgery_raises_the_vote_and_appends_one_entry_and_does_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let last = survivor(dir.path()).await;
    let log_dir = DataPaths::new(dir.path()).group(&GroupId::config(0)).log();
    let done = operate(&log_dir, &operation(last)).unwrap();
    assert_eq!(done.membership, Position::new(1_003, 2, 7));
    assert!(!done.already);
    let again = operate(&log_dir, &operation(last)).unwrap();
    assert!(again.already, "the second time finds it done");
    let mut log = LogStore::open(&log_dir, 1 << 20, None, "test".to_owned()).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(1_003, 2)));
    assert_eq!(log.read_committed().await.unwrap().unwrap().index, 4);
    let entries = log.try_get_log_entries(0..).await.unwrap();
    assert_eq!(entries.len(), 8, "one entry more");
    let EntryPayload::Membership(members) = &entries[7].payload else {
        panic!("{:?}", entries[7]);
    };
    assert_eq!(members.voter_ids().collect::<Vec<_>>(), [2]);
    assert_eq!(
        entries[6].log_id.leader_id.term, 3,
        "the old tail stays as it is"
    );
}

/// M20: a snapshot was installed, and the node died before openraft had cut the log off.
#[tokio::test]
async fn m20_a_state_that_was_installed_beyond_the_log_goes_on_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let last = survivor(dir.path()).await;
    let log_dir = DataPaths::new(dir.path()).group(&GroupId::config(0)).log();
    let mut beyond = operation(last);
    beyond.applied = Some(Position::new(3, 1, 90));
    let done = operate(&log_dir, &beyond).unwrap();
    assert_eq!(done.membership, Position::new(1_003, 2, 91));
    assert!(operate(&log_dir, &beyond).unwrap().already);
    let mut log = LogStore::open(&log_dir, 1 << 20, None, "test".to_owned()).unwrap();
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id.unwrap().index, 90);
    let entries = log.try_get_log_entries(0..).await.unwrap();
    assert_eq!(entries.len(), 1, "nothing of the old log is left before it");
    // Within the log it changes nothing.
    let other = tempfile::tempdir().unwrap();
    let last = survivor(other.path()).await;
    let log_dir = DataPaths::new(other.path())
        .group(&GroupId::config(0))
        .log();
    let mut within = operation(last);
    within.applied = Some(Position::new(3, 1, 4));
    assert_eq!(
        operate(&log_dir, &within).unwrap().membership,
        Position::new(1_003, 2, 7)
    );
}

#[tokio::test]
async fn m18_surgery_refuses_a_log_that_is_not_the_plans() {
    let dir = tempfile::tempdir().unwrap();
    let last = survivor(dir.path()).await;
    let log_dir = DataPaths::new(dir.path()).group(&GroupId::config(0)).log();
    let refused = |operation: &Operation, what: &str| {
        let error = operate(&log_dir, operation).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    };
    refused(&operation(Position::new(3, 1, 5)), "the last entry");
    let mut low = operation(last);
    low.term = 3;
    refused(&low, "the term of the vote");
    operate(&log_dir, &operation(last)).unwrap();
    let mut other = operation(last);
    other.term = 2_000;
    refused(&other, "the last entry");
    let missing = operate(&dir.path().join("nothing"), &operation(last)).unwrap_err();
    assert!(matches!(missing, StoreError::Io { .. }), "{missing}");
    assert!(
        !dir.path().join("nothing").exists(),
        "nothing is made where nothing was"
    );
}

/// A network to nobody: a lone voter needs none.
#[derive(Clone)]
struct Nobody;

mod nobody {
    use std::future::Future;

    use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
    use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
    use openraft::raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    };

    use super::Nobody;
    use crate::snapshot::SnapshotHandle;
    use crate::types::{Member, Snapshot, TypeConfig, Vote};

    fn nowhere() -> RPCError<TypeConfig> {
        RPCError::Unreachable(Unreachable::from_string("nobody is there"))
    }

    impl RaftNetworkFactory<TypeConfig> for Nobody {
        type Network = Nobody;

        async fn new_client(&mut self, _target: u64, _node: &Member) -> Nobody {
            Nobody
        }
    }

    impl RaftNetworkV2<TypeConfig> for Nobody {
        type SnapshotData = SnapshotHandle;

        async fn append_entries(
            &mut self,
            _rpc: AppendEntriesRequest<TypeConfig>,
            _option: RPCOption,
        ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
            Err(nowhere())
        }

        async fn vote(
            &mut self,
            _rpc: VoteRequest<TypeConfig>,
            _option: RPCOption,
        ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
            Err(nowhere())
        }

        async fn full_snapshot(
            &mut self,
            _vote: Vote,
            _snapshot: Snapshot,
            _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
            _option: RPCOption,
        ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
            Err(StreamingError::Unreachable(Unreachable::from_string(
                "nobody is there",
            )))
        }
    }
}

/// The real store under a real Raft of one: it leads, commits the whole tail (M14), and begins the new life.
#[tokio::test(flavor = "multi_thread")]
async fn m14_a_lone_raft_leads_over_the_repaired_log_and_commits_its_tail() {
    let dir = tempfile::tempdir().unwrap();
    let last = survivor(dir.path()).await;
    let paths = DataPaths::new(dir.path()).group(&GroupId::config(0));
    operate(&paths.log(), &operation(last)).unwrap();
    let (log, machine, state) = GroupStore::open(paths, OpenOptions::new(cluster())).unwrap();
    let config = openraft::Config {
        heartbeat_interval: 50,
        election_timeout_min: 100,
        election_timeout_max: 200,
        snapshot_policy: openraft::SnapshotPolicy::Never,
        enable_pre_vote: Some(true),
        ..Default::default()
    };
    let config = Arc::new(config.validate().unwrap());
    let raft = openraft::Raft::<TypeConfig, _>::new(2, config, Nobody, log, machine)
        .await
        .unwrap();
    raft.wait(Some(Duration::from_secs(20)))
        .state(openraft::ServerState::Leader, "it leads alone")
        .await
        .unwrap();
    let begin = Op::BeginIncarnation(BeginIncarnation {
        cluster_uuid: UUID.to_owned(),
        incarnation: 2,
        kind: IncarnationKind::QuorumLoss.into(),
        plan_id: "plan".to_owned(),
        nodes: vec![NodeRecord {
            id: 2,
            ..NodeRecord::default()
        }],
        ..BeginIncarnation::default()
    });
    let written = raft
        .client_write(command(1_800_000_000 * SECOND, begin))
        .await
        .unwrap();
    assert!(written.data.as_refused().is_none(), "{}", written.data);
    assert!(written.log_id.leader_id.term > 1_003);
    for index in 1..=6 {
        assert!(
            state
                .get_entry("app", &format!("k{index}"))
                .unwrap()
                .is_some(),
            "k{index} of the survivor's log"
        );
    }
    let record = state.incarnation().unwrap().unwrap();
    assert_eq!((record.incarnation, record.plan_id.as_str()), (2, "plan"));
    raft.shutdown().await.unwrap();
}
