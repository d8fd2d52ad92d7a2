//! A repository over a store that fails by script, in front of every kind of store: it ends right in each case.
//!
//! Rooms: `uploads` (objects in), `reads` (bytes out), `names` (listings, deletions, conditions, claims), `builds` and `measured`
//! (what needs no store but one in memory).

mod builds;
mod measured;
mod names;
mod reads;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use confman_snapshot::build::{BuildError, BuildOptions, Phase, build_and_upload};
use confman_snapshot::repository::RepositoryOptions;
use confman_snapshot::testing::{FaultStore, view};
use confman_snapshot::{Codec, GroupId, Kind, Repository, SnapshotRecord, WriteOptions};

use crate::place::Place;

/// A repository over a store that fails by script, under a prefix of its own.
struct Bench {
    store: FaultStore,
    repository: Repository,
    prefix: String,
    dir: tempfile::TempDir,
    /// Bytes of a value of the large snapshot, which has [`LARGE_RECORDS`] of them.
    large_value_bytes: usize,
    /// How many parts the large snapshot has, or more.
    parts: usize,
    options: RepositoryOptions,
}

const LARGE_RECORDS: usize = 600;
/// A chunk of a small snapshot.
const CHUNK_BYTES: usize = 8_000;

fn options(place: &Place) -> RepositoryOptions {
    // What is here answers soon; a server of others, on a machine that has more to do, wants more time.
    let millis = |here, elsewhere| {
        Duration::from_millis(if place.is_elsewhere() {
            elsewhere
        } else {
            here
        })
    };
    RepositoryOptions {
        tries: 3,
        backoff: Duration::from_millis(1),
        small_try: millis(1_000, 2_000),
        small_total: millis(5_000, 7_000),
        transfer_try: millis(3_000, 6_000),
        transfer_total: millis(8_000, 12_000),
        list_total: millis(5_000, 7_000),
        single_put_bytes_max: 100_000,
        part_bytes: place.part_bytes(30_000),
        ..RepositoryOptions::default()
    }
}

fn group() -> GroupId {
    GroupId::config(0)
}

impl Bench {
    fn at(place: &Place) -> Self {
        Self::with(place, options(place))
    }

    /// One that gives up in a quarter of the time, for what waits for nothing else.
    fn impatient(place: &Place) -> Self {
        let patient = options(place);
        Self::with(
            place,
            RepositoryOptions {
                small_try: patient.small_try / 4,
                small_total: patient.small_total / 4,
                transfer_try: patient.transfer_try / 4,
                transfer_total: patient.transfer_total / 4,
                list_total: patient.list_total / 4,
                ..patient
            },
        )
    }

    fn with(place: &Place, options: RepositoryOptions) -> Self {
        let (inner, prefix) = place.raw();
        let store = FaultStore::new(inner);
        let nonce: u64 = rand::random();
        let prefix = format!("{prefix}/{nonce:016x}");
        let prefix = prefix.trim_start_matches('/').to_owned();
        let repository = Repository::over(
            Arc::new(store.clone()),
            &prefix,
            "fault://test",
            options.clone(),
        );
        // A little more than so many parts.
        let (large_value_bytes, parts) = if place.is_s3() {
            (20_000, 3)
        } else {
            (500, 10)
        };
        Self {
            store,
            repository,
            prefix,
            dir: tempfile::tempdir().unwrap(),
            large_value_bytes,
            parts,
            options,
        }
    }

    fn options(&self, chunk_bytes: usize) -> BuildOptions {
        BuildOptions {
            write: WriteOptions {
                codec: Codec::None,
                chunk_bytes,
            },
            tmp_dir: self.dir.path().join("tmp"),
            builder_node: 1,
            nonce: 7,
        }
    }

    async fn build(
        &self,
        count: usize,
        value_bytes: usize,
        chunk_bytes: usize,
    ) -> Result<SnapshotRecord, BuildError> {
        let built = build_and_upload(
            view(&group(), 10, count, value_bytes),
            &self.repository,
            &self.options(chunk_bytes),
            |_| {},
        )
        .await;
        let left = std::fs::read_dir(self.dir.path().join("tmp")).map_or(0, |dir| dir.count());
        assert_eq!(left, 0, "a temporary file was left behind");
        built
    }

    /// Small enough for one request.
    async fn small(&self) -> Result<SnapshotRecord, BuildError> {
        self.build(20, 500, CHUNK_BYTES).await
    }

    /// Large enough for [`Bench::parts`].
    async fn large(&self) -> Result<SnapshotRecord, BuildError> {
        let bytes = LARGE_RECORDS * self.large_value_bytes;
        self.build(LARGE_RECORDS, self.large_value_bytes, bytes / 30)
            .await
    }

    /// Another small one, of another position.
    async fn another(&self, index: u64, count: usize) -> SnapshotRecord {
        let options = BuildOptions {
            nonce: u32::try_from(index).unwrap(),
            ..self.options(CHUNK_BYTES)
        };
        build_and_upload(
            view(&group(), index, count, 500),
            &self.repository,
            &options,
            |_| {},
        )
        .await
        .unwrap()
    }

    /// What lies in the store is the snapshot and nothing else.
    async fn is_right(&self, record: &SnapshotRecord) {
        self.store.heal();
        self.repository.open_recorded(record).await.unwrap();
        self.repository
            .verify(&record.group, &record.id)
            .await
            .unwrap();
        assert_eq!(self.listed().await, 1);
    }

    async fn listed(&self) -> usize {
        self.repository
            .list_snapshots(&group())
            .await
            .unwrap()
            .snapshots
            .len()
    }

    fn kind(error: &BuildError) -> (Phase, Kind) {
        (error.phase, error.source.kind())
    }
}
