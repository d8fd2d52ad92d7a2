//! The long probe against stores that do otherwise than they say: each lie has its line in the table, only what is needed
//! makes a store unsuitable, and nothing is left behind that can be deleted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;

use confman_dev_s3::{ConditionalWrites, S3Config, serve};
use confman_snapshot::Repository;
use confman_snapshot::repository::{
    Check, LongProbe, ProbePlan, ProbeReport, RepositoryOptions, Suitability, Verdict,
};
use confman_snapshot::testing::{Failure, Fault, FaultStore, Op, Rule};
use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;

fn options() -> RepositoryOptions {
    RepositoryOptions {
        backoff: Duration::from_millis(1),
        small_try: Duration::from_millis(500),
        transfer_try: Duration::from_millis(500),
        ..RepositoryOptions::default()
    }
}

fn plan() -> ProbePlan {
    ProbePlan {
        big_bytes: Some(9 << 20),
        rounds: 2,
        ..ProbePlan::default()
    }
}

struct Tried {
    store: FaultStore,
    report: ProbeReport,
}

async fn probe(rules: Vec<Rule>) -> Tried {
    probe_with(rules, |_| plan()).await
}

/// With a plan that asks this same store in other ways too.
async fn probe_with(rules: Vec<Rule>, plan: impl FnOnce(&Repository) -> ProbePlan) -> Tried {
    let store = FaultStore::in_memory();
    let another = object_store::path::Path::from(ANOTHER);
    store.inner().put(&another, "another".into()).await.unwrap();
    for rule in rules {
        store.add(rule);
    }
    let repository = Repository::over(Arc::new(store.clone()), "p", "fault://p", options());
    let probe = LongProbe::new(&repository, plan(&repository));
    let report = probe.run(|_| {}).await.unwrap();
    store.inner().delete(&another).await.unwrap();
    Tried { store, report }
}

/// An object that is there, and not of the probe.
const ANOTHER: &str = "another";

impl Tried {
    fn check(&self, name: &str) -> &Check {
        let check = self.report.checks.iter().find(|check| check.name == name);
        check.unwrap_or_else(|| panic!("no check {name}"))
    }

    fn verdict(&self, name: &str) -> Verdict {
        self.check(name).verdict
    }

    /// The names of the checks that are not good, and of no others.
    fn not_good(&self) -> Vec<&str> {
        let checks = self.report.checks.iter();
        // Memory has neither, and says so.
        let known = ["bulk-delete", "checksum-headers"];
        checks
            .filter(|check| check.verdict != Verdict::Good && !known.contains(&check.name))
            .map(|check| check.name)
            .collect()
    }

    async fn objects(&self) -> Vec<String> {
        let listed = self.store.inner().list(None);
        let all: Vec<_> = listed.try_collect().await.unwrap();
        all.iter().map(|meta| meta.location.to_string()).collect()
    }
}

#[tokio::test]
async fn an_honest_store_is_good_at_everything_and_nothing_is_left_behind() {
    let tried = probe(vec![]).await;
    assert_eq!(tried.not_good(), Vec::<&str>::new(), "{:?}", tried.report);
    assert_eq!(tried.report.suitability, Suitability::SuitableWithLimits);
    assert!(
        tried
            .report
            .upload_bytes_per_second
            .is_some_and(|rate| rate > 0.0)
    );
    assert_eq!(tried.report.latencies.len(), 5);
    assert!(tried.report.left_behind.is_empty());
    assert_eq!(tried.objects().await, Vec::<String>::new());
}

#[tokio::test]
async fn o12_conditions_that_are_accepted_and_ignored_are_found_and_do_no_harm() {
    let tried = probe(vec![Rule::on(Op::Put, Fault::Unconditional).always()]).await;
    let expected = [
        "create-if-absent",
        "create-race",
        "stale-if-match",
        "if-match-on-missing",
    ];
    assert_eq!(tried.not_good(), expected, "{:?}", tried.report);
    for name in expected {
        assert_eq!(tried.verdict(name), Verdict::Limited, "{name}");
    }
    assert_eq!(tried.report.suitability, Suitability::SuitableWithLimits);
    let race = tried.report.checks.iter().find(|c| c.name == "create-race");
    assert!(race.unwrap().found.starts_with("8 of 8"), "{race:?}");
    assert_eq!(tried.objects().await, Vec::<String>::new());
}

#[tokio::test]
async fn o12_conditions_that_hold_one_at_a_time_only_are_found_in_the_race() {
    let tried = probe(vec![Rule::on(Op::Put, Fault::LookThenPut).always()]).await;
    assert_eq!(tried.not_good(), ["create-race"], "{:?}", tried.report);
    assert_eq!(tried.verdict("create-race"), Verdict::Limited);
    assert_eq!(tried.objects().await, Vec::<String>::new());
}

#[tokio::test]
async fn o10_a_store_that_does_not_list_what_was_put_is_unsuitable() {
    let hide = Fault::Hide("listed-3".to_owned());
    let tried = probe(vec![Rule::on(Op::List, hide).always()]).await;
    assert_eq!(tried.not_good(), ["list-after-write"]);
    assert_eq!(tried.report.suitability, Suitability::Unsuitable);
    // What was made is known without any listing.
    assert_eq!(tried.objects().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_deletion_that_says_yes_and_does_nothing_is_found_and_what_stays_is_named() {
    let tried = probe(vec![Rule::on(Op::Delete, Fault::Nothing).always()]).await;
    assert_eq!(tried.not_good(), ["delete"]);
    let found = &tried
        .report
        .checks
        .iter()
        .find(|c| c.name == "delete")
        .unwrap()
        .found;
    assert!(found.contains("does nothing"), "{found}");
    let mut there = tried.objects().await;
    let mut named: Vec<String> = tried
        .report
        .left_behind
        .iter()
        .map(|o| format!("p/{o}"))
        .collect();
    there.sort();
    named.sort();
    assert_eq!(named, there);
    assert!(!named.is_empty());
}

#[tokio::test]
async fn o13_a_store_that_may_not_delete_is_suitable_with_limits() {
    let denied = Fault::Before(Failure::Denied);
    let tried = probe(vec![Rule::on(Op::Delete, denied).always()]).await;
    assert_eq!(tried.verdict("delete"), Verdict::Limited);
    assert_eq!(tried.report.suitability, Suitability::SuitableWithLimits);
    assert!(!tried.report.left_behind.is_empty());
}

#[tokio::test]
async fn o07_flipped_and_cut_bodies_are_found() {
    let ranges = Rule::on(Op::Get, Fault::Flip(77)).named("range").always();
    let big = Rule::on(Op::Get, Fault::Flip(12_345))
        .named("-big")
        .after(1);
    let parts = Rule::on(Op::Get, Fault::Truncate(1_000)).named("-parts");
    let tried = probe(vec![ranges, big, parts]).await;
    assert_eq!(
        tried.not_good(),
        ["range-reads", "multipart-complete", "big-object"]
    );
    assert_eq!(tried.report.suitability, Suitability::Unsuitable);
    assert_eq!(tried.objects().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_part_that_fails_aborts_its_upload() {
    let busy = Fault::Before(Failure::Full);
    let tried = probe(vec![Rule::on(Op::Part, busy).named("-big").always()]).await;
    assert_eq!(tried.not_good(), ["big-object"]);
    // Of the check that aborts on purpose, and of this one.
    assert_eq!(tried.store.calls(Op::Abort), 2);
}

#[tokio::test]
async fn an_object_that_nobody_put_and_that_is_there_makes_a_store_unsuitable() {
    let other = || Fault::Swap(ANOTHER.to_owned());
    for (op, found) in [(Op::Head, "is there"), (Op::Get, "can be read")] {
        let tried = probe(vec![Rule::on(op, other()).named("-missing")]).await;
        assert_eq!(tried.not_good(), ["missing-object"]);
        assert_eq!(tried.verdict("missing-object"), Verdict::Failed);
        assert!(tried.check("missing-object").found.ends_with(found));
        assert_eq!(tried.report.suitability, Suitability::Unsuitable);
    }
}

#[tokio::test]
async fn a_suffix_that_is_another_is_a_limit() {
    for (fault, found) in [
        // As who knows no suffixes and gives the first bytes, and less of them.
        (Fault::Flip(5), "68 bytes come back"),
        (Fault::Truncate(10), "10 bytes come back"),
    ] {
        let tried = probe(vec![Rule::on(Op::Get, fault).named("-suffix")]).await;
        assert_eq!(tried.not_good(), ["suffix-read"]);
        assert_eq!(tried.verdict("suffix-read"), Verdict::Limited);
        assert!(tried.check("suffix-read").found.starts_with(found));
        assert_eq!(tried.report.suitability, Suitability::SuitableWithLimits);
    }
}

#[tokio::test]
async fn an_upload_that_cannot_be_undone_is_a_limit_and_one_that_is_there_all_the_same_is_worse() {
    let denied = Fault::Before(Failure::Denied);
    let tried = probe(vec![Rule::on(Op::Abort, denied)]).await;
    assert_eq!(tried.not_good(), ["multipart-abort"]);
    assert_eq!(tried.verdict("multipart-abort"), Verdict::Limited);
    let found = &tried.check("multipart-abort").found;
    assert!(found.starts_with("parts stay behind"), "{found}");

    let there = Fault::Swap(ANOTHER.to_owned());
    let tried = probe(vec![Rule::on(Op::Head, there).named("-aborted")]).await;
    assert_eq!(tried.not_good(), ["multipart-abort"]);
    assert_eq!(tried.verdict("multipart-abort"), Verdict::Failed);
    // Uploads in parts work without it.
    assert_eq!(tried.report.suitability, Suitability::SuitableWithLimits);
}

#[tokio::test]
async fn a_clock_that_is_off_is_seen_and_by_how_much() {
    let seconds = Duration::from_secs;
    for (fault, verdict, ahead) in [
        (Fault::Late(seconds(60)), Verdict::Limited, 60.0),
        (Fault::Early(seconds(60)), Verdict::Limited, -60.0),
        // Whoever signs requests is refused.
        (Fault::Late(seconds(1000)), Verdict::Failed, 1000.0),
        (Fault::Early(seconds(1000)), Verdict::Failed, -1000.0),
    ] {
        let tried = probe(vec![Rule::on(Op::Head, fault).named("-clock")]).await;
        assert_eq!(tried.not_good(), ["clock"]);
        assert_eq!(tried.verdict("clock"), verdict);
        let seen = tried.report.clock_ahead_seconds.unwrap();
        assert!((seen - ahead).abs() < 3.0, "{seen} for {ahead}");
        assert_eq!(tried.report.suitability, Suitability::SuitableWithLimits);
    }
}

#[tokio::test]
async fn a_bulk_deletion_that_says_yes_and_does_nothing_is_found() {
    let bulk = |repository: &Repository| ProbePlan {
        bulk: Some(repository.clone()),
        ..plan()
    };
    let honest = probe_with(vec![], bulk).await;
    assert_eq!(honest.verdict("bulk-delete"), Verdict::Good);
    for (fault, found) in [
        (Fault::Nothing, "3 of three are there, and it says of 4"),
        (
            Fault::After(Failure::Busy),
            "three are gone, and it says so of 0",
        ),
    ] {
        let lie = Rule::on(Op::Delete, fault).named("-bulk-").times(4);
        let tried = probe_with(vec![lie], bulk).await;
        assert_eq!(tried.verdict("bulk-delete"), Verdict::Limited);
        let seen = &tried.check("bulk-delete").found;
        assert!(seen.starts_with(found), "{seen}");
        assert_eq!(tried.report.suitability, Suitability::SuitableWithLimits);
        assert_eq!(tried.objects().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_checksum_that_nobody_compares_is_ignored_and_not_good() {
    // Not altered: all that counts is what is said to the put that should be refused.
    let summed = |repository: &Repository| ProbePlan {
        checksums: Some(repository.clone()),
        altered: Some(repository.clone()),
        ..plan()
    };
    let refused = |name| Rule::on(Op::Put, Fault::Before(Failure::Unsaid)).named(name);
    let written = Rule::on(Op::Put, Fault::After(Failure::Unsaid)).named("-summed-altered");
    let busy = Rule::on(Op::Put, Fault::Before(Failure::Busy)).named("-summed-altered");
    let flipped = Rule::on(Op::Get, Fault::Flip(3)).named("-summed");
    for (rules, verdict, found) in [
        (vec![refused("-summed-altered")], Verdict::Good, "the right"),
        (vec![], Verdict::Ignored, "accepted and ignored"),
        (vec![written], Verdict::Failed, "a wrong"),
        (vec![busy], Verdict::Failed, "put \"probe/"),
        (vec![refused("-summed")], Verdict::Limited, "a put with"),
        (vec![flipped], Verdict::Limited, "what was put"),
        (vec![refused("-summed-same")], Verdict::Limited, "taken"),
    ] {
        let tried = probe_with(rules, summed).await;
        let check = tried.check("checksum-headers");
        assert_eq!(check.verdict, verdict, "{check:?}");
        assert!(check.found.starts_with(found), "{check:?}");
        assert_eq!(tried.report.suitability, Suitability::SuitableWithLimits);
        assert_eq!(tried.objects().await, Vec::<String>::new());
    }
    let unseen = |repository: &Repository| ProbePlan {
        checksums: Some(repository.clone()),
        ..plan()
    };
    let tried = probe_with(vec![], unseen).await;
    assert_eq!(tried.verdict("checksum-headers"), Verdict::Limited);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_an_error_and_no_table() {
    let store = FaultStore::in_memory();
    store.add(Rule::on(Op::Put, Fault::Before(Failure::Denied)).always());
    let repository = Repository::over(Arc::new(store.clone()), "", "fault://", options());
    let error = LongProbe::new(&repository, plan())
        .run(|_| {})
        .await
        .unwrap_err();
    assert_eq!(error.kind.name(), "credentials");
    // The same when it lies about what it holds.
    store.heal();
    store.add(Rule::on(Op::Get, Fault::Flip(3)).always());
    let error = LongProbe::new(&repository, plan())
        .run(|_| {})
        .await
        .unwrap_err();
    assert_eq!(error.kind.name(), "damaged");
    let left: Vec<_> = store.inner().list(None).try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_probe_that_is_stopped_cleans_up() {
    let store = FaultStore::in_memory();
    let repository = Repository::over(Arc::new(store.clone()), "p", "fault://p", options());
    let probe = LongProbe::new(&repository, plan());
    let report = probe
        .run(|check| {
            if check == "create-race" {
                probe.stop();
            }
        })
        .await
        .unwrap();
    assert_eq!(report.suitability, Suitability::Unknown);
    assert!(report.checks.iter().all(|check| check.name != "big-object"));
    let left: Vec<_> = store.inner().list(None).try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// Against a real server over HTTP, with bulk deletion and checksums in headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_s3_server_of_confman_dev_is_suitable() {
    let root = tempfile::tempdir().unwrap();
    let server = serve(S3Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        root: root.path().join("s3"),
        access_key: "probe".to_owned(),
        secret_key: "probe-secret".to_owned(),
        bucket: "bucket".to_owned(),
        conditional_writes: ConditionalWrites::default(),
    })
    .await
    .unwrap();
    let open = async |alter_bodies, more: &[(&str, &str)]| {
        let more = more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let env = server.env().into_iter().chain(more);
        let options = RepositoryOptions {
            alter_bodies,
            ..RepositoryOptions::default()
        };
        Repository::open_with("s3://bucket/x", root.path(), env, options)
            .await
            .unwrap()
    };
    let (summed, unsigned) = (
        ("AWS_CHECKSUM_ALGORITHM", "sha256"),
        ("AWS_UNSIGNED_PAYLOAD", "true"),
    );
    let plan = ProbePlan {
        bulk: Some(open(false, &[("AWS_DISABLE_BULK_DELETE", "false")]).await),
        checksums: Some(open(false, &[summed]).await),
        altered: Some(open(true, &[summed, unsigned]).await),
        ..plan()
    };
    let repository = open(false, &[]).await;
    // Without a checksum in the header nobody finds out; it is read back as other bytes.
    let blind = ProbePlan {
        altered: Some(open(true, &[unsigned]).await),
        ..plan.clone()
    };
    let report = LongProbe::new(&repository, blind)
        .run(|_| {})
        .await
        .unwrap();
    let check = report.checks.iter().find(|c| c.name == "checksum-headers");
    assert_eq!(check.unwrap().verdict, Verdict::Ignored, "{check:?}");
    let report = LongProbe::new(&repository, plan).run(|_| {}).await.unwrap();
    let table: Vec<String> = report
        .checks
        .iter()
        .map(|c| format!("{} {:?}: {}", c.name, c.verdict, c.found))
        .collect();
    assert_ne!(report.suitability, Suitability::Unsuitable, "{table:#?}");
    for name in [
        "create-if-absent",
        "create-race",
        "bulk-delete",
        "checksum-headers",
    ] {
        let check = report.checks.iter().find(|c| c.name == name).unwrap();
        assert_eq!(check.verdict, Verdict::Good, "{table:#?}");
    }
    assert!(report.left_behind.is_empty(), "{:?}", report.left_behind);
}
