//! I6: memory does not grow with the state. In a file of its own, because the peak belongs to the process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(target_os = "linux")]

use confman_snapshot::build::{BuildOptions, build_and_upload};
use confman_snapshot::testing::state;
use confman_snapshot::{Codec, GroupId, Record, Repository, StateHash, StateView, WriteOptions};

const VALUE_BYTES: usize = 64 << 10;

/// Records that are made when they are asked for; a quarter of each does not compress.
fn records(count: u32) -> impl Iterator<Item = Record> + Send {
    (0..count).map(|i| {
        let mut value = vec![0; VALUE_BYTES];
        let mut noise = u64::from(i) + 1;
        for piece in value
            .as_chunks_mut::<8>()
            .0
            .iter_mut()
            .take(VALUE_BYTES / 32)
        {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            *piece = noise.to_le_bytes();
        }
        (i.to_be_bytes().to_vec().into(), value.into())
    })
}

fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 1024
}

async fn round(repository: &Repository, dir: &std::path::Path, index: u64, count: u32) -> u64 {
    let (mut info, _) = state(&GroupId::config(0), index, 0, 0);
    info.state_hash = StateHash::new();
    for (key, value) in records(count) {
        info.state_hash.add(&key, &value);
    }
    let view = StateView {
        info,
        records: Box::new(records(count).map(Ok)),
    };
    let options = BuildOptions {
        write: WriteOptions {
            codec: Codec::Zstd,
            ..WriteOptions::default()
        },
        tmp_dir: dir.join("tmp"),
        builder_node: 1,
        nonce: 1,
    };
    let record = build_and_upload(view, repository, &options, |_| {})
        .await
        .unwrap();
    record.raw_bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_building_uploading_and_verifying_take_the_same_memory_for_any_state() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open("file://{data}/objects", dir.path(), [])
        .await
        .unwrap();
    // 40 MB: more than everything that is ever held at a time, and an upload in parts is not needed yet.
    round(&repository, dir.path(), 1, 600).await;
    let small = peak_bytes();
    let raw = round(&repository, dir.path(), 2, 6_000).await;
    let grown = peak_bytes().saturating_sub(small);
    assert!(raw > 350 << 20);
    // Parts of 8 MiB come in beside what a small one takes, and on a busy machine more of them wait for their turn: 57 MiB were seen. The
    // state is ten times as large.
    assert!(
        grown < 96 << 20,
        "peak memory grew by {} MiB for {} MiB of state",
        grown >> 20,
        raw >> 20
    );
}
