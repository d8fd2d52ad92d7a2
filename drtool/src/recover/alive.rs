//! The last look before a directory is touched: whether anybody lives who must not be recovered from.

use std::collections::BTreeSet;
use std::path::Path;

use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_store::DataPaths;

use super::ask::{Caller, Foreign, ask};
use super::plan::Plan;
use super::role::{Role, Standing};

use crate::codes;
use crate::look::LastLook;

/// The look, taken before the operator is asked and again when the answer took its time.
pub(super) struct Look<'a> {
    plan: &'a Plan,
    path: &'a Path,
    standing: Standing,
    urls: Vec<String>,
    caller: Caller,
    last: LastLook,
    foreign: Foreign,
}

impl<'a> Look<'a> {
    /// Asks every member of the plan and whoever the operator names, as whom he says.
    pub(super) fn new(
        plan: &'a Plan,
        path: &'a Path,
        standing: Standing,
        (given, caller): (Vec<String>, Caller),
    ) -> Self {
        let urls: BTreeSet<String> = plan.member_urls().into_iter().chain(given).collect();
        Self {
            plan,
            path,
            standing,
            urls: urls.into_iter().collect(),
            caller,
            last: LastLook::default(),
            foreign: Foreign::default(),
        }
    }

    /// Refuses when somebody lives who must not be recovered from, unless that was just looked at.
    pub(super) async fn refuse(&mut self) -> Result<(), Failure> {
        if self.last.is_good() || !self.is_needed() {
            return Ok(());
        }
        self.last = LastLook::now();
        for live in ask(&self.urls, &self.caller).await? {
            if !self.foreign.holds(&live, &self.plan.cluster.uuid) {
                self.judge(&live)?;
            }
        }
        Ok(())
    }

    /// Whether what is done here could still fence a quorum. Not where the new life has begun: it is what lives.
    fn is_needed(&self) -> bool {
        match self.standing {
            Standing::Fresh(_) | Standing::Begun(_) => true,
            // Nothing has started on it yet: all that is left to do is to claim, and that would fence the quorum.
            Standing::Done(Role::Survivor) => DataPaths::new(self.path).incarnation().exists(),
            Standing::Done(Role::Other) => false,
        }
    }

    fn judge(&self, live: &super::collection::Live) -> Result<(), Failure> {
        let (plan, role) = (self.plan, self.standing.role());
        let ready = live.readiness.as_ref().is_some_and(|r| r.ready);
        let Some(status) = &live.status else {
            // Who tells no more than that it is ready may be of the new life: then another directory may follow it.
            if ready && role == Role::Survivor {
                return Err(self.alive(&format!("a node is ready at {}", live.url)));
            }
            return Ok(());
        };
        let name = &status.node.name;
        if status.incarnation > plan.cluster.incarnation
            && (role == Role::Survivor || status.incarnation > plan.new_incarnation)
        {
            let text = format!(
                "{name} at {} is of incarnation {} already",
                live.url, status.incarnation
            );
            return Err(
                codes::refuse("RECOVER_NEWER_LIFE", ErrorKind::Refused, text).with_hint(
                    self.or_undo(
                        "somebody has recovered already: start this node, it says how to rejoin",
                    ),
                ),
            );
        }
        let led = status.groups.iter().find_map(|g| g.leader.as_ref());
        if status.incarnation == plan.cluster.incarnation
            && let Some(leader) = led
        {
            return Err(self.alive(&format!("{name} at {} follows {}", live.url, leader.name)));
        }
        Ok(())
    }

    fn alive(&self, what: &str) -> Failure {
        codes::refuse(
            "RECOVER_QUORUM_ALIVE",
            ErrorKind::Refused,
            format!("a quorum of the cluster lives: {what}"),
        )
        .with_hint(self.or_undo(
            "do not recover: bring the missing nodes back, with their directories or empty",
        ))
    }

    /// What was begun here keeps the node from starting, until it is taken back.
    fn or_undo(&self, hint: &str) -> String {
        match self.standing {
            Standing::Fresh(_) => hint.to_owned(),
            Standing::Begun(_) | Standing::Done(_) => format!(
                "take back what was begun here: {}. Then: {hint}",
                undo_command(self.plan, self.path)
            ),
        }
    }
}

/// What takes back what was begun at a directory.
pub(super) fn undo_command(plan: &Plan, path: &Path) -> String {
    format!(
        "`drtool recover undo --plan FILE {}` (FILE is plan {})",
        path.display(),
        plan.plan_id
    )
}
