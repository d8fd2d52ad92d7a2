//! What happens to the packets of one pod: nft drops them, tc makes them wait. A fault that met no packet was none: [`Pod::heal`] says so.

use anyhow::{Context as _, ensure};

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
                let rule = format!(
                    "add rule {family} {table} in ip saddr {address} {chance}counter drop\n"
                );
                rules.push_str(&rule);
            }
            if direction != Direction::In {
                let rule = format!(
                    "add rule {family} {table} out ip daddr {address} {chance}counter drop\n"
                );
                rules.push_str(&rule);
            }
        }
        self.machine.exec(&["nft", &rules]).await.map(|_| ())
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
        self.machine.exec(&line).await.map(|_| ())
    }

    /// Lets everything pass again.
    ///
    /// # Errors
    /// The pod is gone, or the fault met no packet: none was dropped by one that should have, none had to wait its turn.
    pub async fn heal(&self) -> anyhow::Result<()> {
        let [family, table] = TABLE;
        let (dropped, waited) = (self.dropped().await?, self.waited().await?);
        // Added first, so that there is one to delete.
        let rules = format!("add table {family} {table}\ndelete table {family} {table}\n");
        self.machine.exec(&["nft", &rules]).await?;
        // The shape of an interface that has none cannot be deleted, and replaced it can always be.
        let plain = ["tc", "qdisc", "replace", "dev", "eth0", "root", "pfifo"];
        self.machine.exec(&plain).await?;
        let pod = &self.host;
        ensure!(dropped != Some(0), "no packet of {pod} was dropped");
        ensure!(waited != Some(0), "no packet of {pod} had to wait");
        Ok(())
    }

    /// How many packets the rules have dropped; none where there is no rule.
    async fn dropped(&self) -> anyhow::Result<Option<u64>> {
        let rules = self.machine.exec(&["nft", "list", "ruleset"]).await?;
        let [family, table] = TABLE;
        let ours = rules.split("table ");
        let Some(ours) = ours.into_iter().find(|text| {
            let mut words = text.split_whitespace();
            words.next() == Some(family) && words.next() == Some(table)
        }) else {
            return Ok(None);
        };
        sum_after(ours, "counter packets ")
    }

    /// How often a packet came that had to wait for its turn; none where nothing is slow.
    async fn waited(&self) -> anyhow::Result<Option<u64>> {
        sum_after(&self.shape().await?, "overlimits ")
    }

    /// How many bytes have gone through the narrow line since it is that; none where nothing is slow.
    ///
    /// # Errors
    /// The pod is gone.
    pub async fn sent_slowly(&self) -> anyhow::Result<Option<u64>> {
        sum_after(&self.shape().await?, "Sent ")
    }

    /// What tc says of what [`Self::slow`] made; nothing where it made nothing.
    async fn shape(&self) -> anyhow::Result<String> {
        let show = ["tc", "-s", "qdisc", "show", "dev", "eth0"];
        let said = self.machine.exec(&show).await?;
        let slow = said.contains("qdisc tbf");
        Ok(if slow { said } else { String::new() })
    }
}

/// The sum of the numbers that follow `mark`; none where it is not there.
fn sum_after(text: &str, mark: &str) -> anyhow::Result<Option<u64>> {
    let mut sum = None;
    for after in text.split(mark).skip(1) {
        let number = after.split_whitespace().next().unwrap_or_default();
        let number: u64 = number
            .parse()
            .with_context(|| format!("a number after {mark:?}: {number:?}"))?;
        sum = Some(sum.unwrap_or(0) + number);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rules_and_shapes_have_met_is_read() -> anyhow::Result<()> {
        let rules = "chain in {\n ip saddr 172.18.0.3 counter packets 12 bytes 720 drop\n
            ip saddr 172.18.0.4 counter packets 0 bytes 0 drop\n}";
        assert_eq!(sum_after(rules, "counter packets ")?, Some(12));
        assert_eq!(sum_after("chain in {}", "counter packets ")?, None);
        let shape = "Sent 5 bytes 1 pkt (dropped 0, overlimits 3 requeues 0)";
        assert_eq!(sum_after(shape, "overlimits ")?, Some(3));
        assert_eq!(sum_after(shape, "Sent ")?, Some(5));
        Ok(())
    }
}
