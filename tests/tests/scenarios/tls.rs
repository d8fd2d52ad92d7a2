//! TLS and mTLS: a whole cluster that speaks nothing else, who is kept out of it, and certificates that change under load.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use confman_tests::certs::Signer;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::drtool::Drtool;
use confman_tests::http::Api;
use confman_tests::load::{Load, LoadPlan};
use confman_tests::wait::wait_until;
use serde_json::json;

use crate::crash::judge;

const NAMES: [&str; 3] = ["node1", "node2", "node3"];
const HERE: &[&str] = &["127.0.0.1"];

/// One value of a metric; 0 while there is none.
async fn metric(api: &Api, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
    let text = api.get("/metrics").send().await?.expect(&[200])?.text();
    let line = text
        .lines()
        .find(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
    match line.and_then(|line| line.rsplit(' ').next()) {
        Some(value) => value.parse().context("no number"),
        None => Ok(0.0),
    }
}

async fn wait_metric(api: &Api, name: &str, labels: &[&str], least: f64) -> anyhow::Result<()> {
    wait_until(
        &format!("{name}{labels:?} is {least}"),
        PATIENCE,
        || async {
            let found = metric(api, name, labels).await?;
            ensure!(found >= least, "it is {found}");
            Ok(())
        },
    )
    .await
}

/// The first column of the last audit lines, and so on, are not of interest here: that it ends well is.
fn succeeds(cluster: &Cluster, args: &[&str]) -> anyhow::Result<String> {
    let output = cluster.confman(args)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{args:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_cluster_over_tls_does_everything_that_one_in_the_clear_does() -> anyhow::Result<()> {
    let cluster = Plan::new("tls").tls().start().await?;
    for node in cluster.nodes() {
        assert!(node.api_url.starts_with("https://"));
    }
    // A write that is redirected, one that is forwarded, and reads from every node.
    cluster.write("app/web/greeting", &json!("hello")).await?;
    let follower = cluster.follower(CONFIG).await?;
    let redirected = cluster
        .api(follower)
        .put("/api/v1/config/app/web/greeting", &json!("a"))
        .send()
        .await?;
    ensure!(redirected.status == 307, "{redirected:?}");
    let location = redirected.header("location").unwrap_or_default();
    ensure!(location.starts_with("https://"), "{location}");
    cluster
        .api(follower)
        .put("/api/v1/config/app/web/greeting", &json!("forwarded"))
        .header("x-confman-forward", "true")
        .send()
        .await?
        .expect(&[200])?;
    for index in 0..3 {
        let read = cluster
            .read(index, "app/web/greeting", "linearizable")
            .await?;
        assert_eq!(read, Some(json!("forwarded")));
    }

    // The commands, with the authority named and without.
    assert_eq!(
        succeeds(&cluster, &["get", "app/web/greeting"])?.trim(),
        "forwarded"
    );
    succeeds(&cluster, &["put", "app/web/other", "1"])?;
    succeeds(&cluster, &["status"])?;
    let blind = Api::new(&cluster.node(0).api_url, cluster.key())?;
    assert!(
        blind.get("/health").send().await.is_err(),
        "an authority that nobody named was trusted"
    );
    let untrusting = std::process::Command::new(confman_tests::binary::confman()?)
        .args(["get", "app/web/greeting", "--timeout", "2"])
        .env_clear()
        .env("CONFMAN_ENDPOINTS", cluster.endpoints().join(","))
        .env("CONFMAN_API_KEY", cluster.key())
        .output()?;
    let said = String::from_utf8_lossy(&untrusting.stderr);
    assert_eq!(untrusting.status.code(), Some(6), "{said}");
    assert!(
        said.contains("hint: set CONFMAN_TLS_CLIENT_CA_FILE"),
        "{said}"
    );
    let in_the_clear = std::process::Command::new(confman_tests::binary::confman()?)
        .args(["get", "app/web/greeting", "--timeout", "2"])
        .env_clear()
        .env(
            "CONFMAN_ENDPOINTS",
            cluster.node(0).api_url.replace("https", "http"),
        )
        .env("CONFMAN_API_KEY", cluster.key())
        .output()?;
    let said = String::from_utf8_lossy(&in_the_clear.stderr);
    assert!(
        !in_the_clear.status.success() && said.contains("use https://"),
        "{said}"
    );
    // The node's own environment is enough for its health check.
    let health = std::process::Command::new(confman_tests::binary::confman()?)
        .args(["health", "--ready"])
        .env_clear()
        .envs(cluster.node(1).env())
        .output()?;
    assert!(
        health.status.success(),
        "{}",
        String::from_utf8_lossy(&health.stderr)
    );

    // The operator's tool, living cluster and store.
    cluster.drtool(["status"]).run().await?.expect(0)?;
    cluster.drtool(["member", "list"]).run().await?.expect(0)?;
    for group in [META, CONFIG] {
        cluster.snapshot(group).await?;
    }
    let store = cluster.store().await.as_ref().context("no store")?.env();
    assert!(store["AWS_ENDPOINT_URL"].starts_with("https://"));
    let listed = Drtool::new(["snapshot", "list"])
        .envs(store.clone())
        .run()
        .await?
        .expect(0)?;
    assert!(listed.stdout.contains("config/0"), "{listed}");
    let probed = Drtool::new(["store", "probe"])
        .envs(store.clone())
        .run()
        .await?;
    let said = format!("{}{}", probed.stdout, probed.stderr);
    assert!(said.contains("AWS_CA_BUNDLE"), "{probed}");
    let mut without = store;
    without.remove("AWS_CA_BUNDLE");
    let refused = Drtool::new(["snapshot", "list"])
        .envs(without)
        .run()
        .await?;
    assert!(
        refused.code != 0 && refused.stderr.contains("AWS_CA_BUNDLE"),
        "{refused}"
    );

    // A lost disk comes back from the https store and over mTLS.
    cluster.node(follower).kill()?;
    cluster.node(follower).wipe()?;
    cluster.node(follower).start()?;
    cluster.wait_ready(follower).await?;
    let group = cluster.group(follower, CONFIG).await?;
    assert_eq!(group["restore"]["source"], "store", "{group}");
    assert!(
        metric(
            &cluster.api(0),
            "confman_tls_handshakes_total",
            &["\"peers\"", "\"ok\""]
        )
        .await?
            > 0.0
    );
    let ends = metric(
        &cluster.api(0),
        "confman_tls_certificate_expiry_timestamp_seconds",
        &["\"node\""],
    )
    .await?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs_f64();
    assert!(ends > now && ends < now + 31.0 * 86_400.0, "{ends}");
    for node in cluster.nodes() {
        assert!(!node.log_text()?.contains("PRIVATE KEY"));
    }
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_a_node_without_the_right_certificate_gets_nothing() -> anyhow::Result<()> {
    let cluster = Plan::new("tls-stranger").tls().spares(1).lay_out().await?;
    // The fourth has everything but a certificate that counts: the token, the keys, the addresses, and trust in the others.
    let certs = cluster.certs()?;
    certs.issue("node4", Signer::Stranger, HERE)?;
    certs.trust("node4", &[Signer::Old, Signer::Stranger])?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    cluster.write("app/web/greeting", &json!("hello")).await?;
    let stranger = cluster.node(3);
    stranger.start()?;
    stranger
        .wait_log(
            &[
                "no TLS with another node",
                "does not take this node's certificate",
            ],
            PATIENCE,
        )
        .await?;
    wait_until("a node turned it away", PATIENCE, || async {
        for index in 0..3 {
            let labels = ["\"peers\"", "\"bad-certificate\""];
            if metric(&cluster.api(index), "confman_tls_handshakes_total", &labels).await? > 0.0 {
                return cluster
                    .node(index)
                    .wait_log(
                        &["a connection was turned away", "CONFMAN_TLS_CA_FILE"],
                        PATIENCE,
                    )
                    .await;
            }
        }
        bail!("nobody has")
    })
    .await?;
    // Nothing: it is no node, and no client trusts it.
    let ready = cluster.api(3).get("/health/ready").send().await;
    assert!(
        ready.is_err(),
        "its own certificate is trusted by no client: {ready:?}"
    );
    assert!(!stranger.log_text()?.contains("serving node"));
    stranger.kill()?;
    let leader = cluster.wait_leader(META).await?;
    let members = cluster
        .api(leader)
        .get_json("/api/v1/admin/members")
        .await?;
    assert_eq!(
        members["nodes"].as_array().map(Vec::len),
        Some(3),
        "{members}"
    );

    // With a certificate of the authority it is heard: as a node that nobody has added.
    certs.issue("node4", Signer::Old, HERE)?;
    stranger.start()?;
    stranger
        .wait_log(&["the cluster has no node called \"node4\""], PATIENCE)
        .await?;
    cluster
        .write("app/web/greeting", &json!("still here"))
        .await?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i1_every_certificate_and_the_authority_change_under_writes() -> anyhow::Result<()> {
    let cluster = Plan::new("tls-rotation").tls().start().await?;
    let certs = cluster.certs()?;
    let load = Load::start(&cluster, &LoadPlan::default());
    load.wait_progress(30, PATIENCE).await?;
    let reloaded = async |times: f64| -> anyhow::Result<()> {
        for index in 0..3 {
            let labels = ["\"ok\""];
            wait_metric(
                &cluster.api(index),
                "confman_tls_reloads_total",
                &labels,
                times,
            )
            .await?;
        }
        Ok(())
    };
    // 1. Both authorities are trusted everywhere; found without a signal.
    for name in NAMES {
        certs.trust(name, &[Signer::Old, Signer::New])?;
    }
    reloaded(1.0).await?;
    // 2. A certificate of the new one for each node; a signal makes it quick. Key and certificate are two files: when the
    // signal comes between them, what is there will not do, and nothing happens.
    for (index, name) in NAMES.into_iter().enumerate() {
        certs.issue(name, Signer::New, HERE)?;
        cluster.node(index).signal(rustix::process::Signal::HUP)?;
        load.wait_progress(20, PATIENCE).await?;
    }
    reloaded(2.0).await?;
    // 3. The old one is trusted no more.
    for name in NAMES {
        certs.trust(name, &[Signer::New])?;
    }
    reloaded(3.0).await?;
    load.wait_progress(50, PATIENCE).await?;
    // New connections by the new chain only: a node that starts meets the others.
    let victim = cluster.follower(CONFIG).await?;
    cluster.node(victim).kill()?;
    cluster.node(victim).start()?;
    cluster.wait_ready(victim).await?;
    load.wait_progress(50, PATIENCE).await?;
    // And the old chain is good for nothing now.
    let name = NAMES[victim];
    cluster.node(victim).kill()?;
    certs.issue(name, Signer::Old, HERE)?;
    certs.trust(name, &[Signer::Old, Signer::New])?;
    cluster.node(victim).start()?;
    cluster
        .node(victim)
        .wait_log(
            &[
                "no TLS with another node",
                "does not take this node's certificate",
            ],
            PATIENCE,
        )
        .await?;
    certs.issue(name, Signer::New, HERE)?;
    cluster.node(victim).signal(rustix::process::Signal::HUP)?;
    cluster.wait_ready(victim).await?;
    load.wait_progress(50, PATIENCE).await?;
    let history = load.stop().await?;
    eprintln!("{} operations", history.len());
    judge(&cluster, &history).await?;
    for node in cluster.nodes() {
        let text = node.log_text()?;
        assert!(!text.contains("will not do: those of before"), "{text}");
    }
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_bad_new_file_keeps_the_old_one_in_force_and_says_so() -> anyhow::Result<()> {
    let cluster = Plan::new("tls-bad-file").tls().nodes(1).start().await?;
    let certs = cluster.certs()?;
    let api = cluster.api(0);
    // A key that does not belong to the certificate.
    certs.issue("other", Signer::Old, HERE)?;
    std::fs::copy(
        certs.file("other", "key.pem"),
        certs.file("node1", "key.pem"),
    )?;
    cluster
        .node(0)
        .wait_log(
            &[
                "those of before stay in force",
                "CONFMAN_TLS_KEY_FILE",
                "does not belong",
            ],
            PATIENCE,
        )
        .await?;
    wait_metric(&api, "confman_tls_reloads_total", &["\"refused\""], 1.0).await?;
    cluster
        .write("app/web/greeting", &json!("still served"))
        .await?;
    // A start would not take them, and says why before anything else happens.
    cluster.node(0).stop(PATIENCE).await?;
    cluster.node(0).start()?;
    let status = cluster.node(0).wait_exit(PATIENCE).await?;
    assert_eq!(status.code(), Some(2));
    let text = cluster.node(0).log_text()?;
    assert!(
        text.contains("put both files there as they were issued together"),
        "{text}"
    );
    // Neither does it in `confman config`.
    let output = std::process::Command::new(confman_tests::binary::confman()?)
        .arg("config")
        .env_clear()
        .envs(cluster.node(0).env())
        .output()?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("CONFMAN_TLS_KEY_FILE"));
    certs.issue("node1", Signer::Old, HERE)?;
    cluster.node(0).start()?;
    cluster.wait_ready(0).await?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_node_in_the_clear_and_nodes_that_speak_tls_say_what_is_wrong() -> anyhow::Result<()> {
    let cluster = Plan::new("tls-mixed").tls().start().await?;
    cluster.write("app/web/greeting", &json!("hello")).await?;
    let odd = cluster.follower(CONFIG).await?;
    cluster.node(odd).stop(PATIENCE).await?;
    for name in [
        "CONFMAN_TLS_CERT_FILE",
        "CONFMAN_TLS_KEY_FILE",
        "CONFMAN_TLS_CA_FILE",
    ] {
        cluster.node(odd).unset_env(name);
    }
    cluster.node(odd).start()?;
    let bound = Duration::from_secs(30);
    cluster
        .node(odd)
        .wait_log(&["speaks TLS, and this node does not"], bound)
        .await?;
    cluster
        .node(odd)
        .wait_log(&["a connection was turned away", "it speaks TLS"], bound)
        .await?;
    let leader = (0..3).find(|index| *index != odd).context("a node")?;
    cluster
        .node(leader)
        .wait_log(
            &["a connection was turned away", "it does not speak TLS"],
            bound,
        )
        .await?;
    cluster
        .node(leader)
        .wait_log(&["no TLS with another node", "does not speak TLS"], bound)
        .await?;
    cluster
        .write("app/web/greeting", &json!("the others go on"))
        .await?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_show_a_certificate_where_it_is_required() -> anyhow::Result<()> {
    let cluster = Plan::new("tls-clients")
        .tls()
        .env("CONFMAN_TLS_API_CLIENT_CERTS", "required")
        .lay_out()
        .await?;
    cluster.start_all()?;
    let certs = cluster.certs()?;
    certs.issue("client", Signer::Old, &["somebody"])?;
    let client = |args: &[&str], shows: bool| -> anyhow::Result<std::process::Output> {
        let mut command = std::process::Command::new(confman_tests::binary::confman()?);
        command
            .args(args)
            .env_clear()
            .env("CONFMAN_ENDPOINTS", cluster.endpoints().join(","))
            .env("CONFMAN_API_KEY", cluster.key())
            .envs(cluster.client_tls());
        if shows {
            command
                .env(
                    "CONFMAN_TLS_CLIENT_CERT_FILE",
                    certs.file("client", "cert.pem"),
                )
                .env(
                    "CONFMAN_TLS_CLIENT_KEY_FILE",
                    certs.file("client", "key.pem"),
                );
        }
        Ok(command.output()?)
    };
    wait_until("a write with a certificate", PATIENCE, || async {
        let put = client(
            &["put", "app/web/greeting", "hello", "--timeout", "5"],
            true,
        )?;
        ensure!(
            put.status.success(),
            "{}",
            String::from_utf8_lossy(&put.stderr)
        );
        Ok(())
    })
    .await?;
    let refused = client(&["put", "app/web/greeting", "no", "--timeout", "3"], false)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    // Nothing of it was read, so it is no unknown outcome.
    assert_eq!(refused.status.code(), Some(6), "{said}");
    assert!(said.contains("CONFMAN_TLS_CLIENT_CERT_FILE"), "{said}");
    let got = client(&["get", "app/web/greeting"], true)?;
    assert_eq!(String::from_utf8_lossy(&got.stdout).trim(), "hello");
    // Each node answers such a client.
    for url in cluster.endpoints() {
        let got = std::process::Command::new(confman_tests::binary::confman()?)
            .args(["get", "app/web/greeting", "--endpoints", &url])
            .env_clear()
            .env("CONFMAN_API_KEY", cluster.key())
            .envs(cluster.client_tls())
            .env(
                "CONFMAN_TLS_CLIENT_CERT_FILE",
                certs.file("client", "cert.pem"),
            )
            .env(
                "CONFMAN_TLS_CLIENT_KEY_FILE",
                certs.file("client", "key.pem"),
            )
            .output()?;
        assert!(
            got.status.success(),
            "{url}: {}",
            String::from_utf8_lossy(&got.stderr)
        );
    }
    // And each sends on what the leader must do, showing the certificate that it has itself.
    let shown = ["cert.pem", "key.pem"].map(|name| std::fs::read(certs.file("client", name)));
    let [cert, key] = shown;
    let api = Api::showing(
        &cluster.node(0).api_url,
        cluster.key(),
        Some(&std::fs::read(certs.client_ca())?),
        Some(&[cert?, key?].concat()),
    )?;
    for node in cluster.nodes() {
        api.at(&node.api_url)
            .put("/api/v1/config/app/web/greeting", &json!(node.name))
            .header("x-confman-forward", "true")
            .send()
            .await?
            .expect(&[200])?;
    }
    let health = std::process::Command::new(confman_tests::binary::confman()?)
        .arg("health")
        .env_clear()
        .envs(cluster.node(0).env())
        .output()?;
    assert!(
        health.status.success(),
        "{}",
        String::from_utf8_lossy(&health.stderr)
    );
    cluster.finish()
}
