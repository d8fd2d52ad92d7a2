//! When the last drill was, and how it ended: from the names of the reports in the store, by one listing.

use std::time::Duration;

use confman_client::wire::Time;
use confman_snapshot::paths::ReportKind;
use confman_snapshot::repository::{DrillVerdict, ListedReport};
use serde::Serialize;

use crate::context::Global;
use crate::finding::{Finding, Severity};
use crate::live::words;
use crate::store::StoreArgs;
use crate::store::reader::StoreReader;

/// How long the store may take to list them.
const WITHIN: Duration = Duration::from_secs(5);
/// A drill that is older is a finding.
const AGE_MAX_SECONDS: u64 = 31 * 86_400;

/// What the store knows of drills.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Drills {
    /// The last one.
    pub(crate) last: Option<Past>,
    /// The last one that passed.
    pub(crate) last_passed: Option<Past>,
    /// Why nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unknown: Option<String>,
}

/// One drill of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Past {
    /// How it ended; none where its name does not say.
    pub(crate) verdict: Option<DrillVerdict>,
    /// When.
    pub(crate) time: Time,
    /// How long ago.
    pub(crate) age_seconds: u64,
    /// Its report.
    pub(crate) object: String,
}

/// Asks the store, when one is named; bounded, and never in the way.
pub(crate) async fn look(store: &StoreArgs, now_us: i64, global: &Global) -> Option<Drills> {
    if !store.is_named(global) {
        return None;
    }
    let asked = async {
        let reader = store.reader(global).await.map_err(|e| e.to_string())?;
        list(&reader).await
    };
    Some(in_time(asked, now_us).await)
}

/// The same, of a store that is open.
pub(crate) async fn read(reader: &StoreReader, now_us: i64) -> Drills {
    in_time(list(reader), now_us).await
}

async fn list(reader: &StoreReader) -> Result<Vec<ListedReport>, String> {
    let listed = reader.reports(ReportKind::Drill).await;
    listed.map_err(|e| e.to_string())
}

async fn in_time(
    asked: impl Future<Output = Result<Vec<ListedReport>, String>>,
    now_us: i64,
) -> Drills {
    let unknown = |why: String| Drills {
        unknown: Some(why.lines().next().unwrap_or_default().to_owned()),
        ..Drills::default()
    };
    match tokio::time::timeout(WITHIN, asked).await {
        Ok(Ok(listed)) => of(&listed, now_us),
        Ok(Err(why)) => unknown(why),
        Err(_) => unknown(format!(
            "the store did not answer within {} s",
            WITHIN.as_secs()
        )),
    }
}

/// `listed` is newest first.
fn of(listed: &[ListedReport], now_us: i64) -> Drills {
    let past = |report: &ListedReport| Past {
        verdict: report.drill_verdict(),
        time: Time::from_us(report.created_us),
        age_seconds: now_us
            .saturating_sub(report.created_us)
            .max(0)
            .unsigned_abs()
            / 1_000_000,
        object: report.object.clone(),
    };
    let passed = |report: &&ListedReport| report.drill_verdict() == Some(DrillVerdict::Passed);
    Drills {
        last: listed.first().map(past),
        last_passed: listed.iter().find(passed).map(past),
        unknown: None,
    }
}

impl Drills {
    /// What an operator should know. That nobody drills says nothing against the cluster's health; that a drill failed does.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        if self.unknown.is_some() {
            return found;
        }
        if let Some(Past {
            verdict: Some(verdict @ (DrillVerdict::Failed | DrillVerdict::Degraded)),
            age_seconds,
            object,
            ..
        }) = &self.last
        {
            let what = format!(
                "the last drill {}, {} ago: {object}",
                match verdict {
                    DrillVerdict::Failed => "failed",
                    _ => "had to use older snapshots than the newest",
                },
                words::age(*age_seconds)
            );
            found.push(
                Finding::new(Severity::Warning, "DRILL_FAILED", "the store", what).with_hint(
                    "read its report, mend what it found, and drill again: `drtool runbook drill`",
                ),
            );
        }
        let (code, what) = match &self.last_passed {
            None => (
                "DRILL_NEVER",
                "no drill has passed yet: nobody has tried whether this cluster can be restored"
                    .to_owned(),
            ),
            Some(past) if past.age_seconds > AGE_MAX_SECONDS => (
                "DRILL_OLD",
                format!(
                    "the last drill that passed is {} old",
                    words::age(past.age_seconds)
                ),
            ),
            Some(_) => return found,
        };
        found.push(
            Finding::new(Severity::Info, code, "the store", what).with_hint("`drtool drill`"),
        );
        found
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let told = |past: &Past| {
            let how = past
                .verdict
                .map_or("ended, nobody knows how,", DrillVerdict::name);
            format!("{how} {} ago", words::age(past.age_seconds))
        };
        match (&self.unknown, &self.last, &self.last_passed) {
            (Some(why), ..) => format!("last drill: unknown, {why}"),
            (None, None, _) => "last drill: never".to_owned(),
            (None, Some(last), Some(passed)) if last != passed => {
                format!(
                    "last drill: {}; the last good one {} ago",
                    told(last),
                    words::age(passed.age_seconds)
                )
            }
            (None, Some(last), _) => format!("last drill: {}", told(last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn report(days_ago: i64, verdict: DrillVerdict) -> ListedReport {
        ListedReport {
            created_us: (1000 - days_ago) * DAY * 1_000_000,
            id: verdict.report_id(7),
            object: format!("reports/drill/{days_ago}"),
        }
    }

    fn told(listed: &[ListedReport]) -> (String, Vec<(Severity, &'static str)>) {
        let drills = of(listed, 1000 * DAY * 1_000_000);
        let findings = drills
            .findings()
            .iter()
            .map(|f| (f.severity, f.code))
            .collect();
        (drills.line(), findings)
    }

    #[test]
    fn who_never_drills_is_told_and_stays_healthy() {
        let passed = DrillVerdict::Passed;
        assert_eq!(
            told(&[]),
            (
                "last drill: never".to_owned(),
                vec![(Severity::Info, "DRILL_NEVER")]
            )
        );
        assert_eq!(
            told(&[report(3, passed)]),
            ("last drill: passed 3 d 0 h ago".to_owned(), vec![])
        );
        assert_eq!(
            told(&[report(32, passed)]),
            (
                "last drill: passed 32 d 0 h ago".to_owned(),
                vec![(Severity::Info, "DRILL_OLD")]
            )
        );
        assert_eq!(
            told(&[report(1, DrillVerdict::Failed), report(3, passed)]),
            (
                "last drill: failed 1 d 0 h ago; the last good one 3 d 0 h ago".to_owned(),
                vec![(Severity::Warning, "DRILL_FAILED")]
            )
        );
    }

    #[test]
    fn every_code_has_a_page() {
        for code in ["DRILL_NEVER", "DRILL_OLD", "DRILL_FAILED"] {
            assert!(crate::codes::find(code).is_some(), "{code}");
        }
    }
}
