//! Letting go what may go, where no cluster does it: marks first, deletions when a mark is a grace old.
//!
//! What is safe without a cluster, and why:
//! - the generations that stay are those of the newest positions, and each is read to its end right before anything of its
//!   group is deleted; one that is damaged stops the deletions of that group (I9, I10);
//! - a living cluster may have recorded what is deleted here, unmarked: it loses nothing that it needs, because as many newer
//!   generations as it keeps are proven, which is why that number must be said;
//! - who restores from an old snapshot has the grace between two runs to end;
//! - restore orders are read again when all has been read that stays: an order may be given while somebody thinks about the plan;
//! - a pin is asked for by name right before each deletion;
//! - every step can be killed and run again (I17).

use std::fmt;
use std::process::ExitCode;

use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_snapshot::paths::NoteKind;
use confman_snapshot::repository::Note;
use confman_snapshot::{GroupId, Repository, SnapshotId};
use serde::Serialize;

use super::judged::{Fate, Item};
use super::orders::Orders;
use super::view::View;
use crate::consent::{self, Consent};
use crate::context::Global;
use crate::store::reader::StoreReader;
use crate::store::{errors, now_us};

/// Who marks, in the marks.
const MARKED_BY: &str = "drtool retention";

/// What would change.
#[derive(Debug)]
struct Plan<'a> {
    url: &'a str,
    items: &'a [Item],
}

/// What was done with one object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    group: GroupId,
    id: SnapshotId,
    done: Done,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Done {
    Marked,
    Unmarked,
    Deleted,
    /// It was due, and was left.
    Left,
}

/// What was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Applied {
    steps: Vec<Step>,
    /// Generations that stay and are damaged: nothing of their groups was deleted.
    damaged: Vec<String>,
}

impl Plan<'_> {
    fn due(&self, fate: Fate) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.decision == fate)
    }

    fn stale(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.stale_mark)
    }

    fn is_empty(&self) -> bool {
        let mut due = self.due(Fate::Mark).chain(self.due(Fate::Delete));
        due.next().is_none() && self.stale().next().is_none()
    }
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Plan for {}:", self.url)?;
        for item in self.stale() {
            writeln!(f, "  take back the mark of {} {}", item.group, item.id)?;
        }
        for item in self.due(Fate::Mark) {
            writeln!(f, "  mark {} {}: {}", item.group, item.id, item.reason)?;
        }
        let mut bytes = 0_u64;
        for item in self.due(Fate::Delete) {
            bytes = bytes.saturating_add(item.bytes);
            writeln!(f, "  DELETE {} {}: {}", item.group, item.id, item.reason)?;
        }
        if bytes > 0 {
            writeln!(
                f,
                "  {} are deleted for ever, after the generations that stay were read to their ends",
                output::bytes(bytes)
            )?;
        }
        f.write_str("A living cluster does this by itself; here it is for one that may not delete, or is gone.")
    }
}

/// Shows the plan, takes consent, carries it out.
pub(super) async fn run(
    repository: &Repository,
    items: &[Item],
    views: &[View],
    yes: bool,
    global: &Global,
) -> Result<Applied, Failure> {
    let plan = Plan {
        url: repository.url(),
        items,
    };
    if plan.is_empty() {
        return Ok(Applied {
            steps: Vec::new(),
            damaged: Vec::new(),
        });
    }
    let uuid = views.iter().find_map(|view| view.cluster_uuid.as_deref());
    let word = uuid.and_then(|uuid| uuid.get(..8)).unwrap_or("delete");
    let consent = consent::ask(consent::show(&plan)?, yes, word)?;
    let doing = "read the generations that stay, mark and delete";
    global.during(doing, carry_out(repository, &consent)).await
}

async fn carry_out(
    repository: &Repository,
    consent: &Consent<'_, Plan<'_>>,
) -> Result<Applied, Failure> {
    let plan = consent.plan();
    let told = |error| errors::store(&error);
    let mut applied = Applied {
        steps: Vec::new(),
        damaged: Vec::new(),
    };
    let store = StoreReader::new(repository.clone());
    for item in plan.stale() {
        unmark(repository, item).await?;
        applied.step(item, Done::Unmarked, None);
    }
    let orders = Orders::read(&store).await?;
    for item in plan.due(Fate::Mark) {
        if let Some(why) = orders.hold(&item.group, &item.id) {
            applied.step(item, Done::Left, Some(why));
            continue;
        }
        let (group, now) = (item.group.clone(), now_us());
        let note = Note::new(group, item.id, now, MARKED_BY, &item.reason);
        let put = repository.put_note(NoteKind::Mark, &note).await;
        put.map_err(told)?;
        applied.step(item, Done::Marked, None);
    }
    let mut groups: Vec<&GroupId> = plan.due(Fate::Delete).map(|item| &item.group).collect();
    groups.dedup();
    for group in groups {
        let unproven = prove(repository, plan, group, &mut applied).await?;
        // Reading those that stay may have taken hours.
        let orders = Orders::read(&store).await?;
        for item in plan.due(Fate::Delete).filter(|i| i.group == *group) {
            let held = || orders.hold(group, &item.id);
            if let Some(why) = unproven.map(str::to_owned).or_else(held) {
                applied.step(item, Done::Left, Some(why));
                continue;
            }
            // By name: it may be younger than the plan.
            let pinned = repository.has_note(NoteKind::Pin, group, &item.id).await;
            if pinned.map_err(told)? {
                applied.step(item, Done::Left, Some("pinned meanwhile".to_owned()));
                continue;
            }
            let deleted = repository.delete_snapshot(group, &item.id).await;
            deleted.map_err(told)?;
            // The mark goes last: killed in between, the next run has nothing left to judge and the mark does no harm.
            unmark(repository, item).await?;
            applied.step(item, Done::Deleted, None);
        }
    }
    Ok(applied)
}

async fn unmark(repository: &Repository, item: &Item) -> Result<(), Failure> {
    let removed = repository
        .delete_note(NoteKind::Mark, &item.group, &item.id)
        .await;
    removed.map_err(|error| errors::store(&error))
}

/// Reads the generations of a group that stay to their ends. Says why that proves nothing, if it does not.
async fn prove(
    repository: &Repository,
    plan: &Plan<'_>,
    group: &GroupId,
    applied: &mut Applied,
) -> Result<Option<&'static str>, Failure> {
    let (mut good, mut bad) = (0, 0);
    for item in plan
        .items
        .iter()
        .filter(|i| i.generation && i.group == *group)
    {
        match repository.verify(group, &item.id).await {
            Ok(_) => good += 1,
            Err(error) if error.is_bad_snapshot() => {
                bad += 1;
                applied.damaged.push(errors::split(&error.to_string()).0);
            }
            Err(error) => return Err(errors::snapshot(&error)),
        }
    }
    Ok(match (good, bad) {
        (0, 0) => Some("there is no generation that stays"),
        (_, 0) => None,
        _ => Some("a generation that stays is damaged"),
    })
}

impl Applied {
    fn step(&mut self, item: &Item, done: Done, why: Option<String>) {
        self.steps.push(Step {
            group: item.group.clone(),
            id: item.id,
            done,
            why,
        });
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        if self.damaged.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(ErrorKind::Damaged.exit_code())
        }
    }

    pub(super) fn print(&self) -> Result<(), Failure> {
        if self.steps.is_empty() {
            return output::line("nothing to do");
        }
        for step in &self.steps {
            let done = match step.done {
                Done::Marked => "marked",
                Done::Unmarked => "mark taken back",
                Done::Deleted => "deleted",
                Done::Left => "LEFT",
            };
            let why = step
                .why
                .as_ref()
                .map_or_else(String::new, |why| format!(": {why}"));
            output::line(&format!("{done} {} {}{why}", step.group, step.id))?;
        }
        for damaged in &self.damaged {
            output::line(&format!("DAMAGED {damaged}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use confman_snapshot::build::{BuildOptions, build_and_upload};
    use confman_snapshot::repository::{
        Claim, ClusterObject, OrderMember, RepositoryOptions, RestoreOrder,
    };
    use confman_snapshot::testing::{FaultStore, view};
    use confman_snapshot::{ClusterId, Codec, SnapshotRecord, WriteOptions};

    use super::*;

    /// What is agreed to: marks that are taken back, marks that are set, and what goes for ever.
    #[test]
    fn a_plan_as_it_is_shown() {
        let item = |index: u64, decision: Fate, reason: &str| Item {
            group: GroupId::config(0),
            id: SnapshotId {
                index,
                incarnation: 1,
                term: 3,
                nonce: 0xc0ff_ee00,
            },
            object: String::new(),
            bytes: 5_000_000,
            decision,
            reason: reason.to_owned(),
            generation: decision == Fate::Keep,
            stale_mark: false,
        };
        let stale = Item {
            stale_mark: true,
            ..item(500, Fate::Keep, "one of the 3 newest")
        };
        let items = [
            item(600, Fate::Keep, "one of the 3 newest"),
            stale,
            item(300, Fate::Mark, "3 newer generations are verified"),
            item(200, Fate::Delete, "marked for longer than the grace"),
            item(100, Fate::Delete, "marked for longer than the grace"),
        ];
        let plan = Plan {
            url: "s3://confman/prod",
            items: &items,
        };
        insta::assert_snapshot!(plan.to_string());
        assert!(!plan.is_empty());
        let kept = Plan {
            items: &items[..1],
            ..plan
        };
        assert!(kept.is_empty(), "nothing is asked where nothing is due");
    }
    const UUID: &str = "0d0a3a8e-6d4c-4f0e-9a57-3c1b2d9e8f70";

    /// A snapshot that has been put.
    async fn put(repository: &Repository, group: GroupId, index: u64) -> SnapshotRecord {
        let dir = tempfile::tempdir().unwrap();
        let options = BuildOptions {
            write: WriteOptions {
                codec: Codec::Zstd,
                chunk_bytes: 16 * 1024,
            },
            tmp_dir: dir.path().to_owned(),
            builder_node: 1,
            nonce: 7,
        };
        let view = view(&group, index, 3, 100);
        let built = build_and_upload(view, repository, &options, |_| {}).await;
        built.unwrap()
    }

    fn repository() -> Repository {
        let store = Arc::new(FaultStore::in_memory());
        Repository::over(store, "p", "memory:///p", RepositoryOptions::default())
    }

    fn item(record: &SnapshotRecord, decision: Fate) -> Item {
        Item {
            group: record.group.clone(),
            id: record.id,
            object: record.object.clone(),
            bytes: record.object_bytes,
            decision,
            reason: "a reason".to_owned(),
            generation: decision == Fate::Keep,
            stale_mark: false,
        }
    }

    fn order(meta: &SnapshotRecord, config: &SnapshotRecord) -> RestoreOrder {
        RestoreOrder {
            version: 1,
            plan_id: "plan".to_owned(),
            shards: 1,
            term: 1003,
            groups: vec![meta.clone(), config.clone()],
            members: vec![OrderMember {
                id: 4,
                name: "node1".to_owned(),
                api_url: "http://127.0.0.1:1".to_owned(),
                peer_addr: "127.0.0.1:2".to_owned(),
                learner: false,
            }],
            next_node_id: 6,
            operator: "me".to_owned(),
            summary: "all".to_owned(),
        }
    }

    async fn carried_out(repository: &Repository, items: &[Item]) -> Vec<(Done, Option<String>)> {
        let plan = Plan {
            url: repository.url(),
            items,
        };
        let consent = consent::ask(consent::show(&plan).unwrap(), true, "").unwrap();
        let applied = carry_out(repository, &consent).await.unwrap();
        let steps = applied.steps.into_iter();
        steps.map(|step| (step.done, step.why)).collect()
    }

    fn left(why: &str) -> (Done, Option<String>) {
        (Done::Left, Some(why.to_owned()))
    }

    /// It is what the nodes of the new life are about to read.
    #[tokio::test]
    async fn i10_what_a_restore_order_names_stays_though_the_order_is_younger_than_the_plan() {
        let repository = &repository();
        let meta = &put(repository, GroupId::meta(), 100).await;
        let mut records = Vec::new();
        for index in [100, 200, 300, 400] {
            records.push(put(repository, GroupId::config(0), index).await);
        }
        let fates = [Fate::Delete, Fate::Mark, Fate::Delete, Fate::Keep];
        let items: Vec<Item> = records.iter().zip(fates).map(|(r, f)| item(r, f)).collect();
        let object = |life| ClusterObject::new(ClusterId::new(UUID, life), 1, "me", "nonce");
        // All is agreed to, and then these are given.
        for (life, config) in [(2, &records[0]), (3, &records[1])] {
            let order = object(life).with_order(&order(meta, config));
            repository.begin_life(&order).await.unwrap();
        }
        let steps = carried_out(repository, &items).await;
        let names = |life| left(&format!("the restore order of incarnation {life} names it"));
        assert_eq!(steps, [names(3), names(2), (Done::Deleted, None)]);
        // One that this program does not understand may name any.
        let mut unknown = object(4);
        unknown.order = Some(serde_json::json!({ "version": 99 }));
        let claimed = repository.claim_cluster(&unknown).await.unwrap();
        assert_eq!(claimed, Claim::Ours);
        let marked = item(&records[3], Fate::Mark);
        let steps = carried_out(repository, &[marked]).await;
        let may = "the restore order of incarnation 4 cannot be read and may name it";
        assert_eq!(steps, [left(may)]);
        let there = repository.list_snapshots(&GroupId::config(0)).await;
        assert_eq!(there.unwrap().snapshots.len(), 3);
    }

    #[tokio::test]
    async fn where_no_generation_stays_the_words_say_that_and_not_that_one_is_damaged() {
        let repository = &repository();
        let only = put(repository, GroupId::config(0), 100).await;
        let steps = carried_out(repository, &[item(&only, Fate::Delete)]).await;
        assert_eq!(steps, [left("there is no generation that stays")]);
    }
}
