//! Traces of real processes, at a real collector inside the test: who is whose child across nodes, what a snapshot is made of, what
//! never leaves a node, and a collector that does nothing but hang.

mod collector;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use confman_tests::cluster::{CONFIG, Cluster, PATIENCE, Plan};
use confman_tests::wait::wait_until;
use serde_json::json;

use self::collector::{Collector, Seen, one};

const ROUTE: &str = "/api/v1/config/{*path}";
const CANARY: &str = "canary-value-5f1c";
/// What a write may take on a busy machine; a collector that hangs keeps whoever waits for it for longer.
const WRITE_WITHIN: Duration = Duration::from_secs(4);
/// What supervisors give.
const STOP_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn traces_of_writes_and_snapshots_reach_a_collector_that_nothing_waits_for()
-> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let cluster = Plan::new("traces")
        .env("CONFMAN_OTLP_ENDPOINT", &collector.url())
        .env("CONFMAN_OTLP_SAMPLE_RATIO", "1")
        .env("CONFMAN_SNAPSHOT_LOG_MARGIN", "0")
        .env("CONFMAN_SNAPSHOT_RETENTION_COUNT", "1")
        .env("CONFMAN_SNAPSHOT_DELETE_GRACE_SECS", "0")
        .start()
        .await?;

    a_write_is_followed_from_node_to_node(&cluster, &collector).await?;
    a_batch_is_one_story(&cluster, &collector).await?;
    a_snapshot_shows_its_phases(&cluster, &collector).await?;
    nothing_secret_has_left(&cluster, &collector)?;
    let stopped = a_collector_that_hangs_holds_nothing_up(&cluster, &collector).await?;
    a_restore_is_traced(&cluster, &collector, stopped).await?;
    nothing_secret_has_left(&cluster, &collector)?;
    cluster.finish()
}

/// Client, follower, leader: one trace, each span the child of the one that caused it.
async fn a_write_is_followed_from_node_to_node(
    cluster: &Cluster,
    collector: &Collector,
) -> anyhow::Result<()> {
    let follower = cluster.follower(CONFIG).await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let names = [follower, leader].map(|index| cluster.node(index).name.clone());
    let api = cluster.api(follower);
    let (not_kept, strangers) = ("0af7651916cd43dd8448eb211c80319c", "1".repeat(32));
    let (kept, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");

    // Before the write and to the same node, so that they would have arrived before it.
    api.get("/api/v1/config/app/web")
        .header("traceparent", &format!("00-{not_kept}-{parent}-00"))
        .send()
        .await?;
    api.with_key("wrong")
        .get("/api/v1/config/app/web")
        .header("traceparent", &format!("00-{strangers}-{parent}-01"))
        .send()
        .await?
        .expect(&[401])?;
    let written = api
        .put("/api/v1/config/app/web/greeting", &json!(CANARY))
        .header("x-confman-forward", "true")
        .header("x-correlation-id", "deploy-42")
        .header("traceparent", &format!("00-{kept}-{parent}-01"))
        .header("tracestate", "vendor=opaque")
        .send()
        .await?
        .expect(&[201])?;

    let spans = wait_until("the spans of the write", PATIENCE, || async {
        let spans = collector.of(kept);
        ensure!(spans.len() >= 6, "{} of 6: {spans:#?}", spans.len());
        Ok(spans)
    })
    .await?;
    ensure!(spans.len() == 6, "more than was expected: {spans:#?}");
    let of = |node: &str, kind: &str, name: &str| {
        one(&spans, &format!("{kind} span {name} of {node}"), |span| {
            span.node == node && span.kind.ends_with(kind) && span.name == name
        })
    };
    let asked = of(&names[0], "server", &format!("PUT {ROUTE}"))?;
    let sent = of(&names[0], "client", "PUT")?;
    let taken = of(&names[1], "server", &format!("PUT {ROUTE}"))?;
    let proposed = of(&names[1], "internal", "propose")?;
    let replicated = of(&names[1], "internal", "replicate")?;
    let applied = of(&names[1], "internal", "apply")?;
    for (child, of) in [
        (&asked, parent),
        (&sent, &asked.id),
        (&taken, &sent.id),
        (&proposed, &taken.id),
        (&replicated, &proposed.id),
        (&applied, &proposed.id),
    ] {
        ensure!(child.parent == of, "{child:#?} is no child of {of}");
        ensure!(
            !child.failed && child.begin_ns <= child.end_ns,
            "{child:#?}"
        );
    }
    ensure!(
        proposed.begin_ns <= replicated.begin_ns
            && replicated.end_ns <= applied.begin_ns
            && applied.end_ns <= proposed.end_ns,
        "{spans:#?}"
    );
    for (span, name, value) in [
        (&asked, "confman.correlation_id", "deploy-42"),
        (&taken, "confman.correlation_id", "deploy-42"),
        (&asked, "http.request.method", "PUT"),
        (&asked, "http.route", ROUTE),
        (&asked, "http.response.status_code", "=201"),
        (&asked, "url.path", "/api/v1/config/app/web/greeting"),
        (&asked, "enduser.id", "tester"),
        (&sent, "http.response.status_code", "=201"),
        (&proposed, "confman.group", CONFIG),
        (
            &proposed,
            "confman.index",
            &format!("={}", written.token()?.index),
        ),
    ] {
        ensure!(
            span.attribute(name) == value,
            "{name} is not {value}: {span:#?}"
        );
    }
    ensure!(asked.raw.contains("vendor=opaque"), "{asked:#?}");
    ensure!(asked.resource["service.name"] == "confman", "{asked:#?}");
    ensure!(asked.resource.contains_key("service.version"), "{asked:#?}");

    for trace in [not_kept, &strangers] {
        let spans = collector.of(trace);
        ensure!(spans.is_empty(), "not to be kept: {spans:#?}");
    }
    let refused = collector.one("request of a stranger", |span| {
        span.attribute("http.response.status_code") == "=401"
    })?;
    ensure!(refused.parent.is_empty() && !refused.failed, "{refused:#?}");
    let watched = |span: &Seen| {
        let route = span.attribute("http.route");
        route.starts_with("/health") || route == "/metrics"
    };
    ensure!(!collector.seen().iter().any(watched), "probes are traced");
    Ok(())
}

/// A batch of many items has one span for what is proposed, not one for each.
async fn a_batch_is_one_story(cluster: &Cluster, collector: &Collector) -> anyhow::Result<()> {
    cluster.fill("app/many", "key", 100, "value").await?;
    let batch = wait_until("the spans of the batch", PATIENCE, || async {
        collector.one("batch that was answered", |span| {
            span.name == "POST /api/v1/batch"
                && span.attribute("http.response.status_code") == "=200"
        })
    })
    .await?;
    let spans = collector.of(&batch.trace);
    let proposed = one(&spans, "proposal", |span| span.name == "propose")?;
    ensure!(
        proposed.attribute("confman.batch.items") == "=100",
        "{proposed:#?}"
    );
    ensure!(spans.len() == 2, "{spans:#?}");
    Ok(())
}

async fn a_snapshot_shows_its_phases(
    cluster: &Cluster,
    collector: &Collector,
) -> anyhow::Result<()> {
    let made = cluster.snapshot(CONFIG).await?;
    let id = made["id"].as_str().context("no id")?;
    // A follower made it and had the leader record it, over the peer protocol: each node sends its own part when it likes.
    let (snapshot, spans, call, taken) =
        wait_until("the spans of the snapshot", PATIENCE, || async {
            let snapshot = collector.one("snapshot", |span| {
                span.name == "snapshot" && span.attribute("confman.snapshot.id") == id
            })?;
            let spans = collector.of(&snapshot.trace);
            let record = one(&spans, "record", |span| span.name == "snapshot.record")?;
            let call = one(&spans, "call within the record", |span| {
                span.parent == record.id
            })?;
            let taken = one(&spans, "its other end", |span| span.parent == call.id)?;
            one(&spans, "its proposal", |span| {
                span.parent == taken.id && span.name == "propose" && span.node == taken.node
            })?;
            Ok((snapshot, spans, call, taken))
        })
        .await?;
    ensure!(
        snapshot.parent.is_empty() && !snapshot.failed,
        "{snapshot:#?}"
    );
    ensure!(
        snapshot.attribute("confman.group") == CONFIG,
        "{snapshot:#?}"
    );
    ensure!(
        snapshot.attribute("confman.snapshot.reason") == "requested",
        "{snapshot:#?}"
    );
    let mut before = snapshot.begin_ns;
    for phase in ["build", "upload", "verify", "record"] {
        let name = format!("snapshot.{phase}");
        let span = one(&spans, &name, |span| span.name == name)?;
        ensure!(
            span.parent == snapshot.id && span.node == snapshot.node,
            "{span:#?}"
        );
        ensure!(
            before <= span.begin_ns && span.end_ns <= snapshot.end_ns,
            "{spans:#?}"
        );
        before = span.end_ns;
    }
    ensure!(
        call.kind.ends_with("client") && taken.kind.ends_with("server"),
        "{spans:#?}"
    );
    ensure!(
        call.node == snapshot.node && taken.node != call.node,
        "{spans:#?}"
    );

    // The next one makes this one old.
    cluster.write("app/web/greeting", &json!("again")).await?;
    cluster.snapshot(CONFIG).await?;
    wait_until("purge and retention", PATIENCE, || async {
        for name in ["log.purge", "retention.mark", "retention.delete"] {
            let seen = collector.seen();
            let there =
                |span: &Seen| span.name == name && span.attribute("confman.group") == CONFIG;
            ensure!(seen.iter().any(there), "no {name}");
        }
        Ok(())
    })
    .await
}

fn nothing_secret_has_left(cluster: &Cluster, collector: &Collector) -> anyhow::Result<()> {
    let env = cluster.node(0).env();
    let token = &env["CONFMAN_CLUSTER_TOKEN"];
    let store = &env["AWS_SECRET_ACCESS_KEY"];
    let seen = collector.seen();
    ensure!(seen.len() > 10, "{seen:#?}");
    for span in seen {
        for secret in [cluster.key(), token, store, CANARY] {
            let told = format!("{} {:?}", span.raw, span.resource);
            ensure!(!told.contains(secret), "{secret} has left: {span:#?}");
        }
    }
    Ok(())
}

/// Gives the node that was stopped meanwhile.
async fn a_collector_that_hangs_holds_nothing_up(
    cluster: &Cluster,
    collector: &Collector,
) -> anyhow::Result<usize> {
    let leader = cluster.wait_leader(CONFIG).await?;
    let spans = async |result: &str| -> anyhow::Result<u64> {
        let metrics = cluster.api(leader).get("/metrics").send().await?.text();
        let name = format!("confman_trace_spans_total{{result=\"{result}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        Ok(line.unwrap_or("0").parse()?)
    };
    ensure!(spans("exported").await? > 0, "nothing is counted");

    collector.hang(true);
    wait_until(
        "a queue that overflows and a batch given up",
        PATIENCE,
        || async {
            let begun = Instant::now();
            let put = cluster
                .api(leader)
                .put("/api/v1/config/app/web/greeting", &json!("on"));
            put.send().await?.expect(&[200])?;
            let took = begun.elapsed();
            if took > WRITE_WITHIN {
                bail!("a write took {took:?}");
            }
            let reads = (0..16).map(|_| async {
                for _ in 0..25 {
                    cluster.read(leader, "app/web/greeting", "eventual").await?;
                }
                Ok::<_, anyhow::Error>(())
            });
            futures::future::try_join_all(reads).await?;
            for result in ["dropped", "failed"] {
                ensure!(spans(result).await? > 0, "none is {result}");
            }
            Ok(())
        },
    )
    .await?;

    let node = cluster.node(leader);
    let (status, took) = node.stop(STOP_WITHIN).await?;
    ensure!(
        status.success() && took < STOP_WITHIN,
        "{status} after {took:?}"
    );
    let log = node.log_text()?;
    let told = log
        .lines()
        .filter(|line| line.contains("traces do not reach the collector"))
        .count();
    ensure!((1..=2).contains(&told), "told {told} times");
    // Who leads now has a hanging collector too.
    cluster.write("app/web/greeting", &json!("still")).await?;
    Ok(leader)
}

async fn a_restore_is_traced(
    cluster: &Cluster,
    collector: &Collector,
    stopped: usize,
) -> anyhow::Result<()> {
    collector.hang(false);
    let node = cluster.node(stopped);
    node.wipe()?;
    node.start()?;
    cluster.wait_ready(stopped).await?;
    wait_until("the span of the restore", PATIENCE, || async {
        collector.one("restore", |span| {
            span.name == "restore"
                && span.node == node.name
                && span.attribute("confman.group") == CONFIG
                && span.attribute("confman.restore.source") == "store"
                && !span.attribute("confman.snapshot.id").is_empty()
        })
    })
    .await?;
    // Those that had lost it find the collector again, when there is something to send.
    for (index, other) in cluster.nodes().iter().enumerate() {
        let lost = other
            .log_text()?
            .contains("traces do not reach the collector");
        if !lost || index == stopped {
            continue;
        }
        wait_until("a collector found again", PATIENCE, || async {
            cluster.read(index, "app/web/greeting", "eventual").await?;
            let log = other.log_text()?;
            ensure!(log.contains("traces reach the collector again"), "{log}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
