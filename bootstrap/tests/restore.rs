//! A group comes back from the store: the newest good snapshot, and what happens to the bad ones.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{World, assert_is, limits, red, restorer};
use confman_bootstrap::report::{self, Source, Stage};
use confman_bootstrap::{GroupTask, Limits, RestoreError, RestoreOutcome, RestoreReport, Restorer};
use confman_snapshot::model::{ClusterId, GroupId};
use confman_snapshot::{Repository, SnapshotRecord};

fn group() -> GroupId {
    GroupId::config(0)
}

/// The report of a restore that took its state from the store.
fn from_store(outcome: RestoreOutcome) -> RestoreReport {
    match outcome {
        RestoreOutcome::FromStore(report) => report,
        other => panic!("not from the store: {other:?}"),
    }
}

/// The report of a restore that leaves the group to its leader.
fn not_from_store(outcome: RestoreOutcome) -> RestoreReport {
    match outcome {
        RestoreOutcome::NotFromStore(report) => report,
        other => panic!("not left to the leader: {other:?}"),
    }
}

/// Nothing that could be taken for a state lies there.
fn assert_no_state(world: &World) {
    let paths = world.paths(&group());
    assert!(!paths.state().exists() && !paths.state_new().exists() && !paths.log().exists());
}

#[tokio::test]
async fn i11_the_restored_state_is_the_recorded_one() {
    for world in [World::on_disk().await, World::in_memory("i11").await] {
        let old = world.publish(&group(), 40, 30).await;
        let new = world.publish(&group(), 60, 500).await;
        let task = world.task(&group(), &[old, new.clone()]);
        let report = from_store(world.restorer().restore_group(&task).await.unwrap());
        assert_eq!(report.snapshot, Some(new.id.to_string()));
        assert_eq!(
            (report.snapshot_index, report.newest_index),
            (Some(60), Some(60))
        );
        assert_eq!(
            (report.source(), report.stage()),
            (Source::Store, Stage::Installed)
        );
        assert_eq!((report.records, report.raw_bytes), (502, new.raw_bytes));
        assert_eq!(report.state_hash, new.state_digest().to_string());
        assert!(
            report.skipped.is_empty() && report.read_bytes > 0,
            "{report:?}"
        );
        assert_eq!(report::read(&task.paths).unwrap(), Some(report));
        assert_is(&task.paths, &new, 500);
    }
}

#[tokio::test]
async fn i9_a_flipped_byte_is_named_and_skipped() {
    let world = World::on_disk().await;
    let old = world.publish(&group(), 40, 200).await;
    let new = world.publish(&group(), 60, 200).await;
    let file = world.object_file(&new);
    let good = fs::read(&file).unwrap();
    // In the header, in chunks at both ends, in the manifest, in the footer.
    let places = [
        0,
        9,
        good.len() / 4,
        good.len() / 2,
        good.len() - 300,
        good.len() - 3,
    ];
    for at in places {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&file, &bad).unwrap();
        let fresh = World {
            data: fresh(&world, at),
            ..reuse(&world).await
        };
        let task = fresh.task(&group(), &[new.clone(), old.clone()]);
        let report = from_store(fresh.restorer().restore_group(&task).await.unwrap());
        assert_eq!(report.snapshot, Some(old.id.to_string()), "byte {at}");
        assert_eq!(
            (report.snapshot_index, report.newest_index),
            (Some(40), Some(60))
        );
        assert_eq!(report.skipped.len(), 1, "{report:?}");
        assert_eq!(report.skipped[0].snapshot, new.id.to_string());
        assert!(
            report.skipped[0].why.contains(&new.object),
            "byte {at}: {report:?}"
        );
        assert!(
            report
                .summary()
                .contains("20 more entries come from the leader's log")
        );
        assert_is(&task.paths, &old, 200);
    }
}

/// Another data directory beside the first.
fn fresh(world: &World, n: usize) -> confman_store::DataPaths {
    confman_store::DataPaths::new(world.dir.path().join(format!("node-{n}")))
}

/// The same store, to be used with another data directory.
async fn reuse(world: &World) -> World {
    World {
        dir: tempfile::tempdir().unwrap(),
        repository: world.repository.clone(),
        data: world.data.clone(),
    }
}

#[tokio::test]
async fn i9_missing_truncated_swapped_and_foreign_objects_are_named_and_skipped() {
    let world = World::on_disk().await;
    let mut records = Vec::new();
    for n in 1..=6 {
        records.push(world.publish(&group(), n * 10, 100).await);
    }
    let file = |n: usize| world.object_file(&records[n - 1]);
    fs::remove_file(file(6)).unwrap();
    let whole = fs::read(file(5)).unwrap();
    fs::write(file(5), &whole[..whole.len() / 2]).unwrap();
    // The body of another object of the same group under this name.
    fs::copy(file(1), file(4)).unwrap();
    fs::write(file(3), b"").unwrap();
    let mut foreign = records[1].clone();
    foreign.cluster_uuid = "22222222-2222-4222-8222-222222222222".to_owned();
    let candidates = [
        &records[0],
        &foreign,
        &records[2],
        &records[3],
        &records[4],
        &records[5],
    ]
    .map(Clone::clone);
    let task = world.task(&group(), &candidates);
    let report = from_store(world.restorer().restore_group(&task).await.unwrap());
    assert_eq!(report.snapshot_index, Some(10));
    let skipped: Vec<u64> = report.skipped.iter().map(|s| s.index).collect();
    assert_eq!(skipped, [20, 60, 50, 40, 30], "{report:?}");
    assert!(report.skipped.iter().all(|s| !s.why.is_empty()));
    assert_is(&task.paths, &records[0], 100);
}

#[tokio::test]
async fn i9_when_none_is_good_nothing_is_applied_and_the_leader_is_asked() {
    let world = World::on_disk().await;
    let old = world.publish(&group(), 40, 100).await;
    let new = world.publish(&group(), 60, 100).await;
    for record in [&old, &new] {
        let file = world.object_file(record);
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    let task = world.task(&group(), &[old, new]);
    let report = not_from_store(world.restorer().restore_group(&task).await.unwrap());
    assert_eq!(
        report.why_not_store,
        "none of the 2 recorded snapshots is good"
    );
    assert_eq!((report.source(), report.skipped.len()), (Source::Peer, 2));
    assert_eq!(
        (
            report.snapshot.as_ref(),
            report.snapshot_index,
            report.records
        ),
        (None, None, 0)
    );
    assert_no_state(&world);
    assert_eq!(report::read(&task.paths).unwrap(), Some(report));
}

#[tokio::test]
async fn a_group_without_recorded_snapshots_is_left_to_its_leader() {
    let world = World::on_disk().await;
    // In the store, and not recorded by the cluster.
    world.publish(&group(), 60, 10).await;
    let report = not_from_store(
        world
            .restorer()
            .restore_group(&world.task(&group(), &[]))
            .await
            .unwrap(),
    );
    assert_eq!(
        report.why_not_store,
        "the cluster has recorded no snapshot of this group"
    );
    let record = world.publish(&group(), 70, 10).await;
    let task = GroupTask {
        paths: fresh(&world, 2).group(&group()),
        candidates: vec![record],
    };
    let report = not_from_store(restorer(None).restore_group(&task).await.unwrap());
    assert_eq!(report.why_not_store, "there is no store");
}

/// Settings of an S3 store at `endpoint`.
fn s3_at(endpoint: &str) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Settings of a store that is not there: nobody listens on port 1.
fn nobody() -> Vec<(String, String)> {
    s3_at("http://127.0.0.1:1")
}

#[tokio::test]
async fn i18_a_store_that_refuses_connections_costs_little_time() {
    let world = World::on_disk().await;
    let record = world.publish(&group(), 60, 10).await;
    let gone = Repository::open("s3://bucket/prefix", world.dir.path(), nobody())
        .await
        .unwrap();
    let began = Instant::now();
    let task = world.task(&group(), &[record]);
    let outcome = restorer(Some(gone)).restore_group(&task).await.unwrap();
    let report = not_from_store(outcome);
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    assert!(
        !report.why_not_store.is_empty() && report.skipped.is_empty(),
        "{report:?}"
    );
    assert_no_state(&world);
}

#[tokio::test]
async fn i18_a_store_that_accepts_and_never_answers_costs_bounded_time() {
    let world = World::on_disk().await;
    let record = world.publish(&group(), 60, 10).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mute = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    let hung = Repository::open("s3://bucket/prefix", world.dir.path(), s3_at(&endpoint))
        .await
        .unwrap();
    let short = Limits {
        reach: Duration::from_secs(1),
        ..limits()
    };
    let began = Instant::now();
    let task = world.task(&group(), &[record]);
    let report = not_from_store(
        Restorer::new(Some(hung), red(), short, || 0)
            .restore_group(&task)
            .await
            .unwrap(),
    );
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(report.why_not_store, "no answer within 1s");
    mute.abort();
}

#[tokio::test]
async fn a_disk_that_is_too_small_is_an_error_before_anything_is_read() {
    let world = World::on_disk().await;
    let record = world.publish(&group(), 60, 300).await;
    let need = record.raw_bytes * limits().disk_factor + limits().spare_bytes;
    let task = world.task(&group(), std::slice::from_ref(&record));
    let tight = world
        .restorer()
        .with_free_bytes(move |_: &Path| Ok(need - 1));
    let error = tight.restore_group(&task).await.unwrap_err();
    assert!(
        matches!(error, RestoreError::Space { need: n, free, .. } if n == need && free == need - 1),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("config/0") && text.contains("\nhint: "),
        "{text}"
    );
    assert!(!task.paths.dir().exists());
    let enough = world.restorer().with_free_bytes(move |_: &Path| Ok(need));
    from_store(enough.restore_group(&task).await.unwrap());
    assert_is(&task.paths, &record, 300);
}

#[tokio::test]
async fn several_groups_must_fit_on_the_disk_together() {
    let world = World::on_disk().await;
    let groups = [GroupId::meta(), GroupId::config(0), GroupId::config(1)];
    let mut tasks = Vec::new();
    let mut one_bytes = 0;
    for group in &groups {
        let record = world.publish(group, 60, 100).await;
        one_bytes = record.raw_bytes;
        tasks.push(world.task(group, &[record]));
    }
    let factor = limits().disk_factor;
    // Enough for each alone, and not for all.
    let free = one_bytes * factor * 2 + limits().spare_bytes;
    let tight = world.restorer().with_free_bytes(move |_: &Path| Ok(free));
    let error = tight.restore_groups(tasks.clone()).await.unwrap_err();
    assert!(error.to_string().contains("restore 3 groups"), "{error}");
    assert!(tasks.iter().all(|task| !task.paths.dir().exists()));

    let outcomes = world
        .restorer()
        .restore_groups(tasks.clone())
        .await
        .unwrap();
    for ((outcome, group), task) in outcomes.into_iter().zip(&groups).zip(&tasks) {
        assert_eq!(from_store(outcome).group, group.to_string());
        assert_is(&task.paths, &task.candidates[0], 100);
    }
}

#[tokio::test]
async fn one_group_without_a_good_snapshot_does_not_keep_the_others_from_theirs() {
    let world = World::on_disk().await;
    let (meta, config) = (GroupId::meta(), GroupId::config(0));
    let bad = world.publish(&meta, 60, 50).await;
    fs::write(world.object_file(&bad), b"not a snapshot").unwrap();
    let good = world.publish(&config, 70, 50).await;
    let tasks = vec![
        world.task(&meta, &[bad]),
        world.task(&config, std::slice::from_ref(&good)),
    ];
    let mut outcomes = world
        .restorer()
        .restore_groups(tasks)
        .await
        .unwrap()
        .into_iter();
    let (first, second) = (outcomes.next().unwrap(), outcomes.next().unwrap());
    assert_eq!(not_from_store(first).skipped.len(), 1);
    assert_eq!(from_store(second).snapshot_index, Some(70));
    assert_is(&world.paths(&config), &good, 50);
}

#[tokio::test]
async fn a_finished_restore_is_found_and_not_repeated() {
    let world = World::on_disk().await;
    let record = world.publish(&group(), 60, 100).await;
    let task = world.task(&group(), std::slice::from_ref(&record));
    let first = from_store(world.restorer().restore_group(&task).await.unwrap());
    let newer = world.publish(&group(), 80, 100).await;
    let again = world.task(&group(), &[newer, record.clone()]);
    let outcome = world.restorer().restore_group(&again).await.unwrap();
    assert_eq!(outcome, RestoreOutcome::Already(first));
    assert_is(&task.paths, &record, 100);
}

#[tokio::test]
async fn a_group_that_its_leader_was_to_feed_takes_the_store_when_it_is_back() {
    let world = World::on_disk().await;
    let record = world.publish(&group(), 60, 100).await;
    let task = world.task(&group(), std::slice::from_ref(&record));
    not_from_store(restorer(None).restore_group(&task).await.unwrap());
    from_store(world.restorer().restore_group(&task).await.unwrap());
    assert_is(&task.paths, &record, 100);

    // Once the leader has begun, what it gave stays.
    let fed = GroupTask {
        paths: fresh(&world, 1).group(&group()),
        ..task.clone()
    };
    let report = not_from_store(restorer(None).restore_group(&fed).await.unwrap());
    drop(confman_store::GroupStore::open(
        fed.paths.clone(),
        confman_store::OpenOptions::new(red()),
    ));
    let outcome = world.restorer().restore_group(&fed).await.unwrap();
    assert_eq!(outcome, RestoreOutcome::Already(report));
}

#[tokio::test]
async fn a_state_that_no_restore_put_there_is_never_touched() {
    let world = World::on_disk().await;
    let record = world.publish(&group(), 60, 10).await;
    let task = world.task(&group(), &[record]);
    let paths = world.paths(&group());
    for (make, what) in [
        (paths.state(), "state.redb"),
        (paths.log().join("x"), "log"),
    ] {
        fs::create_dir_all(make.parent().unwrap()).unwrap();
        fs::write(&make, b"precious").unwrap();
        let error = world.restorer().restore_group(&task).await.unwrap_err();
        assert!(matches!(error, RestoreError::NotEmpty { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(fs::read(&make).unwrap(), b"precious");
        assert!(
            world
                .restorer()
                .restore_groups(vec![task.clone()])
                .await
                .is_err()
        );
        fs::remove_dir_all(paths.dir()).unwrap();
    }
}

#[tokio::test]
async fn a_report_of_another_cluster_or_a_damaged_one_stops_the_restore() {
    let world = World::on_disk().await;
    let record = world.publish(&group(), 60, 10).await;
    let task = world.task(&group(), &[record]);
    from_store(world.restorer().restore_group(&task).await.unwrap());
    let other = ClusterId::new("22222222-2222-4222-8222-222222222222", 1);
    let stranger = Restorer::new(Some(world.repository.clone()), other, limits(), || 0);
    let error = stranger.restore_group(&task).await.unwrap_err();
    assert!(matches!(error, RestoreError::Foreign { .. }), "{error}");

    let mut bytes = fs::read(task.paths.restored()).unwrap();
    bytes[20] ^= 1;
    fs::write(task.paths.restored(), bytes).unwrap();
    let error = world.restorer().restore_group(&task).await.unwrap_err();
    assert!(matches!(error, RestoreError::Report(_)), "{error}");
}

#[tokio::test]
async fn d07_a_report_without_its_state_is_damage_and_not_a_reason_to_begin_anew() {
    let world = World::on_disk().await;
    let record = world.publish(&group(), 60, 10).await;
    let task = world.task(&group(), &[record]);
    from_store(world.restorer().restore_group(&task).await.unwrap());
    fs::remove_file(task.paths.state()).unwrap();
    let error = world.restorer().restore_group(&task).await.unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
}

/// Memory is the chunks that are read ahead: the largest single read stays a chunk however big the state is.
#[tokio::test]
async fn a_restore_reads_each_byte_about_once() {
    let world = World::on_disk().await;
    let record: SnapshotRecord = world.publish(&group(), 60, 2000).await;
    let measured = Arc::new(AtomicU64::new(0));
    let seen = measured.clone();
    let task = world.task(&group(), std::slice::from_ref(&record));
    let restorer = world.restorer().with_free_bytes(move |_: &Path| {
        seen.fetch_add(1, Ordering::Relaxed);
        Ok(u64::MAX)
    });
    let report = from_store(restorer.restore_group(&task).await.unwrap());
    let tail = 256 * 1024;
    assert!(
        report.read_bytes <= record.object_bytes + tail,
        "{report:?}"
    );
    assert!(report.read_bytes >= record.object_bytes / 2, "{report:?}");
    assert!(
        measured.load(Ordering::Relaxed) >= 2,
        "space is checked before and after opening"
    );
}
