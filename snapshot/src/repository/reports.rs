//! Reports in the store: how a drill, a recovery or a restore went. Never overwritten, never needed for anything but to be read.

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
const VERSION: u32 = 1;

/// A report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of its format: 1.
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
        let content =
            Bytes::from(serde_json::to_vec_pretty(report).map_err(|e| bug(e.to_string()))?);
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
        let report: Report = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
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
