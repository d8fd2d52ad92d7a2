//! Who owns the prefix, and how its lives began.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Repository;
use super::create::Fingerprint;
use super::order::{OrderDone, OrderError, RestoreOrder};
use crate::error::{Kind, StoreError};
use crate::model::ClusterId;
use crate::paths;

/// Newest version of the cluster object. Members that were added later carry versions of their own: an older program must
/// still be able to read whose the prefix is, because that is what fences it.
const VERSION: u32 = 1;
/// Largest cluster object, in bytes: an order names a snapshot of every group.
const OBJECT_BYTES_MAX: u64 = 4 << 20;
/// More lives than any cluster has had.
const CLUSTERS_MAX: usize = 10_000;

/// The object that says which cluster, in which life, owns a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterObject {
    /// Version of this object's format: 1.
    pub version: u32,
    /// The cluster and incarnation.
    #[serde(flatten)]
    pub cluster: ClusterId,
    /// When it was made, microseconds since 1970 UTC; RFC 3339 in the object.
    #[serde(rename = "createdAt", with = "rfc3339")]
    pub created_us: i64,
    /// The name of the node that made it.
    pub created_by: String,
    /// Random, so that whoever reads two of them can tell who made which.
    pub nonce: String,
    /// What empty nodes do to bring this life about, as it stands there; none in a life that began otherwise. Read it with
    /// [`ClusterObject::order`]: one that this program does not understand must not hide that the life is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<serde_json::Value>,
    /// The recovery from a lost quorum that began this life, as it wrote it; none in a life that began otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<serde_json::Value>,
}

impl ClusterObject {
    /// The object of a life that is neither ordered nor recovered. `nonce` is random.
    pub fn new(
        cluster: ClusterId,
        created_us: i64,
        created_by: impl Into<String>,
        nonce: impl Into<String>,
    ) -> Self {
        Self {
            version: VERSION,
            cluster,
            created_us,
            created_by: created_by.into(),
            nonce: nonce.into(),
            order: None,
            recovery: None,
        }
    }

    /// The same, with the order that empty nodes carry out.
    #[must_use]
    pub fn with_order(mut self, order: &RestoreOrder) -> Self {
        self.order = serde_json::to_value(order).ok();
        self
    }

    /// The order that began this life, if one did and this program can carry it out.
    pub fn order(&self) -> Result<Option<RestoreOrder>, OrderError> {
        let Some(order) = &self.order else {
            return Ok(None);
        };
        RestoreOrder::read(order, &self.cluster).map(Some)
    }

    /// The same, with the recovery that began this life.
    #[must_use]
    pub fn with_recovery(mut self, recovery: serde_json::Value) -> Self {
        self.recovery = Some(recovery);
        self
    }
}

impl ClusterObject {
    /// Which of several lives of that number: empty in the first, else the plan or order that began it.
    pub fn lineage(&self) -> &str {
        let begun_by = self.recovery.as_ref().or(self.order.as_ref());
        begun_by
            .and_then(|by| by.get("planId")?.as_str())
            .unwrap_or_default()
    }
}

/// Who began a life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// We did, now or in an earlier try.
    Ours,
    /// Somebody else did; this is what they wrote.
    Other(Box<ClusterObject>),
}

/// How a claim of the prefix ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The prefix is ours, now or from before.
    Ours,
    /// Another cluster owns the prefix: upload nothing.
    Foreign {
        /// Which.
        others: Vec<ClusterId>,
        /// Our object was read there all the same: whoever looks sees that this life was begun.
        ours_lies_there: bool,
    },
    /// The life of this number was claimed by another plan, which is named: fence.
    Rival(String),
    /// A newer life of this cluster owns the prefix: fence.
    Newer(ClusterId),
    /// The recovery that made this life was undone: it never was.
    Withdrawn,
}

impl Repository {
    /// Makes the prefix this cluster's, or says whose it is. Does not depend on conditional writes: every cluster writes its
    /// own object and looks again; when two come at the same moment, both may withdraw, and one must ask again.
    ///
    /// What ends this life comes before whose the prefix is: [`Claim::Foreign`] says that nothing else stands against it, and
    /// that ours lies there only when it was read.
    pub async fn claim_cluster(&self, ours: &ClusterObject) -> Result<Claim, StoreError> {
        let id = ours.cluster.clone();
        id.check()
            .map_err(|e| self.error(Kind::Bug, "claim", "", e.to_string(), ""))?;
        let object = paths::cluster(&id);
        let (there, undone) = self.cluster_ids().await?;
        if let Some(over) = judge_own(&id, &there, &undone) {
            return Ok(over);
        }
        let fresh = !there.contains(&id);
        let foreign = judge_others(&id, &there);
        if fresh {
            if let Some(others) = foreign {
                let ours_lies_there = false;
                return Ok(Claim::Foreign {
                    others,
                    ours_lies_there,
                });
            }
            self.put_cluster(&object, ours).await?;
        }
        // Read again, because a store may accept a conditional write and ignore the condition.
        let claimed = self.read_cluster(&object).await?;
        if claimed.lineage() != ours.lineage() {
            return Ok(Claim::Rival(claimed.lineage().to_owned()));
        }
        if let Some(others) = foreign {
            let ours_lies_there = true;
            return Ok(Claim::Foreign {
                others,
                ours_lies_there,
            });
        }
        let (there, undone) = self.cluster_ids().await?;
        if let Some(over) = judge_own(&id, &there, &undone) {
            return Ok(over);
        }
        let Some(others) = judge_others(&id, &there) else {
            return Ok(Claim::Ours);
        };
        if fresh {
            self.delete(&object).await?;
        }
        Ok(Claim::Foreign {
            others,
            ours_lies_there: !fresh,
        })
    }

    /// Every life that has an object under the prefix, by name: one listing, and nothing is read.
    pub async fn list_lives(&self) -> Result<Vec<ClusterId>, StoreError> {
        Ok(self.cluster_ids().await?.0)
    }

    /// Every cluster object under the prefix, highest incarnation first. One that cannot be read is an error: it may be
    /// the one that matters.
    pub async fn list_clusters(&self) -> Result<Vec<ClusterObject>, StoreError> {
        let (mut ids, _) = self.cluster_ids().await?;
        ids.sort_by(|a, b| (b.incarnation, &b.uuid).cmp(&(a.incarnation, &a.uuid)));
        let mut clusters = Vec::with_capacity(ids.len());
        for id in ids {
            match self.read_cluster(&paths::cluster(&id)).await {
                Ok(cluster) => clusters.push(cluster),
                // Withdrawn since it was listed.
                Err(error) if error.kind == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(clusters)
    }

    /// The object of one life; none if there is none.
    pub async fn read_life(&self, life: &ClusterId) -> Result<Option<ClusterObject>, StoreError> {
        match self.read_cluster(&paths::cluster(life)).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins a life: writes its object where none is, and says whose it is then. Of two at once one wins; on a store that
    /// ignores conditions the later write may replace the earlier, so whoever acts on it reads it again with
    /// [`Repository::read_life`] and compares the nonce.
    pub async fn begin_life(&self, ours: &ClusterObject) -> Result<Begun, StoreError> {
        let object = paths::cluster(&ours.cluster);
        ours.order()
            .map_err(|e| self.error(Kind::Bug, "begin", &object, e.to_string(), ""))?;
        self.put_cluster(&object, ours).await?;
        let there = self.read_cluster(&object).await?;
        Ok(if there.nonce == ours.nonce {
            Begun::Ours
        } else {
            Begun::Other(Box::new(there))
        })
    }

    /// Whether the order of this life is spent; who spent it, if so.
    pub async fn read_done(&self, life: &ClusterId) -> Result<Option<OrderDone>, StoreError> {
        let object = paths::cluster_done(life);
        let bytes = match self.read_small(&object, OBJECT_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = |detail: String| {
            let hint = "an order whose end cannot be read counts as spent";
            self.error(Kind::Damaged, "get", &object, detail, hint)
        };
        let done: OrderDone = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if done.cluster != *life {
            return Err(damaged(format!(
                "it says {}, which is not its name",
                done.cluster
            )));
        }
        Ok(Some(done))
    }

    /// Says that an order is spent, for ever. Said twice, the first stays.
    pub async fn put_done(&self, done: &OrderDone) -> Result<(), StoreError> {
        let object = paths::cluster_done(&done.cluster);
        let bug = |e: serde_json::Error| self.error(Kind::Bug, "put", &object, e.to_string(), "");
        let content = Bytes::from(serde_json::to_vec_pretty(done).map_err(bug)?);
        let fingerprint = Fingerprint {
            size: content.len() as u64,
            tail: content.clone(),
        };
        let limits = self.small_limits();
        match self.create(&object, content, &fingerprint, limits).await {
            // The former leader of the new life was quicker.
            Err(error) if error.kind == Kind::Conflict => {
                self.read_done(&done.cluster).await.map(|_| ())
            }
            other => other,
        }
    }

    /// Says that the incarnation that `claim` made never was, because its recovery was undone. The number stays spent.
    pub async fn withdraw_cluster(&self, claim: &ClusterObject) -> Result<(), StoreError> {
        self.put_cluster_as(&paths::cluster_undone(&claim.cluster), claim)
            .await
    }

    /// The highest incarnation of the cluster that was ever claimed here, also by a recovery that was undone; 0 when
    /// there was none.
    pub async fn highest_incarnation(&self, uuid: &str) -> Result<u64, StoreError> {
        let mut highest = 0;
        self.list(paths::CLUSTERS, |object, _| {
            let id = paths::parse_cluster(object).or_else(|| paths::parse_cluster_undone(object));
            if let Some(id) = id.filter(|id| id.uuid == uuid) {
                highest = highest.max(id.incarnation);
            }
        })
        .await?;
        Ok(highest)
    }

    /// The lives whose recovery was undone: what they wrote is no past of any other.
    pub async fn undone_lives(&self) -> Result<Vec<ClusterId>, StoreError> {
        Ok(self.cluster_ids().await?.1)
    }

    /// The clusters that own the prefix, and those whose recovery was undone, which are not among them.
    async fn cluster_ids(&self) -> Result<(Vec<ClusterId>, Vec<ClusterId>), StoreError> {
        let mut ids = Vec::new();
        let mut undone = Vec::new();
        self.list(paths::CLUSTERS, |object, _| {
            if let Some(id) = paths::parse_cluster_undone(object)
                && undone.len() < CLUSTERS_MAX
            {
                undone.push(id);
            }
            if let Some(id) = paths::parse_cluster(object)
                .filter(|id| !ids.contains(id) && ids.len() < CLUSTERS_MAX)
            {
                ids.push(id);
            }
        })
        .await?;
        ids.retain(|id| !undone.contains(id));
        Ok((ids, undone))
    }

    async fn put_cluster(&self, object: &str, ours: &ClusterObject) -> Result<(), StoreError> {
        match self.create_cluster(object, ours).await {
            Ok(()) => Ok(()),
            // Another node of the same cluster and life was quicker; the name says the same.
            Err(error) if error.kind == Kind::Conflict => {
                self.read_cluster(object).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Self::create_cluster`]; one that is there says the same.
    async fn put_cluster_as(&self, object: &str, ours: &ClusterObject) -> Result<(), StoreError> {
        match self.create_cluster(object, ours).await {
            Err(error) if error.kind == Kind::Conflict => Ok(()),
            ended => ended,
        }
    }

    async fn create_cluster(&self, object: &str, ours: &ClusterObject) -> Result<(), StoreError> {
        let bug = |e: serde_json::Error| self.error(Kind::Bug, "put", object, e.to_string(), "");
        let content = Bytes::from(serde_json::to_vec_pretty(ours).map_err(bug)?);
        let fingerprint = Fingerprint {
            size: content.len() as u64,
            tail: content.clone(),
        };
        self.create(object, content, &fingerprint, self.small_limits())
            .await
    }

    async fn read_cluster(&self, object: &str) -> Result<ClusterObject, StoreError> {
        let bytes = self.read_small(object, OBJECT_BYTES_MAX).await?;
        let damaged = |detail: String| {
            self.error(
                Kind::Damaged,
                "get",
                object,
                detail,
                "compare with the other objects under cluster/",
            )
        };
        let cluster: ClusterObject =
            serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if cluster.version > VERSION {
            let detail = format!(
                "format version {}, this program reads up to {VERSION}",
                cluster.version
            );
            return Err(self.error(
                Kind::Configuration,
                "get",
                object,
                detail,
                "use a newer version of confman",
            ));
        }
        if paths::cluster(&cluster.cluster) != object {
            return Err(damaged(format!(
                "it says {}, which is not its name",
                cluster.cluster
            )));
        }
        Ok(cluster)
    }
}

/// What the objects of its own cluster say against a life, if anything.
fn judge_own(ours: &ClusterId, there: &[ClusterId], undone: &[ClusterId]) -> Option<Claim> {
    let newest = there
        .iter()
        .filter(|c| c.uuid == ours.uuid && c.incarnation > ours.incarnation)
        .max_by_key(|c| c.incarnation);
    match newest {
        Some(newest) => Some(Claim::Newer(newest.clone())),
        None => undone.contains(ours).then_some(Claim::Withdrawn),
    }
}

/// The other clusters that own the prefix, if any do.
fn judge_others(ours: &ClusterId, there: &[ClusterId]) -> Option<Vec<ClusterId>> {
    let foreign: Vec<ClusterId> = there
        .iter()
        .filter(|c| c.uuid != ours.uuid)
        .cloned()
        .collect();
    (!foreign.is_empty()).then_some(foreign)
}

pub(super) mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        let time = Timestamp::from_microsecond(*us).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&format_args!("{time:.6}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse::<Timestamp>()
            .map(|time| time.as_microsecond())
            .map_err(serde::de::Error::custom)
    }
}
