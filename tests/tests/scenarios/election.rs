//! Who leads, what happens when the leader goes, and what a follower says to a write.

use std::time::Duration;

use confman_tests::agree;
use confman_tests::cluster::{CONFIG, META, PATIENCE, Plan};
use confman_tests::load::{Load, LoadPlan};
use serde_json::json;

/// A graceful stop must be over by then.
const STOP_BOUND: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_agree_on_one_leader_and_serve() -> anyhow::Result<()> {
    let cluster = Plan::new("election").start().await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    cluster.wait_leader(META).await?;
    let status = cluster.status(leader).await?;
    assert_eq!(status["incarnation"], 1);
    assert_eq!(status["ready"], true);
    let group = cluster.group(leader, CONFIG).await?;
    let members = group["members"].as_array().unwrap();
    assert_eq!(members.len(), 3, "{members:?}");
    assert!(
        members.iter().all(|member| member["role"] == "voter"),
        "{members:?}"
    );
    cluster.write("app/web/greeting", &json!("hello")).await?;
    for index in 0..3 {
        assert_eq!(
            cluster
                .read(index, "app/web/greeting", "linearizable")
                .await?,
            Some(json!("hello"))
        );
    }
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_redirects_a_write_and_forwards_it_when_asked() -> anyhow::Result<()> {
    let cluster = Plan::new("redirect").start().await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let follower = cluster.follower(CONFIG).await?;
    let path = "/api/v1/config/app/k";
    let answer = cluster
        .api(follower)
        .put(path, &json!("v"))
        .send()
        .await?
        .expect(&[307])?;
    let location = answer.header("location").unwrap().to_owned();
    assert_eq!(location, format!("{}{path}", cluster.node(leader).api_url));
    // Nothing was done by the node that redirected.
    assert_eq!(cluster.read(leader, "app/k", "linearizable").await?, None);

    let forwarded = cluster
        .api(follower)
        .put("/api/v1/config/app/k", &json!("v"))
        .header("x-confman-forward", "true")
        .send()
        .await?
        .expect(&[201])?;
    let token = forwarded.token()?;
    assert_eq!(token.incarnation, 1);
    assert_eq!(
        cluster.read(follower, "app/k", "linearizable").await?,
        Some(json!("v"))
    );
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_what_a_killed_leader_acknowledged_is_served_by_the_next() -> anyhow::Result<()> {
    let cluster = Plan::new("failover").start().await?;
    let first = cluster.wait_leader(CONFIG).await?;
    for n in 0..20 {
        cluster
            .write(&format!("app/k{n}"), &json!(format!("v{n}")))
            .await?;
    }
    cluster.node(first).kill()?;
    let second = cluster.wait_leader(CONFIG).await?;
    assert_ne!(first, second);
    for n in 0..20 {
        let read = cluster
            .read(second, &format!("app/k{n}"), "linearizable")
            .await?;
        assert_eq!(read, Some(json!(format!("v{n}"))));
    }
    cluster.write("app/after", &json!("failover")).await?;
    cluster.node(first).start()?;
    cluster.wait_ready(first).await?;
    assert_eq!(
        cluster.read(first, "app/after", "linearizable").await?,
        Some(json!("failover"))
    );
    agree::state_hashes(&cluster, CONFIG).await?;
    cluster.finish()
}

/// SIGTERM hands leadership over first: the next leader is there at once, not after an election timeout.
#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_hands_leadership_over_and_is_quick() -> anyhow::Result<()> {
    // So long that a leader who comes within the bound below was handed the lead.
    let cluster = Plan::new("graceful")
        .env("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "15000")
        .env("CONFMAN_ELECTION_TIMEOUT_MAX_MS", "20000")
        .start()
        .await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    cluster.write("app/k", &json!("before")).await?;
    let (status, took) = cluster.node(leader).stop(STOP_BOUND).await?;
    assert!(status.success(), "{status}");
    let handed = std::time::Instant::now();
    cluster.wait_leader(CONFIG).await?;
    cluster.write("app/k", &json!("after")).await?;
    assert!(
        handed.elapsed() < Duration::from_secs(10),
        "{:?} after a stop of {took:?}",
        handed.elapsed()
    );
    cluster.node(leader).start()?;
    cluster.wait_ready(leader).await?;
    assert_eq!(
        cluster.read(leader, "app/k", "linearizable").await?,
        Some(json!("after"))
    );
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn without_a_majority_writes_are_refused_and_the_node_is_not_ready() -> anyhow::Result<()> {
    let cluster = Plan::new("minority").start().await?;
    cluster.write("app/k", &json!("v")).await?;
    agree::state_hashes(&cluster, CONFIG).await?;
    cluster.node(0).kill()?;
    cluster.node(1).kill()?;
    let api = cluster.api(2);
    confman_tests::wait::wait_until("the rest is not ready", PATIENCE, || async {
        let answer = api.get("/health/ready").send().await?.expect(&[503])?;
        anyhow::ensure!(
            answer.text().contains(CONFIG),
            "no reason per group: {}",
            answer.text()
        );
        Ok(())
    })
    .await?;
    api.get("/health").send().await?.expect(&[200])?;
    // Each group notices for itself that its leader is silent.
    let answer = confman_tests::wait::wait_until("writes are refused", PATIENCE, || async {
        let answer = api.put("/api/v1/config/app/k", &json!("w")).send().await?;
        answer.expect(&[503, 504])
    })
    .await?;
    assert!(
        answer.json()?["type"]
            .as_str()
            .unwrap()
            .starts_with("urn:confman:problem:")
    );
    if answer.status == 503 {
        assert!(answer.header("retry-after").is_some());
    }
    // A linearizable read cannot be answered; an eventual one can.
    let read = api
        .get("/api/v1/config/app/k")
        .send()
        .await?
        .expect(&[503, 504])?;
    assert!(read.json()?["type"].is_string());
    assert_eq!(
        cluster.read(2, "app/k", "eventual").await?,
        Some(json!("v"))
    );
    cluster.node(0).start()?;
    cluster.wait_ready(0).await?;
    cluster.write("app/k", &json!("x")).await?;
    cluster.finish()
}

/// A replica that is a few entries behind because writes arrive all the time is not thereby unready: whoever balances
/// load by readiness would drop all followers of a busy cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_replica_stays_ready() -> anyhow::Result<()> {
    let cluster = Plan::new("busy").start().await?;
    let load = Load::start(
        &cluster,
        &LoadPlan {
            writers: 6,
            readers: 0,
            ..LoadPlan::default()
        },
    );
    load.wait_progress(20, PATIENCE).await?;
    for _ in 0..60 {
        for index in 0..3 {
            cluster
                .api(index)
                .get("/health/ready")
                .send()
                .await?
                .expect(&[200])?;
        }
    }
    load.stop().await?;
    cluster.finish()
}
