//! Memory while a group is restored, alone in its process so that nobody else's memory is measured.
#![cfg(target_os = "linux")]
// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{World, membership, red};
use confman_bootstrap::RestoreOutcome;
use confman_snapshot::build::{BuildOptions, build_and_upload};
use confman_snapshot::model::{GroupId, Position};
use confman_snapshot::{Codec, SnapshotInfo, SnapshotRecord, StateHash, StateView, WriteOptions};
use confman_store::keys;

/// The size of the state: several times what a restore may take.
const VALUES: u64 = 4000;
const VALUE_BYTES: usize = 100_000;
/// What a restore may take beside what the process had: write buffer and page cache of the database, chunks.
const GROWTH_BYTES_MAX: u64 = 192 << 20;

/// A value that does not compress to nothing.
fn value(n: u64) -> Vec<u8> {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(VALUE_BYTES + 8);
    while bytes.len() < VALUE_BYTES {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(format!("{x:x}").as_bytes());
    }
    bytes.truncate(VALUE_BYTES);
    bytes
}

fn key(n: u64) -> Vec<u8> {
    keys::entry("apps", &format!("key-{n:09}"))
}

/// A snapshot of a large state, never whole in memory.
async fn publish(world: &World) -> SnapshotRecord {
    let mut state_hash = StateHash::new();
    for n in 0..VALUES {
        state_hash.add(&key(n), &value(n));
    }
    let info = SnapshotInfo {
        cluster: red(),
        group: GroupId::config(0),
        position: Position::new(2, 1, 60),
        membership: membership(),
        state_hash,
        created_us: 1,
        first_time_us: 1,
        last_time_us: 60,
    };
    let records = Box::new((0..VALUES).map(|n| Ok((key(n).into(), value(n).into()))));
    let write = WriteOptions {
        codec: Codec::None,
        ..WriteOptions::default()
    };
    let tmp_dir = world.dir.path().to_owned();
    let options = BuildOptions {
        write,
        tmp_dir,
        builder_node: 1,
        nonce: 1,
    };
    build_and_upload(
        StateView { info, records },
        &world.repository,
        &options,
        |_| {},
    )
    .await
    .unwrap()
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_memory_does_not_grow_with_the_state_that_is_restored() {
    let world = World::on_disk().await;
    let record = publish(&world).await;
    assert!(
        record.raw_bytes > 2 * GROWTH_BYTES_MAX - (64 << 20),
        "{}",
        record.raw_bytes
    );
    let (done, peak) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let before = resident_bytes();
    let watcher = std::thread::spawn({
        let (done, peak) = (done.clone(), peak.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(resident_bytes(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let task = world.task(&GroupId::config(0), std::slice::from_ref(&record));
    let outcome = world.restorer().restore_group(&task).await.unwrap();
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    assert!(
        matches!(outcome, RestoreOutcome::FromStore(_)),
        "{outcome:?}"
    );
    let growth = peak.load(Ordering::Relaxed).saturating_sub(before);
    println!(
        "{} bytes of records, {growth} bytes more memory at the peak",
        record.raw_bytes
    );
    assert!(
        growth < GROWTH_BYTES_MAX,
        "{growth} bytes more memory at the peak"
    );
}
