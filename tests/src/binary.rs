//! Finds the `confman` program that the scenarios drive.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};

/// Names another program to test, for example a release build.
const OVERRIDE: &str = "CONFMAN_TEST_BINARY";

/// The program: the one of `CONFMAN_TEST_BINARY`, else the one beside this test executable, built if it is absent.
///
/// # Errors
/// It is neither there nor can it be built.
pub fn confman() -> anyhow::Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

fn find() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(OVERRIDE) {
        return Ok(path.into());
    }
    let profile = profile_dir()?;
    let program = profile.join("confman");
    if !program.exists() {
        build(&profile)?;
    }
    if !program.exists() {
        bail!("{} was built but is not there", program.display());
    }
    Ok(program)
}

/// The program, built anew where sources have changed: for measurements, which must not measure yesterday's.
///
/// # Errors
/// It cannot be built.
pub fn confman_rebuilt() -> anyhow::Result<PathBuf> {
    if std::env::var_os(OVERRIDE).is_none() {
        build(&profile_dir()?)?;
    }
    confman()
}

fn profile_dir() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("find this executable")?;
    // target/{profile}/deps/scenarios-hash
    let profile = this
        .ancestors()
        .skip(1)
        .find(|dir| dir.file_name().is_some_and(|name| name != "deps"));
    Ok(profile
        .context("this executable lies in no target directory")?
        .to_owned())
}

/// `cargo test -p confman-tests` alone does not build the node's binary.
fn build(profile: &Path) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "-p", "confman-node", "--bin", "confman"]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if let Some(target) = profile.parent() {
        command.env("CARGO_TARGET_DIR", target);
    }
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(name) => {
            command.args(["--profile", name]);
        }
    }
    let status = command.status().context("run cargo to build confman")?;
    if !status.success() {
        bail!("cargo build of confman failed: {status}");
    }
    Ok(())
}
