//! The operator's tool as a program: exit codes, one document on stdout, everything else on stderr.

use confman_tests::cluster::{CONFIG, PATIENCE, Plan};
use confman_tests::drtool::Drtool;
use confman_tests::wait::wait_until;

#[tokio::test]
async fn a_wrong_command_is_a_usage_error_and_an_unknown_code_is_not_found() -> anyhow::Result<()> {
    let ran = Drtool::new(["no-such-command"]).run().await?.expect(2)?;
    assert!(ran.stdout.is_empty(), "{ran}");
    assert!(ran.stderr.starts_with("error[USAGE]: "), "{ran}");
    let ran = Drtool::new(["explain", "NO_SUCH_CODE", "--json"])
        .run()
        .await?
        .expect(4)?;
    assert_eq!(ran.json()?["error"]["exitCode"], 4, "{ran}");
    assert!(ran.stderr.contains("hint:"), "{ran}");
    Ok(())
}

#[tokio::test]
async fn what_clap_refuses_is_a_document_too_for_whoever_wants_one() -> anyhow::Result<()> {
    let ran = Drtool::new(["status", "--json", "--no-such-option"])
        .run()
        .await?
        .expect(2)?;
    let error = &ran.json()?["error"];
    assert_eq!(
        (&error["code"], &error["exitCode"]),
        (&"USAGE".into(), &2.into()),
        "{ran}"
    );
    let message = error["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("--no-such-option") && !message.contains('\n'),
        "{ran}"
    );
    let after = Drtool::new(["inspect", "--no-such-option", "--", "--json"]);
    let after = after.run().await?.expect(2)?;
    assert!(after.stdout.is_empty(), "not an option there: {after}");
    let help = Drtool::new(["status", "--json", "--help"])
        .run()
        .await?
        .expect(0)?;
    assert!(help.stdout.contains("Usage: drtool status"), "{help}");
    Ok(())
}

/// Without --wait it is ordered and comes about all the same; with --wait it is there when the command ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_ordered_or_waited_for() -> anyhow::Result<()> {
    let cluster = Plan::new("snapshot-create").start().await?;
    cluster.fill("app", "k", 20, "value").await?;
    let ordered = cluster
        .drtool(["snapshot", "create", "--json"])
        .run()
        .await?
        .expect(0)?;
    let items = &ordered.json()?["items"];
    assert_eq!(items[0]["underWay"], false, "{ordered}");
    assert!(
        items[0]["id"].is_null(),
        "nothing is verified yet: {ordered}"
    );
    wait_until("what was ordered is there", PATIENCE, || async {
        let group = cluster.group(0, CONFIG).await?;
        anyhow::ensure!(group["snapshot"]["verified"] == true, "{group}");
        Ok(())
    })
    .await?;
    cluster.fill("app", "l", 20, "value").await?;
    let create = cluster.drtool(["snapshot", "create", "--json", "--wait", "--group", CONFIG]);
    let made = create.run().await?.expect(0)?.json()?;
    let group = cluster.group(0, CONFIG).await?;
    assert_eq!(
        group["snapshot"]["index"], made["items"][0]["index"],
        "{group}"
    );
    let said = cluster
        .drtool(["snapshot", "create"])
        .run()
        .await?
        .expect(0)?;
    assert!(said.stdout.contains("config/0: ordered"), "{said}");
    assert!(
        said.stdout.contains("drtool status"),
        "it says how to follow it: {said}"
    );
    cluster.finish()
}
