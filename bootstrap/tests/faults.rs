//! A store that fails by script while a group is restored: each time the right end, in bounded time.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{assert_is, limits, publish, red};
use confman_bootstrap::{GroupTask, Limits, RestoreOutcome, RestoreReport, Restorer};
use confman_snapshot::model::GroupId;
use confman_snapshot::repository::RepositoryOptions;
use confman_snapshot::testing::{Failure, Fault, FaultStore, Op, Rule};
use confman_snapshot::{Repository, SnapshotRecord};
use confman_store::DataPaths;

/// Two snapshots in a store that does what its script says.
struct Bench {
    store: FaultStore,
    repository: Repository,
    dir: tempfile::TempDir,
    old: SnapshotRecord,
    new: SnapshotRecord,
}

async fn bench() -> Bench {
    bench_with(RepositoryOptions {
        backoff: Duration::from_millis(1),
        small_try: Duration::from_millis(300),
        small_total: Duration::from_secs(1),
        transfer_try: Duration::from_millis(300),
        transfer_total: Duration::from_secs(1),
        list_total: Duration::from_secs(1),
        ..RepositoryOptions::default()
    })
    .await
}

async fn bench_with(options: RepositoryOptions) -> Bench {
    let store = FaultStore::in_memory();
    let repository = Repository::over(Arc::new(store.clone()), "prefix", "fault://test", options);
    let dir = tempfile::tempdir().unwrap();
    let group = GroupId::config(0);
    let old = publish(&repository, dir.path().to_owned(), &group, 40, 400).await;
    let new = publish(&repository, dir.path().to_owned(), &group, 60, 400).await;
    Bench {
        store,
        repository,
        dir,
        old,
        new,
    }
}

impl Bench {
    fn task(&self) -> GroupTask {
        let paths = DataPaths::new(self.dir.path().join("node")).group(&GroupId::config(0));
        GroupTask {
            paths,
            candidates: vec![self.old.clone(), self.new.clone()],
        }
    }

    /// The part of the newest snapshot's object name that no other object has.
    fn newest(&self) -> String {
        self.new.id.to_string()
    }

    async fn restore(&self) -> RestoreOutcome {
        let limits = Limits {
            read: Duration::from_secs(2),
            ..limits()
        };
        let restorer = Restorer::new(Some(self.repository.clone()), red(), limits, || 0);
        let began = Instant::now();
        let outcome = restorer.restore_group(&self.task()).await.unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{:?}",
            began.elapsed()
        );
        outcome
    }

    /// The restore took the newest snapshot.
    async fn takes_the_newest(&self) -> RestoreReport {
        self.takes(&self.new).await
    }

    /// The restore named the newest snapshot and took the one before.
    async fn falls_back(&self) -> RestoreReport {
        let report = self.takes(&self.old).await;
        assert_eq!(report.skipped.len(), 1, "{report:?}");
        assert_eq!(report.skipped[0].snapshot, self.newest());
        report
    }

    async fn takes(&self, record: &SnapshotRecord) -> RestoreReport {
        let outcome = self.restore().await;
        let RestoreOutcome::FromStore(report) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(report.snapshot, Some(record.id.to_string()), "{report:?}");
        assert_is(&self.task().paths, record, 400);
        report
    }

    /// The restore left the group to its leader, and nothing on the disk but the report.
    async fn leaves_it_to_the_leader(&self) -> RestoreReport {
        let outcome = self.restore().await;
        let RestoreOutcome::NotFromStore(report) = outcome else {
            panic!("{outcome:?}")
        };
        let paths = self.task().paths;
        for path in [
            paths.state(),
            paths.state_new(),
            paths.log(),
            paths.log_new(),
        ] {
            assert!(!path.exists(), "{path:?}");
        }
        assert!(!report.why_not_store.is_empty() && !report.why_not_store.contains('\n'));
        report
    }
}

#[tokio::test]
async fn i18_a_store_that_goes_away_in_the_middle_leaves_nothing_behind() {
    for gets in [0, 1, 2, 4, 8] {
        let bench = bench().await;
        let gone = Rule::on(Op::Get, Fault::Before(Failure::Unreachable));
        bench.store.add(gone.after(gets).always());
        let report = bench.leaves_it_to_the_leader().await;
        assert!(report.skipped.is_empty(), "after {gets} reads: {report:?}");
        bench.store.heal();
    }
}

#[tokio::test]
async fn i18_a_store_that_stops_answering_in_the_middle_costs_bounded_time() {
    let bench = bench().await;
    bench
        .store
        .add(Rule::on(Op::Get, Fault::Hang).after(3).always());
    let report = bench.leaves_it_to_the_leader().await;
    assert!(report.read_bytes > 0, "{report:?}");
}

/// The outer fence holds even where the repository would wait much longer.
#[tokio::test]
async fn i18_a_patient_repository_does_not_make_the_restore_wait() {
    let bench = bench_with(RepositoryOptions::default()).await;
    bench
        .store
        .add(Rule::on(Op::Get, Fault::Hang).after(3).always());
    let report = bench.leaves_it_to_the_leader().await;
    assert!(
        report.why_not_store.contains("no answer within 2s"),
        "{report:?}"
    );
}

#[tokio::test]
async fn i18_a_store_that_is_busy_now_and_then_is_tried_again() {
    let bench = bench().await;
    let busy = || Rule::on(Op::Get, Fault::Before(Failure::Busy));
    bench.store.add(busy().after(2));
    bench.store.add(busy().after(5).times(2));
    bench.takes_the_newest().await;
}

#[tokio::test]
async fn i9_a_bit_that_flips_on_every_way_is_damage_and_one_that_flips_once_is_not() {
    let bench = bench().await;
    bench
        .store
        .add(Rule::on(Op::Get, Fault::Flip(4000)).after(2));
    bench.takes_the_newest().await;

    let bench = self::bench().await;
    bench.store.add(
        Rule::on(Op::Get, Fault::Flip(4000))
            .named(&bench.newest())
            .after(2)
            .always(),
    );
    bench.falls_back().await;
}

#[tokio::test]
async fn i9_a_short_body_and_another_objects_body_are_never_applied() {
    let bench = bench().await;
    bench.store.add(
        Rule::on(Op::Get, Fault::Swap(format!("prefix/{}", bench.old.object)))
            .named(&bench.newest())
            .always(),
    );
    bench.falls_back().await;

    let bench = self::bench().await;
    bench.store.add(
        Rule::on(Op::Get, Fault::Truncate(100))
            .named(&bench.newest())
            .after(3)
            .always(),
    );
    bench.falls_back().await;
}

/// Retention deletes the snapshot while it is being read.
#[tokio::test]
async fn c17_a_snapshot_that_is_deleted_in_the_middle_is_skipped() {
    let bench = bench().await;
    let gone = Rule::on(Op::Get, Fault::Before(Failure::Gone));
    bench
        .store
        .add(gone.named(&bench.newest()).after(3).always());
    bench.falls_back().await;
}

#[tokio::test]
async fn o10_a_list_that_hides_the_newest_hides_it_from_nobody() {
    let bench = bench().await;
    bench
        .store
        .add(Rule::on(Op::List, Fault::Hide(bench.newest())).always());
    let report = bench.takes_the_newest().await;
    assert!(report.skipped.is_empty(), "{report:?}");
}

#[tokio::test]
async fn o13_a_store_that_denies_lists_is_read_all_the_same() {
    let bench = bench().await;
    bench
        .store
        .add(Rule::on(Op::List, Fault::Before(Failure::Denied)).always());
    bench.takes_the_newest().await;
}

#[tokio::test]
async fn o13_a_store_that_denies_reads_leaves_the_group_to_its_leader() {
    let bench = bench().await;
    bench
        .store
        .add(Rule::on(Op::Get, Fault::Before(Failure::Denied)).always());
    bench
        .store
        .add(Rule::on(Op::Head, Fault::Before(Failure::Denied)).always());
    let report = bench.leaves_it_to_the_leader().await;
    assert!(report.skipped.is_empty(), "{report:?}");
}

/// A restore that ended without the store is taken up when the store is back, as long as the leader has not begun.
#[tokio::test]
async fn a_store_that_comes_back_before_the_group_starts_is_used() {
    let bench = bench().await;
    bench.store.set_down(true);
    bench.leaves_it_to_the_leader().await;
    bench.store.heal();
    bench.takes_the_newest().await;
}
