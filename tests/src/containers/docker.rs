//! The program `docker`.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// What one call may take: starting a container on a machine that is busy with others.
const WITHIN: Duration = Duration::from_secs(90);

/// Runs `docker` with these arguments; gives what it printed.
///
/// # Errors
/// It fails, or does not end in time.
pub async fn docker(args: &[&str]) -> anyhow::Result<String> {
    let output = output(args).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        bail!("docker {}: {}", args.join(" "), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// What a container has logged, both streams.
///
/// # Errors
/// There is no such container.
pub async fn logs(container: &str) -> anyhow::Result<String> {
    let output = output(&["logs", container]).await?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// Runs a program in a container that runs.
///
/// # Errors
/// It fails, or does not end in time.
pub async fn exec(container: &str, program: &[&str]) -> anyhow::Result<String> {
    docker(&[&["exec", container], program].concat()).await
}

async fn output(args: &[&str]) -> anyhow::Result<Output> {
    let child = Command::new("docker")
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(WITHIN, child)
        .await
        .with_context(|| format!("docker {} did not end within {WITHIN:?}", args.join(" ")))?
        .context("run docker")
}
