//! What is measured of requests, and of snapshots that fail: alerts stand on it.

use confman_snapshot::build::build_and_upload;
use confman_snapshot::paths::{self, NoteKind};
use confman_snapshot::repository::Probe;
use confman_snapshot::testing::{Failure, Fault, Op, Rule, view};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::{Bench, CHUNK_BYTES, group};
use crate::place::Place;

/// What this thread measures, for as long as both are held. Every test here runs on one thread.
fn measuring() -> (impl Drop, PrometheusHandle) {
    let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    let handle = recorder.handle();
    (metrics::set_default_local_recorder(recorder), handle)
}

/// The series of these metrics, histograms by their counts.
fn shown(handle: &PrometheusHandle, metrics: &[&str]) -> Vec<String> {
    let text = handle.render();
    let of_it = |line: &&str| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        metrics.contains(&name)
    };
    let mut lines: Vec<String> = text.lines().filter(of_it).map(str::to_owned).collect();
    lines.sort();
    lines
}

const ERRORS: &[&str] = &["confman_store_errors_total"];

#[tokio::test]
async fn a_store_that_is_well_has_no_errors_whatever_is_not_there_or_there_already() {
    let (_held, handle) = measuring();
    let bench = Bench::at(&Place::memory());
    // Looks that find nothing, a condition that does not hold, an upload that is there already, a pin that is not.
    let probed: Probe = bench.repository.probe_short().await.unwrap();
    assert!(probed.list_after_put);
    let record = bench.small().await.unwrap();
    bench.small().await.unwrap();
    bench.large().await.unwrap_err();
    assert!(
        !bench
            .repository
            .has_note(NoteKind::Pin, &group(), &record.id)
            .await
            .unwrap()
    );
    assert_eq!(shown(&handle, ERRORS), [""; 0]);
    let requests = shown(&handle, &["confman_store_requests_total"]);
    for (operation, result) in [
        ("head", "not-found"),
        ("put", "conflict"),
        ("put", "ok"),
        ("get", "ok"),
        ("list", "ok"),
        ("delete", "ok"),
    ] {
        let series = format!(
            "confman_store_requests_total{{operation=\"{operation}\",result=\"{result}\"}} "
        );
        assert!(
            requests.iter().any(|line| line.starts_with(&series)),
            "{series}: {requests:?}"
        );
    }
    let bytes = shown(&handle, &["confman_store_bytes_total"]);
    let of = |operation: &str| -> u64 {
        let series = format!("confman_store_bytes_total{{operation=\"{operation}\"}} ");
        let line = bytes.iter().find_map(|line| line.strip_prefix(&series));
        line.unwrap().parse().unwrap()
    };
    assert!(
        of("put") >= record.object_bytes && of("get") >= record.object_bytes,
        "{bytes:?}"
    );
}

#[tokio::test]
async fn each_try_that_fails_is_an_error_and_each_one_more_a_retry() {
    let (_held, handle) = measuring();
    let bench = Bench::at(&Place::memory());
    let busy = Fault::Before(Failure::Busy);
    bench.store.add(Rule::on(Op::Put, busy).times(2));
    bench.small().await.unwrap();
    let series = |metric: &str| shown(&handle, &[metric]);
    assert_eq!(
        series("confman_store_errors_total"),
        ["confman_store_errors_total{operation=\"put\",kind=\"retry\"} 2"]
    );
    assert_eq!(
        series("confman_store_retries_total"),
        ["confman_store_retries_total{operation=\"put\"} 2"]
    );
    // An upload in parts that fails and cannot be undone may cost money.
    let unreachable = || Fault::Before(Failure::Unreachable);
    let bench = Bench::at(&Place::memory());
    bench.store.add(Rule::on(Op::Part, unreachable()).always());
    bench.store.add(Rule::on(Op::Abort, unreachable()).always());
    bench.large().await.unwrap_err();
    let not_aborted = series("confman_store_uploads_not_aborted_total");
    assert_eq!(not_aborted, ["confman_store_uploads_not_aborted_total 3"]);
}

#[tokio::test]
async fn a_snapshot_that_comes_back_damaged_is_counted_as_damage() {
    let (_held, handle) = measuring();
    let bench = Bench::at(&Place::memory());
    bench.store.add(Rule::on(Op::Get, Fault::Flip(3)).always());
    bench.small().await.unwrap_err();
    assert_eq!(
        shown(&handle, &["confman_snapshot_errors_total"]),
        ["confman_snapshot_errors_total{group=\"config/0\",phase=\"verify\",kind=\"damaged\"} 1"]
    );
    // The store did what it was asked.
    assert_eq!(shown(&handle, ERRORS), [""; 0]);
    let phases = shown(&handle, &["confman_snapshot_phase_seconds_count"]);
    for (phase, result) in [("build", "ok"), ("upload", "ok"), ("verify", "failed")] {
        let series = format!(
            "confman_snapshot_phase_seconds_count{{group=\"config/0\",phase=\"{phase}\",result=\"{result}\"}} 1"
        );
        assert!(phases.contains(&series), "{series}: {phases:?}");
    }
}

#[tokio::test]
async fn i2_a_builder_whose_database_drifted_is_counted_as_a_state_that_differs() {
    let (_held, handle) = measuring();
    let bench = Bench::at(&Place::memory());
    let mut drifted = view(&group(), 10, 20, 500);
    drifted
        .info
        .state_hash
        .add(b"a record", b"that is not there");
    let options = bench.options(CHUNK_BYTES);
    build_and_upload(drifted, &bench.repository, &options, |_| {})
        .await
        .unwrap_err();
    let metrics = [
        "confman_snapshot_errors_total",
        "confman_state_hash_mismatches_total",
    ];
    assert_eq!(
        shown(&handle, &metrics),
        [
            "confman_snapshot_errors_total{group=\"config/0\",phase=\"build\",kind=\"diverged\"} 1",
            "confman_state_hash_mismatches_total{group=\"config/0\"} 1",
        ]
    );
}

#[tokio::test]
async fn objects_that_are_not_ours_are_measured_until_they_are_gone() {
    let (_held, handle) = measuring();
    let place = Place::disk();
    let bench = Bench::at(&place);
    let record = bench.small().await.unwrap();
    let objects = place.dir.path().join("objects").join(&bench.prefix);
    let ours = objects.join(&record.object);
    let folder = paths::snapshots(&group());
    let series = |count: u64| {
        [format!(
            "confman_store_foreign_objects{{folder=\"{folder}\"}} {count}"
        )]
    };
    let measured = || shown(&handle, &["confman_store_foreign_objects"]);
    let foreign = ours.with_file_name("holiday.jpg");
    for (there, count) in [(false, 0), (true, 1), (false, 0)] {
        if there {
            std::fs::write(&foreign, b"x").unwrap();
        } else if foreign.exists() {
            std::fs::remove_file(&foreign).unwrap();
        }
        bench.repository.list_snapshots(&group()).await.unwrap();
        assert_eq!(measured(), series(count));
    }
}
