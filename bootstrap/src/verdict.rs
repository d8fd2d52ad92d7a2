//! A decision as a value: what a starting node does, why, and how it reads in a log.
//!
//! No variant destroys anything, and none carries out anything: [`mod@crate::decide`] makes them, the node acts.

use std::fmt;

use confman_snapshot::model::ClusterId;

use crate::facts::named;

/// What to do, why, and what else the operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What to do.
    pub decision: Decision,
    /// Which facts led there.
    pub reason: String,
    /// Findings that change nothing now and that the operator should see, each a sentence.
    pub notes: Vec<String>,
}

/// What a starting node does. No variant destroys anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Start the groups from the data directory; Raft replays the local tail.
    Start,
    /// Serve nothing and keep the data: this directory's time is over. Written to the identity first.
    Fence {
        /// The incarnation that made it so, when that is the cause.
        newer: Option<ClusterId>,
        /// How the node can come back.
        hint: String,
    },
    /// Become a member of the living cluster under a new node id, restored from the store where possible.
    Rejoin {
        /// The cluster that lives.
        cluster: ClusterId,
        /// Peers of it that know a leader, by name, sorted.
        via: Vec<String>,
        /// The id of an admission that was interrupted and goes on; none asks for a new id.
        resume: Option<u64>,
    },
    /// Carry out a restore order: become one of its members, restored from the snapshots that it names.
    Restore {
        /// The life that the order begins.
        life: ClusterId,
        /// Its plan.
        plan: String,
        /// The id that the order gives to this node, under which nobody has voted.
        node_id: u64,
    },
    /// Move what lies in the directory aside, and look again: its node never started, and what it was for is over.
    SetAside,
    /// Take part in the birth of a cluster.
    Form {
        /// The listed member that makes the identities: the first by name.
        coordinator: String,
        /// The cluster whose birth was interrupted and goes on; none makes a new one.
        resume: Option<ClusterId>,
    },
    /// Change nothing, and look again soon.
    Wait {
        /// What would end the waiting by itself.
        until: String,
        /// What an operator can do if it does not.
        hint: String,
    },
    /// Change nothing, and stop.
    Refuse {
        /// What was found.
        finding: String,
        /// What an operator can do.
        hint: String,
    },
}

impl Decision {
    /// The decision in one word, for logs, metrics and tests.
    pub fn word(&self) -> &'static str {
        match self {
            Decision::Start => "start",
            Decision::Fence { .. } => "fence",
            Decision::Rejoin { .. } => "rejoin",
            Decision::Restore { .. } => "restore",
            Decision::SetAside => "set-aside",
            Decision::Form { .. } => "form",
            Decision::Wait { .. } => "wait",
            Decision::Refuse { .. } => "refuse",
        }
    }

    /// The next thing to do for an operator, where there is one.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Decision::Fence { hint, .. }
            | Decision::Wait { hint, .. }
            | Decision::Refuse { hint, .. } => Some(hint),
            Decision::Start
            | Decision::Rejoin { .. }
            | Decision::Restore { .. }
            | Decision::SetAside
            | Decision::Form { .. } => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.decision {
            Decision::Start => write!(f, "start: {}", self.reason)?,
            Decision::Fence { .. } => write!(f, "fence: {}", self.reason)?,
            Decision::Rejoin {
                cluster,
                via,
                resume,
            } => {
                write!(f, "rejoin {} by way of {}", named(cluster), via.join(", "))?;
                match resume {
                    Some(id) => write!(f, " as node id {id}: {}", self.reason)?,
                    None => write!(f, " under a new node id: {}", self.reason)?,
                }
            }
            Decision::Restore {
                life,
                plan,
                node_id,
            } => {
                write!(
                    f,
                    "restore {} as node id {node_id}, by order {plan}: {}",
                    named(life),
                    self.reason
                )?;
            }
            Decision::SetAside => write!(f, "set the directory aside: {}", self.reason)?,
            Decision::Form {
                coordinator,
                resume: None,
            } => {
                write!(
                    f,
                    "form a new cluster, made by {coordinator}: {}",
                    self.reason
                )?;
            }
            Decision::Form {
                coordinator,
                resume: Some(cluster),
            } => {
                write!(
                    f,
                    "go on forming {}, made by {coordinator}: {}",
                    named(cluster),
                    self.reason
                )?;
            }
            Decision::Wait { until, .. } => write!(f, "wait until {until}: {}", self.reason)?,
            Decision::Refuse { finding, .. } => write!(f, "refuse: {}: {finding}", self.reason)?,
        }
        for note in &self.notes {
            write!(f, "\nnote: {note}")?;
        }
        match self.decision.hint() {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}
