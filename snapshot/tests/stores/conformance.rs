//! Every kind of store does what a repository promises.

use std::path::Path;

use confman_snapshot::build::{BuildOptions, Phase, build_and_upload};
use confman_snapshot::repository::{Conditions, Listing, RepositoryOptions};
use confman_snapshot::testing::{state, view};
use confman_snapshot::{
    ChunkSource, Codec, GroupId, Kind, Record, RecordStream, Repository, SnapshotId, WriteOptions,
    paths,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::ObjectStoreExt as _;
use object_store::path::Path as ObjectPath;

use crate::place::Place;

on_every_store! {
    a_short_probe_finds_what_the_store_does
    snapshots_are_listed_by_position_read_verified_and_deleted
    a_large_snapshot_goes_in_parts_once
    reads_are_of_the_bytes_that_were_asked_for
    a_listing_of_more_than_one_page_is_whole
    other_content_under_a_good_name_is_damaged_and_named
}

fn options(dir: &Path, nonce: u32, codec: Codec) -> BuildOptions {
    BuildOptions {
        write: WriteOptions {
            codec,
            chunk_bytes: 64 << 10,
        },
        tmp_dir: dir.join("tmp"),
        builder_node: 1,
        nonce,
    }
}

async fn all_records(mut stream: RecordStream) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        records.extend(chunk);
    }
    records
}

async fn a_short_probe_finds_what_the_store_does(place: Place) {
    let repository = place.open().await;
    repository.ping().await.unwrap();
    let probe = repository.probe_short().await.unwrap();
    assert!(probe.list_after_put && probe.delete, "{probe:?}");
    assert_eq!(probe.conditions, Conditions::Honoured, "{probe:?}");
    assert_eq!(repository.conditions(), Conditions::Honoured);
}

async fn snapshots_are_listed_by_position_read_verified_and_deleted(place: Place) {
    let (repository, dir) = (&place.open().await, place.dir.path());
    let group = GroupId::config(0);
    assert_eq!(
        repository.list_snapshots(&group).await.unwrap().snapshots,
        []
    );
    let mut records = Vec::new();
    for (index, codec) in [
        (9637, Codec::Zstd),
        (10_137, Codec::Gzip),
        (10, Codec::None),
    ] {
        let phases = std::sync::Mutex::new(Vec::new());
        let progress = |phase: Phase| phases.lock().unwrap().push(phase);
        let options = options(dir, 1, codec);
        let record = build_and_upload(
            view(&group, index, 500, 300),
            repository,
            &options,
            progress,
        )
        .await
        .unwrap();
        assert_eq!(
            *phases.lock().unwrap(),
            [Phase::Build, Phase::Upload, Phase::Verify]
        );
        assert_eq!(
            std::fs::read_dir(dir.join("tmp")).unwrap().count(),
            0,
            "the temporary file is still there"
        );
        record.check().unwrap();
        assert_eq!((record.records, record.position.index), (500, index));
        records.push(record);
    }
    // Newest by position, not by text nor by time.
    let listing = repository.list_snapshots(&group).await.unwrap();
    let listed: Vec<u64> = listing.snapshots.iter().map(|s| s.id.index).collect();
    assert_eq!(listed, [10_137, 9637, 10]);
    assert_eq!(listing.foreign, 0);
    assert_eq!(
        repository
            .list_snapshots(&GroupId::config(1))
            .await
            .unwrap()
            .snapshots,
        []
    );

    for record in &records {
        let reader = repository.open_recorded(record).await.unwrap();
        assert_eq!(
            all_records(reader.records(2)).await,
            state(&group, record.position.index, 500, 300).1
        );
        let listed = listing
            .snapshots
            .iter()
            .find(|s| s.id == record.id)
            .unwrap();
        assert_eq!(
            (listed.bytes, &listed.object),
            (record.object_bytes, &record.object)
        );
        repository.verify(&group, &record.id).await.unwrap();
    }
    // O09: the record of one, the object of another.
    let mut wrong = records[0].clone();
    wrong.manifest_blake3 = records[1].manifest_blake3.clone();
    let error = repository.open_recorded(&wrong).await.unwrap_err();
    assert!(error.is_bad_snapshot(), "{error}");

    // What is deleted is gone, and deleting it again is no error.
    for _ in 0..2 {
        repository
            .delete_snapshot(&group, &records[0].id)
            .await
            .unwrap();
    }
    let error = repository.open_recorded(&records[0]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(error.is_bad_snapshot() && !error.is_unreachable());
    assert_eq!(
        repository
            .list_snapshots(&group)
            .await
            .unwrap()
            .snapshots
            .len(),
        2
    );
}

async fn a_large_snapshot_goes_in_parts_once(place: Place) {
    let (repository, dir) = (&place.open().await, place.dir.path());
    // About 12 MB that do not compress: three parts for S3.
    let group = GroupId::meta();
    let options = options(dir, 2, Codec::None);
    let record = build_and_upload(view(&group, 5, 600, 20_000), repository, &options, |_| {})
        .await
        .unwrap();
    assert!(record.object_bytes > 10 << 20);
    // O11: the same file again is found to be there already.
    let (info, records) = state(&group, 5, 600, 20_000);
    let path = dir.join("again.snap");
    let all = records.into_iter().map(Ok::<_, std::io::Error>);
    confman_snapshot::write_snapshot(&path, &record.id, &info, all, &options.write).unwrap();
    repository
        .put_snapshot(&path, &group, &record.id)
        .await
        .unwrap();
    // Another content under its name is a conflict, and what was there stays.
    let mut other = info;
    other.created_us += 1;
    let all = state(&group, 5, 600, 20_000)
        .1
        .into_iter()
        .map(Ok::<_, std::io::Error>);
    std::fs::remove_file(&path).unwrap();
    confman_snapshot::write_snapshot(&path, &record.id, &other, all, &options.write).unwrap();
    let error = repository
        .put_snapshot(&path, &group, &record.id)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    repository.open_recorded(&record).await.unwrap();
    std::fs::remove_file(&path).unwrap();
}

async fn reads_are_of_the_bytes_that_were_asked_for(place: Place) {
    let repository = &place.open().await;
    let group = GroupId::meta();
    let options = options(place.dir.path(), 1, Codec::Zstd);
    build_and_upload(view(&group, 5, 100, 500), repository, &options, |_| {})
        .await
        .unwrap();
    let listed = repository
        .list_snapshots(&group)
        .await
        .unwrap()
        .snapshots
        .remove(0);
    assert_eq!(repository.size(&listed.object).await.unwrap(), listed.bytes);
    assert_eq!(
        &repository.read(&listed.object, 0..8).await.unwrap()[..],
        b"CONFSNAP"
    );
    assert_eq!(
        &repository
            .read(&listed.object, listed.bytes - 8..listed.bytes)
            .await
            .unwrap()[..],
        b"PANSFNOC"
    );
    assert!(
        repository
            .read(&listed.object, 4..4)
            .await
            .unwrap()
            .is_empty()
    );
    for range in [
        listed.bytes - 1..listed.bytes + 1,
        listed.bytes + 5..listed.bytes + 9,
    ] {
        let error = repository.read(&listed.object, range).await.unwrap_err();
        assert_eq!(error.kind, Kind::Damaged, "{error}");
    }
    let error = repository
        .read("snapshots/nothing", 0..1)
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::NotFound, "{error}");
    assert_eq!(
        repository.size("snapshots/nothing").await.unwrap_err().kind,
        Kind::NotFound
    );
}

/// What one answer of an S3 server lists at most.
const PAGE: u64 = 1000;

/// Servers break off a long listing and are asked for the rest. No other test makes so many objects, and what a listing lacks
/// would be a snapshot that retention never finds.
async fn a_listing_of_more_than_one_page_is_whole(place: Place) {
    let (store, prefix) = place.raw();
    let prefix = prefix.trim_start_matches('/').to_owned();
    let options = RepositoryOptions::default();
    let repository = Repository::over(store.clone(), &prefix, &place.url, options);
    let (group, other) = (GroupId::config(0), GroupId::config(1));
    let id = |index| SnapshotId {
        index,
        incarnation: 1,
        term: 1,
        nonce: 1,
    };
    // Two of another group behind them by name: no page may run on into those.
    let ours = (1..=PAGE + 100).map(|index| paths::snapshot(&group, &id(index)));
    let theirs = (1..=2).map(|index| paths::snapshot(&other, &id(index)));
    let puts = ours.chain(theirs).map(|object| {
        let path = ObjectPath::from(format!("{prefix}/{object}"));
        let store = store.clone();
        async move { store.put(&path, "tiny".into()).await.map(drop) }
    });
    let put: Result<Vec<()>, _> = stream::iter(puts).buffer_unordered(8).try_collect().await;
    put.unwrap();

    let newest_first = |listing: Listing| -> Vec<u64> {
        assert_eq!(listing.foreign, 0);
        listing.snapshots.iter().map(|s| s.id.index).collect()
    };
    let listed = newest_first(repository.list_snapshots(&group).await.unwrap());
    assert_eq!(listed, (1..=PAGE + 100).rev().collect::<Vec<_>>());
    // One on each side of the border between two pages, and the last.
    let gone = [PAGE, PAGE + 1, PAGE + 100];
    for index in gone {
        let deleted = repository.delete_snapshot(&group, &id(index)).await;
        deleted.unwrap();
    }
    let listed = newest_first(repository.list_snapshots(&group).await.unwrap());
    let left = (1..=PAGE + 100).rev().filter(|index| !gone.contains(index));
    assert_eq!(listed, left.collect::<Vec<_>>());
    let listed = newest_first(repository.list_snapshots(&other).await.unwrap());
    assert_eq!(listed, [2, 1]);
}

async fn other_content_under_a_good_name_is_damaged_and_named(place: Place) {
    let repository = &place.open().await;
    // A good name, put there by hand, that holds something else.
    let group = GroupId::config(7);
    let id = SnapshotId {
        index: 1,
        incarnation: 1,
        term: 1,
        nonce: 1,
    };
    let path = place.dir.path().join("x");
    std::fs::write(&path, vec![7; 200]).unwrap();
    repository.put_snapshot(&path, &group, &id).await.unwrap();
    let listing = repository.list_snapshots(&group).await.unwrap();
    assert_eq!((listing.snapshots.len(), listing.foreign), (1, 0));
    let error = repository.verify(&group, &id).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(
        error.to_string().contains(&paths::snapshot(&group, &id)),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dev_server_serves_a_prefix_as_well() {
    let place = || Place::dev_s3("s3://bucket/deep/prefix");
    snapshots_are_listed_by_position_read_verified_and_deleted(place().await).await;
    reads_are_of_the_bytes_that_were_asked_for(place().await).await;
}

#[tokio::test]
async fn o22_names_of_others_are_counted_ignored_and_left_alone() {
    let place = Place::disk();
    let (repository, dir) = (place.open().await, place.dir.path());
    let group = GroupId::config(0);
    build_and_upload(
        view(&group, 5, 10, 50),
        &repository,
        &options(dir, 1, Codec::Zstd),
        |_| {},
    )
    .await
    .unwrap();
    let folder = dir.join("objects").join(paths::snapshots(&group));
    for name in [
        "notes.txt",
        "latest.snap",
        "00000000000000000005-0000000001-0000000003-00000001.snap.bak",
        "a b%2e",
    ] {
        std::fs::write(folder.join(name), b"somebody's").unwrap();
    }
    std::fs::create_dir(folder.join("deeper")).unwrap();
    std::fs::write(folder.join("deeper/x.snap"), b"somebody's").unwrap();
    let listing = repository.list_snapshots(&group).await.unwrap();
    assert_eq!((listing.snapshots.len(), listing.foreign), (1, 5));
    repository
        .delete_snapshot(&group, &listing.snapshots[0].id)
        .await
        .unwrap();
    let left = repository.list_snapshots(&group).await.unwrap();
    assert_eq!((left.snapshots.len(), left.foreign), (0, 5));
}
