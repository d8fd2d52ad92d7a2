//! The object store as this node reaches it: opened when first needed, asked whose prefix it is
//! before anything is uploaded, and never in the way of a start (promise I18).

use std::path::PathBuf;
use std::time::Duration;

use confman_bootstrap::facts::{OrderFact, OrderState, StoreFacts};
use confman_snapshot::error::{Kind, StoreError};
use confman_snapshot::model::ClusterId;
use confman_snapshot::repository::{Claim, ClusterObject, Repository, RepositoryOptions};
use confman_store::Identity;
use confman_store::records::IncarnationKind;
use tokio::sync::Mutex;

/// How long a start waits for the store's account of who owns the prefix.
const FACTS_WITHIN: Duration = Duration::from_secs(5);

/// How long [`StoreDoor::look`] takes at most.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// How long one try to claim a life takes at most, once the store has answered a look: that is six requests in a row, and
/// a store is slow, and not down, as long as it answers each before a look of the fence gives up.
const CLAIM_WITHIN: Duration = Duration::from_secs(40);

/// Why the store is not used.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DoorError {
    /// Snapshots are switched off.
    #[error("there is no object store: CONFMAN_SNAPSHOT_ENABLED is false")]
    Off,
    /// The store failed.
    #[error("{0}")]
    Store(String, Kind),
    /// Another cluster owns the prefix.
    #[error(
        "the object store's prefix belongs to cluster {uuid} incarnation {incarnation}; nothing is written there\nhint: choose another prefix in CONFMAN_OBJECT_STORE_URL on every node"
    )]
    Foreign {
        /// Whose it is.
        uuid: String,
        /// In which life.
        incarnation: u64,
        /// The object of this node's own life was read there too.
        ours_lies_there: bool,
    },
    /// Another recovery made a life of the same number and owns the prefix; the watch over it fences this node.
    #[error(
        "the object store belongs to another recovery ({rival:?}) of incarnation {incarnation} of this cluster; nothing is written there"
    )]
    Rival {
        /// The number of the life.
        incarnation: u64,
        /// Its plan or order.
        rival: String,
    },
    /// The recovery that made this life was undone.
    #[error(
        "the object store says that the recovery which made incarnation {incarnation} of this cluster was undone; nothing is written there\nhint: this data directory is a copy of one that was put back: stop the node and set the directory aside"
    )]
    Withdrawn {
        /// The number of the life.
        incarnation: u64,
    },
    /// A newer life of this cluster owns the prefix; the watch over it fences this node.
    #[error(
        "the object store belongs to incarnation {incarnation} of this cluster; nothing is written there"
    )]
    Newer {
        /// Which life.
        incarnation: u64,
    },
}

impl From<StoreError> for DoorError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string(), error.kind)
    }
}

impl DoorError {
    /// A short class for metrics and status.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Store(_, kind) => kind.name(),
            Self::Foreign { .. }
            | Self::Newer { .. }
            | Self::Rival { .. }
            | Self::Withdrawn { .. } => "foreign",
        }
    }
}

/// Whose a life that is about to begin is, by the store's word.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// Ours: who looks into the store sees that.
    Ours,
    /// There is no store.
    NoStore,
    /// It gave no answer that says.
    Unknown {
        /// What it did instead.
        why: String,
        /// The claim may have been put, or be on its way: who looks into the store may see it, from any time on.
        may_lie_there: bool,
        /// Another try may end otherwise.
        again: bool,
    },
    /// This stands against it.
    Against(String),
}

/// What the door knows of the store.
#[derive(Default)]
struct Known {
    repository: Option<Repository>,
    /// The prefix was claimed for this cluster, by this process.
    claimed: bool,
}

/// The way to the store.
pub(crate) struct StoreDoor {
    enabled: bool,
    url: String,
    data_dir: PathBuf,
    node_name: String,
    options: RepositoryOptions,
    known: Mutex<Known>,
}

impl StoreDoor {
    pub(crate) fn new(settings: &confman_config::Settings) -> Self {
        Self {
            enabled: settings.snapshot.enabled,
            url: settings.object_store_url.clone(),
            data_dir: settings.data_dir.clone(),
            node_name: settings.node_name.clone(),
            options: RepositoryOptions {
                tls: settings.store_tls.clone(),
                ..RepositoryOptions::default()
            },
            known: Mutex::default(),
        }
    }

    pub(crate) fn enabled(&self) -> bool {
        self.enabled
    }

    /// The store, for reading.
    pub(crate) async fn repository(&self) -> Result<Repository, DoorError> {
        if !self.enabled {
            return Err(DoorError::Off);
        }
        let mut known = self.known.lock().await;
        if let Some(repository) = &known.repository {
            return Ok(repository.clone());
        }
        let options = self.options.clone();
        let repository =
            Repository::open_with(&self.url, &self.data_dir, environment(), options).await?;
        let settings = repository.settings();
        for setting in &settings.in_force {
            tracing::info!(store = repository.url(), name = %setting.name, value = %setting.value, "store setting in force");
        }
        for name in &settings.ignored {
            tracing::warn!(store = repository.url(), %name, "store variable is not known and has no effect");
        }
        known.repository = Some(repository.clone());
        Ok(repository)
    }

    /// Whether the store answers this node at all: one short listing, within a bound.
    pub(crate) async fn look(&self) -> Result<(), DoorError> {
        let asked = async {
            let repository = self.repository().await?;
            Ok(repository.ping().await?)
        };
        match tokio::time::timeout(LOOK_WITHIN, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(DoorError::Store(
                format!(
                    "the object store gives no answer within {LOOK_WITHIN:?}\nhint: `drtool store probe` with the variables of this node tries every step"
                ),
                Kind::Wait,
            )),
        }
    }

    /// The store, for writing: only once the prefix is this cluster's.
    pub(crate) async fn claimed(
        &self,
        cluster: &ClusterId,
        lineage: &str,
    ) -> Result<Repository, DoorError> {
        let repository = self.repository().await?;
        if self.known.lock().await.claimed {
            return Ok(repository);
        }
        let mut object = ClusterObject::new(
            cluster.clone(),
            crate::clock::wall_us(),
            self.node_name.as_str(),
            format!("{:016x}", rand::random::<u64>()),
        );
        if !lineage.is_empty() {
            object = object.with_recovery(serde_json::json!({ "planId": lineage }));
        }
        match repository.claim_cluster(&object).await? {
            Claim::Ours => {}
            Claim::Foreign {
                others,
                ours_lies_there,
            } => {
                let other = others.into_iter().next().unwrap_or_else(|| cluster.clone());
                return Err(DoorError::Foreign {
                    uuid: other.uuid,
                    incarnation: other.incarnation,
                    ours_lies_there,
                });
            }
            Claim::Rival(rival) => {
                return Err(DoorError::Rival {
                    incarnation: cluster.incarnation,
                    rival,
                });
            }
            Claim::Withdrawn => {
                return Err(DoorError::Withdrawn {
                    incarnation: cluster.incarnation,
                });
            }
            Claim::Newer(newer) => {
                return Err(DoorError::Newer {
                    incarnation: newer.incarnation,
                });
            }
        }
        self.known.lock().await.claimed = true;
        Ok(repository)
    }

    /// Claims the prefix for a life that is about to begin: one try.
    pub(crate) async fn claim_life(&self, identity: &Identity, kind: IncarnationKind) -> Claimed {
        // Nothing is put before this is answered.
        match self.look().await {
            Ok(()) => {}
            Err(DoorError::Off) => return Claimed::NoStore,
            Err(error) => {
                return Claimed::Unknown {
                    why: error.to_string(),
                    may_lie_there: false,
                    again: true,
                };
            }
        }
        let cluster = identity.cluster();
        let asked = self.claimed(&cluster, &identity.lineage);
        match tokio::time::timeout(CLAIM_WITHIN, asked).await {
            Ok(Ok(_)) => Claimed::Ours,
            Ok(Err(DoorError::Off)) => Claimed::NoStore,
            Ok(Err(DoorError::Store(why, kind))) => Claimed::Unknown {
                why,
                may_lie_there: true,
                again: !matches!(kind, Kind::Credentials | Kind::Configuration),
            },
            // The object of an ordered life lies there, and nothing of its own cluster stands against it. Whoever shares its prefix
            // is no other life of this cluster. One that is gone fences nobody.
            Ok(Err(DoorError::Foreign {
                ours_lies_there: true,
                ..
            })) if kind == IncarnationKind::Restore => Claimed::Ours,
            Ok(Err(against)) => Claimed::Against(against.to_string()),
            Err(_) => Claimed::Unknown {
                why: format!("the claim was not answered within {CLAIM_WITHIN:?}"),
                may_lie_there: true,
                again: true,
            },
        }
    }

    /// Why the life of `identity` is not the one that the store knows under its number: another recovery claimed it.
    pub(crate) async fn rival(&self, identity: &Identity) -> Option<String> {
        if !self.enabled || identity.lineage.is_empty() {
            return None;
        }
        let asked = tokio::time::timeout(FACTS_WITHIN, async {
            let repository = self.repository().await?;
            Ok::<_, DoorError>(repository.list_clusters().await?)
        });
        let claims = asked.await.ok()?.ok()?;
        let claim = claims
            .into_iter()
            .find(|c| c.cluster == identity.cluster())?;
        other_lineage(identity, &claim)
    }

    /// Why the life of `identity` is over, by what lies under the prefix now: a newer one of its cluster, or another of its
    /// number. None where it is not.
    pub(crate) async fn ended_by(
        &self,
        identity: &Identity,
        within: Duration,
    ) -> Result<Option<String>, DoorError> {
        let own = identity.cluster();
        let asked = async {
            let repository = self.repository().await?;
            let lives = repository.list_lives().await?;
            let newest = lives
                .iter()
                .filter(|life| life.uuid == own.uuid)
                .max_by_key(|life| life.incarnation);
            if let Some(newer) = newest.filter(|life| life.incarnation > own.incarnation) {
                return Ok(Some(format!(
                    "the store has incarnation {} of this cluster, this node is of {}",
                    newer.incarnation, own.incarnation
                )));
            }
            // Two recoveries may have taken one number; the first life has one beginning.
            if identity.lineage.is_empty() || !lives.contains(&own) {
                return Ok(None);
            }
            let claim = repository.read_life(&own).await?;
            Ok(claim.and_then(|claim| other_lineage(identity, &claim)))
        };
        match tokio::time::timeout(within, asked).await {
            Ok(found) => found,
            Err(_) => Err(DoorError::Store(
                format!("no answer within {within:?}"),
                Kind::Wait,
            )),
        }
    }

    /// Who owns the prefix, within a bound, and the restore order that began the newest life: what a starting node decides by.
    pub(crate) async fn facts(&self) -> StoreFacts {
        if !self.enabled {
            return StoreFacts::Off;
        }
        let asked = tokio::time::timeout(FACTS_WITHIN, async {
            let repository = self.repository().await?;
            let found = repository.list_clusters().await?;
            let order = self.order(&repository, &found).await?;
            Ok::<_, DoorError>((found, order))
        });
        match asked.await {
            Ok(Ok((found, order))) => StoreFacts::Reached {
                clusters: found.into_iter().map(|c| c.cluster).collect(),
                order,
            },
            Ok(Err(error)) => StoreFacts::Unreachable {
                why: error.to_string(),
            },
            Err(_) => silent(),
        }
    }

    /// The order that began the newest life of a cluster. Where a prefix has several clusters, an order that names this
    /// node and is not spent counts, when it is the only one.
    async fn order(
        &self,
        repository: &Repository,
        found: &[ClusterObject],
    ) -> Result<Option<OrderFact>, StoreError> {
        let mut facts = Vec::new();
        for object in found {
            let life = &object.cluster;
            let is_newest = found
                .iter()
                .filter(|o| o.cluster.uuid == life.uuid)
                .all(|o| o.cluster.incarnation <= life.incarnation);
            if is_newest && object.order.is_some() {
                facts.push(self.order_fact(repository, object).await?);
            }
        }
        if facts.len() > 1 {
            facts.retain(|f| f.state == OrderState::Open && f.member.is_some());
        }
        Ok(match facts.len() {
            1 => facts.pop(),
            _ => None,
        })
    }

    async fn order_fact(
        &self,
        repository: &Repository,
        object: &ClusterObject,
    ) -> Result<OrderFact, StoreError> {
        let life = object.cluster.clone();
        let mut fact = OrderFact {
            plan: object.lineage().to_owned(),
            state: OrderState::Open,
            member: None,
            taken: false,
            names: Vec::new(),
            life,
        };
        match object.order() {
            Ok(Some(order)) => {
                fact.member = order.member(&self.node_name).map(|m| m.id);
                fact.names = order.members.into_iter().map(|m| m.name).collect();
            }
            Ok(None) => {}
            Err(error) => {
                let why = error.to_string();
                fact.state = OrderState::Unusable { why };
            }
        }
        // An end that cannot be read is an end.
        match repository.read_done(&fact.life).await {
            Ok(None) => {}
            Ok(Some(_)) => fact.state = OrderState::Spent,
            Err(error) if error.kind == Kind::Damaged => fact.state = OrderState::Spent,
            Err(error) => return Err(error),
        }
        if let Some(id) = fact.member {
            fact.taken = match repository.read_taken(&fact.life, id).await {
                Ok(taken) => taken.is_some(),
                // Somebody wrote it.
                Err(error) if error.kind == Kind::Damaged => true,
                Err(error) => return Err(error),
            };
        }
        Ok(fact)
    }
}

/// Why the life of `identity` is not the one that was claimed under its number, if it is not.
fn other_lineage(identity: &Identity, claim: &ClusterObject) -> Option<String> {
    (claim.lineage() != identity.lineage).then(|| {
        format!(
            "the store says that incarnation {} was begun by {:?}, this data directory by {:?}",
            identity.incarnation,
            claim.lineage(),
            identity.lineage
        )
    })
}

fn silent() -> StoreFacts {
    StoreFacts::Unreachable {
        why: format!("no answer within {FACTS_WITHIN:?}"),
    }
}

/// The variables that the store's own library knows, from this process's environment.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| {
            ["AWS_", "GOOGLE_", "AZURE_"]
                .iter()
                .any(|p| name.starts_with(p))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ordered life on a prefix that another cluster shares is claimed by its object; one whose object is gone fences nobody.
    #[tokio::test]
    async fn i13_a_life_on_a_shared_prefix_is_claimed_only_where_its_object_lies() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let door = StoreDoor {
            enabled: true,
            url: format!("file://{}", store.display()),
            data_dir: dir.path().to_owned(),
            node_name: "node1".to_owned(),
            options: RepositoryOptions::default(),
            known: Mutex::default(),
        };
        let others = ClusterId::new("22222222-2222-4222-8222-222222222222", 1);
        let other = ClusterObject::new(others, 1, "node9", "n");
        let repository = door.repository().await.unwrap();
        let claim = repository.claim_cluster(&other).await.unwrap();
        assert_eq!(claim, Claim::Ours);
        let identity = Identity {
            cluster_uuid: "11111111-1111-4111-8111-111111111111".to_owned(),
            incarnation: 2,
            lineage: "plan".to_owned(),
            ..Identity::default()
        };
        let own = identity.cluster();
        let claimed = door.claim_life(&identity, IncarnationKind::Restore).await;
        assert!(matches!(claimed, Claimed::Against(_)), "{claimed:?}");
        let object = ClusterObject::new(own.clone(), 1, "drtool", "n")
            .with_recovery(serde_json::json!({ "planId": "plan" }));
        let path = store.join(confman_snapshot::paths::cluster(&own));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, serde_json::to_vec(&object).unwrap()).unwrap();
        let claimed = door.claim_life(&identity, IncarnationKind::Restore).await;
        assert!(matches!(claimed, Claimed::Ours), "{claimed:?}");
        // Whoever recovers names the store: a prefix of others is a mistake.
        let kind = IncarnationKind::QuorumLoss;
        let claimed = door.claim_life(&identity, kind).await;
        assert!(matches!(claimed, Claimed::Against(_)), "{claimed:?}");
    }
}
