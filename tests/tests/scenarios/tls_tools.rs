//! Operator's tools and a cluster that speaks TLS at addresses of IPv6: whoever cannot be asked is not taken for dead, a drill reads the living
//! nodes, and a store that gets a certificate of another authority is trusted again without a restart.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, ensure};
use confman_tests::certs::Signer;
use confman_tests::cluster::{CONFIG, Cluster, META, Plan};
use confman_tests::drtool::{Drtool, Ran};
use confman_tests::restore::{make_plan, snapshot_all, tool};
use confman_tests::skip::skipped;
use serde_json::json;

/// A refusal by the cluster, in the table of exit codes.
const REFUSED: i32 = 3;

/// `drtool` as somebody who has everything but the authority.
async fn untrusting(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Ran> {
    let store = cluster.store().await.as_ref().context("no store")?.env();
    let tool = Drtool::new(args)
        .env("CONFMAN_API_KEY", cluster.key())
        .envs(store)
        .dir(cluster.dir()?);
    tool.run().await
}

fn code(ran: &Ran) -> anyhow::Result<String> {
    let code = ran.json()?["error"]["code"].clone();
    Ok(code.as_str().unwrap_or_default().to_owned())
}

/// It ended with this refusal, which says what to set.
fn refused(ran: Ran, name: &str) -> anyhow::Result<()> {
    let ran = ran.expect(REFUSED)?;
    ensure!(code(&ran)? == name, "{ran}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    ensure!(said.contains("CONFMAN_TLS_CLIENT_CA_FILE"), "{ran}");
    Ok(())
}

/// A cluster whose nodes know their store by a file of its own, which this gives.
async fn laid_out() -> anyhow::Result<Cluster> {
    let plan = Plan::new("tls-tools").tls();
    let plan = if std::net::TcpListener::bind("[::1]:0").is_ok() {
        plan.ipv6()
    } else {
        skipped("[::1] in the URLs of TLS", "this machine has no IPv6");
        plan
    };
    let cluster = plan.lay_out().await?;
    let certs = cluster.certs()?;
    certs.trust("s3", &[Signer::Old])?;
    let bundle = certs.file("s3", "ca.pem").display().to_string();
    for node in cluster.nodes() {
        node.set_env("AWS_CA_BUNDLE", &bundle);
    }
    Ok(cluster)
}

/// The operator's word that none of these addresses is the cluster's by now goes for what cannot be asked, and for nothing else.
async fn given_up(cluster: &Cluster, plan: &[&str]) -> anyhow::Result<()> {
    let urls: Vec<&str> = cluster.nodes().iter().map(|n| n.api_url.as_str()).collect();
    let out = ["--out", "given-up.json"];
    let two = urls[1..].iter().flat_map(|url| ["--not-ours", url]);
    let two: Vec<&str> = plan.iter().copied().chain(out).chain(two).collect();
    let ran = untrusting(cluster, &two).await?;
    let hint = format!("--not-ours {}", urls[0]);
    ensure!(
        format!("{}{}", ran.stdout, ran.stderr).contains(&hint),
        "{ran}"
    );
    refused(ran, "RESTORE_TLS")?;
    let all = [&two[..], &["--not-ours", urls[0]]].concat();
    let planned = untrusting(cluster, &all).await?.expect(0)?.json()?;
    for url in urls {
        let notes = planned["notes"].to_string();
        ensure!(
            notes.contains(url) && notes.contains("--not-ours"),
            "{notes}"
        );
    }
    let trusting = tool(cluster, &all).await.run().await?.expect(REFUSED)?;
    assert_eq!(code(&trusting)?, "CLUSTER_ALIVE", "{trusting}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_who_shakes_no_hands_is_not_taken_for_dead_and_is_drilled_by_who_is_trusted()
-> anyhow::Result<()> {
    let cluster = laid_out().await?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    cluster.fill("app", "k", 50, "value").await?;
    snapshot_all(&cluster, &[META, CONFIG]).await?;
    addresses(&cluster).await?;

    // What the living nodes say is read over TLS.
    let scratch = cluster.dir()?.join("scratch");
    let scratch = scratch.to_str().context("a path that is no text")?;
    let drill = tool(&cluster, &["drill", "--json", "--scratch", scratch]).await;
    let told = drill.run().await?.expect(0)?.json()?;
    assert_eq!(told["verdict"], "passed", "{told}");
    assert_eq!(told["rpo"]["measuredAgainst"], "cluster", "{told}");
    for group in told["groups"].as_array().context("no groups")? {
        assert_eq!(group["live"]["verdict"], "equal", "{told}");
        let equal = group["live"]["equal"].as_array().map(Vec::len);
        assert_eq!(equal, Some(3), "{told}");
    }

    // A restore, planned beside living nodes, and applied beside those that came back.
    let plan = ["restore", "plan", "--json"];
    refused(untrusting(&cluster, &plan).await?, "RESTORE_TLS")?;
    // The addresses of a snapshot may be of the time before TLS: such nodes answer, and live.
    let member = |index: usize| {
        let node = cluster.node(index);
        let url = node.api_url.replace("https:", "http:");
        // Nothing is known of peers: as behind a wall, their port gives no sign.
        format!("{}={url},127.0.0.1:{}", node.name, index + 1)
    };
    let members = [member(0), member(1), member(2)];
    let mut before_tls = plan.to_vec();
    for member in &members {
        before_tls.extend(["--member", member]);
    }
    refused(
        tool(&cluster, &before_tls).await.run().await?,
        "RESTORE_TLS",
    )?;
    let trusting = tool(&cluster, &plan).await.run().await?.expect(REFUSED)?;
    assert_eq!(code(&trusting)?, "CLUSTER_ALIVE", "{trusting}");
    given_up(&cluster, &plan).await?;
    cluster.kill_all()?;
    let (file, _) = make_plan(&cluster, &[]).await?;
    let file = file.to_str().context("a path that is no text")?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    let apply = ["restore", "apply", file, "--yes", "--json"];
    refused(untrusting(&cluster, &apply).await?, "RESTORE_TLS")?;
    let trusting = tool(&cluster, &apply).await.run().await?.expect(REFUSED)?;
    assert_eq!(code(&trusting)?, "CLUSTER_ALIVE", "{trusting}");

    // What one node left, beside a quorum that lives.
    let victim = cluster.follower(CONFIG).await?;
    cluster.node(victim).kill()?;
    let dir = cluster.node(victim).data_dir.display().to_string();
    let collect = ["recover", "collect", "--json", &dir];
    refused(untrusting(&cluster, &collect).await?, "RECOVER_TLS")?;
    // What the operator gives up stands in the plan.
    let others: Vec<&str> = (0..3)
        .filter(|i| *i != victim)
        .map(|i| cluster.node(i).api_url.as_str())
        .collect();
    let mut foreign = collect.to_vec();
    let own = &cluster.node(victim).api_url;
    foreign.extend(others.iter().flat_map(|url| ["--not-ours", url]));
    foreign.extend(["--not-ours", own]);
    untrusting(&cluster, &foreign).await?.expect(0)?;
    let lost = (0..3)
        .filter(|i| *i != victim)
        .flat_map(|i| ["--lost", cluster.node(i).name.as_str()]);
    let plan: Vec<&str> = ["recover", "plan", "--json"]
        .into_iter()
        .chain(lost)
        .collect();
    let planned = untrusting(&cluster, &plan).await?.expect(0)?.json()?;
    assert_eq!(
        planned["accepted"]["notOurs"].as_array().map(Vec::len),
        Some(2),
        "{planned}"
    );
    ensure!(
        planned["notes"].to_string().contains(others[0]),
        "{planned}"
    );
    let in_the_clear = cluster
        .node((victim + 1) % 3)
        .api_url
        .replace("https:", "http:");
    let collect = [&collect[..], &["--endpoints", &in_the_clear]].concat();
    refused(tool(&cluster, &collect).await.run().await?, "RECOVER_TLS")?;
    cluster.node(victim).start()?;
    cluster.wait_ready(victim).await?;

    another_authority_of_the_store(&cluster).await?;
    cluster.finish()
}

/// Every place that takes an address apart: a node that sends a request on, one that asks itself, the commands.
async fn addresses(cluster: &Cluster) -> anyhow::Result<()> {
    let follower = cluster.follower(CONFIG).await?;
    cluster
        .api(follower)
        .put("/api/v1/config/app/web/greeting", &json!("forwarded"))
        .header("x-confman-forward", "true")
        .send()
        .await?
        .expect(&[201])?;
    let read = cluster
        .read(follower, "app/web/greeting", "linearizable")
        .await?;
    assert_eq!(read, Some(json!("forwarded")));
    let client: BTreeMap<String, String> = cluster
        .client_tls()
        .into_iter()
        .chain([
            (
                "CONFMAN_ENDPOINTS".to_owned(),
                cluster.node(follower).api_url.clone(),
            ),
            ("CONFMAN_API_KEY".to_owned(), cluster.key().to_owned()),
        ])
        .collect();
    // The client follows a redirect; the node has nothing but its own environment.
    for (args, env) in [
        (
            vec!["put", "app/web/greeting", "redirected"],
            client.clone(),
        ),
        (vec!["status"], client),
        (vec!["health", "--ready"], cluster.node(follower).env()),
    ] {
        let output = Command::new(confman_tests::binary::confman()?)
            .args(&args)
            .env_clear()
            .envs(env)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{args:?}: {said}");
    }
    Ok(())
}

/// The store shows a certificate of another authority, the operator adds that to the file which `AWS_CA_BUNDLE` names, and no node
/// is restarted.
async fn another_authority_of_the_store(cluster: &Cluster) -> anyhow::Result<()> {
    let certs = cluster.certs()?;
    let pids: Vec<_> = cluster.nodes().iter().map(|node| node.pid()).collect();
    certs.issue("s3", Signer::New, &["127.0.0.1"])?;
    let config = certs.server("s3")?;
    let env = {
        let mut store = cluster.store().await;
        let store = store.as_mut().context("no store")?;
        store.show(config).await?;
        store.env()
    };
    // Who has the old file cannot read the store.
    let bundle = certs.file("s3", "ca.pem").display().to_string();
    let list = Drtool::new(["snapshot", "list"])
        .envs(env)
        .env("AWS_CA_BUNDLE", &bundle);
    let blind = list.run().await?;
    ensure!(
        blind.code != 0 && blind.stderr.contains("AWS_CA_BUNDLE"),
        "{blind}"
    );
    certs.trust("s3", &[Signer::Old, Signer::New])?;
    list.run().await?.expect(0)?;
    cluster.fill("app", "later", 50, "value").await?;
    cluster.snapshot(CONFIG).await?;
    let now: Vec<_> = cluster.nodes().iter().map(|node| node.pid()).collect();
    assert_eq!(pids, now, "a node was restarted");
    Ok(())
}
