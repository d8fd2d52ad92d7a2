//! A store that lets in only who shows a certificate: nodes and tools show theirs, say what is missing without one, and go on
//! without a restart when the authority behind it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use confman_tests::certs::{Certs, Signer};
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::drtool::{Drtool, Ran};
use confman_tests::wait::wait_until;

const HERE: &[&str] = &["127.0.0.1"];
const CERT: &str = "CONFMAN_TLS_STORE_CERT_FILE";
const KEY: &str = "CONFMAN_TLS_STORE_KEY_FILE";
const CA: &str = "CONFMAN_TLS_STORE_CA_FILE";
/// The program's code for wrong settings.
const WRONG: i32 = 2;

/// What whoever asks the store shows it; the files of `client`, which all of them share.
fn shown(certs: &Certs) -> BTreeMap<String, String> {
    [(CERT, "cert.pem"), (KEY, "key.pem"), (CA, "ca.pem")]
        .map(|(name, file)| {
            (
                name.to_owned(),
                certs.file("client", file).display().to_string(),
            )
        })
        .into()
}

/// A cluster in front of a store that takes certificates of the old authority.
async fn laid_out() -> anyhow::Result<Cluster> {
    let cluster = Plan::new("tls-store").tls().lay_out().await?;
    let certs = cluster.certs()?;
    certs.issue("client", Signer::Old, HERE)?;
    certs.trust("client", &[Signer::Old])?;
    certs.trust("s3", &[Signer::Old])?;
    demand(&cluster).await?;
    for node in cluster.nodes() {
        node.unset_env("AWS_CA_BUNDLE");
        for (name, value) in shown(certs) {
            node.set_env(&name, &value);
        }
    }
    Ok(cluster)
}

/// The store wants a certificate of whom it trusts now.
async fn demand(cluster: &Cluster) -> anyhow::Result<()> {
    let config = cluster.certs()?.demanding_server("s3")?;
    let mut store = cluster.store().await;
    store.as_mut().context("no store")?.show(config).await
}

/// `drtool` with the store's own variables and these.
async fn tool(
    cluster: &Cluster,
    args: &[&str],
    tls: &BTreeMap<String, String>,
) -> anyhow::Result<Ran> {
    let mut env = cluster.store().await.as_ref().context("no store")?.env();
    env.remove("AWS_CA_BUNDLE");
    let tool = Drtool::new(args).envs(env).envs(tls.clone());
    tool.run().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_store_that_wants_certificates_gets_them_and_new_ones_without_a_restart()
-> anyhow::Result<()> {
    let cluster = laid_out().await?;
    let certs = cluster.certs()?;
    // One node has none at first.
    for name in [CERT, KEY] {
        cluster.node(2).unset_env(name);
    }
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    cluster.fill("app", "k", 50, "value").await?;
    let nameless = cluster.node(2);
    nameless
        .wait_log(&["wants a certificate of its clients", CERT, KEY], PATIENCE)
        .await?;
    nameless.kill()?;
    let whole = shown(certs);
    for name in [CERT, KEY] {
        nameless.set_env(name, &whole[name]);
    }
    nameless.start()?;
    cluster.wait_all_ready().await?;
    for group in [META, CONFIG] {
        cluster.snapshot(group).await?;
    }
    tools(&cluster).await?;

    // The authority behind the certificates changes, and the store's with it: files are put, and nobody is restarted.
    let pids: Vec<_> = cluster.nodes().iter().map(|node| node.pid()).collect();
    certs.trust("s3", &[Signer::New])?;
    certs.issue("s3", Signer::New, HERE)?;
    demand(&cluster).await?;
    let refused = tool(&cluster, &["snapshot", "list"], &whole).await?;
    ensure!(refused.code != 0, "the old one is taken: {refused}");
    certs.trust("client", &[Signer::New])?;
    certs.issue("client", Signer::New, HERE)?;
    let listed = tool(&cluster, &["snapshot", "list"], &whole)
        .await?
        .expect(0)?;
    ensure!(listed.stdout.contains(CONFIG), "{listed}");
    cluster.fill("app", "later", 50, "value").await?;
    wait_until("a snapshot after the change", PATIENCE, || async {
        cluster.snapshot(CONFIG).await.map(drop)
    })
    .await?;
    // Those that build no snapshot look at the store too.
    for node in cluster.nodes() {
        node.wait_log(
            &["the TLS files of the object store have changed and are in force"],
            PATIENCE,
        )
        .await?;
    }
    let now: Vec<_> = cluster.nodes().iter().map(|node| node.pid()).collect();
    assert_eq!(pids, now, "a node was restarted");
    for node in cluster.nodes() {
        ensure!(!node.log_text()?.contains("PRIVATE KEY"));
    }
    cluster.finish()
}

/// The operator's tool works with a certificate, says what is missing without one, and what is wrong with the files.
async fn tools(cluster: &Cluster) -> anyhow::Result<()> {
    let whole = shown(cluster.certs()?);
    let listed = tool(cluster, &["snapshot", "list"], &whole)
        .await?
        .expect(0)?;
    ensure!(listed.stdout.contains(CONFIG), "{listed}");
    let probe = tool(cluster, &["store", "probe", "--big", "1"], &whole).await?;
    probe.expect(0)?;

    let without = |names: &[&str]| {
        let mut env = whole.clone();
        env.retain(|name, _| !names.contains(&name.as_str()));
        env
    };
    let nameless = tool(cluster, &["snapshot", "list"], &without(&[CERT, KEY])).await?;
    ensure!(
        nameless.code != 0 && nameless.stderr.contains(CERT),
        "{nameless}"
    );
    let untrusting = tool(cluster, &["snapshot", "list"], &without(&[CA])).await?;
    ensure!(
        untrusting.code != 0 && untrusting.stderr.contains(CA),
        "{untrusting}"
    );
    let half = tool(cluster, &["snapshot", "list"], &without(&[KEY])).await?;
    ensure!(half.stderr.contains(&format!("set {KEY} too")), "{half}");
    let mut swapped = whole.clone();
    swapped.insert(KEY.to_owned(), whole[CA].clone());
    let swapped = tool(cluster, &["snapshot", "list"], &swapped).await?;
    let said = "it holds a certificate: were the two files taken for each other?";
    ensure!(
        swapped.code != 0 && swapped.stderr.contains(KEY),
        "{swapped}"
    );
    ensure!(swapped.stderr.contains(said), "{swapped}");
    ensure!(
        !swapped.stderr.contains("BEGIN PRIVATE KEY-----\n"),
        "{swapped}"
    );
    Ok(())
}

/// A node says at its start, all at once, what is wrong with the files for the store.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i20_a_node_does_not_start_with_files_for_the_store_that_will_not_do() -> anyhow::Result<()>
{
    let cluster = laid_out().await?;
    let node = cluster.node(0);
    let ca = node.env()[CA].clone();
    node.set_env(KEY, &ca);
    node.set_env(CA, "/nowhere/ca.pem");
    node.start()?;
    let status = node.wait_exit(Duration::from_secs(20)).await?;
    assert_eq!(status.code(), Some(WRONG));
    let log = node.log_text()?;
    for words in [
        format!("{CA} names /nowhere/ca.pem"),
        format!("hint: put the file there, or correct {CA}"),
        format!("{KEY} names {ca}: there is no private key in it"),
    ] {
        ensure!(log.contains(&words), "{words:?} is not in {log}");
    }
    cluster.finish()
}
