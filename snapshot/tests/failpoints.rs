//! A build that fails between its phases: each failure is named, and nothing is left behind but what may be.
//! In a file of its own, because failpoints belong to the process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use confman_snapshot::build::{BuildOptions, Phase, build_and_upload};
use confman_snapshot::testing::view;
use confman_snapshot::{GroupId, Repository, WriteOptions};

#[tokio::test]
async fn w_every_phase_can_fail_and_the_next_build_goes_through() {
    let scenario = fail::FailScenario::setup();
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open("file://{data}/objects", dir.path(), [])
        .await
        .unwrap();
    let group = GroupId::config(0);
    let points = [
        ("snapshot::build", Phase::Build, 0),
        ("snapshot::upload", Phase::Upload, 0),
        // C10: uploaded, not verified; C12: verified, not recorded. The objects are there, under names that no record has.
        ("snapshot::verify", Phase::Verify, 1),
        ("snapshot::record", Phase::Verify, 2),
    ];
    for (nonce, (point, phase, objects)) in points.into_iter().enumerate() {
        let options = BuildOptions {
            write: WriteOptions::default(),
            tmp_dir: dir.path().join("tmp"),
            builder_node: 1,
            nonce: nonce as u32,
        };
        fail::cfg(point, "return(stopped here)").unwrap();
        let error = build_and_upload(view(&group, 5, 50, 100), &repository, &options, |_| {})
            .await
            .unwrap_err();
        assert_eq!(error.phase, phase, "{point}");
        assert_eq!(
            error.to_string(),
            format!("{} a snapshot of config/0: stopped here", phase.name())
        );
        fail::remove(point);
        let left = std::fs::read_dir(dir.path().join("tmp")).map_or(0, |dir| dir.count());
        assert_eq!(left, 0, "{point}");
        assert_eq!(
            repository
                .list_snapshots(&group)
                .await
                .unwrap()
                .snapshots
                .len(),
            objects,
            "{point}"
        );
    }
    let options = BuildOptions {
        write: WriteOptions::default(),
        tmp_dir: dir.path().join("tmp"),
        builder_node: 1,
        nonce: 99,
    };
    build_and_upload(view(&group, 5, 50, 100), &repository, &options, |_| {})
        .await
        .unwrap();
    scenario.teardown();
}
