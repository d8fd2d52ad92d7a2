//! A repository over a store that fails by script: it ends right in each case.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use confman_snapshot::build::{BuildError, BuildOptions, Phase, build_and_upload};
use confman_snapshot::repository::{Claim, ClusterObject, RepositoryOptions};
use confman_snapshot::testing::{Failure, Fault, FaultStore, Op, Rule, state, view};
use confman_snapshot::{
    BoxError, ClusterId, Codec, GroupId, Kind, Repository, SnapshotError, SnapshotId,
    SnapshotRecord, StoreError, WriteOptions, paths, write_snapshot,
};

const PREFIX: &str = "prefix";

struct Bench {
    store: FaultStore,
    repository: Repository,
    dir: tempfile::TempDir,
}

fn options() -> RepositoryOptions {
    RepositoryOptions {
        tries: 3,
        backoff: Duration::from_millis(1),
        small_try: Duration::from_millis(200),
        small_total: Duration::from_secs(2),
        transfer_try: Duration::from_millis(300),
        transfer_total: Duration::from_secs(5),
        list_total: Duration::from_secs(2),
        single_put_bytes_max: 100_000,
        part_bytes: 30_000,
        ..RepositoryOptions::default()
    }
}

fn bench() -> Bench {
    let store = FaultStore::in_memory();
    let inner = std::sync::Arc::new(store.clone());
    let repository = Repository::over(inner, PREFIX, "fault://test", options());
    Bench {
        store,
        repository,
        dir: tempfile::tempdir().unwrap(),
    }
}

fn group() -> GroupId {
    GroupId::config(0)
}

impl Bench {
    fn options(&self) -> BuildOptions {
        BuildOptions {
            write: WriteOptions {
                codec: Codec::None,
                chunk_bytes: 8_000,
            },
            tmp_dir: self.dir.path().join("tmp"),
            builder_node: 1,
            nonce: 7,
        }
    }

    async fn build(&self, count: usize) -> Result<SnapshotRecord, BuildError> {
        let built = build_and_upload(
            view(&group(), 10, count, 500),
            &self.repository,
            &self.options(),
            |_| {},
        )
        .await;
        let left = std::fs::read_dir(self.dir.path().join("tmp")).map_or(0, |dir| dir.count());
        assert_eq!(left, 0, "a temporary file was left behind");
        built
    }

    /// Small enough for one request.
    async fn small(&self) -> Result<SnapshotRecord, BuildError> {
        self.build(20).await
    }

    /// Large enough for about ten parts.
    async fn large(&self) -> Result<SnapshotRecord, BuildError> {
        self.build(600).await
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

/// Faults that pass: the snapshot is there in the end, once, whole.
#[tokio::test]
async fn o01_to_o05_a_put_that_fails_for_a_while_or_whose_answer_is_lost() {
    let faults = [
        Rule::on(Op::Put, Fault::Before(Failure::Busy)).times(2),
        Rule::on(Op::Put, Fault::Before(Failure::Unreachable)).times(2),
        Rule::on(Op::Put, Fault::After(Failure::Busy)),
        Rule::on(Op::Put, Fault::After(Failure::Unreachable)),
        Rule::on(Op::Put, Fault::ExistsAfter),
        Rule::on(Op::Put, Fault::ExistsBefore),
        Rule::on(Op::Put, Fault::ExistsBefore).times(2),
        Rule::on(Op::Put, Fault::Hang),
        Rule::on(Op::Head, Fault::Before(Failure::Busy)).times(2),
        Rule::on(Op::Head, Fault::Hang),
        Rule::on(Op::Get, Fault::Before(Failure::Busy)).times(2),
        Rule::on(Op::Get, Fault::Hang).after(1),
    ];
    for fault in faults {
        let bench = bench();
        let shown = format!("{fault:?}");
        bench.store.add(fault);
        let record = bench
            .small()
            .await
            .unwrap_or_else(|e| panic!("{shown}: {e}"));
        bench.is_right(&record).await;
    }
}

#[tokio::test]
async fn o03_a_last_try_whose_answer_is_lost_still_counts() {
    let bench = bench();
    bench
        .store
        .add(Rule::on(Op::Put, Fault::Before(Failure::Busy)).times(2));
    bench
        .store
        .add(Rule::on(Op::Put, Fault::After(Failure::Busy)));
    let record = bench.small().await.unwrap();
    assert_eq!(bench.store.calls(Op::Put), 3);
    bench.is_right(&record).await;
}

#[tokio::test]
async fn c09_an_upload_in_parts_that_fails_is_aborted_and_tried_again() {
    let faults = [
        (Rule::on(Op::Start, Fault::Before(Failure::Busy)), 0),
        (Rule::on(Op::Part, Fault::Before(Failure::Busy)).after(3), 1),
        (
            Rule::on(Op::Part, Fault::After(Failure::Unreachable)).after(9),
            1,
        ),
        (Rule::on(Op::Part, Fault::Hang).after(2), 1),
        (Rule::on(Op::Complete, Fault::Before(Failure::Busy)), 1),
        (Rule::on(Op::Complete, Fault::After(Failure::Busy)), 1),
    ];
    for (fault, aborts) in faults {
        let bench = bench();
        let shown = format!("{fault:?}");
        bench.store.add(fault);
        let record = bench
            .large()
            .await
            .unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert!(record.object_bytes > 250_000);
        assert_eq!(bench.store.calls(Op::Abort), aborts, "{shown}");
        assert_eq!(bench.store.calls(Op::Put), 0, "{shown}");
        bench.is_right(&record).await;
    }
    // A completion that went through is not sent again.
    let bench = bench();
    bench
        .store
        .add(Rule::on(Op::Complete, Fault::After(Failure::Busy)));
    bench.large().await.unwrap();
    assert_eq!(
        (
            bench.store.calls(Op::Start),
            bench.store.calls(Op::Complete)
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn o13_o19_what_waiting_does_not_mend_is_not_tried_again() {
    for (failure, kind) in [
        (Failure::Denied, Kind::Credentials),
        (Failure::Expired, Kind::Credentials),
        (Failure::Full, Kind::Configuration),
    ] {
        for large in [false, true] {
            let bench = bench();
            bench
                .store
                .add(Rule::on(Op::Put, Fault::Before(failure)).always());
            bench
                .store
                .add(Rule::on(Op::Start, Fault::Before(failure)).always());
            let error = if large {
                bench.large().await
            } else {
                bench.small().await
            }
            .unwrap_err();
            assert_eq!(Bench::kind(&error), (Phase::Upload, kind), "{error}");
            assert_eq!(bench.store.calls(Op::Put) + bench.store.calls(Op::Start), 1);
            bench.store.heal();
            assert_eq!(bench.listed().await, 0);
            // It goes on as soon as it may.
            bench.small().await.unwrap();
        }
    }
}

#[tokio::test]
async fn i18_a_store_that_is_down_or_hangs_is_given_up_in_bounded_time() {
    let ops = [
        Op::Put,
        Op::Start,
        Op::Part,
        Op::Complete,
        Op::Head,
        Op::Get,
    ];
    let faults = [
        Fault::Hang,
        Fault::Before(Failure::Unreachable),
        Fault::Before(Failure::Busy),
    ];
    let cases = ops
        .into_iter()
        .flat_map(|op| faults.clone().map(|fault| (op, fault)));
    // Each has a store of its own: they may wait side by side.
    futures::future::join_all(cases.map(|(op, fault)| async move {
        let bench = bench();
        let shown = format!("{op:?} {fault:?}");
        bench.store.add(Rule::on(op, fault).always());
        let started = std::time::Instant::now();
        let large = matches!(op, Op::Start | Op::Part | Op::Complete);
        let built = if large {
            bench.large().await
        } else {
            bench.small().await
        };
        let error = built.unwrap_err();
        let unreachable = error.source.is_unreachable() && !error.source.is_bad_snapshot();
        assert!(unreachable, "{shown}: {error}");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "{shown}: {took:?}");
    }))
    .await;
    let bench = bench();
    bench.store.add(Rule::on(Op::List, Fault::Hang).always());
    assert_eq!(
        bench
            .repository
            .list_snapshots(&group())
            .await
            .unwrap_err()
            .kind,
        Kind::Wait
    );
    bench.store.add(Rule::on(Op::Delete, Fault::Hang).always());
    let id = SnapshotId {
        index: 1,
        incarnation: 1,
        term: 1,
        nonce: 1,
    };
    assert_eq!(
        bench
            .repository
            .delete_snapshot(&group(), &id)
            .await
            .unwrap_err()
            .kind,
        Kind::Wait
    );
    assert_eq!(bench.repository.ping().await.unwrap_err().kind, Kind::Wait);
}

#[tokio::test]
async fn o06_o07_o09_a_body_that_is_wrong_on_the_way_is_asked_for_again() {
    let bench = bench();
    let other = bench.small().await.unwrap();
    let mut options = bench.options();
    options.nonce = 8;
    let record = build_and_upload(
        view(&group(), 11, 60, 500),
        &bench.repository,
        &options,
        |_| {},
    )
    .await
    .unwrap();
    let other = format!("{PREFIX}/{}", other.object);
    for fault in [
        Fault::Truncate(0),
        Fault::Truncate(3),
        Fault::Flip(0),
        Fault::Flip(30_000),
        Fault::Swap(other),
    ] {
        for nth in 0..6 {
            bench.store.heal();
            bench.store.add(Rule::on(Op::Get, fault.clone()).after(nth));
            let verified = bench.repository.verify(&group(), &record.id).await;
            verified.unwrap_or_else(|e| panic!("{fault:?} of read {nth}: {e}"));
        }
    }
}

#[tokio::test]
async fn i9_a_body_that_is_always_wrong_is_damaged_and_named() {
    let bench = bench();
    let other = bench.small().await.unwrap();
    let mut options = bench.options();
    options.nonce = 8;
    let record = build_and_upload(
        view(&group(), 11, 60, 500),
        &bench.repository,
        &options,
        |_| {},
    )
    .await
    .unwrap();
    let other = format!("{PREFIX}/{}", other.object);
    for fault in [
        Fault::Truncate(0),
        Fault::Truncate(3),
        Fault::Flip(0),
        Fault::Flip(30_000),
        Fault::Swap(other),
    ] {
        bench.store.heal();
        bench.store.add(Rule::on(Op::Get, fault.clone()).always());
        let error = bench
            .repository
            .verify(&group(), &record.id)
            .await
            .unwrap_err();
        assert!(
            error.is_bad_snapshot() && !error.is_unreachable(),
            "{fault:?}: {error}"
        );
        assert!(
            error.to_string().contains(&record.object),
            "{fault:?}: {error}"
        );
    }
    // It is kept for who wants to look, and good again when the store is.
    bench.store.heal();
    bench.repository.verify(&group(), &record.id).await.unwrap();
}

#[tokio::test]
async fn i8_what_does_not_verify_is_not_recorded_and_not_deleted() {
    let bench = bench();
    bench.store.add(Rule::on(Op::Get, Fault::Flip(9)).always());
    let error = bench.small().await.unwrap_err();
    assert_eq!(
        Bench::kind(&error),
        (Phase::Verify, Kind::Damaged),
        "{error}"
    );
    bench.store.heal();
    assert_eq!(bench.listed().await, 1);
    assert_eq!(bench.store.calls(Op::Delete), 0);
}

#[tokio::test]
async fn o10_a_stale_listing_hides_nothing_that_is_recorded() {
    let bench = bench();
    let record = bench.small().await.unwrap();
    bench
        .store
        .add(Rule::on(Op::List, Fault::Hide(record.id.to_string())).always());
    assert_eq!(bench.listed().await, 0);
    bench.repository.open_recorded(&record).await.unwrap();
    bench.store.heal();
    // Twice and in reverse: each once, newest first.
    let mut options = bench.options();
    for (index, nonce) in [(9637, 1), (10_137, 2)] {
        options.nonce = nonce;
        build_and_upload(
            view(&group(), index, 5, 50),
            &bench.repository,
            &options,
            |_| {},
        )
        .await
        .unwrap();
    }
    bench.store.add(Rule::on(Op::List, Fault::Repeat).always());
    let listing = bench.repository.list_snapshots(&group()).await.unwrap();
    let listed: Vec<u64> = listing.snapshots.iter().map(|s| s.id.index).collect();
    assert_eq!(listed, [10_137, 9637, 10]);
    // O10, the listing that breaks off: from the start again.
    bench.store.heal();
    bench
        .store
        .add(Rule::on(Op::List, Fault::Before(Failure::Busy)).times(2));
    assert_eq!(bench.listed().await, 3);
}

#[tokio::test]
async fn c17_a_snapshot_that_is_deleted_while_it_is_read_is_not_found() {
    let bench = bench();
    let record = bench.large().await.unwrap();
    let reader = bench.repository.open_recorded(&record).await.unwrap();
    let mut stream = reader.records(1);
    stream.next_chunk().await.unwrap();
    bench
        .repository
        .delete_snapshot(&group(), &record.id)
        .await
        .unwrap();
    let error = loop {
        match stream.next_chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("read to the end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

#[tokio::test]
async fn deletes_are_idempotent_and_denied_ones_say_so() {
    let bench = bench();
    let record = bench.small().await.unwrap();
    bench
        .store
        .add(Rule::on(Op::Delete, Fault::Before(Failure::Denied)).always());
    let error = bench
        .repository
        .delete_snapshot(&group(), &record.id)
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Credentials);
    let probe = bench.repository.probe_short().await.unwrap();
    assert!(!probe.delete && probe.delete_error.unwrap().contains("delete"));
    for fault in [Fault::After(Failure::Busy), Fault::Before(Failure::Gone)] {
        bench.store.heal();
        bench.store.add(Rule::on(Op::Delete, fault));
        bench
            .repository
            .delete_snapshot(&group(), &record.id)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn o12_a_store_that_ignores_conditions_loses_nothing() {
    // The probe says so: its second create is taken.
    let bench = bench();
    bench.store.add(
        Rule::on(Op::Put, Fault::Before(Failure::Busy))
            .after(1)
            .times(1),
    );
    assert!(
        !bench
            .repository
            .probe_short()
            .await
            .unwrap()
            .conditional_put
    );
    bench.store.heal();
    // Another object under our name is seen by looking, before anything is put.
    let record = bench.small().await.unwrap();
    let puts = bench.store.calls(Op::Put);
    let error = bench
        .repository
        .put_snapshot(&other_file(&bench, 20), &group(), &record.id)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert_eq!(bench.store.calls(Op::Put), puts);
    bench.is_right(&record).await;
}

/// A snapshot of the same name that was built at another time.
fn other_file(bench: &Bench, count: usize) -> PathBuf {
    let (mut info, records) = state(&group(), 10, count, 500);
    info.created_us += 1;
    let path = bench.dir.path().join("other.snap");
    let id = SnapshotId::new(info.position, 1, 7);
    let records = records.into_iter().map(Ok::<_, BoxError>);
    write_snapshot(&path, &id, &info, records, &bench.options().write).unwrap();
    path
}

#[tokio::test]
async fn o03_a_claim_whose_answer_is_lost_is_ours() {
    for fault in [
        Fault::After(Failure::Busy),
        Fault::ExistsAfter,
        Fault::ExistsBefore,
        Fault::Hang,
    ] {
        let bench = bench();
        let object = ClusterObject {
            version: 1,
            cluster: ClusterId::new("11111111-1111-4111-8111-111111111111", 1),
            created_us: 0,
            created_by: "node1".to_owned(),
            nonce: "n".to_owned(),
            order: None,
            recovery: None,
        };
        bench.store.add(Rule::on(Op::Put, fault.clone()));
        assert_eq!(
            bench.repository.claim_cluster(&object).await.unwrap(),
            Claim::Ours,
            "{fault:?}"
        );
        assert_eq!(bench.repository.list_clusters().await.unwrap(), [object]);
    }
}

#[tokio::test]
async fn o15_an_emptied_bucket_is_not_found_and_not_unreachable() {
    let bench = bench();
    let record = bench.small().await.unwrap();
    bench.store.inner().delete_all().await;
    let error = bench.repository.open_recorded(&record).await.unwrap_err();
    assert!(
        error.is_bad_snapshot() && !error.is_unreachable(),
        "{error}"
    );
}

trait DeleteAll {
    async fn delete_all(&self);
}

impl DeleteAll for std::sync::Arc<dyn object_store::ObjectStore> {
    async fn delete_all(&self) {
        use futures::{StreamExt, TryStreamExt};
        let names = self.list(None).map_ok(|o| o.location).boxed();
        let _: Vec<_> = self.delete_stream(names).try_collect().await.unwrap();
    }
}

#[tokio::test]
async fn i2_a_replica_that_drifted_uploads_nothing() {
    let bench = bench();
    let mut drifted = view(&group(), 10, 20, 500);
    drifted
        .info
        .state_hash
        .add(b"a record", b"that is not there");
    let error = build_and_upload(drifted, &bench.repository, &bench.options(), |_| {})
        .await
        .unwrap_err();
    assert!(
        matches!(error.source, SnapshotError::StateHash { index: 10, .. }),
        "{error}"
    );
    assert_eq!(error.phase, Phase::Build);
    assert_eq!(bench.store.calls(Op::Put), 0);
    assert!(is_empty(&bench.dir.path().join("tmp")));
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut dir| dir.next().is_none())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c06_a_build_that_nobody_waits_for_ends_and_leaves_nothing() {
    let bench = bench();
    let mut endless = view(&group(), 10, 1, 500);
    let (produced, seen) = tokio::sync::watch::channel(0_u64);
    // Ends only because nobody waits for it.
    endless.records = Box::new((0_u64..).map(move |i| {
        produced.send_replace(i);
        Ok((i.to_be_bytes().to_vec(), vec![0; 1000]))
    }));
    let (repository, options) = (bench.repository.clone(), bench.options());
    let task =
        tokio::spawn(async move { build_and_upload(endless, &repository, &options, |_| {}).await });
    let mut seen = seen;
    seen.wait_for(|i| *i > 1000).await.unwrap();
    assert!(!is_empty(&bench.dir.path().join("tmp")));
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    // The writing thread drops its sender when it ends.
    let ended = async { while seen.changed().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), ended)
        .await
        .unwrap();
    for _ in 0..1000 {
        if is_empty(&bench.dir.path().join("tmp")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the temporary file was left behind");
}

#[test]
fn errors_name_object_and_store_and_what_to_do() {
    let error = StoreError {
        kind: Kind::Wait,
        operation: "get",
        object: paths::snapshots(&group()),
        url: "s3://bucket".to_owned(),
        detail: "no answer within 8.0 s".to_owned(),
        hint: "wait".to_owned(),
    };
    assert_eq!(
        error.to_string(),
        "get \"snapshots/config/0\" in s3://bucket: no answer within 8.0 s\nhint: wait"
    );
}
