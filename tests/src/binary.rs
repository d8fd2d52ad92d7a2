//! Finds the programs that the scenarios drive: `confman` and `drtool`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};

/// A program of this repository.
struct Program {
    name: &'static str,
    /// The variable that names another one to test, for example a release build.
    instead: &'static str,
}

const CONFMAN: Program = Program {
    name: "confman",
    instead: "CONFMAN_TEST_BINARY",
};
const DRTOOL: Program = Program {
    name: "drtool",
    instead: "CONFMAN_TEST_DRTOOL",
};

/// The node's program: the one of `CONFMAN_TEST_BINARY`, else the one beside this test executable, built if it is absent.
///
/// # Errors
/// It is neither there nor can it be built.
pub fn confman() -> anyhow::Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| CONFMAN.find().map_err(|error| format!("{error:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

/// The operator's tool: the one of `CONFMAN_TEST_DRTOOL`, else the one beside this test executable, built if it is absent.
///
/// # Errors
/// It is neither there nor can it be built.
pub fn drtool() -> anyhow::Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| DRTOOL.find().map_err(|error| format!("{error:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

/// The node's program, built anew where sources have changed: for measurements, which must not measure yesterday's.
///
/// # Errors
/// It cannot be built.
pub fn confman_rebuilt() -> anyhow::Result<PathBuf> {
    if std::env::var_os(CONFMAN.instead).is_none() {
        CONFMAN.build(&profile_dir()?)?;
    }
    confman()
}

/// The operator's tool, built anew where sources have changed.
///
/// # Errors
/// It cannot be built.
pub fn drtool_rebuilt() -> anyhow::Result<PathBuf> {
    if std::env::var_os(DRTOOL.instead).is_none() {
        DRTOOL.build(&profile_dir()?)?;
    }
    drtool()
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

impl Program {
    fn find(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = std::env::var_os(self.instead) {
            return Ok(path.into());
        }
        let profile = profile_dir()?;
        let program = profile.join(self.name);
        if !program.exists() {
            self.build(&profile)?;
        }
        if !program.exists() {
            bail!("{} was built but is not there", program.display());
        }
        Ok(program)
    }

    /// `cargo test -p confman-tests` alone does not build the programs.
    fn build(&self, profile: &Path) -> anyhow::Result<()> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        // Both programs, as a user builds them: one package alone would be built with other features of its dependencies,
        // and half of them once more.
        command.args(["build", "--bin", CONFMAN.name, "--bin", DRTOOL.name]);
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
        let status = command
            .status()
            .with_context(|| format!("run cargo to build {}", self.name))?;
        if !status.success() {
            bail!("cargo build of {} failed: {status}", self.name);
        }
        Ok(())
    }
}
