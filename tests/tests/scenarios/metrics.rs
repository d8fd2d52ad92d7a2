//! Every metric moves when that happens which it measures, and what nodes log meanwhile has no secret in it.
//!
//! The table is complete: a metric of `node/METRICS.md` without an event here fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, ensure};
use confman_tests::agree;
use confman_tests::certs::Signer;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::metrics::Page;
use confman_tests::store::flip_bit;
use confman_tests::wait::wait_until;
use serde_json::json;

const TOKEN: &str = "CONFMAN_CLUSTER_TOKEN";
/// How often a node is restarted until no leadership moved while it was away.
const RESTARTS_MAX: usize = 5;

/// When a metric moves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moves {
    /// At this event of the scenario below.
    At(Event),
    /// In this test of this file, where the event cannot be had here.
    In(&'static str, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Start,
    Write,
    ManyWrites,
    Snapshot,
    SecondSnapshot,
    Restarted,
    NodeGone,
    WrongToken,
    StoreGone,
    DiskLostAndSnapshotDamaged,
    NewCertificate,
}

use Event::*;
use Moves::{At, In};

const FENCED: Moves = In(
    "tests/tests/scenarios/quorum_loss/returning.rs",
    "i13_a_majority_that_was_frozen_learns_that_its_time_is_over",
);
const DIVERGED: Moves = In(
    "node/tests/kills/diverged.rs",
    "i2_a_replica_whose_state_differs_stays_up_and_serves_nothing",
);
const CLOCK: Moves = In(
    "node/tests/kills/clock.rs",
    "t01_clocks_that_jump_move_no_history_and_stop_no_snapshot",
);
const fn of_the_store(test: &'static str) -> Moves {
    In("snapshot/tests/stores/faults/measured.rs", test)
}

const TABLE: &[(&str, Moves)] = &[
    ("confman_build_info", At(Start)),
    ("confman_incarnation", At(Start)),
    ("confman_serving", At(Start)),
    ("confman_fenced", FENCED),
    ("confman_diverged", DIVERGED),
    ("confman_ready", At(Start)),
    ("confman_disk_free_bytes", At(Start)),
    ("confman_disk_size_bytes", At(Start)),
    ("confman_clock_offset_seconds", CLOCK),
    ("confman_group_time_ahead_seconds", CLOCK),
    ("confman_raft_term", At(Start)),
    ("confman_raft_is_leader", At(Start)),
    ("confman_raft_has_leader", At(Start)),
    ("confman_raft_leader_changes_total", At(Start)),
    ("confman_raft_voters", At(Start)),
    ("confman_raft_failure_tolerance", At(NodeGone)),
    ("confman_raft_last_index", At(Write)),
    ("confman_raft_committed_index", At(Write)),
    ("confman_raft_applied_index", At(Write)),
    ("confman_raft_purged_index", At(SecondSnapshot)),
    ("confman_raft_proposals_in_flight", At(ManyWrites)),
    ("confman_peer_refused_total", At(WrongToken)),
    (
        "confman_tls_certificate_expiry_timestamp_seconds",
        At(NewCertificate),
    ),
    ("confman_tls_reloads_total", At(NewCertificate)),
    ("confman_tls_handshakes_total", At(Start)),
    ("confman_log_entries", At(Write)),
    ("confman_log_bytes", At(Write)),
    ("confman_log_append_seconds", At(Write)),
    ("confman_log_purge_held_total", At(NodeGone)),
    ("confman_applied_entries_total", At(Write)),
    ("confman_apply_seconds", At(Write)),
    ("confman_state_hash_prefix", At(Write)),
    ("confman_state_hash_mismatches_total", DIVERGED),
    ("confman_state_hash_not_compared_total", At(Restarted)),
    ("confman_snapshot_entries_since", At(Write)),
    ("confman_snapshot_changed", At(Snapshot)),
    (
        "confman_snapshot_unprotected_since_timestamp_seconds",
        At(Snapshot),
    ),
    ("confman_snapshot_last_index", At(Snapshot)),
    ("confman_snapshot_interval_seconds", At(Start)),
    ("confman_snapshot_log_threshold_entries", At(Start)),
    ("confman_snapshot_last_timestamp_seconds", At(Snapshot)),
    ("confman_snapshot_built_total", At(Snapshot)),
    (
        "confman_snapshot_errors_total",
        of_the_store("a_snapshot_that_comes_back_damaged_is_counted_as_damage"),
    ),
    ("confman_snapshot_phase_seconds", At(Snapshot)),
    ("confman_snapshot_object_bytes", At(Snapshot)),
    ("confman_snapshot_raw_bytes", At(Snapshot)),
    ("confman_snapshot_records", At(Snapshot)),
    ("confman_snapshot_tasks_total", At(Snapshot)),
    ("confman_snapshot_not_begun_total", At(StoreGone)),
    (
        "confman_drill_last_good_timestamp_seconds",
        In(
            "tests/tests/scenarios/drill.rs",
            "i11_a_drill_beside_a_living_cluster_finds_what_the_cluster_had",
        ),
    ),
    (
        "confman_restore_skipped_snapshots_total",
        At(DiskLostAndSnapshotDamaged),
    ),
    ("confman_restore_seconds", At(DiskLostAndSnapshotDamaged)),
    (
        "confman_restore_phase_seconds",
        At(DiskLostAndSnapshotDamaged),
    ),
    ("confman_store_requests_total", At(Snapshot)),
    ("confman_store_bytes_total", At(Snapshot)),
    ("confman_store_errors_total", At(StoreGone)),
    ("confman_store_retries_total", At(StoreGone)),
    (
        "confman_store_uploads_not_aborted_total",
        of_the_store("each_try_that_fails_is_an_error_and_each_one_more_a_retry"),
    ),
    ("confman_store_conditional_writes", At(Start)),
    ("confman_store_fence_looks_total", At(Start)),
    ("confman_store_fence_look_timestamp_seconds", At(Start)),
    (
        "confman_store_foreign_objects",
        of_the_store("objects_that_are_not_ours_are_measured_until_they_are_gone"),
    ),
    ("confman_trace_spans_total", At(Write)),
    ("confman_http_requests_total", At(Write)),
    ("confman_http_request_seconds", At(Write)),
];

/// What a file of the workspace says.
fn text_of(file: &str) -> anyhow::Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

#[test]
fn every_metric_has_an_event_and_every_test_named_is_there() -> anyhow::Result<()> {
    // The page is made from the declaration of all metrics, and a test of the node compares the two.
    let page = text_of("node/METRICS.md")?;
    let names = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `confman_")?.split('`').next());
    let declared: BTreeSet<String> = names.map(|name| format!("confman_{name}")).collect();
    let here: BTreeSet<String> = TABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(here.len(), TABLE.len(), "one stands here twice");
    assert_eq!(here, declared);
    for (name, moves) in TABLE {
        if let In(file, test) = moves {
            let text = text_of(file)?;
            assert!(
                text.contains(&format!("fn {test}(")),
                "{file} has no test {test}"
            );
            assert!(text.contains(name), "{file} says nothing of {name}");
        }
    }
    Ok(())
}

type Pages = BTreeMap<usize, Page>;

async fn pages(cluster: &Cluster) -> anyhow::Result<Pages> {
    let mut pages = Pages::new();
    for (index, node) in cluster.nodes().iter().enumerate() {
        if node.pid().is_some() {
            pages.insert(index, cluster.metrics(index).await?);
        }
    }
    Ok(pages)
}

/// Whether some series of it has another value on some node; one that is new moves when it is not 0.
fn moved(metric: &str, before: &Pages, after: &Pages) -> bool {
    after.iter().any(|(index, page)| {
        page.of(metric).any(|(series, value)| {
            let was = before.get(index).and_then(|page| page.get(series));
            !value.is_nan() && was.unwrap_or(0.0) != value
        })
    })
}

/// Waits until everything has moved that does so at this event.
async fn moves(cluster: &Cluster, event: Event, before: &Pages) -> anyhow::Result<()> {
    let due = TABLE.iter().filter(|(_, moves)| *moves == At(event));
    let due: Vec<&str> = due.map(|(metric, _)| *metric).collect();
    ensure!(!due.is_empty(), "nothing moves at {event:?}");
    wait_until(&format!("what moves at {event:?}"), PATIENCE, || async {
        let after = pages(cluster).await?;
        let still: Vec<_> = due
            .iter()
            .filter(|metric| !moved(metric, before, &after))
            .collect();
        ensure!(still.is_empty(), "{still:?} did not move");
        Ok(())
    })
    .await
}

/// One node logs as usual, one every request as the README says, one whatever there is.
async fn start() -> anyhow::Result<Cluster> {
    let cluster = Plan::new("metrics")
        .tls()
        // Nobody takes traces there.
        .env("CONFMAN_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .env("CONFMAN_OTLP_SAMPLE_RATIO", "1")
        .lay_out()
        .await?;
    cluster.node(0).unset_env("CONFMAN_LOG");
    cluster
        .node(1)
        .set_env("CONFMAN_LOG", "info,confman_node::api=debug");
    cluster.node(2).set_env(
        "CONFMAN_LOG",
        "debug,openraft=info,raft_log=info,chunked_wal=info",
    );
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    Ok(cluster)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn every_metric_moves_when_that_happens_which_it_measures() -> anyhow::Result<()> {
    let cluster = start().await?;
    moves(&cluster, Start, &Pages::new()).await?;

    let before = pages(&cluster).await?;
    cluster.write("app/k", &json!("v")).await?;
    moves(&cluster, Write, &before).await?;

    let before = pages(&cluster).await?;
    let value = json!("v");
    let writes = async {
        loop {
            let names: Vec<String> = (0..16).map(|n| format!("app/many/k{n}")).collect();
            let all = names.iter().map(|name| cluster.write(name, &value));
            if let Err(error) = futures::future::try_join_all(all).await {
                return error;
            }
        }
    };
    tokio::select! {
        failed = writes => return Err(failed),
        seen = moves(&cluster, ManyWrites, &before) => seen?,
    }

    let before = pages(&cluster).await?;
    cluster.snapshot(CONFIG).await?;
    moves(&cluster, Snapshot, &before).await?;

    let before = pages(&cluster).await?;
    cluster.fill("app", "k", 200, "value").await?;
    cluster.snapshot(CONFIG).await?;
    moves(&cluster, SecondSnapshot, &before).await?;

    // It has applied all that the snapshot has, and remembers none of it; unless leadership has moved meanwhile, which is an entry
    // too, that it applies when it is back.
    let victim = cluster.follower(CONFIG).await?;
    let node = cluster.node(victim);
    let mut before = Pages::new();
    for _ in 0..RESTARTS_MAX {
        let (applied, _) = agree::state_hashes(&cluster, CONFIG).await?;
        node.stop(PATIENCE).await?;
        before = pages(&cluster).await?;
        let taken = cluster.snapshot(CONFIG).await?;
        node.start()?;
        cluster.wait_ready(victim).await?;
        if taken["index"].as_u64() == Some(applied) {
            break;
        }
    }
    moves(&cluster, Restarted, &before).await?;

    let before = pages(&cluster).await?;
    node.kill()?;
    for round in 0..2 {
        cluster
            .fill("app", &format!("r{round}-"), 200, "value")
            .await?;
        cluster.snapshot(CONFIG).await?;
    }
    moves(&cluster, NodeGone, &before).await?;

    let before = pages(&cluster).await?;
    let token = node.env().get(TOKEN).cloned().context("no token")?;
    node.set_env(TOKEN, "another-token-of-some-other-cluster");
    node.start()?;
    moves(&cluster, WrongToken, &before).await?;
    node.kill()?;
    node.set_env(TOKEN, &token);

    let before = pages(&cluster).await?;
    cluster.stop_store().await;
    for group in [META, CONFIG] {
        let leader = cluster.wait_leader(group).await?;
        let path = format!(
            "/api/v1/admin/snapshots?group={}",
            group.replace('/', "%2F")
        );
        let asked = cluster
            .api(leader)
            .post(&path, &json!({}))
            .timeout(PATIENCE);
        // It may well wait until its time is over.
        if let Ok(answer) = asked.send().await {
            ensure!(answer.status >= 500, "{}: {}", answer.status, answer.text());
        }
    }
    moves(&cluster, StoreGone, &before).await?;
    cluster.resume_store().await?;

    let before = pages(&cluster).await?;
    let newest = {
        let store = cluster.store().await;
        store.as_ref().context("no store")?.snapshots(CONFIG)?.pop()
    };
    flip_bit(&newest.context("no snapshot")?)?;
    node.wipe()?;
    node.start()?;
    cluster.wait_ready(victim).await?;
    moves(&cluster, DiskLostAndSnapshotDamaged, &before).await?;

    let before = pages(&cluster).await?;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    cluster
        .certs()?
        .issue("node1", Signer::Old, &["127.0.0.1"])?;
    moves(&cluster, NewCertificate, &before).await?;

    requests_are_logged_where_the_readme_says(&cluster).await?;
    no_secret_is_logged(&cluster, &token)?;
    cluster.finish()
}

async fn requests_are_logged_where_the_readme_says(cluster: &Cluster) -> anyhow::Result<()> {
    for index in 0..3 {
        let id = format!("seen-by-an-operator-{index}");
        let asked = cluster.api(index).get("/api/v1/config/app/k");
        let asked = asked.header("X-Correlation-Id", &id);
        asked.send().await?.expect(&[200, 307])?;
    }
    for index in [1, 2] {
        let id = format!("seen-by-an-operator-{index}");
        let line = cluster.node(index).wait_log(&[&id], PATIENCE).await?;
        for part in [
            "correlation_id=",
            "request_id=",
            "trace_id=",
            "/api/v1/config/app/k",
        ] {
            assert!(line.contains(part), "{part} is not in: {line}");
        }
    }
    let log = cluster.node(0).log_text()?;
    assert!(!log.contains("seen-by-an-operator"), "{log}");
    Ok(())
}

/// What nobody may find in a log, however much is logged.
fn no_secret_is_logged(cluster: &Cluster, token: &str) -> anyhow::Result<()> {
    let env = cluster.node(0).env();
    let store_secret = env.get("AWS_SECRET_ACCESS_KEY").context("no secret")?;
    for node in cluster.nodes() {
        let log = node.log_text()?;
        assert!(log.contains("serving"), "{} has logged nothing", node.name);
        let secrets = [
            ("the cluster token", token),
            (
                "a wrong cluster token",
                "another-token-of-some-other-cluster",
            ),
            ("the API key", cluster.key()),
            ("the store's secret", store_secret),
            ("a private key", "PRIVATE KEY"),
        ];
        for (what, secret) in secrets {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{} has logged {what}", node.name);
        }
    }
    assert!(
        cluster.node(2).log_text()?.contains("DEBUG"),
        "nothing but the usual was logged"
    );
    Ok(())
}
