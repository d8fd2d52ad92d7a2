//! The three read modes, where they are hardest: after a follower's restart, and across a leader that stood still.

use std::time::Duration;

use confman_tests::cluster::{CONFIG, PATIENCE, Plan};
use confman_tests::wait::wait_until;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_makes_any_node_show_at_least_that_write() -> anyhow::Result<()> {
    let cluster = Plan::new("tokens").start().await?;
    for n in 0..30 {
        let written = cluster.write("app/k", &json!(n)).await?;
        let token = written.token()?.to_string();
        for index in 0..3 {
            let read = cluster
                .api(index)
                .get("/api/v1/config/app/k")
                .consistency("read-your-writes")
                .header("x-confman-version", &token)
                .send()
                .await?
                .expect(&[200])?;
            assert_eq!(
                read.json()?["value"],
                json!(n),
                "node {index} with token {token}"
            );
        }
    }
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_life_or_of_the_future_gets_no_old_data() -> anyhow::Result<()> {
    let cluster = Plan::new("foreign-token")
        .env("CONFMAN_READ_TIMEOUT_MS", "500")
        .start()
        .await?;
    let token = cluster.write("app/k", &json!("v")).await?.token()?;
    let read = |text: String| {
        let api = cluster.api(0);
        async move {
            let ask = api
                .get("/api/v1/config/app/k")
                .consistency("read-your-writes");
            ask.header("x-confman-version", &text).send().await
        }
    };
    let future = read(format!("1.{}.{}", token.term, token.index + 1000))
        .await?
        .expect(&[504])?;
    assert_eq!(future.json()?["type"], "urn:confman:problem:read-timeout");
    let other = read(format!("2.{}.{}", token.term, token.index))
        .await?
        .expect(&[409])?;
    assert_eq!(other.json()?["type"], "urn:confman:problem:old-incarnation");
    let older = read(format!("0.{}.{}", token.term, token.index))
        .await?
        .expect(&[409])?;
    assert!(older.json()?["hint"].is_string());
    read("nonsense".to_owned()).await?.expect(&[400])?;
    cluster.finish()
}

/// A follower that was down while a value changed must not show the old one, however soon it is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_follower_never_shows_the_old_value_linearizably() -> anyhow::Result<()> {
    let cluster = Plan::new("stale-follower").start().await?;
    for round in 0..4 {
        let follower = cluster.follower(CONFIG).await?;
        let old = json!(format!("old {round}"));
        let new = json!(format!("new {round}"));
        cluster.write("app/k", &old).await?;
        let token = cluster.write("app/mark", &json!(round)).await?.token()?;
        wait_until("the follower has the old value", PATIENCE, || async {
            let applied = cluster.group(follower, CONFIG).await?["appliedIndex"]
                .as_u64()
                .unwrap_or(0);
            anyhow::ensure!(applied >= token.index, "{applied} of {}", token.index);
            Ok(())
        })
        .await?;
        cluster.node(follower).kill()?;
        cluster.write("app/k", &new).await?;
        cluster.node(follower).start()?;
        // Asked as fast as it can be, from before it listens until it is ready: every answer must be the new value.
        let api = cluster.api(follower);
        let begin = std::time::Instant::now();
        let mut answers = 0;
        while answers < 20 {
            anyhow::ensure!(
                begin.elapsed() < PATIENCE,
                "the follower does not come back"
            );
            let ask = api
                .get("/api/v1/config/app/k")
                .timeout(Duration::from_secs(10));
            match ask.send().await {
                Ok(answer) if answer.status == 200 => {
                    answers += 1;
                    assert_eq!(
                        answer.json()?["value"],
                        new,
                        "round {round}, answer {answers}"
                    );
                }
                // No answer is allowed, an old one is not.
                Ok(answer) => assert!(
                    matches!(answer.status, 503 | 504 | 307),
                    "{} {}",
                    answer.status,
                    answer.text()
                ),
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }
    cluster.finish()
}

/// A leader that stood still while another was elected wakes up believing that it leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_never_shows_an_old_value_linearizably() -> anyhow::Result<()> {
    let cluster = Plan::new("paused-leader").start().await?;
    for round in 0..3 {
        let paused = cluster.wait_leader(CONFIG).await?;
        cluster
            .write("app/k", &json!(format!("old {round}")))
            .await?;
        cluster.node(paused).pause()?;
        // Asked while it stands still: these are what it handles first when it wakes.
        let early: Vec<_> = (0..8)
            .map(|_| {
                let ask = cluster
                    .api(paused)
                    .get("/api/v1/config/app/k")
                    .timeout(PATIENCE);
                tokio::spawn(ask.send())
            })
            .collect();
        let next = wait_until("another leader", PATIENCE, || async {
            for index in (0..3).filter(|index| *index != paused) {
                if cluster.group(index, CONFIG).await?["role"] == "leader" {
                    return Ok(index);
                }
            }
            anyhow::bail!("none yet")
        })
        .await?;
        let new = json!(format!("new {round}"));
        let written = cluster
            .api(next)
            .put("/api/v1/config/app/k", &new)
            .send()
            .await?
            .expect(&[200, 201, 503, 504, 307])?;
        if !matches!(written.status, 200 | 201) {
            // It had only just been elected; once more is enough.
            wait_until("the new leader writes", PATIENCE, || async {
                cluster
                    .api(next)
                    .put("/api/v1/config/app/k", &new)
                    .send()
                    .await?
                    .expect(&[200, 201])
            })
            .await?;
        }
        cluster.node(paused).resume()?;
        for _ in 0..20 {
            let answer = cluster
                .api(paused)
                .get("/api/v1/config/app/k")
                .timeout(PATIENCE)
                .send()
                .await?;
            if answer.status == 200 {
                assert_eq!(answer.json()?["value"], new, "round {round}");
            }
        }
        for answer in early {
            // The connection may have been dropped; what came must not be old.
            if let Ok(answer) = answer.await?
                && answer.status == 200
            {
                assert_eq!(
                    answer.json()?["value"],
                    new,
                    "round {round}, asked while it stood still"
                );
            }
        }
        cluster.wait_all_ready().await?;
    }
    cluster.finish()
}

/// What the deposed leader was asked to write while it stood still is either done once or not at all.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_write_to_a_leader_that_stands_still_is_not_acknowledged_in_vain() -> anyhow::Result<()> {
    let cluster = Plan::new("paused-write").start().await?;
    let paused = cluster.wait_leader(CONFIG).await?;
    cluster.write("app/k", &json!("first")).await?;
    cluster.node(paused).pause()?;
    let ask = cluster
        .api(paused)
        .put("/api/v1/config/app/k", &json!("by the old leader"))
        .timeout(PATIENCE);
    let early = tokio::spawn(ask.send());
    wait_until("another leader", PATIENCE, || async {
        for index in (0..3).filter(|index| *index != paused) {
            if cluster.group(index, CONFIG).await?["role"] == "leader" {
                return Ok(());
            }
        }
        anyhow::bail!("none yet")
    })
    .await?;
    cluster.node(paused).resume()?;
    let acknowledged = match early.await? {
        Ok(answer) => matches!(answer.status, 200 | 201),
        Err(_) => false,
    };
    cluster.wait_all_ready().await?;
    let events = confman_tests::agree::audits(&cluster, Some("app")).await?;
    let told = events
        .iter()
        .filter(|event| event["newValue"] == "by the old leader")
        .count();
    assert!(told <= 1, "applied {told} times");
    assert!(!acknowledged || told == 1, "acknowledged and lost");
    cluster.finish()
}
