//! What the tests of a restore share: a cluster's snapshots in a real repository, and empty groups to restore.

// Helpers of a test may panic: that is how a test fails. Not every test uses every helper.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use confman_bootstrap::{GroupTask, Limits, Restorer};
use confman_snapshot::build::{BuildOptions, build_and_upload};
use confman_snapshot::model::{ClusterId, GroupId, Membership, NodeInfo, Position};
use confman_snapshot::{
    Codec, Repository, SnapshotInfo, SnapshotRecord, StateHash, StateView, WriteOptions, value_hash,
};
use confman_store::records::{EntryHead, EntryRecord, FactsRecord, NamespaceRecord, StoredContent};
use confman_store::{DataPaths, GroupPaths, GroupStore, OpenOptions, keys};
use prost::Message;

pub(crate) const RED: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const NOW_US: i64 = 1_700_000_000_000_000;

pub(crate) fn red() -> ClusterId {
    ClusterId::new(RED, 1)
}

/// A store and a node's data directory, both real.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) repository: Repository,
    pub(crate) data: DataPaths,
}

impl World {
    /// A store on disk, so that tests can damage its objects.
    pub(crate) async fn on_disk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().join("objects").display());
        Self::at(dir, &url).await
    }

    /// A store in memory, under a name of its own.
    pub(crate) async fn in_memory(name: &str) -> Self {
        Self::at(tempfile::tempdir().unwrap(), &format!("memory://{name}")).await
    }

    async fn at(dir: tempfile::TempDir, url: &str) -> Self {
        let repository = Repository::open(url, dir.path(), []).await.unwrap();
        let data = DataPaths::new(dir.path().join("node"));
        Self {
            dir,
            repository,
            data,
        }
    }

    /// Builds, uploads and verifies a snapshot of `group` whose state has about `entries` entries.
    pub(crate) async fn publish(
        &self,
        group: &GroupId,
        index: u64,
        entries: u64,
    ) -> SnapshotRecord {
        publish(
            &self.repository,
            self.dir.path().to_owned(),
            group,
            index,
            entries,
        )
        .await
    }

    pub(crate) fn paths(&self, group: &GroupId) -> GroupPaths {
        self.data.group(group)
    }

    pub(crate) fn task(&self, group: &GroupId, candidates: &[SnapshotRecord]) -> GroupTask {
        GroupTask {
            paths: self.paths(group),
            candidates: candidates.to_vec(),
        }
    }

    pub(crate) fn restorer(&self) -> Restorer {
        restorer(Some(self.repository.clone()))
    }

    /// The file behind an object of a store on disk.
    pub(crate) fn object_file(&self, record: &SnapshotRecord) -> PathBuf {
        self.dir.path().join("objects").join(&record.object)
    }
}

pub(crate) fn restorer(repository: Option<Repository>) -> Restorer {
    Restorer::new(repository, red(), limits(), || NOW_US)
}

pub(crate) fn limits() -> Limits {
    // Generous: a machine that is busy building is no store that is down.
    let (reach, read) = (Duration::from_secs(60), Duration::from_secs(60));
    Limits {
        reach,
        read,
        spare_bytes: 1024,
        ..Limits::default()
    }
}

/// A state that depends on its index only: facts, one namespace, entries of different sizes.
pub(crate) fn state(index: u64, entries: u64) -> BTreeMap<Bytes, Bytes> {
    let mut state = BTreeMap::new();
    let facts = FactsRecord {
        first_time_us: 1,
        last_time_us: index as i64,
        commands: index,
        ..FactsRecord::default()
    };
    state.insert(keys::facts().into(), facts.encode_to_vec().into());
    let namespace = NamespaceRecord {
        created_us: 1,
        created_by: "alice".to_owned(),
        keys: entries,
        children: 0,
    };
    state.insert(
        keys::namespace("apps").into(),
        namespace.encode_to_vec().into(),
    );
    for n in 0..entries {
        let value = format!(
            "{{\"n\":{n},\"at\":{index},\"pad\":\"{}\"}}",
            "x".repeat((n % 700) as usize)
        );
        let head = EntryHead {
            version: index,
            value_type: 4,
            size: value.len() as u64,
            hash: value_hash(value.as_bytes()).to_vec().into(),
            created_us: 1,
            updated_us: index as i64,
            created_by: "alice".to_owned(),
            updated_by: "bob".to_owned(),
        };
        let content = Some(StoredContent::Inline(value.into_bytes().into()));
        let entry = EntryRecord {
            head: Some(head),
            content,
            changed: None,
        };
        state.insert(
            keys::entry("apps", &format!("key-{n:06}")).into(),
            entry.encode_to_vec().into(),
        );
    }
    state
}

/// Three voters, as the snapshot's builder saw them.
pub(crate) fn membership() -> Membership {
    let node = |n: u64| NodeInfo {
        name: format!("node{n}"),
        api_url: format!("http://127.0.0.1:6{n}00"),
        peer_addr: format!("127.0.0.1:6{n}01"),
    };
    Membership {
        position: Some(Position::new(1, 1, 1)),
        voters: vec![[1, 2, 3].into()],
        nodes: (1..=3).map(|n| (n, node(n))).collect(),
    }
}

pub(crate) async fn publish(
    repository: &Repository,
    tmp_dir: PathBuf,
    group: &GroupId,
    index: u64,
    entries: u64,
) -> SnapshotRecord {
    let records = state(index, entries);
    let mut state_hash = StateHash::new();
    for (key, value) in &records {
        state_hash.add(key, value);
    }
    let info = SnapshotInfo {
        cluster: red(),
        group: group.clone(),
        position: Position::new(2, 1, index),
        membership: membership(),
        state_hash,
        created_us: NOW_US,
        first_time_us: 1,
        last_time_us: index as i64,
    };
    let view = StateView {
        info,
        records: Box::new(records.into_iter().map(Ok)),
    };
    let options = BuildOptions {
        // Small chunks: many places to be killed at.
        write: WriteOptions {
            codec: Codec::Zstd,
            chunk_bytes: 16 * 1024,
        },
        tmp_dir,
        builder_node: 1,
        nonce: index as u32,
    };
    build_and_upload(view, repository, &options, |_| {})
        .await
        .unwrap()
}

/// Opens a restored group as a node would and compares it with the recorded snapshot, down to each record.
pub(crate) fn assert_is(paths: &GroupPaths, record: &SnapshotRecord, entries: u64) {
    let mut options = OpenOptions::new(red());
    options.state_cache_bytes = 4 << 20;
    options.log_cache_bytes = 1 << 20;
    let (log, machine, handle) = GroupStore::open(paths.clone(), options).unwrap();
    let mut view = handle.open_view(NOW_US).unwrap();
    assert_eq!(view.info.position, record.position);
    assert_eq!(view.info.state_hash.digest(), record.state_digest());
    assert_eq!(view.info.membership, membership());
    let records: BTreeMap<Bytes, Bytes> = view.records.by_ref().map(|r| r.unwrap()).collect();
    assert_eq!(records, state(record.position.index, entries));
    drop((view, log, machine, handle));
}
