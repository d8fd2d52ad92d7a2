//! What happens to the packets of one pod: nft drops them, tc makes them wait.

use super::docker::exec;
use super::lab::Pod;

/// Ours alone: Docker has rules of its own in the same namespace.
const TABLE: [&str; 2] = ["inet", "confman_test"];

/// Which packets of a pod, as the pod sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What it is sent.
    In,
    /// What it sends.
    Out,
    /// Both.
    Both,
}

impl Pod {
    /// Drops every packet between this pod and those.
    ///
    /// # Errors
    /// nft refuses.
    pub async fn cut(&self, others: &[&Pod], direction: Direction) -> anyhow::Result<()> {
        self.drop_packets(others, direction, None).await
    }

    /// Drops so many of a hundred packets between this pod and those, by chance, in both directions.
    ///
    /// # Errors
    /// nft refuses.
    pub async fn lose(&self, others: &[&Pod], percent: u8) -> anyhow::Result<()> {
        self.drop_packets(others, Direction::Both, Some(percent))
            .await
    }

    async fn drop_packets(
        &self,
        others: &[&Pod],
        direction: Direction,
        percent: Option<u8>,
    ) -> anyhow::Result<()> {
        let [family, table] = TABLE;
        let mut rules = format!(
            "add table {family} {table}
             add chain {family} {table} in {{ type filter hook input priority 0; }}
             add chain {family} {table} out {{ type filter hook output priority 0; }}\n"
        );
        let chance = percent.map_or_else(String::new, |p| format!("numgen random mod 100 < {p} "));
        for other in others {
            let address = &other.address;
            if direction != Direction::Out {
                let rule =
                    format!("add rule {family} {table} in ip saddr {address} {chance}drop\n");
                rules.push_str(&rule);
            }
            if direction != Direction::In {
                let rule =
                    format!("add rule {family} {table} out ip daddr {address} {chance}drop\n");
                rules.push_str(&rule);
            }
        }
        exec(&self.container, &["nft", &rules]).await.map(|_| ())
    }

    /// Lets everything that this pod sends wait its turn, at so many kilobits a second.
    ///
    /// # Errors
    /// tc refuses.
    pub async fn slow(&self, kilobits: u32) -> anyhow::Result<()> {
        let rate = format!("{kilobits}kbit");
        let shape = [
            "root", "tbf", "rate", &rate, "burst", "8kb", "latency", "2s",
        ];
        let line = [&["tc", "qdisc", "replace", "dev", "eth0"][..], &shape].concat();
        exec(&self.container, &line).await.map(|_| ())
    }

    /// Lets everything pass again.
    ///
    /// # Errors
    /// The pod is gone.
    pub async fn heal(&self) -> anyhow::Result<()> {
        let [family, table] = TABLE;
        // Added first, so that there is one to delete.
        let rules = format!("add table {family} {table}\ndelete table {family} {table}\n");
        exec(&self.container, &["nft", &rules]).await?;
        // The shape of an interface that has none cannot be deleted, and replaced it can always be.
        let plain = ["tc", "qdisc", "replace", "dev", "eth0", "root", "pfifo"];
        exec(&self.container, &plain).await.map(|_| ())
    }
}
