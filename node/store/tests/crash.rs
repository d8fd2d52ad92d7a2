//! Killed with SIGKILL at any moment, again and again: what was acknowledged is there, each change once.
//!
//! The child is this very test program, told by a variable to be the node.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{One, put};
use confman_store::{AuditFilter, DataPaths, GroupStore};

const CHILD_DIR: &str = "CONFMAN_STORE_CRASH_DIR";
#[cfg(feature = "failpoints")]
const CHILD_DIES_AT: &str = "CONFMAN_STORE_CRASH_AT";
const OPENING_DIR: &str = "CONFMAN_STORE_CRASH_OPENING_DIR";
const CHILD_ACKED: &str = "CONFMAN_STORE_CRASH_ACKED";

/// Proves that all acknowledged writes are there, each once.
async fn check(one: &One, acked: u64) {
    let state = &one.state;
    for n in 0..acked {
        let entry = state.get_entry("app", &format!("k{n}")).unwrap();
        let head = entry
            .unwrap_or_else(|| panic!("the acknowledged write {n} is lost"))
            .head
            .unwrap();
        assert_eq!(head.version, 1, "write {n} was applied more than once");
    }
    let mut before = None;
    let mut puts = 0;
    loop {
        let filter = AuditFilter {
            namespace: Some("app".to_owned()),
            ..AuditFilter::default()
        };
        let page = state.list_audit(&filter, before, 500).unwrap();
        puts += page.items.len() as u64;
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(
        puts,
        state.count_keys("app").unwrap(),
        "audit and entries differ"
    );
    assert!(puts >= acked);
    let (_, kept, found) = state.rehash().unwrap();
    assert_eq!(kept, found, "the hash is not that of the records");
}

#[test]
fn child_process() {
    let Ok(dir) = std::env::var(CHILD_DIR) else {
        return;
    };
    let acked: u64 = std::env::var(CHILD_ACKED).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let one = One::start(Path::new(&dir)).await;
        // The entry by which a leader begins is committed with the first write.
        one.write(confman_store::command::Op::CreateNamespace(
            confman_store::command::CreateNamespace {
                path: "started".to_owned(),
            },
        ))
        .await;
        check(&one, acked).await;
        println!("checked");
        die_at_failpoint();
        let mut next = one.state.count_keys("app").unwrap();
        let mut batches = 0;
        loop {
            let many = (next..next + 8).map(|n| {
                let one = &one;
                async move {
                    one.write(put(
                        &format!("k{n}"),
                        &vec![n as u8; 200 + (n % 7) as usize * 4000],
                    ))
                    .await
                }
            });
            for outcome in futures::future::join_all(many).await {
                assert!(outcome.as_refused().is_none());
            }
            next += 8;
            println!("acked {next}");
            std::io::stdout().flush().unwrap();
            batches += 1;
            if batches % 4 == 0 {
                one.record_and_purge().await;
            }
        }
    });
}

/// Opens fresh groups, one after the other, until it is killed.
#[test]
fn opening_child_process() {
    let Ok(dir) = std::env::var(OPENING_DIR) else {
        return;
    };
    for n in 0u64.. {
        let paths = DataPaths::new(Path::new(&dir).join(n.to_string())).group(&common::group());
        drop(GroupStore::open(paths, common::options()).unwrap());
        println!("opened {n}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn a_kill_9_while_a_fresh_group_is_opened_leaves_one_that_opens() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..16u64 {
        let data = dir.path().join(round.to_string());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "opening_child_process", "--nocapture"])
            .env(OPENING_DIR, &data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines
            .find(|line| line.as_ref().unwrap().contains("opened 1"))
            .unwrap()
            .unwrap();
        // Another moment in each round; which one does not matter for what must hold.
        std::thread::sleep(Duration::from_micros(round * 1733 % 9_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for group in std::fs::read_dir(&data).unwrap() {
            let paths = DataPaths::new(group.unwrap().path()).group(&common::group());
            let opened = GroupStore::open(paths, common::options());
            opened.unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
    }
}

/// With the failpoints built in, the child ends itself where it is told to.
#[cfg(feature = "failpoints")]
fn die_at_failpoint() {
    let Ok(point) = std::env::var(CHILD_DIES_AT) else {
        return;
    };
    let left = std::sync::atomic::AtomicI32::new(7);
    let die = move || {
        if left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            std::process::abort();
        }
    };
    fail::cfg_callback(point, die).unwrap();
}

#[cfg(not(feature = "failpoints"))]
fn die_at_failpoint() {}

/// C05: between what is written of a batch and its commit, and between the commit and the answers.
#[cfg(feature = "failpoints")]
#[test]
fn c05_a_batch_is_applied_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = 0u64;
    for point in [
        "store::before-commit",
        "store::after-commit",
        "store::before-commit",
    ] {
        let output = command(dir.path(), acked)
            .env(CHILD_DIES_AT, point)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("checked"), "{point}: {text}");
        assert!(!output.status.success(), "{point}: it went on");
        let last = text
            .lines()
            .filter_map(|l| l.split_once("acked "))
            .next_back();
        acked = last.map_or(acked, |(_, number)| number.trim().parse().unwrap());
    }
    assert!(acked > 0);
}

fn command(dir: &Path, acked: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_process", "--nocapture"]);
    command
        .env(CHILD_DIR, dir)
        .env(CHILD_ACKED, acked.to_string());
    command
}

fn spawn(dir: &Path, acked: u64) -> Child {
    command(dir, acked).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn i1_nothing_acknowledged_is_lost_by_kill_9_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = 0u64;
    for round in 0..8u64 {
        let mut child = spawn(dir.path(), acked);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, told) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        let mut checked = false;
        let started = Instant::now();
        // So many acknowledgements, and then a moment that is another one in each round.
        let wanted = acked + 40 + round * 8;
        while acked < wanted {
            assert!(
                started.elapsed() < Duration::from_secs(120),
                "round {round} does not get on"
            );
            let line = match told.recv_timeout(Duration::from_secs(60)) {
                Ok(line) => line,
                Err(_) => {
                    let _ = child.kill();
                    panic!(
                        "round {round}: the node ended by itself: {:?}",
                        child.wait()
                    );
                }
            };
            checked |= line.contains("checked");
            if let Some((_, number)) = line.split_once("acked ") {
                assert!(checked, "round {round} did not check what was there");
                acked = number.trim().parse().unwrap();
            }
        }
        std::thread::sleep(Duration::from_micros(round * 3371 % 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
        while let Ok(line) = told.try_recv() {
            if let Some((_, number)) = line.split_once("acked ") {
                acked = number.trim().parse().unwrap();
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let one = One::start(dir.path()).await;
        one.write(put("last", b"x")).await;
        assert!(one.log.stats().purged.is_some(), "nothing was ever purged");
        check(&one, acked).await;
        one.raft.shutdown().await.unwrap();
    });
}
