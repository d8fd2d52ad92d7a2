//! Snapshots of every version and codec that was ever written are read for ever; damaged ones are refused for ever.
//!
//! `fixtures/v1-*.snap` were written by the first version. `fixtures/damaged/` holds what happened to one of them; the name of a
//! file says what. Never write a file here anew: a new version adds its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use confman_snapshot::testing::state;
use confman_snapshot::{
    BoxError, Codec, GroupId, LocalFiles, Record, SnapshotError, SnapshotId, SnapshotReader,
    WriteOptions, write_snapshot,
};

const INDEX: u64 = 4711;
const COUNT: usize = 12;
const VALUE_BYTES: usize = 80;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

async fn read(path: &Path) -> Result<Vec<Record>, SnapshotError> {
    let source = Arc::new(LocalFiles::one("fixture", path));
    let reader = SnapshotReader::open(source, "fixture").await?;
    assert_eq!(
        reader.manifest().info().unwrap(),
        state(&GroupId::config(0), INDEX, COUNT, VALUE_BYTES).0
    );
    let mut stream = reader.records(2);
    let mut records = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        records.extend(chunk);
    }
    Ok(records)
}

#[tokio::test]
async fn p_snapshots_of_version_1_are_read_for_ever() {
    for codec in [Codec::None, Codec::Gzip, Codec::Zstd] {
        let path = fixtures().join(format!("v1-{}.snap", codec.name()));
        let records = read(&path)
            .await
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(
            records,
            state(&GroupId::config(0), INDEX, COUNT, VALUE_BYTES).1
        );
    }
}

#[tokio::test]
async fn i9_damaged_snapshots_are_refused_for_ever() {
    let expected = [
        ("chunk-bit-flipped.snap", "chunk 1"),
        ("cut-in-half.snap", "footer"),
        ("empty.snap", "too few"),
        ("footer-missing.snap", "footer"),
        ("header-of-another.snap", "header"),
        ("manifest-bit-flipped.snap", "CRC32"),
        ("newer-version.snap", "version 2"),
        ("not-a-snapshot.snap", "footer"),
        ("zeros.snap", "footer"),
    ];
    let mut found: Vec<String> = std::fs::read_dir(fixtures().join("damaged"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, expected.map(|(name, _)| name));
    for (name, says) in expected {
        let error = read(&fixtures().join("damaged").join(name))
            .await
            .unwrap_err();
        assert!(
            error.is_bad_snapshot() && error.to_string().contains(says),
            "{name}: {error}"
        );
    }
}

/// Writes what is not there yet: run it by hand when a version or a kind of damage is added.
#[tokio::test]
#[ignore = "writes the fixtures that are missing"]
async fn write_missing_fixtures() {
    let (info, records) = state(&GroupId::config(0), INDEX, COUNT, VALUE_BYTES);
    let id = SnapshotId::new(info.position, 1, 0xc0ff_ee00);
    for codec in [Codec::None, Codec::Gzip, Codec::Zstd] {
        let path = fixtures().join(format!("v1-{}.snap", codec.name()));
        if !path.exists() {
            let options = WriteOptions {
                codec,
                chunk_bytes: 300,
            };
            let records = records.clone().into_iter().map(Ok::<_, BoxError>);
            write_snapshot(&path, &id, &info, records, &options).unwrap();
        }
    }
    let good = std::fs::read(fixtures().join("v1-zstd.snap")).unwrap();
    let source = Arc::new(LocalFiles::one("fixture", fixtures().join("v1-zstd.snap")));
    let reader = SnapshotReader::open(source, "fixture").await.unwrap();
    let chunk = reader.manifest().chunks[1].offset as usize;
    let last = reader.manifest().chunks.last().unwrap();
    let manifest = (last.offset + last.stored_len) as usize;
    let flip = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let mut newer = good.clone();
    let (footer, version) = (good.len() - 68, good.len() - 16);
    newer[version..version + 4].copy_from_slice(&2_u32.to_le_bytes());
    let crc = crc32fast::hash(&newer[footer..version + 4]);
    newer[version + 4..version + 8].copy_from_slice(&crc.to_le_bytes());
    let mut header = good.clone();
    header[30] ^= 1;
    let damaged: [(&str, Vec<u8>); 9] = [
        ("chunk-bit-flipped.snap", flip(chunk + 5)),
        ("cut-in-half.snap", good[..good.len() / 2].to_vec()),
        ("empty.snap", vec![]),
        ("footer-missing.snap", good[..footer].to_vec()),
        ("header-of-another.snap", header),
        ("manifest-bit-flipped.snap", flip(manifest + 50)),
        ("newer-version.snap", newer),
        (
            "not-a-snapshot.snap",
            b"{\"this\": \"is not a snapshot\"}\n".repeat(10),
        ),
        ("zeros.snap", vec![0; 1024]),
    ];
    for (name, bytes) in damaged {
        let path = fixtures().join("damaged").join(name);
        if !path.exists() {
            std::fs::write(path, bytes).unwrap();
        }
    }
}
