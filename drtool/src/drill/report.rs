//! What came out of a drill: the document that is printed and kept in the store, and the same as people read it.

use std::fmt::Write as _;

use confman_cli::failure::Failure;
use confman_cli::{escape, output};
use confman_client::ErrorKind;
use confman_snapshot::model::ClusterId;
use confman_snapshot::paths::ReportKind;
use confman_snapshot::repository::{DrillVerdict, Report};
use jiff::Timestamp;
use serde::Serialize;

use super::compare::ReadOver;
use super::living::LiveHash;
use crate::codes;
use crate::finding::{Finding, Severity};
use crate::restore::plan::{GroupAccount, span};

/// As many findings are kept in a report, the worst first.
const FINDINGS_MAX: usize = 100;

/// A drill.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Drill {
    /// How it ended.
    pub(crate) verdict: DrillVerdict,
    /// The cluster, and its newest life in the store.
    pub(crate) cluster: ClusterId,
    /// The store, without secrets.
    pub(crate) store: String,
    /// Who drilled.
    pub(crate) operator: String,
    /// The programs that did.
    pub(crate) drtool_version: &'static str,
    /// What the node's program says of itself.
    pub(crate) confman_version: String,
    /// When it began: what would have been lost is counted from here.
    pub(crate) started_at: Timestamp,
    /// When it ended.
    pub(crate) ended_at: Timestamp,
    /// What each group was restored to.
    pub(crate) groups: Vec<GroupDrilled>,
    /// Entries that came back.
    pub(crate) entries: u64,
    /// Namespaces that came back.
    pub(crate) namespaces: u64,
    /// Bytes read from the store to restore it.
    pub(crate) read_bytes: u64,
    /// How long each phase took.
    pub(crate) phases: Phases,
    /// Select, restore, boot and first read together: until a client has an answer, on this machine. None when it came to none.
    pub(crate) rto_ms: Option<u64>,
    /// What a disaster at the beginning of the drill would have cost.
    pub(crate) rpo: Rpo,
    /// What was read from the booted node; none when it came to none.
    pub(crate) read: Option<ReadOver>,
    /// Why the living cluster was not compared with; none when it was.
    pub(crate) living_silent: Option<String>,
    /// What was found, the worst first.
    pub(crate) findings: Vec<Finding>,
    /// Its report in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    /// Where the copy was left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kept: Option<String>,
}

/// One group.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupDrilled {
    /// The snapshot.
    #[serde(flatten)]
    pub(crate) account: GroupAccount,
    /// The hash of its records as they were read back from the disk.
    pub(crate) restored_hash: Option<String>,
    /// What the living cluster had at that position.
    pub(crate) live: LiveHash,
    /// The highest committed position that the living cluster knew when the drill began.
    pub(crate) committed_index: Option<u64>,
    /// Log entries after the snapshot then; those by which the cluster keeps its books are among them.
    pub(crate) entries_behind: Option<u64>,
}

/// How long each phase took, in milliseconds; none for one that it did not come to.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Phases {
    /// To find the snapshots.
    pub(crate) select_ms: u64,
    /// To fetch, prove and install them.
    pub(crate) restore_ms: u64,
    /// To read back every record. A real restore does not.
    pub(crate) verify_ms: Option<u64>,
    /// From the start of the node until it is ready.
    pub(crate) boot_ms: Option<u64>,
    /// Until the first value was read and compared.
    pub(crate) first_read_ms: Option<u64>,
    /// Until all of the sample was.
    pub(crate) read_ms: Option<u64>,
    /// Everything.
    pub(crate) total_ms: u64,
}

/// What would have been lost.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rpo {
    /// `cluster` when the living cluster told how far it is, else `clock`.
    pub(crate) measured_against: &'static str,
    /// Log entries of all groups after their snapshots; none when nobody told.
    pub(crate) entries: Option<u64>,
    /// What was written in so many seconds at most, by the group for which it is longest.
    pub(crate) seconds: i64,
}

impl Drill {
    /// One that has just begun.
    pub(super) fn new(
        cluster: ClusterId,
        store: &str,
        operator: String,
        confman_version: String,
    ) -> Self {
        let now = Timestamp::now();
        Self {
            verdict: DrillVerdict::Failed,
            cluster,
            store: store.to_owned(),
            operator,
            drtool_version: confman_cli::VERSION,
            confman_version,
            started_at: now,
            ended_at: now,
            groups: Vec::new(),
            entries: 0,
            namespaces: 0,
            read_bytes: 0,
            phases: Phases::default(),
            rto_ms: None,
            rpo: Rpo::default(),
            read: None,
            living_silent: None,
            findings: Vec::new(),
            object: None,
            kept: None,
        }
    }

    /// With everything that follows from what was found.
    pub(super) fn judged(mut self) -> Self {
        self.ended_at = Timestamp::now();
        self.findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
        self.findings.truncate(FINDINGS_MAX);
        let has = |severity| self.findings.iter().any(|f| f.severity == severity);
        self.verdict = if has(Severity::Error) || self.read.is_none() {
            DrillVerdict::Failed
        } else if has(Severity::Warning) {
            DrillVerdict::Degraded
        } else {
            DrillVerdict::Passed
        };
        self.rto_ms = self.rto();
        self.rpo = self.rpo();
        self
    }

    fn rto(&self) -> Option<u64> {
        let Phases {
            select_ms,
            restore_ms,
            boot_ms,
            first_read_ms,
            ..
        } = self.phases;
        Some(select_ms + restore_ms + boot_ms? + first_read_ms?)
    }

    fn rpo(&self) -> Rpo {
        let behind: Option<Vec<u64>> = self.groups.iter().map(|g| g.entries_behind).collect();
        let behind = behind.filter(|groups| !groups.is_empty());
        // Where nothing has come since, nothing is lost, however old it is.
        let seconds = |group: &GroupDrilled| match group.entries_behind {
            Some(0) => 0,
            _ => self
                .started_at
                .duration_since(group.account.last_entry_at)
                .as_secs()
                .max(0),
        };
        Rpo {
            measured_against: if behind.is_some() { "cluster" } else { "clock" },
            entries: behind.map(|groups| groups.iter().sum()),
            seconds: self.groups.iter().map(seconds).max().unwrap_or(0),
        }
    }

    /// As it is kept in the store.
    pub(super) fn report(&self) -> Result<Report, Failure> {
        let bug =
            |e: String| codes::refuse("BUG", ErrorKind::Bug, format!("write the report: {e}"));
        let value = serde_json::to_value(self).map_err(|e| bug(e.to_string()))?;
        let serde_json::Value::Object(mut body) = value else {
            return Err(bug("it is no object".to_owned()));
        };
        // Of this machine, and gone or elsewhere tomorrow.
        body.remove("kept");
        body.remove("object");
        let id = self.verdict.report_id(rand::random());
        let at_us = self.ended_at.as_microsecond();
        Ok(Report::new(ReportKind::Drill, id, at_us, body))
    }

    /// For people. Nothing in it steers a terminal.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = writeln!(out, "{}", self.headline());
        for group in &self.groups {
            let _ = writeln!(out, "{}", group_line(group));
        }
        let _ = writeln!(out, "{}", self.time_line());
        if !self.groups.is_empty() {
            let _ = writeln!(out, "{}", self.loss_line());
        }
        if let Some(read) = &self.read {
            let _ = writeln!(
                out,
                "  read     {} values ({}) and {} namespaces compared with the snapshots; {} entries in {} namespaces came back",
                read.values,
                output::bytes(read.bytes),
                read.namespaces,
                self.entries,
                self.namespaces
            );
        }
        if let Some(why) = &self.living_silent {
            let _ = writeln!(
                out,
                "  living   not compared with: {}",
                why.replace('\n', "; ")
            );
        }
        if let Some(object) = &self.object {
            let _ = writeln!(out, "  report   {object}");
        }
        if let Some(kept) = &self.kept {
            let _ = writeln!(out, "  kept     {kept}");
        }
        for finding in &self.findings {
            let _ = writeln!(out, "{finding}");
        }
        escape::lines(&out).into_owned()
    }

    fn headline(&self) -> String {
        let uuid = &self.cluster.uuid;
        match self.verdict {
            DrillVerdict::Passed => {
                format!("drill passed: cluster {uuid} came back from the store")
            }
            DrillVerdict::Degraded => format!(
                "drill degraded: cluster {uuid} came back from the store, from older snapshots than the newest"
            ),
            DrillVerdict::Failed => {
                format!("drill FAILED: cluster {uuid} did not come back as it should")
            }
        }
    }

    fn time_line(&self) -> String {
        let Phases {
            select_ms,
            restore_ms,
            verify_ms,
            boot_ms,
            first_read_ms,
            total_ms,
            ..
        } = self.phases;
        let optional = |name: &str, ms: Option<u64>| {
            ms.map_or_else(String::new, |ms| format!(", {name} {}", seconds(ms)))
        };
        let rto = self.rto_ms.map_or_else(
            || "no answer".to_owned(),
            |ms| format!("{} to the first answer", seconds(ms)),
        );
        format!(
            "  time     {rto}: select {}, restore {}{}{} (verify {} beside that); {} in all",
            seconds(select_ms),
            seconds(restore_ms),
            optional("boot", boot_ms),
            optional("read", first_read_ms),
            verify_ms.map_or_else(|| "not reached".to_owned(), seconds),
            seconds(total_ms),
        )
    }

    fn loss_line(&self) -> String {
        let since = span(self.rpo.seconds);
        match self.rpo.entries {
            Some(entries) => format!(
                "  lost     {entries} log entries if every node had burned then, of at most {since}"
            ),
            None => format!(
                "  lost     what was written in at most {since}, if every node had burned then"
            ),
        }
    }
}

fn group_line(group: &GroupDrilled) -> String {
    let account = &group.account;
    let state = match &group.restored_hash {
        Some(hash) if *hash == account.state_hash => "state equal to the snapshot's",
        Some(_) => "state DIFFERS from the snapshot's",
        None => "state not read back",
    };
    let live = match group.live.verdict {
        "equal" => format!(" and to that of {}", group.live.equal.join(", ")),
        "differs" => format!(", DIFFERS from that of {}", group.live.differs.join(", ")),
        _ => ", no living node knows it".to_owned(),
    };
    format!(
        "  {:<8} index {}, {} records, {}; {state}{live}; snapshot {}",
        account.group,
        account.index,
        account.records,
        output::bytes(account.bytes),
        account.snapshot_id
    )
}

fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(index: u64, last_entry_at: Timestamp) -> GroupAccount {
        GroupAccount {
            group: "config/0".to_owned(),
            snapshot_id: "00000000000000000135-0000000001-0000000001-92ba91b0".to_owned(),
            incarnation: 1,
            index,
            term: 1,
            last_entry_at,
            age_seconds: 60,
            records: 685,
            bytes: 1536,
            state_hash: "ab".repeat(32),
            checked: "data".to_owned(),
            skipped: Vec::new(),
            newest_listed: String::new(),
        }
    }

    fn drill() -> Drill {
        let uuid = "9364aa70-e271-4c58-ae67-4d9335cf3d17";
        let mut drill = Drill::new(
            ClusterId::new(uuid, 1),
            "s3://bucket/prefix",
            "ann".to_owned(),
            "confman 0.1.0".to_owned(),
        );
        drill.started_at = Timestamp::from_second(1_790_000_060).unwrap();
        drill.groups.push(GroupDrilled {
            account: account(135, Timestamp::from_second(1_790_000_000).unwrap()),
            restored_hash: Some("ab".repeat(32)),
            live: LiveHash {
                verdict: "equal",
                equal: vec!["node1".to_owned(), "node2".to_owned()],
                differs: Vec::new(),
            },
            committed_index: Some(141),
            entries_behind: Some(6),
        });
        drill.phases = Phases {
            select_ms: 110,
            restore_ms: 920,
            verify_ms: Some(80),
            boot_ms: Some(1800),
            first_read_ms: Some(25),
            read_ms: Some(70),
            total_ms: 3005,
        };
        drill.read = Some(ReadOver {
            values: 32,
            bytes: 9000,
            namespaces: 4,
            namespaces_listed: Some(9),
        });
        (drill.entries, drill.namespaces) = (300, 9);
        drill
    }

    fn finding(severity: Severity) -> Finding {
        Finding::new(
            severity,
            "DRILL_VALUE_DIFFERS",
            "the booted copy",
            "a/b\u{1b}[31m",
        )
    }

    #[test]
    fn a_drill_as_people_read_it() {
        let mut passed = drill().judged();
        passed.object = Some("reports/drill/x.json".to_owned());
        let mut failed = drill();
        failed.findings.push(finding(Severity::Error));
        failed.groups[0].live = LiveHash {
            verdict: "unknown",
            equal: Vec::new(),
            differs: Vec::new(),
        };
        failed.groups[0].entries_behind = None;
        failed.living_silent = Some("no node answered".to_owned());
        (failed.phases.boot_ms, failed.read) = (None, None);
        let text = format!("{}\n{}", passed.text(), failed.judged().text());
        insta::assert_snapshot!(text);
    }

    #[test]
    fn i15_the_verdict_follows_from_what_was_found() {
        assert_eq!(drill().judged().verdict, DrillVerdict::Passed);
        for (severity, verdict) in [
            (Severity::Info, DrillVerdict::Passed),
            (Severity::Warning, DrillVerdict::Degraded),
            (Severity::Error, DrillVerdict::Failed),
        ] {
            let mut with = drill();
            with.findings.push(finding(severity));
            assert_eq!(with.judged().verdict, verdict);
        }
        let mut unread = drill();
        unread.read = None;
        assert_eq!(
            unread.judged().verdict,
            DrillVerdict::Failed,
            "nobody read anything"
        );
    }

    #[test]
    fn what_would_be_lost_is_nothing_when_nothing_came_since() {
        let told = drill().judged();
        assert_eq!(
            (
                told.rpo.measured_against,
                told.rpo.entries,
                told.rpo.seconds
            ),
            ("cluster", Some(6), 60)
        );
        assert_eq!(told.rto_ms, Some(2855));
        let mut same = drill();
        same.groups[0].entries_behind = Some(0);
        let same = same.judged();
        assert_eq!((same.rpo.entries, same.rpo.seconds), (Some(0), 0));
        let mut alone = drill();
        alone.groups[0].entries_behind = None;
        let alone = alone.judged();
        assert_eq!(
            (
                alone.rpo.measured_against,
                alone.rpo.entries,
                alone.rpo.seconds
            ),
            ("clock", None, 60)
        );
    }

    #[test]
    fn the_report_says_its_verdict_in_its_name() {
        let report = drill().judged().report().unwrap();
        assert!(report.id.starts_with("passed-"), "{}", report.id);
        assert_eq!(report.body["verdict"], "passed");
        assert!(!report.body.contains_key("kept"));
    }
}
