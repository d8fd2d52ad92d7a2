//! What a recovery leaves in the store, where one is reachable: the claim of the new incarnation, and the plan as a report.
//!
//! The claim comes before anything is done: of two operators who reach the store one is refused. Without a store the
//! recovery goes on; then only the nodes themselves keep two lives apart. Where a store was named, that is told by the exit code:
//! whoever counts on the claim must know that it is not there.

use std::time::Duration;

use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_snapshot::Repository;
use confman_snapshot::error::StoreError;
use confman_snapshot::paths::ReportKind;
use confman_snapshot::repository::{Claim, ClusterObject, Report};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::collect::now;
use super::plan::Plan;
use crate::codes;
use crate::context::Global;
use crate::step::step;
use crate::store::{StoreArgs, errors};

/// What an apply is called whose claim the store did not take.
const NOT_CLAIMED: &str = "RECOVER_NOT_CLAIMED";
/// How long the store is given.
const WITHIN: Duration = Duration::from_secs(20);

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    /// The store, when one was named.
    pub(super) url: Option<String>,
    /// Whether the new incarnation is claimed there.
    pub(super) claimed: bool,
    /// The object of the report.
    pub(super) report: Option<String>,
    /// What went wrong.
    pub(super) error: Option<String>,
    /// The stable name of what went wrong.
    pub(super) code: Option<&'static str>,
    /// Why there is no report, though the store answers.
    pub(super) report_error: Option<String>,
}

impl Told {
    /// In a sentence.
    pub(super) fn words(&self) -> String {
        match (&self.url, &self.error) {
            (None, None) => "no store was told: nodes of the older life learn of the new one only from its nodes".to_owned(),
            (url, Some(error)) => format!(
                "the store {} was not told ({error}): nodes of the older life learn of the new one only from its nodes",
                url.as_deref().unwrap_or_default()
            ),
            (Some(url), None) => format!("the new incarnation is claimed in {url}"),
        }
    }

    /// What became of the claim of a life that was undone, in a sentence.
    pub(super) fn words_of_withdrawal(&self, incarnation: u64) -> String {
        match (&self.url, &self.error) {
            (None, _) => format!(
                "no store was told: where one has the claim of incarnation {incarnation}, this node fences itself when it sees it; with a store, run the same undo again and name it"
            ),
            (Some(url), Some(error)) => format!(
                "the store {url} was not told ({error}): where it has the claim of incarnation {incarnation}, this node fences itself when it sees it; run the same undo again when it answers"
            ),
            (Some(url), None) => {
                format!("the claim of incarnation {incarnation} is withdrawn in {url}")
            }
        }
    }

    /// Why it is only half done, where a store was named and does not have the claim: nothing keeps another operator from a life
    /// of the same number.
    pub(super) fn unclaimed(&self, plan: &Plan) -> Option<Failure> {
        let error = self.error.as_ref()?;
        let text = format!(
            "the directory is repaired, but incarnation {} is not claimed in the store {}: {error}",
            plan.new_incarnation,
            self.url.as_deref().unwrap_or_default()
        );
        Some(codes::refuse(NOT_CLAIMED, ErrorKind::Unknown, text).with_hint(
            "run the same apply again when the store answers, then it is claimed; until then nobody may recover this cluster elsewhere. To go without a store on purpose: --no-store",
        ))
    }

    fn failed(mut self, why: String) -> Self {
        self.error = Some(why);
        self.code = Some(NOT_CLAIMED);
        self
    }

    /// Keeps the name of the report, or says why there is none: it is asked for afterwards, so that nobody may have to guess.
    fn reported(&mut self, kept: Result<String, StoreError>) {
        match kept {
            Ok(object) => self.report = Some(object),
            Err(error) => {
                let why = one_line(&error);
                crate::context::say(format!(
                    "note: no report of this is kept in the store: {why}"
                ));
                self.report_error = Some(why);
            }
        }
    }
}

/// The way to the store, when one is named.
pub(super) struct Door<'a> {
    args: Option<&'a StoreArgs>,
    global: &'a Global,
}

impl<'a> Door<'a> {
    pub(super) fn new(args: Option<&'a StoreArgs>, global: &'a Global) -> Self {
        Self { args, global }
    }

    async fn open(&self) -> Result<Option<Repository>, Failure> {
        match self.args {
            Some(args) => args.open(self.global).await.map(Some),
            None => Ok(None),
        }
    }

    /// Claims the new incarnation for the plan and keeps the plan there. Done twice it is the same.
    ///
    /// # Errors
    /// Somebody else has claimed it, or the prefix is another cluster's, or it is named wrongly. A store that does not
    /// answer is no error.
    pub(super) async fn claim(&self, plan: &Plan, operator: &str) -> Result<Told, Failure> {
        let mut told = Told::default();
        let Some(repository) = self.open().await? else {
            return Ok(told);
        };
        told.url = Some(repository.url().to_owned());
        let asked = tokio::time::timeout(WITHIN, claim(&repository, plan, operator)).await;
        match asked {
            Ok(Ok(Claim::Ours)) => told.claimed = true,
            Ok(Ok(Claim::Rival(by))) => {
                return Err(taken(plan, &format!("plan {by} has claimed it")));
            }
            Ok(Ok(Claim::Withdrawn)) => {
                return Err(taken(plan, "the plan was undone"));
            }
            Ok(Ok(Claim::Newer(newer))) => {
                return Err(taken(
                    plan,
                    &format!("incarnation {} is there", newer.incarnation),
                ));
            }
            Ok(Ok(Claim::Foreign { others, .. })) => {
                let names: Vec<String> = others.iter().map(ToString::to_string).collect();
                let text = format!("the store belongs to {}", names.join(", "));
                return Err(
                    codes::refuse("RECOVER_FOREIGN", ErrorKind::Refused, text).with_hint(
                        "name this cluster's store with --store, or go without: --no-store",
                    ),
                );
            }
            Ok(Err(error)) => return Ok(told.failed(one_line(&error))),
            Err(_) => {
                return Ok(told.failed(format!("no answer within {} s", WITHIN.as_secs())));
            }
        }
        step("recover::store-claimed");
        let body = json!({ "event": "applied", "plan": plan });
        told.reported(put_report(&repository, plan, &plan.plan_id, body).await);
        Ok(told)
    }

    /// Says that the new incarnation never was. Done twice it is the same.
    ///
    /// # Errors
    /// The store does not answer: the claim stands, and fences whoever sees it.
    pub(super) async fn withdraw(&self, plan: &Plan) -> Result<Told, Failure> {
        let mut told = Told::default();
        let Some(repository) = self.open().await? else {
            return Ok(told);
        };
        told.url = Some(repository.url().to_owned());
        let asked = tokio::time::timeout(WITHIN, withdraw(&repository, plan)).await;
        let failed = match asked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(one_line(&error)),
            Err(_) => Some(format!("no answer within {} s", WITHIN.as_secs())),
        };
        if let Some(why) = failed {
            let text = format!(
                "the directory is as it was, but the claim of incarnation {} in {} still stands: {why}",
                plan.new_incarnation,
                repository.url()
            );
            return Err(codes::refuse("RECOVER_CLAIM_STANDS", ErrorKind::Unknown, text)
                .with_hint("run the same undo again when the store answers; until then nodes that see the claim fence themselves"));
        }
        step("recover::undo-store-withdrawn");
        let id = format!("{}-undone", plan.plan_id);
        let body = json!({ "event": "undone", "planId": plan.plan_id });
        told.reported(put_report(&repository, plan, &id, body).await);
        Ok(told)
    }

    /// Whether the new incarnation is claimed by this plan and not withdrawn; none when the store cannot say.
    pub(super) async fn is_claimed(&self, plan: &Plan) -> Result<Option<bool>, Failure> {
        let Some(repository) = self.open().await? else {
            return Ok(None);
        };
        let listed = tokio::time::timeout(WITHIN, repository.list_clusters()).await;
        let Ok(Ok(lives)) = listed else {
            return Ok(None);
        };
        let life = plan.new_life();
        Ok(Some(lives.iter().any(|l| l.cluster == life)))
    }
}

fn one_line(error: &StoreError) -> String {
    let (message, _) = errors::split(&error.to_string());
    message
}

async fn claim(repository: &Repository, plan: &Plan, operator: &str) -> Result<Claim, StoreError> {
    let recovery = json!({
        "planId": plan.plan_id,
        "kind": "quorumLoss",
        "digest": plan.digest,
        "survivor": plan.survivor.info.name,
        "operator": operator,
    });
    let object = ClusterObject::new(
        plan.new_life(),
        now().as_us(),
        plan.survivor.info.name.as_str(),
        format!("{:016x}", rand::random::<u64>()),
    )
    .with_recovery(recovery);
    repository.claim_cluster(&object).await
}

async fn withdraw(repository: &Repository, plan: &Plan) -> Result<(), StoreError> {
    match repository.read_life(&plan.new_life()).await? {
        Some(claim) if claim.lineage() == plan.plan_id => repository.withdraw_cluster(&claim).await,
        // Never claimed, or by somebody else: that one is not ours to withdraw.
        _ => Ok(()),
    }
}

fn taken(plan: &Plan, why: &str) -> Failure {
    codes::refuse("RECOVER_NEWER_LIFE", ErrorKind::Refused,
        format!(
            "incarnation {} of the cluster is taken in the store: {why}",
            plan.new_incarnation
        ))
    .with_hint("another recovery was quicker. Join it: start this node, it says how; or undo that one and plan again")
}

/// The same report has the same name, whoever writes it and when.
async fn put_report(
    repository: &Repository,
    plan: &Plan,
    id: &str,
    body: Value,
) -> Result<String, StoreError> {
    let body: Map<String, Value> = match body {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let report = Report::new(ReportKind::Recovery, id, plan.created_at.as_us(), body);
    repository.put_report(&report).await
}
