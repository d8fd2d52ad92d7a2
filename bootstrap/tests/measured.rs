//! What is measured of restores: alerts and dashboards stand on it.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::World;
use confman_bootstrap::RestoreOutcome;
use confman_snapshot::model::GroupId;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// What this thread measures, for as long as both are held. The tests here run on one thread.
fn measuring() -> (impl Drop, PrometheusHandle) {
    let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    let handle = recorder.handle();
    (metrics::set_default_local_recorder(recorder), handle)
}

fn count(handle: &PrometheusHandle, series: &str) -> Option<u64> {
    let text = handle.render();
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.map(|value| value.trim().parse().unwrap())
}

const SKIPPED: &str = "confman_restore_skipped_snapshots_total{group=\"config/0\"}";

fn whole(result: &str) -> String {
    format!("confman_restore_seconds_count{{group=\"config/0\",result=\"{result}\"}}")
}

fn phase(phase: &str, result: &str) -> String {
    format!(
        "confman_restore_phase_seconds_count{{group=\"config/0\",phase=\"{phase}\",result=\"{result}\"}}"
    )
}

#[tokio::test]
async fn a_damaged_snapshot_that_is_passed_over_is_counted() {
    let (_held, handle) = measuring();
    let world = World::on_disk().await;
    let group = GroupId::config(0);
    let old = world.publish(&group, 40, 30).await;
    let new = world.publish(&group, 60, 30).await;
    let object = world.object_file(&new);
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let task = world.task(&group, &[old, new]);
    let restored = world.restorer().restore_group(&task).await.unwrap();
    assert!(
        matches!(restored, RestoreOutcome::FromStore(_)),
        "{restored:?}"
    );
    assert_eq!(count(&handle, SKIPPED), Some(1));
    assert_eq!(count(&handle, &whole("store")), Some(1));
    assert_eq!(count(&handle, &phase("list", "ok")), Some(1));
    let failed = count(&handle, &phase("open", "failed")).unwrap_or(0)
        + count(&handle, &phase("install", "failed")).unwrap_or(0);
    assert_eq!(failed, 1, "{}", handle.render());
    assert_eq!(count(&handle, &phase("install", "ok")), Some(1));

    // Found finished, it was no restore.
    let again = world.restorer().restore_group(&task).await.unwrap();
    assert!(matches!(again, RestoreOutcome::Already(_)), "{again:?}");
    assert_eq!(count(&handle, &whole("store")), Some(1));
    assert_eq!(count(&handle, SKIPPED), Some(1));
}

#[tokio::test]
async fn a_restore_without_a_good_snapshot_is_the_leaders_and_begins_to_count_at_zero() {
    let (_held, handle) = measuring();
    let world = World::on_disk().await;
    let task = world.task(&GroupId::config(0), &[]);
    world.restorer().restore_group(&task).await.unwrap();
    assert_eq!(count(&handle, SKIPPED), Some(0));
    assert_eq!(count(&handle, &whole("leader")), Some(1));
}
