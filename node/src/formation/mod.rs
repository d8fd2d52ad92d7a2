//! From a data directory to an identity: the loop around `confman_bootstrap::decide`.
//!
//! Facts are gathered ([`survey`]), the pure table decides, this room acts and, while the decision is to wait, gathers again.
//! [`birth`] is how a new cluster comes to be.

mod birth;
mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use confman_bootstrap::facts::{LocalFacts, LocalIdentity, Stage as LocalStage};
use confman_bootstrap::report::RestoreReport;
use confman_bootstrap::{Decision, HINT_REJOIN, Verdict, decide};
use confman_config::Settings;
use confman_snapshot::model::{ClusterId, GroupId, NodeInfo};
use confman_store::datadir::{DataDir, Facts, Identity, IdentityState};
use tokio::sync::mpsc;

use crate::front::Front;
use crate::ordered::Failed;
use crate::peer::client::Channels;
use crate::peer::desk::{Birth, Desk, Life, Stage};
use crate::peer::proto;
use crate::store_door::StoreDoor;

/// How often the same reason for waiting is said again.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// What a start came to.
pub(crate) enum Established {
    /// Run the groups.
    Run {
        /// Who this node is.
        identity: Identity,
        /// How groups came back from the store, when this node joined anew.
        restored: BTreeMap<GroupId, RestoreReport>,
    },
    /// Serve nothing; keep the data.
    Fenced {
        /// The life that is over.
        cluster: ClusterId,
        /// Why.
        reason: String,
    },
}

/// A start that cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The table refuses.
    #[error("{reason}: {finding}\nhint: {hint}")]
    Refused {
        /// Which facts led there.
        reason: String,
        /// What was found.
        finding: String,
        /// What to do.
        hint: String,
    },
    /// The data directory failed.
    #[error(transparent)]
    Data(#[from] confman_store::StoreError),
    /// The restore that was ordered cannot go on on this machine.
    #[error(transparent)]
    Restore(#[from] confman_bootstrap::RestoreError),
    /// The join failed for good.
    #[error("the cluster does not take this node in: {0}")]
    Join(String),
}

/// What establishing an identity works with.
pub(crate) struct Formation<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) channels: &'a Channels,
    pub(crate) desk: &'a Arc<Desk>,
    pub(crate) store: &'a Arc<StoreDoor>,
    /// Where clients are told what this node waits for.
    pub(crate) front: &'a Front,
    pub(crate) data: &'a mut DataDir,
    pub(crate) births: mpsc::Receiver<Birth>,
    /// Names this process's wish to join: asked again, it gets the same id.
    pub(crate) nonce: String,
    /// An order that could not be carried out.
    pub(crate) failed: Option<Failed>,
    /// The last warning and when it was given.
    pub(crate) warned: Option<(String, Instant)>,
}

impl Formation<'_> {
    /// Gathers facts and acts on them until this node has an identity or cannot get one.
    pub(crate) async fn establish(mut self) -> Result<Established, StartError> {
        let mut said: Option<(String, Instant)> = None;
        loop {
            let facts = self.data.inspect()?;
            self.show_stage(&facts);
            // One that is not yet initialized has taken part in nothing: an order that fails may be replaced.
            if let Facts::Good(identity) = &facts
                && identity.state() == IdentityState::Initialized
            {
                self.front.owned_by(identity);
            }
            let local = LocalFacts::new(&self.settings.node_name, facts.clone());
            let (peers, hellos) = self.ask_peers(&facts).await;
            let store = self.store.facts().await;
            let verdict = decide(&local, &peers, &store);
            say(&verdict, &mut said);
            self.front.say(verdict.to_string());
            match verdict.decision {
                Decision::Start => {
                    if let Facts::Good(identity) = &facts
                        && let Some(rival) = self.store.rival(identity).await
                    {
                        return self.fence(facts, format!("{rival}\nhint: {HINT_REJOIN}"));
                    }
                    return self.start(facts);
                }
                Decision::Fence { newer, hint } => {
                    // Whoever retired this node's id says why, and what to do.
                    let told = hellos.values().find(|hello| hello.caller_retired);
                    let reason = match told {
                        Some(hello) if newer.is_none() => hello.caller_retired_reason.clone(),
                        _ => verdict.reason,
                    };
                    let reason = match reason.contains("\nhint: ") {
                        true => reason,
                        false => format!("{reason}\nhint: {hint}"),
                    };
                    return self.fence(facts, reason);
                }
                Decision::Refuse { finding, hint } => {
                    return Err(StartError::Refused {
                        reason: verdict.reason,
                        finding,
                        hint,
                    });
                }
                Decision::Rejoin { via, resume, .. } => {
                    if let Some(established) = self.rejoin(&hellos, &via, resume).await? {
                        return Ok(established);
                    }
                }
                Decision::Restore { life, .. } => {
                    if let Some(established) =
                        crate::ordered::carry_out(&mut self, facts, &life).await?
                    {
                        return Ok(established);
                    }
                }
                Decision::SetAside => {
                    let aside = self
                        .data
                        .set_aside(&verdict.reason, crate::clock::wall_us())?;
                    tracing::warn!(to = %aside.display(), "set aside: {}", verdict.reason);
                    continue;
                }
                Decision::Form {
                    coordinator,
                    resume,
                } if coordinator == self.settings.node_name => {
                    if let Some(established) = self.coordinate(&hellos, facts, resume).await? {
                        return Ok(established);
                    }
                }
                Decision::Form { .. } | Decision::Wait { .. } => {}
            }
            self.listen().await?;
        }
    }

    /// Tells Hello how far the disk has come.
    fn show_stage(&self, facts: &Facts) {
        let stage = match facts {
            Facts::Empty => Stage::Empty,
            Facts::Damaged(_) => Stage::Unknown,
            Facts::Good(identity) => match LocalIdentity::new(identity).stage {
                LocalStage::Forming => Stage::Forming(identity.cluster()),
                LocalStage::Rejoining | LocalStage::Restoring { .. } | LocalStage::Complete => {
                    Stage::Starting(self.life(identity))
                }
                LocalStage::Fenced { .. } => Stage::Fenced(Life::of(identity, false)),
            },
        };
        self.desk.enter(stage);
    }

    fn start(&mut self, facts: Facts) -> Result<Established, StartError> {
        let Facts::Good(identity) = facts else {
            return Err(StartError::Join(
                "a start was decided without an identity".to_owned(),
            ));
        };
        self.desk.enter(Stage::Starting(self.life(&identity)));
        Ok(Established::Run {
            identity,
            restored: BTreeMap::new(),
        })
    }

    /// The life that the directory is of. What its first leader has to propose lies there until that is done.
    fn life(&self, identity: &Identity) -> Life {
        Life::of(identity, self.data.paths().incarnation().exists())
    }

    fn fence(&mut self, facts: Facts, reason: String) -> Result<Established, StartError> {
        let Facts::Good(mut identity) = facts else {
            return Err(StartError::Join(
                "a fence was decided without an identity".to_owned(),
            ));
        };
        if identity.state() != IdentityState::Fenced {
            identity.set_state(IdentityState::Fenced);
            identity.reason.clone_from(&reason);
            self.data.write_identity(&identity)?;
        }
        let cluster = identity.cluster();
        self.desk.enter(Stage::Fenced(Life::of(&identity, false)));
        Ok(Established::Fenced { cluster, reason })
    }

    /// Warns when the words are new, and again every now and then.
    pub(crate) fn warn_once(&mut self, text: String) {
        let fresh = self
            .warned
            .as_ref()
            .is_none_or(|(last, when)| *last != text || when.elapsed() > SAY_AGAIN);
        if fresh {
            tracing::warn!("{text}");
            self.warned = Some((text, Instant::now()));
        }
    }

    async fn rejoin(
        &mut self,
        hellos: &BTreeMap<String, proto::HelloReply>,
        via: &[String],
        resume: Option<u64>,
    ) -> Result<Option<Established>, StartError> {
        // A leader of this name is this node as it was: the others have not elected another yet.
        let leader = via
            .iter()
            .filter_map(|name| hellos.get(name)?.leader.clone())
            .find(|leader| leader.name != self.settings.node_name);
        let Some(leader) = leader else {
            return Ok(None);
        };
        crate::rejoin::rejoin(self, leader, resume).await
    }
}

pub(crate) fn node_info(node: &proto::Node) -> NodeInfo {
    NodeInfo {
        name: node.name.clone(),
        api_url: node.api_url.clone(),
        peer_addr: node.peer_addr.clone(),
    }
}

/// Says a verdict when it is new, and a wait again every now and then.
fn say(verdict: &Verdict, said: &mut Option<(String, Instant)>) {
    let text = match &verdict.decision {
        Decision::Wait { until, hint } => {
            format!("{}; until {until}; hint: {hint}", verdict.reason)
        }
        decision => format!("{}: {}", decision.word(), verdict.reason),
    };
    let fresh = said
        .as_ref()
        .is_none_or(|(last, when)| *last != text || when.elapsed() > SAY_AGAIN);
    if !fresh {
        return;
    }
    match &verdict.decision {
        Decision::Wait { .. } => tracing::warn!(decision = "wait", "{text}"),
        decision => tracing::info!(decision = decision.word(), "{}", verdict.reason),
    }
    for note in &verdict.notes {
        tracing::warn!("{note}");
    }
    *said = Some((text, Instant::now()));
}
