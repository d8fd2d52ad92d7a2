//! I20: a setting that is unknown or wrong is refused at start, all of them at once, each with what was expected.

use std::process::{Command, Output};

use confman_tests::binary;

fn serve(env: &[(&str, &str)]) -> anyhow::Result<Output> {
    let dir = tempfile::tempdir()?;
    Ok(Command::new(binary::confman()?)
        .arg("serve")
        .current_dir(dir.path())
        .env_clear()
        .envs(env.iter().copied())
        .output()?)
}

#[test]
fn i20_every_wrong_setting_is_named_at_once_with_what_was_expected() -> anyhow::Result<()> {
    let output = serve(&[
        ("CONFMAN_SNAPSHOT_COMPRESSION", "lzma"),
        ("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "many"),
        ("CONFMAN_SNAPSHOT_RETENTION_COUNT", "0"),
        ("CONFMAN_SNAPSHOT_TRESHOLD", "5"),
        ("CONFMAN_API_LISTEN", "localhost"),
    ])?;
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr)?;
    for wanted in [
        "CONFMAN_SNAPSHOT_COMPRESSION",
        "zstd",
        "CONFMAN_SNAPSHOT_LOG_THRESHOLD",
        "many",
        "CONFMAN_SNAPSHOT_RETENTION_COUNT",
        "CONFMAN_SNAPSHOT_TRESHOLD",
        "CONFMAN_API_LISTEN",
    ] {
        assert!(said.contains(wanted), "{wanted} is not in: {said}");
    }
    Ok(())
}

#[test]
fn i20_without_keys_a_node_listens_on_loopback_only() -> anyhow::Result<()> {
    let output = serve(&[("CONFMAN_API_LISTEN", "0.0.0.0:16100")])?;
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr)?;
    assert!(
        said.contains("CONFMAN_API_KEYS_FILE") && said.contains("loopback"),
        "{said}"
    );
    Ok(())
}

#[test]
fn i20_no_secret_appears_in_what_is_said_about_settings() -> anyhow::Result<()> {
    let canary = "canary-7f3a9b-secret";
    let output = Command::new(binary::confman()?)
        .arg("config")
        .env_clear()
        .env(
            "CONFMAN_CLUSTER_TOKEN",
            format!("{canary}-0123456789-0123456789"),
        )
        .env("AWS_SECRET_ACCESS_KEY", canary)
        .output()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains("CONFMAN_CLUSTER_TOKEN") && said.contains("CONFMAN_DATA_DIR"),
        "{said}"
    );
    assert!(!said.contains(canary), "{said}");
    Ok(())
}
