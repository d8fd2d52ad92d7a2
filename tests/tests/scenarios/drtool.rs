//! The operator's tool as a program: exit codes, one document on stdout, everything else on stderr.

use confman_tests::drtool::Drtool;

#[tokio::test]
async fn a_wrong_command_is_a_usage_error_and_an_unknown_code_is_not_found() -> anyhow::Result<()> {
    let ran = Drtool::new(["no-such-command"]).run().await?.expect(2)?;
    assert!(ran.stdout.is_empty(), "{ran}");
    let ran = Drtool::new(["explain", "NO_SUCH_CODE", "--json"])
        .run()
        .await?
        .expect(4)?;
    assert_eq!(ran.json()?["error"]["exitCode"], 4, "{ran}");
    assert!(ran.stderr.contains("hint:"), "{ran}");
    Ok(())
}
