//! Writes a second of one group without a network, by the number of writers: `cargo bench -p confman-store --bench speed`, on a machine
//! that does nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{One, put};

fn percentile(sorted: &[Duration], p: usize) -> Duration {
    sorted[(sorted.len() - 1) * p / 100]
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    for writers in [1usize, 16, 64, 256] {
        let dir = tempfile::tempdir().unwrap();
        let one = Arc::new(One::start(dir.path()).await);
        one.write(put("warm", b"x")).await;
        let began = Instant::now();
        let tasks: Vec<_> = (0..writers)
            .map(|w| {
                let one = one.clone();
                tokio::spawn(async move {
                    let mut took = Vec::new();
                    let mut n = 0;
                    while began.elapsed() < Duration::from_secs(5) {
                        let start = Instant::now();
                        one.write(put(&format!("k{w}-{n}"), &[7; 256])).await;
                        took.push(start.elapsed());
                        n += 1;
                    }
                    took
                })
            })
            .collect();
        let mut took = Vec::new();
        for task in tasks {
            took.extend(task.await.unwrap());
        }
        let seconds = began.elapsed().as_secs_f64();
        took.sort();
        println!(
            "{writers} writers: {:.0} a second, p50 {:?}, p99 {:?}, max {:?}",
            took.len() as f64 / seconds,
            percentile(&took, 50),
            percentile(&took, 99),
            took.last().unwrap(),
        );
        let (syncs, asked) = one.log.syncs();
        println!("  {syncs} syncs for {asked} writes to the log");
        one.raft.shutdown().await.unwrap();
    }
}
