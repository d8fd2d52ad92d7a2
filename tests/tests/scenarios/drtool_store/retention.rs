//! What stays and what may go: pins that living nodes honour, and letting go without a cluster.

use anyhow::{Context as _, ensure};
use confman_tests::cluster::{CONFIG, Cluster, PATIENCE, Plan};
use confman_tests::store::flip_bit;
use confman_tests::wait::wait_until;
use serde_json::{Value, json};

use super::{items, object, tool};

/// Writes something and takes a snapshot of it; gives the id.
async fn snapshot(cluster: &Cluster, round: usize) -> anyhow::Result<String> {
    cluster
        .fill("app", &format!("r{round}-"), 200, "value")
        .await?;
    let taken = cluster.snapshot(CONFIG).await?;
    Ok(taken["id"].as_str().context("no id")?.to_owned())
}

/// The ids of the objects that are there.
async fn there(cluster: &Cluster) -> anyhow::Result<String> {
    let store = cluster.store().await;
    let objects = store.as_ref().context("no store")?.snapshots(CONFIG)?;
    Ok(format!("{objects:?}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i10_a_pinned_snapshot_survives_the_retention_of_living_nodes() -> anyhow::Result<()> {
    let cluster = Plan::new("tool-pin")
        .nodes(1)
        .env("CONFMAN_SNAPSHOT_RETENTION_COUNT", "1")
        .env("CONFMAN_SNAPSHOT_DELETE_GRACE_SECS", "1")
        .start()
        .await?;
    let pinned = snapshot(&cluster, 0).await?;
    let args = [
        "snapshot",
        "pin",
        &pinned,
        "--reason",
        "before the move",
        "--by",
        "ann",
        "--json",
    ];
    let pin = tool(&cluster, &args).await?.expect(0)?.json()?;
    assert_eq!(
        (&pin["pinned"], &pin["pinnedBy"]),
        (&json!(true), &json!("ann"))
    );
    // Pinned twice: the first stays.
    let twice = tool(&cluster, &["snapshot", "pin", &pinned, "--by", "bob"])
        .await?
        .expect(0)?;
    ensure!(twice.stdout.contains("pinned by ann"), "{twice}");
    let unpinned = snapshot(&cluster, 1).await?;
    let newest = snapshot(&cluster, 2).await?;
    let retired = |id: String| {
        let cluster = &cluster;
        move || {
            let id = id.clone();
            async move {
                let there = there(cluster).await?;
                ensure!(!there.contains(&id), "{there}");
                Ok(())
            }
        }
    };
    wait_until("the unpinned one is deleted", PATIENCE, retired(unpinned)).await?;
    let left = there(&cluster).await?;
    ensure!(left.contains(&pinned) && left.contains(&newest), "{left}");
    // Rounds later it is still there: another one has come and gone.
    snapshot(&cluster, 3).await?;
    wait_until("the next one is deleted", PATIENCE, retired(newest)).await?;
    let left = there(&cluster).await?;
    ensure!(left.contains(&pinned), "the pinned one is gone: {left}");
    tool(&cluster, &["snapshot", "verify", &pinned, "--read-data"])
        .await?
        .expect(0)?;

    tool(&cluster, &["snapshot", "unpin", "latest"])
        .await?
        .expect(2)?;
    tool(&cluster, &["snapshot", "unpin", &pinned])
        .await?
        .expect(0)?;
    tool(&cluster, &["snapshot", "unpin", &pinned])
        .await?
        .expect(4)?;
    wait_until(
        "it goes when it is pinned no more",
        PATIENCE,
        retired(pinned),
    )
    .await?;
    cluster.finish()
}

/// Id to verdict and reason.
fn verdicts(document: &Value) -> anyhow::Result<Vec<(String, String, String)>> {
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    Ok(items(document)?
        .iter()
        .map(|i| (text(i, "id"), text(i, "decision"), text(i, "reason")))
        .collect())
}

async fn show(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Vec<(String, String, String)>> {
    let args = [&["retention", "show", "--group", CONFIG, "--json"], args].concat();
    verdicts(&tool(cluster, &args).await?.expect(0)?.json()?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i10_without_a_cluster_snapshots_go_in_two_steps_and_only_when_what_stays_is_proven()
-> anyhow::Result<()> {
    let cluster = Plan::new("tool-retain")
        .nodes(1)
        .env("CONFMAN_SNAPSHOT_RETENTION_COUNT", "10")
        .start()
        .await?;
    let mut ids = Vec::new();
    for round in 0..5 {
        ids.push(snapshot(&cluster, round).await?);
    }
    cluster.kill_all()?;
    tool(&cluster, &["snapshot", "pin", &ids[0], "--by", "ann"])
        .await?
        .expect(0)?;
    let told = show(&cluster, &["--keep", "2"]).await?;
    let fates: Vec<(&str, &str)> = told
        .iter()
        .map(|(id, fate, _)| (id.as_str(), fate.as_str()))
        .collect();
    let expected = [
        (&*ids[4], "keep"),
        (&*ids[3], "keep"),
        (&*ids[2], "mark"),
        (&*ids[1], "mark"),
        (&*ids[0], "keep"),
    ];
    assert_eq!(fates, expected);
    ensure!(told[4].2.contains("pinned by ann"), "{told:?}");
    ensure!(told[0].2.contains("generation 1 of the 2"), "{told:?}");

    // Nothing without a number, nothing without consent.
    let apply = ["retention", "show", "--apply", "--group", CONFIG, "--json"];
    let unsaid = tool(&cluster, &apply).await?.expect(2)?;
    assert_eq!(unsaid.json()?["error"]["code"], "RETENTION_COUNT_UNKNOWN");
    let grace = ["--keep", "2", "--grace", "60"];
    let unasked = tool(&cluster, &[&apply[..], &grace].concat())
        .await?
        .expect(2)?;
    ensure!(
        unasked.stderr.contains("mark config/0") && unasked.stderr.contains("CONSENT_NEEDED"),
        "{unasked}"
    );
    let before = there(&cluster).await?;

    // The first step marks and deletes nothing; a second one within the grace changes nothing.
    let agreed = [&apply[..], &grace, &["--yes"]].concat();
    let first = tool(&cluster, &agreed).await?.expect(0)?.json()?;
    let done = |document: &Value| -> Vec<String> {
        let steps = document["applied"]["steps"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        steps
            .iter()
            .map(|s| format!("{} {}", s["done"], s["id"]).replace('"', ""))
            .collect()
    };
    assert_eq!(
        done(&first),
        [format!("marked {}", ids[2]), format!("marked {}", ids[1])]
    );
    let again = tool(&cluster, &agreed).await?.expect(0)?.json()?;
    assert_eq!(done(&again), Vec::<String>::new());
    assert_eq!(there(&cluster).await?, before);
    // As of tomorrow both would go.
    let tomorrow = show(
        &cluster,
        &["--keep", "2", "--as-of", "2999-01-01T00:00:00Z"],
    )
    .await?;
    assert_eq!(
        tomorrow
            .iter()
            .filter(|(_, fate, _)| fate == "delete")
            .count(),
        2,
        "{tomorrow:?}"
    );
    // More generations are to stay: a mark is taken back, for its grace must not run on.
    let no_grace = [&apply[..], &["--keep", "3", "--grace", "0", "--yes"]].concat();

    // What stays is damaged: nothing goes.
    let middle = object(&cluster, &ids[3]).await?;
    let whole = std::fs::read(&middle)?;
    flip_bit(&middle)?;
    let refused = tool(&cluster, &no_grace).await?.expect(5)?.json()?;
    assert_eq!(
        done(&refused),
        [format!("unmarked {}", ids[2]), format!("left {}", ids[1])]
    );
    ensure!(
        refused["applied"]["damaged"].to_string().contains(&ids[3]),
        "{refused}"
    );
    assert_eq!(there(&cluster).await?, before);
    std::fs::write(&middle, &whole)?;
    let gone = tool(&cluster, &no_grace).await?.expect(0)?.json()?;
    assert_eq!(done(&gone), [format!("deleted {}", ids[1])]);
    let left = there(&cluster).await?;
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(left.contains(id), at != 1, "{id} in {left}");
    }
    tool(
        &cluster,
        &["snapshot", "verify", "--all", "--read-data", "--keep", "3"],
    )
    .await?
    .expect(0)?;
    cluster.finish()
}
