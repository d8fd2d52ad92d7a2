//! What a data directory is given that carries out a restore order: who its node is to be, what the first leader of the new
//! life proposes, and each group's state, from exactly the snapshots that the order names.
//!
//! A node does this when it starts empty; `drtool restore local` does it offline, also for an inspection copy: that is an
//! order for one node which lies in no store, under the name of another cluster.
//!
//! Promises, beside those of [`crate::restore`]: nothing but the ordered snapshot becomes the state, because every member
//! must begin from the same one; there is no older one and no leader to fall back to. A snapshot that is no good, and a
//! store that does not answer, are errors that leave nothing behind: the operator, or time, decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use confman_snapshot::SnapshotRecord;
use confman_snapshot::model::{ClusterId, Membership, NodeInfo};
use confman_snapshot::repository::{OrderMember, RestoreOrder};
use confman_store::command::BeginIncarnation;
use confman_store::datadir::{Claim, DataDir, Identity, IdentityState, MemberAtBirth};
use confman_store::membership::NodeWish;
use confman_store::records::{IncarnationKind, NodeRecord, NodeState, versions_of_life_from};
use confman_store::{DataPaths, GroupPaths, StoreError};
use futures::StreamExt;
use tokio::time::Instant;

use crate::error::RestoreError;
use crate::report::{RestoreReport, Stage, one_line};
use crate::restore::{Failure, Place, RestoreOutcome, Restorer, stop_at, traced};

/// One group to restore by an order.
#[derive(Debug, Clone)]
pub struct OrderedTask {
    /// Where the group's data go.
    pub paths: GroupPaths,
    /// The snapshot that the order names.
    pub record: SnapshotRecord,
    /// The members from its position on.
    pub members: Membership,
    /// The term that the new life votes above.
    pub term: u64,
    /// The id that the order gives to this node.
    pub node_id: u64,
}

/// An order, and the life that it begins.
#[derive(Debug, Clone, Copy)]
pub struct Ordered<'a> {
    /// The life.
    pub life: &'a ClusterId,
    /// [`IncarnationKind::Restore`], or [`IncarnationKind::Copy`] for one that lies in no store.
    pub kind: IncarnationKind,
    /// The order.
    pub order: &'a RestoreOrder,
}

impl Ordered<'_> {
    /// What restores every group, for the node of this id.
    pub fn tasks(&self, paths: &DataPaths, node_id: u64) -> Vec<OrderedTask> {
        let task = |record: &SnapshotRecord| OrderedTask {
            paths: paths.group(&record.group),
            record: record.clone(),
            members: self.order.membership(record.position),
            term: self.order.term,
            node_id,
        };
        self.order.groups.iter().map(task).collect()
    }

    /// Writes down who the node of this directory is to be: the word for its id first, where an order in the store gives
    /// one; then what the first leader proposes; the identity last. `nonce` is random.
    ///
    /// # Errors
    /// What the system said.
    pub fn take_identity(
        &self,
        data: &DataDir,
        member: &OrderMember,
        nonce: String,
        now_us: i64,
    ) -> Result<Identity, StoreError> {
        let order = self.order;
        if self.kind == IncarnationKind::Restore {
            data.write_claim(&Claim {
                plan_id: order.plan_id.clone(),
                nonce,
            })?;
        }
        fail::fail_point!("order::claimed");
        data.write_incarnation(&self.beginning())?;
        fail::fail_point!("order::incarnation");
        let identity = Identity {
            cluster_uuid: self.life.uuid.clone(),
            incarnation: self.life.incarnation,
            node_id: member.id,
            name: member.name.clone(),
            shards: order.shards,
            members: order.members.iter().map(as_member).collect(),
            state: IdentityState::Formed.into(),
            reason: String::new(),
            created_us: now_us,
            lineage: order.plan_id.clone(),
            incarnation_floor: self.life.incarnation,
        };
        data.write_identity(&identity)?;
        Ok(identity)
    }

    /// What the first leader of each group proposes: the same on every member.
    fn beginning(&self) -> BeginIncarnation {
        let node = |member: &OrderMember| NodeRecord {
            id: member.id,
            name: member.name.clone(),
            api_url: member.api_url.clone(),
            peer_addr: member.peer_addr.clone(),
            state: NodeState::Active.into(),
            wish: match member.learner {
                true => NodeWish::Learner.into(),
                false => NodeWish::Voter.into(),
            },
            ..NodeRecord::default()
        };
        let (life, order) = (self.life, self.order);
        BeginIncarnation {
            cluster_uuid: life.uuid.clone(),
            incarnation: life.incarnation,
            kind: self.kind.into(),
            plan_id: order.plan_id.clone(),
            lineage: order.plan_id.clone(),
            operator: order.operator.clone(),
            summary: order.summary.clone(),
            nodes: order.members.iter().map(node).collect(),
            expected: Vec::new(),
            survivor_id: 0,
            versions_from: versions_of_life_from(life.incarnation),
        }
    }
}

fn as_member(member: &OrderMember) -> MemberAtBirth {
    MemberAtBirth {
        id: member.id,
        info: Some(NodeInfo {
            name: member.name.clone(),
            api_url: member.api_url.clone(),
            peer_addr: member.peer_addr.clone(),
        }),
    }
}

impl OrderedTask {
    pub(crate) fn candidacy(&self) -> (u64, u64) {
        (self.term, self.node_id)
    }
}

impl Restorer {
    /// Restores the groups of an order, a bounded number at once; results in the order of the tasks. Run again, it does
    /// what is left.
    ///
    /// # Errors
    /// The first group's, after the others have ended: what they have finished need not be fetched again.
    pub async fn restore_ordered(
        &self,
        tasks: &[OrderedTask],
    ) -> Result<Vec<RestoreOutcome>, RestoreError> {
        self.check_space_for(tasks)?;
        let parallel = self.limits.parallel.max(1);
        let mut running =
            futures::stream::iter(tasks.iter().map(|task| self.one(task))).buffered(parallel);
        let mut ended = Vec::with_capacity(tasks.len());
        while let Some(outcome) = running.next().await {
            ended.push(outcome);
        }
        ended.into_iter().collect()
    }

    /// Whether the disk can take what these tasks have not restored yet. Writes nothing.
    ///
    /// # Errors
    /// It cannot, or cannot be measured.
    pub fn check_space_for(&self, tasks: &[OrderedTask]) -> Result<(), RestoreError> {
        let mut raw_bytes = 0_u64;
        for task in tasks {
            if self.earlier_run(&task.paths)?.is_none() {
                raw_bytes = raw_bytes.saturating_add(task.record.raw_bytes);
            }
        }
        match tasks.first().filter(|_| raw_bytes > 0) {
            Some(first) => self.need(
                &format!("{} groups", tasks.len()),
                first.paths.dir(),
                raw_bytes,
            ),
            None => Ok(()),
        }
    }

    async fn one(&self, task: &OrderedTask) -> Result<RestoreOutcome, RestoreError> {
        traced(task.paths.group(), self.find_or_restore_ordered(task)).await
    }

    async fn find_or_restore_ordered(
        &self,
        task: &OrderedTask,
    ) -> Result<RestoreOutcome, RestoreError> {
        if let Some(report) = self.earlier_run(&task.paths)? {
            return Ok(RestoreOutcome::Already(report));
        }
        self.clear_half_product(&task.paths).await?;
        let began = Instant::now();
        let mut report = self.new_report(task.paths.group());
        report.newest_index = Some(task.record.position.index);
        self.fetch(task, &mut report).await?;
        report.took_us = began.elapsed().as_micros() as u64;
        stop_at("restore::installed")?;
        report.stage = Stage::Installed.into();
        self.write(&task.paths, &report).await?;
        tracing::info!("restored {}", report.summary());
        Ok(RestoreOutcome::FromStore(report))
    }

    async fn fetch(
        &self,
        task: &OrderedTask,
        report: &mut RestoreReport,
    ) -> Result<(), RestoreError> {
        let (group, snapshot) = (task.paths.group().clone(), task.record.id.to_string());
        let Some(repository) = &self.repository else {
            let why = "there is no store".to_owned();
            return Err(RestoreError::Unreachable {
                group,
                snapshot,
                why,
            });
        };
        let place = Place {
            paths: &task.paths,
            ordered: Some(task),
        };
        let read_bytes = Arc::new(AtomicU64::new(0));
        let tried = self
            .try_snapshot(&place, &task.record, repository, &read_bytes, report)
            .await;
        report.read_bytes = read_bytes.load(Ordering::Relaxed);
        tried.map_err(|failure| match failure {
            Failure::Bad(why) => RestoreError::NotWhole {
                group,
                snapshot,
                why: one_line(&why),
            },
            Failure::Unreachable(why) => RestoreError::Unreachable {
                group,
                snapshot,
                why: one_line(&why),
            },
            Failure::Here(error) => error,
        })
    }
}
