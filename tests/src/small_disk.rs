//! A file system of its own under a data directory, so small that it can really be filled.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// A tmpfs, gone with its contents when dropped.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many mebibytes at an empty directory, which is made.
    ///
    /// # Errors
    /// This process may not mount: Linux and root are needed.
    pub fn mount(at: &Path, mebibytes: u64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(at).with_context(|| format!("make {}", at.display()))?;
        run(
            &["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"],
            at,
        )?;
        Ok(Self { at: at.to_owned() })
    }

    /// Gives it another size; its contents stay.
    ///
    /// # Errors
    /// It holds more than that.
    pub fn resize(&self, mebibytes: u64) -> anyhow::Result<()> {
        run(&["-o", &format!("remount,size={mebibytes}m")], &self.at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there is about to be ended too.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

fn run(options: &[&str], at: &Path) -> anyhow::Result<()> {
    let output = Command::new("mount")
        .args(options)
        .arg(at)
        .output()
        .context("run mount")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("mount {}: {}", at.display(), why.trim());
    }
    Ok(())
}
