//! Reports in the store: how a drill, a recovery or a restore went. Never overwritten, never needed for anything but to be read.
//!
//! The object is a JSON document whose last member is the BLAKE3 of every byte before that member, so that a report that was
//! cut, damaged or edited is found. Version 1 had no checksum, and is still read.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Repository;
use super::cluster::rfc3339;
use super::create::Fingerprint;
use crate::error::{Kind, StoreError};
use crate::paths::{self, ReportKind};

/// Largest report, in bytes.
const OBJECT_BYTES_MAX: u64 = 1 << 20;
/// As many reports of one kind are listed; the newest ones.
const LISTED_MAX: usize = 10_000;
const VERSION: u32 = 2;
/// Reports before this version have no checksum.
const CHECKED_FROM: u32 = 2;
/// What stands between the checked bytes and their sum.
const SUM_OPENS: &str = ",\n  \"checksum\": \"blake3:";
/// What stands after it.
const SUM_CLOSES: &str = "\"\n}\n";

/// A report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of its format: 2.
    pub version: u32,
    /// What it is about.
    pub kind: ReportKind,
    /// Lower case letters, digits and `-`, at most 64; with kind and time it is the name.
    pub id: String,
    /// When it was made, microseconds since 1970 UTC; RFC 3339 in the object.
    #[serde(rename = "createdAt", with = "rfc3339")]
    pub created_us: i64,
    /// What it says: members that depend on the kind.
    #[serde(flatten)]
    pub body: Map<String, Value>,
}

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillVerdict {
    /// The newest snapshots came back, and everything that was compared was equal.
    Passed,
    /// It came back, from older snapshots than the newest: those are no good.
    Degraded,
    /// It did not come back, or came back as something else.
    Failed,
}

impl DrillVerdict {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Passed, Self::Degraded, Self::Failed];

    /// The verdict in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }

    /// The id of a drill's report: it begins with the verdict, so that a listing tells how each went.
    pub fn report_id(self, nonce: u32) -> String {
        format!("{}-{nonce:08x}", self.name())
    }
}

/// One report in a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedReport {
    /// When it was made, microseconds since 1970 UTC.
    pub created_us: i64,
    /// Its id.
    pub id: String,
    /// Its object relative to the prefix.
    pub object: String,
}

impl ListedReport {
    /// How a drill ended, by its report's name; none if the name does not say.
    pub fn drill_verdict(&self) -> Option<DrillVerdict> {
        let (word, _) = self.id.split_once('-')?;
        DrillVerdict::ALL.into_iter().find(|v| v.name() == word)
    }
}

/// The object of a report.
fn encode(report: &Report) -> Result<Bytes, serde_json::Error> {
    let text = serde_json::to_string_pretty(report)?;
    // The document's own end comes after the sum instead.
    let checked = text.strip_suffix("\n}").unwrap_or(&text);
    let sum = blake3::hash(checked.as_bytes()).to_hex();
    Ok(Bytes::from(format!(
        "{checked}{SUM_OPENS}{sum}{SUM_CLOSES}"
    )))
}

/// What an object says; why it is no report otherwise.
fn decode(bytes: &[u8]) -> Result<Report, String> {
    let mut report: Report = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let said = report.body.remove("checksum");
    // Of a newer version the caller says so, whatever its checksum is made of.
    let checked = said.is_some() || report.version >= CHECKED_FROM;
    if checked && report.version <= VERSION {
        let text = str::from_utf8(bytes).map_err(|e| e.to_string())?;
        let (checked, sum) = text.rsplit_once(SUM_OPENS).ok_or("it has no checksum")?;
        let found = blake3::hash(checked.as_bytes()).to_hex();
        if sum.strip_suffix(SUM_CLOSES) != Some(found.as_str()) {
            return Err("its checksum is not that of its content: it was changed".to_owned());
        }
    }
    Ok(report)
}

impl Report {
    /// A report of now.
    pub fn new(
        kind: ReportKind,
        id: impl Into<String>,
        created_us: i64,
        body: Map<String, Value>,
    ) -> Self {
        Self {
            version: VERSION,
            kind,
            id: id.into(),
            created_us,
            body,
        }
    }
}

impl Repository {
    /// Stores a report; gives the name of its object. Done twice, the second time finds the first.
    pub async fn put_report(&self, report: &Report) -> Result<String, StoreError> {
        let Some(object) = paths::report(report.kind, report.created_us, &report.id) else {
            let detail = format!("{:?} is no id of a report, or its time no time", report.id);
            return Err(self.error(Kind::Bug, "put", "", detail, ""));
        };
        let bug = |detail: String| self.error(Kind::Bug, "put", &object, detail, "");
        let content = encode(report).map_err(|e| bug(e.to_string()))?;
        if content.len() as u64 > OBJECT_BYTES_MAX {
            let detail = format!(
                "{} bytes are more than the {OBJECT_BYTES_MAX} of a report",
                content.len()
            );
            return Err(bug(detail));
        }
        let fingerprint = Fingerprint {
            size: content.len() as u64,
            tail: content.clone(),
        };
        let limits = self.small_limits();
        self.create(&object, content, &fingerprint, limits).await?;
        Ok(object)
    }

    /// The reports of one kind, newest first.
    pub async fn list_reports(&self, kind: ReportKind) -> Result<Vec<ListedReport>, StoreError> {
        let mut reports: Vec<ListedReport> = Vec::new();
        let newest_first = |reports: &mut Vec<ListedReport>| {
            reports.sort_by(|a, b| b.cmp(a));
            reports.dedup();
            reports.truncate(LISTED_MAX);
        };
        self.list(&paths::reports(kind), |object, _| {
            if let Some((_, created_us, id)) =
                paths::parse_report(object).filter(|(k, ..)| *k == kind)
            {
                let object = object.to_owned();
                reports.push(ListedReport {
                    created_us,
                    id,
                    object,
                });
            }
            if reports.len() >= 2 * LISTED_MAX {
                newest_first(&mut reports);
            }
        })
        .await?;
        newest_first(&mut reports);
        Ok(reports)
    }

    /// One report.
    pub async fn read_report(&self, listed: &ListedReport) -> Result<Report, StoreError> {
        let object = &listed.object;
        let bytes = self.read_small(object, OBJECT_BYTES_MAX).await?;
        let damaged = |detail: String| self.error(Kind::Damaged, "get", object, detail, "");
        let report = decode(&bytes).map_err(damaged)?;
        if report.version > VERSION {
            let detail = format!(
                "format version {}, this program reads up to {VERSION}",
                report.version
            );
            let hint = "use a newer version of drtool";
            return Err(self.error(Kind::Configuration, "get", object, detail, hint));
        }
        if paths::report(report.kind, report.created_us, &report.id).as_ref() != Some(object) {
            return Err(damaged("it says another name than it has".to_owned()));
        }
        Ok(report)
    }
}
