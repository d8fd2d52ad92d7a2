//! Kill points that lie ready, and nodes that are started again when they have died.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use confman_node::killpoints::POINTS;
use confman_tests::cluster::Cluster;

/// What a node looks for; see `confman_node::killpoints`.
pub(crate) const DIR: &str = "KILL_POINTS_DIR";

/// A directory of kill points.
#[derive(Debug, Clone)]
pub(crate) struct Points(PathBuf);

impl Points {
    pub(crate) fn new(dir: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    /// Whoever comes to one of them first dies there.
    pub(crate) fn arm(&self, points: &[&str]) -> anyhow::Result<()> {
        for point in points {
            ensure!(POINTS.contains(point), "there is no kill point {point}");
            std::fs::write(self.file(point), "")?;
        }
        Ok(())
    }

    /// Waits until somebody has died at each of them.
    pub(crate) async fn passed(&self) -> anyhow::Result<()> {
        while std::fs::read_dir(&self.0)?.next().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Whether nobody has died there yet.
    pub(crate) fn waits_at(&self, point: &str) -> bool {
        self.file(point).exists()
    }

    /// Those at which nobody has died yet; takes them away.
    pub(crate) fn left(&self) -> anyhow::Result<BTreeSet<String>> {
        let mut left = BTreeSet::new();
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            match std::fs::remove_file(entry.path()) {
                Ok(()) => {
                    left.insert(entry.file_name().to_string_lossy().replace('.', "::"));
                }
                // Somebody has just died there.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("take a kill point away"),
            }
        }
        Ok(left)
    }

    fn file(&self, point: &str) -> PathBuf {
        self.0.join(point.replace("::", "."))
    }
}

/// Starts again whoever of these dies, for as long as `work` takes; gives what came of it and how many deaths there were.
pub(crate) async fn revived<T>(
    cluster: &Cluster,
    nodes: &[usize],
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, usize)> {
    let mut deaths = 0;
    let keep = async {
        loop {
            for index in nodes {
                match cluster.node(*index).revive() {
                    Ok(true) => deaths += 1,
                    Ok(false) => {}
                    Err(error) => return Err::<(), _>(error).context("start it again"),
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let done = tokio::select! {
        done = work => done?,
        kept = keep => {
            kept?;
            anyhow::bail!("nobody keeps the nodes alive")
        }
    };
    Ok((done, deaths))
}
