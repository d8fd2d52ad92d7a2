//! A restore plan: a file that people read and that leaves whoever applies it no choices.
//!
//! Its digest covers everything else in it, so that what is applied is what was made, and shown.

use std::fmt;
use std::path::Path;

use confman_cli::failure::Failure;
use confman_snapshot::model::ClusterId;
use confman_snapshot::repository::{ClusterObject, RestoreOrder};
use confman_snapshot::value_hash;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::alive::{Found, Probed};
use super::survey::Skipped;

use crate::codes;

/// The version of plans that this program makes and applies.
pub(super) const VERSION: u32 = 1;
/// Largest plan that is read, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// What is to be done, and what it costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RestorePlan {
    /// Version of its format: 1.
    pub(super) version: u32,
    /// Its name, and the lineage of the life that it begins.
    pub(super) plan_id: String,
    /// BLAKE3 of the plan without this member, as JSON without spaces and with sorted keys.
    pub(super) digest: String,
    /// When it was made.
    pub(super) created_at: Timestamp,
    /// The store that it was made from.
    pub(super) store: String,
    /// The cluster, and the life that is to begin.
    pub(super) cluster: ClusterId,
    /// The lives that the store had then: another one since, and the plan is stale.
    pub(super) lives: Vec<LifeSeen>,
    /// What each group is restored to.
    pub(super) groups: Vec<GroupAccount>,
    /// How far the newest and the oldest group are apart, in seconds of their last entries. Whole ones, as all numbers here:
    /// a fraction that is read back may differ in its last digit, and with it the digest.
    pub(super) skew_seconds: i64,
    /// What is lost, in sentences.
    pub(super) loss: Vec<String>,
    /// What else the operator should know, in sentences.
    pub(super) notes: Vec<String>,
    /// What was found where members were, or are to be.
    pub(super) probes: Vec<Probed>,
    /// What is written into the store.
    pub(super) order: RestoreOrder,
}

/// A life as the store had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LifeSeen {
    pub(super) incarnation: u64,
    pub(super) nonce: String,
}

impl LifeSeen {
    pub(super) fn of(object: &ClusterObject) -> Self {
        Self {
            incarnation: object.cluster.incarnation,
            nonce: object.nonce.clone(),
        }
    }
}

/// What one group is restored to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GroupAccount {
    pub(crate) group: String,
    pub(crate) snapshot_id: String,
    /// The life that wrote it.
    pub(crate) incarnation: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// When the last entry in it was written.
    pub(crate) last_entry_at: Timestamp,
    /// How long that was before the plan was made, in seconds.
    pub(crate) age_seconds: i64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) state_hash: String,
    /// `data`: every byte was read; `manifest`: footer, manifest, header, and that all objects are there.
    pub(crate) checked: String,
    /// Better ones that are not whole.
    pub(crate) skipped: Vec<Skipped>,
    /// The newest one in the store then: a newer one since, and the plan is stale.
    pub(crate) newest_listed: String,
}

impl RestorePlan {
    /// The same, with the digest that it must have.
    pub(super) fn sealed(mut self) -> Result<Self, Failure> {
        self.digest = self.compute_digest()?;
        Ok(self)
    }

    fn compute_digest(&self) -> Result<String, Failure> {
        let bug = |e: serde_json::Error| codes::bug(format!("write the plan as JSON: {e}"));
        let mut value = serde_json::to_value(self).map_err(bug)?;
        if let Some(members) = value.as_object_mut() {
            members.remove("digest");
        }
        let bytes = serde_json::to_vec(&value).map_err(bug)?;
        Ok(hex::encode(value_hash(&bytes)))
    }

    /// Reads a plan that nobody has changed.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let refused = |why: String| {
            codes::usage(
                "PLAN_INVALID",
                format!("{} is not a restore plan: {why}", path.display()),
            )
            .with_hint("make one with `drtool restore plan`; plans are not edited")
        };
        let failed = |e: std::io::Error| codes::local("read", path, &e);
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(refused(format!("it has {bytes} bytes")));
        }
        let text = std::fs::read(path).map_err(failed)?;
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|e| refused(e.to_string()))?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(u64::from(VERSION)) {
            let found = version.map_or_else(|| "no version".to_owned(), |v| format!("version {v}"));
            return Err(refused(format!(
                "it has {found}, this program applies {VERSION}"
            )));
        }
        let plan: Self = serde_json::from_value(value).map_err(|e| refused(e.to_string()))?;
        let expected = plan.compute_digest()?;
        if plan.digest != expected {
            return Err(refused(
                "its digest is not that of its content: it was changed after it was made"
                    .to_owned(),
            ));
        }
        plan.order
            .check(&plan.cluster)
            .map_err(|e| refused(e.to_string()))?;
        if plan.order.plan_id != plan.plan_id {
            return Err(refused("its order is of another plan".to_owned()));
        }
        Ok(plan)
    }

    /// Writes it where no file is.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        use std::io::Write as _;
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| codes::bug(format!("write the plan as JSON: {e}")))?;
        let failed = |e: std::io::Error| {
            codes::local("write", path, &e).with_hint("name another file with --out")
        };
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(failed)?;
        writeln!(file, "{text}")
            .and_then(|()| file.sync_all())
            .map_err(failed)
    }

    /// The object that begins the life: a function of the plan, so that applying it twice writes one thing.
    pub(super) fn object(&self) -> ClusterObject {
        ClusterObject::new(
            self.cluster.clone(),
            self.created_at.as_microsecond(),
            self.order.operator.as_str(),
            self.digest.as_str(),
        )
        .with_order(&self.order)
    }

    /// What an operator types to agree: the beginning of the cluster's uuid.
    pub(super) fn word(&self) -> &str {
        self.cluster.uuid.get(..8).unwrap_or(&self.cluster.uuid)
    }
}

/// A span as people say it.
pub(crate) fn span(seconds: i64) -> String {
    let whole = seconds.max(0);
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole} s"),
        (0, 0, m) => format!("{m} min {} s", whole % 60),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

impl fmt::Display for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Restore plan {}", self.plan_id)?;
        writeln!(f, "  store    {}", self.store)?;
        writeln!(
            f,
            "  cluster  {}, begins incarnation {} at term {}",
            self.cluster.uuid, self.cluster.incarnation, self.order.term
        )?;
        writeln!(f, "\nEach group is restored to")?;
        for group in &self.groups {
            writeln!(
                f,
                "  {:<10} index {}, last entry {:.0}, {} ago; {} records, {}; {} checked",
                group.group,
                group.index,
                group.last_entry_at,
                span(group.age_seconds),
                group.records,
                confman_cli::output::bytes(group.bytes),
                group.checked,
            )?;
            writeln!(f, "             snapshot {}", group.snapshot_id)?;
            for skipped in &group.skipped {
                writeln!(
                    f,
                    "             skipped  {}: {}",
                    skipped.snapshot_id, skipped.why
                )?;
            }
        }
        sentences(f, "What is lost", &self.loss)?;
        writeln!(f, "\nMembers of incarnation {}", self.cluster.incarnation)?;
        for member in &self.order.members {
            let role = if member.learner { "learner" } else { "voter" };
            writeln!(
                f,
                "  {:<10} node id {}, {role}, {}, {}",
                member.name, member.id, member.api_url, member.peer_addr
            )?;
        }
        writeln!(f, "\nWhat answers there, as seen from here")?;
        for probe in &self.probes {
            let found = match probe.found {
                Found::Alive => "ALIVE",
                Found::Waiting => "waiting",
                Found::Unshaken => "UNSHAKEN",
                Found::NotOurs => "not ours",
                Found::Foreign => "another cluster",
                Found::Mute => "MUTE",
                Found::Silent => "nothing",
            };
            writeln!(
                f,
                "  {:<10} {} {found}: {}",
                probe.name, probe.api_url, probe.detail
            )?;
        }
        sentences(f, "Notes", &self.notes)?;
        write!(
            f,
            "\nWhat happens\n  1. The order is written into the store as incarnation {}. From then on a node of an older one that comes back fences itself.\n  2. Each member, started with its usual settings and an empty data directory, restores itself and joins the others.\n  3. When every group has begun the new life, the order is spent for ever. Clients with tokens of the old one get 409.",
            self.cluster.incarnation
        )
    }
}

fn sentences(f: &mut fmt::Formatter<'_>, title: &str, sentences: &[String]) -> fmt::Result {
    if sentences.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    for sentence in sentences {
        writeln!(f, "  {sentence}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use confman_snapshot::repository::OrderMember;

    use super::*;

    fn account(group: &str, index: u64, skipped: Vec<Skipped>) -> GroupAccount {
        GroupAccount {
            group: group.to_owned(),
            snapshot_id: format!("{index:020}-0000000001-0000000004-0a1b2c3d"),
            incarnation: 1,
            index,
            term: 4,
            last_entry_at: "2026-11-21T11:52:00Z".parse().unwrap(),
            age_seconds: 480,
            records: 3 * index,
            bytes: 4096 * index,
            state_hash: "ab".repeat(32),
            checked: "data".to_owned(),
            skipped,
            newest_listed: format!("{index:020}-0000000001-0000000004-0a1b2c3d"),
        }
    }

    fn plan() -> RestorePlan {
        let uuid = "9364aa70-e271-4c58-ae67-4d9335cf3d17";
        let damaged = Skipped {
            snapshot_id: "00000000000000000940-0000000001-0000000004-77777777".to_owned(),
            index: 940,
            why: "chunk 3 is not what its checksum says".to_owned(),
        };
        let member = |number: u64| OrderMember {
            id: 1000 + number,
            name: format!("node{number}"),
            api_url: format!("http://n{number}:6100"),
            peer_addr: format!("n{number}:6101"),
            learner: number == 3,
        };
        let probe = |number: u64, found, detail: &str| Probed {
            name: format!("node{number}"),
            api_url: format!("http://n{number}:6100"),
            found,
            detail: detail.to_owned(),
            hint: None,
        };
        RestorePlan {
            version: VERSION,
            plan_id: "restore-20261121-120000-0a1b2c3d".to_owned(),
            digest: String::new(),
            created_at: "2026-11-21T12:00:00Z".parse().unwrap(),
            store: "s3://bucket/prefix".to_owned(),
            cluster: ClusterId::new(uuid, 2),
            lives: vec![LifeSeen {
                incarnation: 1,
                nonce: "n".to_owned(),
            }],
            groups: vec![
                account("__meta/0", 40, Vec::new()),
                account("config/0", 880, vec![damaged]),
            ],
            skew_seconds: 12,
            loss: vec![
                "Everything that was written after index 880 of config/0 is lost.".to_owned(),
            ],
            notes: vec!["The groups are 12 s apart.".to_owned()],
            probes: vec![
                probe(1, Found::Silent, "connection refused"),
                probe(2, Found::Waiting, "waits: it has no data"),
                probe(
                    3,
                    Found::Mute,
                    "something listens at n3:6101 and no answer in time",
                ),
                probe(4, Found::Foreign, "node4 of cluster d0c2"),
            ],
            order: RestoreOrder {
                version: 2,
                plan_id: "restore-20261121-120000-0a1b2c3d".to_owned(),
                shards: 1,
                term: 1004,
                groups: Vec::new(),
                members: (1..=3).map(member).collect(),
                next_node_id: 1004,
                operator: "ann@ops".to_owned(),
                summary: "s".to_owned(),
            },
        }
    }

    #[test]
    fn i15_a_plan_as_it_is_printed() {
        insta::assert_snapshot!(plan().to_string());
    }

    #[test]
    fn i16_the_digest_covers_everything_else_in_the_plan() {
        let sealed = plan().sealed().unwrap();
        assert_eq!(sealed.clone().sealed().unwrap().digest, sealed.digest);
        let value = serde_json::to_value(&sealed).unwrap();
        for name in value.as_object().unwrap().keys().filter(|n| *n != "digest") {
            let mut altered = sealed.clone();
            match name.as_str() {
                "version" => altered.version += 1,
                "planId" => altered.plan_id.push('x'),
                "createdAt" => altered.created_at = Timestamp::UNIX_EPOCH,
                "store" => altered.store.push('x'),
                "cluster" => altered.cluster.incarnation += 1,
                "lives" => altered.lives.clear(),
                "groups" => altered.groups[1].index += 1,
                "skewSeconds" => altered.skew_seconds += 1,
                "loss" => altered.loss.clear(),
                "notes" => altered.notes.clear(),
                "probes" => altered.probes.clear(),
                "order" => altered.order.members[0].id += 1,
                other => panic!("{other} is in the plan, and nobody tries to change it here"),
            }
            assert_ne!(altered.compute_digest().unwrap(), sealed.digest, "{name}");
        }
    }
}
