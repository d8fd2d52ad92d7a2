//! The restore report on disk: whole or refused, replaced at once, and readable for ever.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use confman_bootstrap::report::{ReportError, RestoreReport, Skipped, Source, Stage, read, write};
use confman_snapshot::model::GroupId;
use confman_store::{DataPaths, GroupPaths};
use proptest::prelude::*;

fn paths(dir: &tempfile::TempDir) -> GroupPaths {
    DataPaths::new(dir.path()).group(&GroupId::config(0))
}

fn sample() -> RestoreReport {
    RestoreReport {
        group: "config/0".to_owned(),
        cluster_uuid: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        incarnation: 1,
        source: Source::Store.into(),
        stage: Stage::Installed.into(),
        snapshot: Some("00000000000000000040-0000000001-0000000002-0badcafe".to_owned()),
        snapshot_index: Some(40),
        newest_index: Some(60),
        skipped: vec![Skipped {
            snapshot: "00000000000000000060-0000000001-0000000002-00000001".to_owned(),
            index: 60,
            why: "a bit is wrong".to_owned(),
        }],
        read_bytes: 4096,
        raw_bytes: 9000,
        records: 12,
        state_hash: "ab".repeat(32),
        started_us: 1_700_000_000_000_000,
        took_us: 1_500_000,
        ..RestoreReport::default()
    }
}

#[test]
fn a_report_is_read_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(&dir);
    assert_eq!(read(&paths).unwrap(), None);
    let mut report = sample();
    write(&paths, &report).unwrap();
    assert_eq!(read(&paths).unwrap().as_ref(), Some(&report));
    report.caught_up(None, 65, report.started_us + 2_000_000);
    write(&paths, &report).unwrap();
    let back = read(&paths).unwrap().unwrap();
    assert_eq!(back, report);
    assert_eq!(
        (back.tail_entries, back.seconds(), back.stage()),
        (Some(25), 2.0, Stage::CaughtUp)
    );
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(paths.tmp_dir()).unwrap().count(), 0);
}

#[test]
fn a_group_fed_by_its_leader_names_the_index_it_was_fed() {
    let mut report = RestoreReport {
        source: Source::Peer.into(),
        ..sample()
    };
    (report.snapshot, report.snapshot_index) = (None, None);
    report.caught_up(Some(50), 65, report.started_us + 1);
    assert_eq!(
        (report.snapshot_index, report.tail_entries),
        (Some(50), Some(15))
    );
    report.caught_up(None, 65, report.started_us + 1);
    assert_eq!(
        (report.snapshot_index, report.tail_entries),
        (None, Some(65))
    );
}

#[test]
fn a_clock_that_went_back_gives_no_negative_time() {
    let mut report = sample();
    report.caught_up(None, 10, report.started_us - 5_000_000);
    assert_eq!((report.seconds(), report.tail_entries), (0.0, Some(0)));
}

#[test]
fn the_summary_says_where_it_came_from_what_was_skipped_and_what_that_costs() {
    assert_eq!(
        sample().summary(),
        "config/0: snapshot 00000000000000000040-0000000001-0000000002-0badcafe from the store, 12 records, \
         4096 bytes read, 1.50 s; skipped 00000000000000000060-0000000001-0000000002-00000001: a bit is wrong; \
         20 more entries come from the leader's log"
    );
    let peer = RestoreReport {
        source: Source::Peer.into(),
        why_not_store: "no answer within 10s".to_owned(),
        skipped: Vec::new(),
        newest_index: None,
        ..sample()
    };
    assert_eq!(
        peer.summary(),
        "config/0: from the leader, because no answer within 10s"
    );
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(&dir);
    write(&paths, &sample()).unwrap();
    let good = fs::read(paths.restored()).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(paths.restored(), &bad).unwrap();
        let error = read(&paths).unwrap_err();
        let refused = matches!(
            error,
            ReportError::Damaged { .. } | ReportError::NewerVersion { .. }
        );
        assert!(refused, "byte {at}: {error}");
        fs::write(paths.restored(), &good[..at]).unwrap();
        assert!(
            matches!(read(&paths).unwrap_err(), ReportError::Damaged { .. }),
            "cut at {at}"
        );
    }
    let mut longer = good.clone();
    longer.push(0);
    fs::write(paths.restored(), &longer).unwrap();
    assert!(matches!(
        read(&paths).unwrap_err(),
        ReportError::Damaged { .. }
    ));
}

#[test]
fn a_report_of_a_newer_version_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(&dir);
    write(&paths, &sample()).unwrap();
    let mut bytes = fs::read(paths.restored()).unwrap();
    bytes[8] = 9;
    fs::write(paths.restored(), &bytes).unwrap();
    let text = read(&paths).unwrap_err().to_string();
    assert!(
        text.contains("version 9") && text.contains("up to 1"),
        "{text}"
    );
}

/// A report as version 1 wrote it, byte for byte: every later version has to read it.
#[test]
fn version_1_is_read_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(&dir);
    fs::create_dir_all(paths.dir()).unwrap();
    fs::write(paths.restored(), include_bytes!("fixtures/restored.v1")).unwrap();
    assert_eq!(read(&paths).unwrap(), Some(sample()));
}

proptest! {
    /// Hostile bytes are refused, never a panic, however the file begins.
    #[test]
    fn i19_any_bytes_are_refused_without_a_panic(
        head in prop::sample::select(vec![b"".as_slice(), b"CFMNRSTR", b"CFMNRSTR\x01\0\0\0"]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(&dir);
        fs::create_dir_all(paths.dir()).unwrap();
        fs::write(paths.restored(), [head, &rest].concat()).unwrap();
        prop_assert!(read(&paths).is_err());
    }
}

#[test]
fn i19_a_file_of_any_size_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(&dir);
    fs::create_dir_all(paths.dir()).unwrap();
    let file = fs::File::create(paths.restored()).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(matches!(
        read(&paths).unwrap_err(),
        ReportError::Damaged { .. }
    ));
}
