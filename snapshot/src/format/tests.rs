//! The format against its promises: round trips, every flipped bit, every truncation, hostile manifests.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::layout::{Footer, Header, encode_footer, encode_header};
use super::limits::{CHUNK_RAW_MAX, MANIFEST_BYTES_MAX, RECORD_BYTES_MAX};
use super::*;
use crate::error::{BoxError, Kind, SnapshotError, StoreError};
use crate::id::SnapshotId;
use crate::model::{ClusterId, GroupId, Membership, Position};
use crate::paths;
use crate::source::ChunkSource;
use crate::view::{Record, SnapshotInfo};
use crate::{Digest, StateHash};

/// Objects in memory that count how much is read at a time.
#[derive(Debug, Default)]
struct Objects {
    objects: BTreeMap<String, Bytes>,
    reads: AtomicUsize,
    under_way: AtomicUsize,
    under_way_max: AtomicUsize,
    flip_first_read_of: std::sync::Mutex<Option<u64>>,
}

impl Objects {
    fn one(name: &str, bytes: impl Into<Bytes>) -> Self {
        Self {
            objects: BTreeMap::from([(name.to_owned(), bytes.into())]),
            ..Self::default()
        }
    }
}

#[async_trait]
impl ChunkSource for Objects {
    async fn size(&self, object: &str) -> Result<u64, StoreError> {
        self.objects
            .get(object)
            .map(|o| o.len() as u64)
            .ok_or_else(|| missing(object))
    }

    async fn read(&self, object: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.under_way_max.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.reads.fetch_add(1, Ordering::SeqCst);
        let bytes = self.objects.get(object).ok_or_else(|| missing(object))?;
        assert!(
            range.end <= bytes.len() as u64,
            "read beyond the end: {range:?} of {}",
            bytes.len()
        );
        let bytes = bytes.slice(range.start as usize..range.end as usize);
        let mut flip = self.flip_first_read_of.lock().unwrap();
        if *flip == Some(range.start) {
            *flip = None;
            let mut flipped = bytes.to_vec();
            flipped[0] ^= 1;
            return Ok(flipped.into());
        }
        Ok(bytes)
    }
}

fn missing(object: &str) -> StoreError {
    StoreError {
        kind: Kind::NotFound,
        operation: "get",
        object: object.to_owned(),
        url: "test".to_owned(),
        detail: "no such object".to_owned(),
        hint: String::new(),
    }
}

fn info(index: u64, records: &[Record]) -> SnapshotInfo {
    let mut state_hash = StateHash::new();
    for (key, value) in records {
        state_hash.add(key, value);
    }
    SnapshotInfo {
        cluster: ClusterId::new("0d0a3a8e-6d4c-4f0e-9a57-3c1b2d9e8f70", 1),
        group: GroupId::config(0),
        position: Position::new(3, 1, index),
        membership: Membership {
            position: Some(Position::new(1, 1, 1)),
            voters: vec![[1].into()],
            ..Membership::default()
        },
        state_hash,
        created_us: 5,
        first_time_us: 1,
        last_time_us: 4,
    }
}

fn id(index: u64) -> SnapshotId {
    SnapshotId::new(Position::new(3, 1, index), 1, 0xabcd)
}

fn few_records() -> Vec<Record> {
    (0..6_u8)
        .map(|i| (vec![b'k', i].into(), vec![i; 20 + i as usize].into()))
        .collect()
}

/// Writes to a file and reads the file: what the store would hold.
fn write(index: u64, records: &[Record], codec: Codec, chunk_bytes: usize) -> (Vec<u8>, Written) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.snap");
    let all = records.iter().cloned().map(Ok::<_, BoxError>);
    let options = WriteOptions { codec, chunk_bytes };
    let written = write_snapshot(&path, &id(index), &info(index, records), all, &options).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, written.file_bytes);
    (bytes, written)
}

async fn read(source: Objects, object: &str) -> Result<Vec<Record>, SnapshotError> {
    let mut stream = SnapshotReader::open(Arc::new(source), object)
        .await?
        .records(2);
    let mut records = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        records.extend(chunk);
    }
    Ok(records)
}

async fn read_bytes(bytes: impl Into<Bytes>) -> Result<Vec<Record>, SnapshotError> {
    read(Objects::one("o", bytes), "o").await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// Puts a snapshot object together by hand, with every sum right.
fn assemble(
    mut manifest: Manifest,
    own_chunks: &[Vec<u8>],
    change: impl Fn(&mut Manifest),
) -> Vec<u8> {
    let header = Header {
        id: manifest.id,
        group: manifest.group.clone(),
        cluster: manifest.cluster.clone(),
    };
    let mut bytes = encode_header(&header);
    let mut own = manifest.chunks.iter_mut().filter(|c| c.object.is_empty());
    for stored in own_chunks {
        own.next().unwrap().offset = bytes.len() as u64;
        bytes.extend_from_slice(stored);
    }
    change(&mut manifest);
    append_manifest(bytes, &manifest.encode_to_vec())
}

fn append_manifest(mut bytes: Vec<u8>, manifest: &[u8]) -> Vec<u8> {
    let footer = encode_footer(&Footer {
        manifest_offset: bytes.len() as u64,
        manifest_len: manifest.len() as u64,
        manifest_crc32: crc32fast::hash(manifest),
        manifest_blake3: Digest(*blake3::hash(manifest).as_bytes()),
    });
    bytes.extend_from_slice(manifest);
    bytes.extend_from_slice(&footer);
    bytes
}

fn own_chunks(bytes: &[u8], manifest: &Manifest) -> Vec<Vec<u8>> {
    let cut =
        |c: &ChunkEntry| bytes[c.offset as usize..(c.offset + c.stored_len) as usize].to_vec();
    manifest.chunks.iter().map(cut).collect()
}

#[tokio::test]
async fn an_empty_state_is_a_snapshot_too() {
    let (bytes, written) = write(7, &[], Codec::Zstd, 100);
    assert_eq!(written.manifest.state_digest(), Digest::empty());
    assert_eq!(read_bytes(bytes).await.unwrap(), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_goes_in_comes_out(
        records in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..200), 0..60),
        codec in prop::sample::select(vec![Codec::None, Codec::Gzip, Codec::Zstd]),
        chunk_bytes in 1..2000_usize,
    ) {
        let records: Vec<Record> = records.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        let (bytes, written) = write(9, &records, codec, chunk_bytes);
        prop_assert_eq!(written.manifest.records, records.len() as u64);
        prop_assert_eq!(written.manifest.info().unwrap(), info(9, &records));
        let back = runtime().block_on(read_bytes(bytes)).unwrap();
        prop_assert_eq!(back, records);
    }
}

/// Every way of reading that must not succeed, and must say that the object is bad, not that something else is.
async fn refused(bytes: Vec<u8>, what: &str) -> SnapshotError {
    match read_bytes(bytes).await {
        Ok(_) => panic!("{what} was not found"),
        Err(error) => {
            assert!(error.is_bad_snapshot(), "{what}: {error}");
            assert!(
                error.to_string().contains("\"o\""),
                "{what} does not name the object: {error}"
            );
            error
        }
    }
}

#[tokio::test]
async fn i9_any_flipped_bit_anywhere_is_found() {
    for codec in [Codec::None, Codec::Gzip, Codec::Zstd] {
        let (bytes, _) = write(7, &few_records(), codec, 60);
        for i in 0..bytes.len() * 8 {
            // All bits with one codec; with the others one bit of each byte, another one each time.
            if codec != Codec::Zstd && i % 8 != (i / 8) % 8 {
                continue;
            }
            let mut flipped = bytes.clone();
            flipped[i / 8] ^= 1 << (i % 8);
            refused(flipped, &format!("{codec:?}: bit {i}")).await;
        }
    }
}

#[tokio::test]
async fn i8_any_truncation_and_any_addition_is_found() {
    let (bytes, _) = write(7, &few_records(), Codec::Zstd, 60);
    for len in 0..bytes.len() {
        refused(bytes[..len].to_vec(), &format!("truncation to {len}")).await;
    }
    for i in 0..=bytes.len() {
        let mut longer = bytes.clone();
        longer.insert(i, 0);
        refused(longer, &format!("a byte added at {i}")).await;
    }
}

#[tokio::test]
async fn i9_a_swapped_chunk_is_found_and_named() {
    // Two chunks of one size that change places: the sums are those of other chunks.
    let records: Vec<Record> = (0..4_u8)
        .map(|i| (vec![i].into(), vec![i; 50].into()))
        .collect();
    let (mut bytes, written) = write(7, &records, Codec::None, 100);
    let chunks = own_chunks(&bytes, &written.manifest);
    assert_eq!((chunks.len(), chunks[0].len()), (2, chunks[1].len()));
    let start = written.manifest.chunks[0].offset as usize;
    bytes[start..start + chunks[1].len()].copy_from_slice(&chunks[1]);
    let error = refused(bytes, "a swapped chunk").await;
    assert!(error.to_string().contains("chunk 0, bytes "), "{error}");
}

#[tokio::test]
async fn o07_a_bit_that_flipped_on_the_way_is_read_again() {
    let (bytes, written) = write(7, &few_records(), Codec::Zstd, 60);
    let offset = written.manifest.chunks[0].offset;
    let source = Objects {
        flip_first_read_of: Some(offset).into(),
        ..Objects::one("o", bytes)
    };
    assert_eq!(read(source, "o").await.unwrap(), few_records());
}

#[tokio::test]
async fn i7_a_manifest_may_refer_to_chunks_in_other_objects() {
    let (old_bytes, old) = write(7, &few_records(), Codec::Zstd, 60);
    let old_name = paths::snapshot(&GroupId::config(0), &id(7));
    // The new state: the old one, and one record more in a chunk of its own.
    let mut records = few_records();
    records.push(("z".into(), "new".into()));
    let new_info = info(8, &records);
    let mut builder = chunk::ChunkBuilder::default();
    builder.push(b"z", b"new");
    let (stored, entry) = builder.finish(Codec::Gzip, 0).unwrap();
    let mut manifest = Manifest {
        id: id(8),
        position: new_info.position,
        lattice: new_info.state_hash.to_bytes().to_vec(),
        ..old.manifest.clone()
    };
    for chunk in &mut manifest.chunks {
        chunk.object = old_name.clone();
    }
    manifest.chunks.push(entry);
    manifest.records = manifest.chunks.iter().map(|c| c.records).sum();
    manifest.raw_bytes = manifest.chunks.iter().map(|c| c.raw_len).sum();
    manifest.stored_bytes = manifest.chunks.iter().map(|c| c.stored_len).sum();
    assert_eq!(manifest.referenced_objects(), [old_name.as_str()]);
    let new_bytes = assemble(manifest.clone(), std::slice::from_ref(&stored), |_| {});

    let mut source = Objects::one("o", new_bytes.clone());
    source
        .objects
        .insert(old_name.clone(), old_bytes.clone().into());
    assert_eq!(read(source, "o").await.unwrap(), records);

    // The old object is gone, or damaged: it is the one that is named.
    let error = read_bytes(new_bytes.clone()).await.unwrap_err();
    assert!(
        error.is_bad_snapshot() && error.to_string().contains(&old_name),
        "{error}"
    );
    let mut damaged = old_bytes;
    damaged[old.manifest.chunks[1].offset as usize] ^= 1;
    let mut source = Objects::one("o", new_bytes);
    source.objects.insert(old_name.clone(), damaged.into());
    let error = read(source, "o").await.unwrap_err();
    assert!(
        error.to_string().contains(&old_name) && error.to_string().contains("chunk 1"),
        "{error}"
    );

    // X03: names that are not those of another snapshot of this group.
    for wrong in [
        "../../etc/passwd",
        "snapshots/config/1/x.snap",
        "/o",
        &paths::snapshot(&GroupId::config(0), &id(8)),
    ] {
        let bytes = assemble(manifest.clone(), std::slice::from_ref(&stored), |m| {
            m.chunks[0].object = wrong.to_owned()
        });
        refused(bytes, wrong).await;
    }
}

#[tokio::test]
async fn x05_right_sums_do_not_excuse_a_manifest_that_does_not_fit() {
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change); 22] = [
        ("records", |m| m.records += 1),
        ("raw bytes", |m| m.raw_bytes += 1),
        ("stored bytes", |m| m.stored_bytes -= 1),
        ("a chunk less", |m| m.chunks.truncate(1)),
        ("a chunk twice", |m| m.chunks.push(m.chunks[0].clone())),
        ("chunks swapped", |m| m.chunks.swap(0, 1)),
        ("chunk records", |m| {
            m.chunks[0].records += 1;
            m.records += 1;
        }),
        ("records of two chunks", |m| {
            m.chunks[0].records += 1;
            m.chunks[1].records -= 1;
        }),
        ("no records", |m| m.chunks[0].records = 0),
        ("offset", |m| m.chunks[1].offset += 1),
        ("offset overflow", |m| m.chunks[0].offset = u64::MAX),
        ("length overflow", |m| m.chunks[0].stored_len = u64::MAX),
        ("huge chunk", |m| m.chunks[0].raw_len = CHUNK_RAW_MAX + 1),
        ("raw length", |m| {
            m.chunks[0].raw_len += 1;
            m.raw_bytes += 1;
        }),
        ("codec", |m| m.chunks[0].codec = 77),
        ("crc", |m| m.chunks[0].crc32 ^= 1),
        ("blake3", |m| m.chunks[0].blake3.truncate(31)),
        ("first key", |m| m.chunks[0].first_key = vec![]),
        ("state hash", |m| m.lattice[5] ^= 1),
        ("short state hash", |m| m.lattice.truncate(2047)),
        ("position", |m| m.position.index += 1),
        ("membership from the future", |m| {
            m.members.position = Some(Position::new(3, 1, 1000))
        }),
    ];
    let (bytes, written) = write(7, &few_records(), Codec::Zstd, 60);
    let chunks = own_chunks(&bytes, &written.manifest);
    assert_eq!(
        assemble(written.manifest.clone(), &chunks, |_| {}),
        bytes,
        "the hand-made object is not the written one"
    );
    for (what, change) in changes {
        refused(assemble(written.manifest.clone(), &chunks, change), what).await;
    }
    // The header of another snapshot, with its own sum right.
    let other = Header {
        id: id(8),
        group: GroupId::config(0),
        cluster: written.manifest.cluster.clone(),
    };
    let mut wrong = encode_header(&other);
    wrong.extend_from_slice(&bytes[written.manifest.chunks[0].offset as usize..]);
    assert_eq!(wrong.len(), bytes.len());
    refused(wrong, "another's header").await;
}

#[tokio::test]
async fn x02_claimed_sizes_are_refused_before_memory_is_set_aside() {
    // A footer that claims a manifest of 2^63 bytes, or more than the limit, in an object that is small.
    let (bytes, written) = write(7, &few_records(), Codec::Zstd, 60);
    for claimed in [1 << 63, u64::MAX, MANIFEST_BYTES_MAX + 1] {
        let mut wrong = bytes[..bytes.len() - FOOTER_BYTES as usize].to_vec();
        wrong.extend_from_slice(&encode_footer(&Footer {
            manifest_offset: 100,
            manifest_len: claimed,
            manifest_crc32: 0,
            manifest_blake3: Digest::default(),
        }));
        refused(wrong, "a huge manifest").await;
    }
    // A manifest of empty chunk entries: two bytes each, a hundred each once decoded.
    let start = bytes[..written.manifest.chunks[0].offset as usize].to_vec();
    let error = refused(
        append_manifest(start.clone(), &[0x6a, 0x00].repeat(1 << 20)),
        "empty chunks",
    )
    .await;
    assert!(error.to_string().contains("field 13"), "{error}");
    let error = refused(
        append_manifest(start, &[0x2a, 0xff, 0xff, 0xff, 0x7f]),
        "a huge membership",
    )
    .await;
    assert!(error.to_string().contains("field 5"), "{error}");
}

proptest! {
    #[test]
    fn i19_arbitrary_bytes_are_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (whole, _) = write(7, &[], Codec::None, 60);
        prop_assert!(runtime().block_on(read_bytes(bytes.clone())).is_err());
        // The same as a manifest with right sums.
        let (header, _) = whole.split_at(100);
        prop_assert!(runtime().block_on(read_bytes(append_manifest(header.to_vec(), &bytes))).is_err());
    }
}

#[tokio::test]
async fn p_a_newer_version_is_said_to_be_one() {
    let (mut bytes, _) = write(7, &[], Codec::None, 60);
    let at = bytes.len() - 16;
    bytes[at..at + 4].copy_from_slice(&2_u32.to_le_bytes());
    let footer_start = bytes.len() - FOOTER_BYTES as usize;
    let crc = crc32fast::hash(&bytes[footer_start..at + 4]);
    bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    let error = read_bytes(bytes).await.unwrap_err();
    assert!(
        matches!(
            error,
            SnapshotError::NewerVersion {
                found: 2,
                newest: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn o09_a_whole_snapshot_that_is_not_the_recorded_one_is_refused() {
    let (bytes, written) = write(7, &few_records(), Codec::Zstd, 60);
    let record = written.record(Codec::Zstd, 1, 1000);
    record.check().unwrap();
    let reader = SnapshotReader::open(Arc::new(Objects::one("o", bytes)), "o")
        .await
        .unwrap();
    reader.expect(&record).unwrap();
    type Change = fn(&mut crate::SnapshotRecord);
    let changes: [(&str, Change); 7] = [
        ("id", |r| r.id.nonce ^= 1),
        ("group", |r| r.group = GroupId::config(1)),
        ("cluster", |r| {
            r.cluster_uuid = "1d0a3a8e-6d4c-4f0e-9a57-3c1b2d9e8f70".to_owned()
        }),
        ("position", |r| r.position.node += 1),
        ("state hash", |r| r.state_hash[0] ^= 1),
        ("manifest hash", |r| r.manifest_blake3[0] ^= 1),
        ("size", |r| r.object_bytes += 1),
    ];
    for (what, change) in changes {
        let mut other = record.clone();
        change(&mut other);
        match reader.expect(&other) {
            Err(SnapshotError::Mismatch { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn i2_records_that_do_not_hash_to_what_apply_kept_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.snap");
    let mut wrong = info(7, &few_records());
    wrong.state_hash.add(b"k", b"drifted");
    let all = few_records().into_iter().map(Ok::<_, BoxError>);
    let error = write_snapshot(&path, &id(7), &wrong, all, &WriteOptions::default()).unwrap_err();
    assert!(
        matches!(error, SnapshotError::StateHash { index: 7, .. }),
        "{error}"
    );
    assert!(!path.exists());
}

#[test]
fn what_cannot_be_read_back_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.snap");
    let write = |records: Vec<Result<Record, BoxError>>, id: SnapshotId| {
        let error = write_snapshot(
            &path,
            &id,
            &info(7, &[]),
            records.into_iter(),
            &WriteOptions::default(),
        );
        assert!(!path.exists());
        error.unwrap_err().to_string()
    };
    let pair = |key: &[u8], len: usize| Ok((key.to_vec().into(), vec![0; len].into()));
    assert!(write(vec![pair(b"b", 1), pair(b"a", 1)], id(7)).contains("not below"));
    assert!(write(vec![pair(b"a", 1), pair(b"a", 1)], id(7)).contains("not below"));
    assert!(write(vec![pair(b"a", RECORD_BYTES_MAX)], id(7)).contains("limit"));
    assert!(write(vec![pair(&[b'k'; 70_000], 1)], id(7)).contains("limit"));
    assert!(write(vec![Err("disk gone".into())], id(7)).contains("disk gone"));
    assert!(write(vec![], id(8)).contains("snapshot id"));
    // A file that is there is left as it is.
    std::fs::write(&path, b"somebody's").unwrap();
    let none = std::iter::empty::<Result<Record, BoxError>>();
    write_snapshot(&path, &id(7), &info(7, &[]), none, &WriteOptions::default()).unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), b"somebody's");
}

#[tokio::test]
async fn i6_no_more_chunks_are_read_ahead_than_asked_for() {
    let records: Vec<Record> = (0..200_u8)
        .map(|i| (vec![i].into(), vec![i; 100].into()))
        .collect();
    let (bytes, written) = write(7, &records, Codec::None, 1);
    assert_eq!(written.manifest.chunks.len(), 200);
    let source = Arc::new(Objects::one("o", bytes));
    let reader = SnapshotReader::open(source.clone(), "o").await.unwrap();
    let before = source.reads.load(Ordering::SeqCst);
    let mut stream = reader.records(3);
    for taken in 1..=50 {
        stream.next_chunk().await.unwrap().unwrap();
        tokio::time::sleep(std::time::Duration::from_micros(200)).await;
        let read = source.reads.load(Ordering::SeqCst) - before;
        assert!(
            read <= taken + 3,
            "{read} chunks read when {taken} were taken"
        );
    }
    assert!(source.under_way_max.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn a_stream_that_failed_goes_on_failing() {
    let (mut bytes, written) = write(7, &few_records(), Codec::None, 60);
    bytes[written.manifest.chunks[0].offset as usize] ^= 1;
    let reader = SnapshotReader::open(Arc::new(Objects::one("o", bytes)), "o")
        .await
        .unwrap();
    let mut stream = reader.records(1);
    for _ in 0..10 {
        stream.next_chunk().await.unwrap_err();
    }
}
