//! Writes as clients make them: retried, compared, large, deleted.

use confman_tests::agree;
use confman_tests::audit;
use confman_tests::cluster::{CONFIG, Plan};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_write_is_applied_once_and_answers_as_it_did_even_after_failover()
-> anyhow::Result<()> {
    let cluster = Plan::new("retry").start().await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let ask = |index: usize, value: &str| {
        cluster
            .api(index)
            .put("/api/v1/config/app/k", &json!(value))
            .header("idempotency-key", "one")
    };
    let first = ask(leader, "v").send().await?.expect(&[201])?;
    let again = ask(leader, "v").send().await?.expect(&[201])?;
    assert_eq!(first.token()?, again.token()?);
    assert_eq!(first.body, again.body);
    let other = ask(leader, "another value").send().await?;
    assert_eq!(
        other.json()?["type"],
        "urn:confman:problem:idempotency-key-reused"
    );

    cluster.node(leader).kill()?;
    let next = cluster.wait_leader(CONFIG).await?;
    let after = ask(next, "v").send().await?.expect(&[201])?;
    assert_eq!(first.token()?, after.token()?);
    let events = audit::events(&cluster.api(next), Some("app")).await?;
    assert_eq!(
        events
            .iter()
            .filter(|event| event["action"] == "put")
            .count(),
        1
    );
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_and_set_lets_one_of_many_win_each_version() -> anyhow::Result<()> {
    let cluster = Plan::new("counter").start().await?;
    cluster.write("app/counter", &json!(0)).await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let count = |api: confman_tests::http::Api| async move {
        let mut done = 0;
        while done < 15 {
            let read = api
                .get("/api/v1/config/app/counter")
                .send()
                .await?
                .expect(&[200])?;
            let etag = read.header("etag").unwrap_or_default().to_owned();
            let value = read.json()?["value"].as_u64().unwrap_or_default();
            let put = api
                .put("/api/v1/config/app/counter", &json!(value + 1))
                .header("if-match", &etag);
            match put.send().await?.expect(&[200, 412])? {
                answer if answer.status == 200 => done += 1,
                refused => assert!(refused.json()?["currentVersion"].is_u64()),
            }
        }
        anyhow::Ok(())
    };
    let clients: Vec<_> = (0..4)
        .map(|_| tokio::spawn(count(cluster.api(leader))))
        .collect();
    for client in clients {
        client.await??;
    }
    assert_eq!(
        cluster.read(leader, "app/counter", "linearizable").await?,
        Some(json!(60))
    );
    let entry = cluster
        .api(leader)
        .get_json("/api/v1/config/app/counter")
        .await?;
    assert_eq!(entry["version"], 61);
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_comes_back_byte_for_byte_from_every_node() -> anyhow::Result<()> {
    let cluster = Plan::new("large").start().await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let mut random = confman_tests::random::Random::new(7);
    let bytes: Vec<u8> = (0..3_000_001)
        .map(|_| u8::try_from(random.draw() & 0xff).unwrap())
        .collect();
    let put = cluster
        .api(leader)
        .ask(reqwest::Method::PUT, "/api/v1/config/files/big.bin")
        .header("content-type", "application/octet-stream")
        .body(bytes.clone())
        .send()
        .await?
        .expect(&[201])?;
    let token = put.token()?.to_string();
    assert_eq!(put.json()?["size"], 3_000_001);
    for index in 0..3 {
        let ask = cluster.api(index).get("/api/v1/config/files/big.bin");
        let ask = ask
            .header("accept", "application/octet-stream")
            .consistency("read-your-writes");
        let got = ask
            .header("x-confman-version", &token)
            .send()
            .await?
            .expect(&[200])?;
        assert_eq!(got.header("x-confman-type"), Some("binary"));
        assert!(got.body == bytes, "node {index} gives other bytes");
    }
    agree::state_hashes(&cluster, CONFIG).await?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_deleting_a_namespace_audits_every_key_on_every_node() -> anyhow::Result<()> {
    let cluster = Plan::new("namespace").start().await?;
    cluster.fill("team/app", "k", 120, "v").await?;
    cluster.fill("team/app/deep/er", "k", 30, "v").await?;
    cluster.write("team/other", &json!("stays")).await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    cluster
        .api(leader)
        .delete("/api/v1/namespaces/team/app")
        .send()
        .await?
        .expect(&[204])?;
    let events = agree::audits(&cluster, None).await?;
    let deletes = events
        .iter()
        .filter(|event| event["action"] == "delete" && event["key"].is_string());
    assert_eq!(deletes.count(), 150);
    assert_eq!(
        cluster.read(leader, "team/app/k0", "linearizable").await?,
        None
    );
    assert_eq!(
        cluster.read(leader, "team/other", "linearizable").await?,
        Some(json!("stays"))
    );
    let ids: std::collections::BTreeSet<&str> = events
        .iter()
        .filter_map(|event| event["id"].as_str())
        .collect();
    assert_eq!(ids.len(), events.len(), "audit ids repeat");
    agree::state_hashes(&cluster, CONFIG).await?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_spread_over_the_groups_and_stay_whole() -> anyhow::Result<()> {
    let cluster = Plan::new("shards")
        .env("CONFMAN_SHARDS", "3")
        .start()
        .await?;
    for n in 0..12 {
        cluster.write(&format!("team{n}/app/k"), &json!(n)).await?;
    }
    let status = cluster.status(0).await?;
    let groups: Vec<&str> = status["groups"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|g| g["group"].as_str())
        .collect();
    assert_eq!(groups, ["__meta/0", "config/0", "config/1", "config/2"]);
    for n in 0..12 {
        for index in 0..3 {
            assert_eq!(
                cluster
                    .read(index, &format!("team{n}/app/k"), "linearizable")
                    .await?,
                Some(json!(n))
            );
        }
    }
    let mut used = 0;
    for group in &groups[1..] {
        agree::state_hashes(&cluster, group).await?;
        used += usize::from(
            cluster.group(0, group).await?["appliedIndex"]
                .as_u64()
                .unwrap_or(0)
                > 2,
        );
    }
    assert!(used >= 2, "twelve namespaces in one group");
    let listed = cluster
        .api(1)
        .get_json("/api/v1/namespaces?limit=100")
        .await?;
    assert_eq!(listed["items"].as_array().unwrap().len(), 24, "{listed}");
    cluster.finish()
}
