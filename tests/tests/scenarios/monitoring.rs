//! The metrics as a Prometheus server takes them: every panel of the dashboard and every alert has something to look at.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use confman_tests::cluster::{CONFIG, Plan};
use confman_tests::ports::free_port;
use confman_tests::wait::wait_until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// Zero as long as all is well.
const ZERO_WHEN_WELL: [&str; 2] = ["Store errors", "State hashes differ"];

fn compose() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose")
}

fn is_there(program: &str) -> bool {
    let ran = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    ran.is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn every_panel_of_the_dashboard_is_answered_by_a_running_cluster() -> anyhow::Result<()> {
    if !is_there("prometheus") {
        confman_tests::skip::skipped(
            "every_panel_of_the_dashboard_is_answered_by_a_running_cluster",
            "no program `prometheus` is installed",
        );
        return Ok(());
    }
    let cluster = Plan::new("monitoring").start().await?;
    cluster.write("app/web/greeting", &json!("hello")).await?;
    cluster.snapshot(CONFIG).await?;

    let dir = tempfile::tempdir()?;
    let mut targets = String::new();
    for node in cluster.nodes() {
        let address = node.api_url.trim_start_matches("http://");
        let _ = write!(targets, "{address:?},");
    }
    let rules = compose().join("prometheus/rules.yml").canonicalize()?;
    std::fs::write(
        dir.path().join("prometheus.yml"),
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{rules:?}]\n\
             scrape_configs: [{{job_name: confman, static_configs: [{{targets: [{targets}]}}]}}]\n"
        ),
    )?;
    let port = free_port()?;
    let mut prometheus = tokio::process::Command::new("prometheus")
        .arg(format!(
            "--config.file={}/prometheus.yml",
            dir.path().display()
        ))
        .arg(format!("--storage.tsdb.path={}/data", dir.path().display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let client = reqwest::Client::new();
    let base = format!("http://127.0.0.1:{port}");
    let query = async |expression: &str| -> anyhow::Result<Vec<Value>> {
        let answer: Value = client
            .get(reqwest::Url::parse_with_params(
                &format!("{base}/api/v1/query"),
                [("query", expression)],
            )?)
            .send()
            .await?
            .json()
            .await?;
        if answer["status"] != "success" {
            bail!("{expression}: {answer}");
        }
        Ok(answer["data"]["result"]
            .as_array()
            .context("no result")?
            .clone())
    };

    let dashboard: Value = serde_json::from_slice(&std::fs::read(
        compose().join("grafana/dashboards/confman.json"),
    )?)?;
    for panel in dashboard["panels"].as_array().context("no panels")? {
        let title = panel["title"].as_str().context("no title")?;
        for target in panel["targets"].as_array().context("no targets")? {
            let expression = target["expr"].as_str().context("no expression")?;
            wait_until(&format!("an answer for {title}"), PATIENCE, || async {
                // Rates need two scrapes with something between them.
                cluster.write("app/web/greeting", &json!("again")).await?;
                cluster.snapshot(CONFIG).await?;
                let answer = query(expression).await?;
                // A part of nothing is no answer either.
                let says = |series: &Value| series["value"][1] != "NaN";
                if !answer.iter().any(says) {
                    bail!("{expression} says nothing: {answer:?}");
                }
                // No wait would make it well again.
                if ZERO_WHEN_WELL.contains(&title) {
                    let is_zero = |series: &Value| series["value"][1] == "0";
                    assert!(answer.iter().all(is_zero), "{title}: {answer:?}");
                }
                Ok(())
            })
            .await?;
        }
    }

    // The alerts are loaded, and the one about a node that is gone sees it go.
    let answer: Value = client
        .get(format!("{base}/api/v1/rules"))
        .send()
        .await?
        .json()
        .await?;
    let rules = answer["data"]["groups"][0]["rules"]
        .as_array()
        .context("no rules")?;
    assert!(rules.len() >= 15, "{answer}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let victim = cluster.follower(CONFIG).await?;
    cluster.node(victim).kill()?;
    wait_until("alerts that tell of the lost node", PATIENCE, || async {
        for alert in ["ConfmanNodeDown", "ConfmanNoTolerance"] {
            let alerts = query(&format!("ALERTS{{alertname={alert:?}}}")).await?;
            if alerts.is_empty() {
                bail!("no {alert}");
            }
        }
        Ok(())
    })
    .await?;
    prometheus.kill().await?;
    cluster.finish()
}
