//! Who owns the prefix.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Repository;
use super::create::Fingerprint;
use crate::error::{Kind, StoreError};
use crate::model::ClusterId;
use crate::paths;

/// Newest version of the cluster object.
const VERSION: u32 = 1;
/// Largest cluster object, in bytes.
const OBJECT_BYTES_MAX: u64 = 64 << 10;
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
}

/// How a claim of the prefix ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The prefix is ours, now or from before.
    Ours,
    /// Another cluster owns the prefix: upload nothing.
    Foreign(Vec<ClusterId>),
    /// A newer life of this cluster owns the prefix: fence.
    Newer(ClusterId),
}

impl Repository {
    /// Makes the prefix this cluster's, or says whose it is. Does not depend on conditional writes: every cluster writes its
    /// own object and looks again; when two come at the same moment, both may withdraw, and one must ask again.
    pub async fn claim_cluster(&self, ours: &ClusterObject) -> Result<Claim, StoreError> {
        let id = ours.cluster.clone();
        id.check()
            .map_err(|e| self.error(Kind::Bug, "claim", "", e.to_string(), ""))?;
        let there = self.cluster_ids().await?;
        if let Some(claim) = judge(&id, &there) {
            return Ok(claim);
        }
        let object = paths::cluster(&id);
        let fresh = !there.contains(&id);
        if fresh {
            self.put_cluster(&object, ours).await?;
        } else {
            // Ours from before: make sure that it still says so.
            self.read_cluster(&object).await?;
        }
        match judge(&id, &self.cluster_ids().await?) {
            None => Ok(Claim::Ours),
            Some(claim) => {
                if fresh && matches!(claim, Claim::Foreign(_)) {
                    self.delete(&object).await?;
                }
                Ok(claim)
            }
        }
    }

    /// Every cluster object under the prefix, highest incarnation first. One that cannot be read is an error: it may be
    /// the one that matters.
    pub async fn list_clusters(&self) -> Result<Vec<ClusterObject>, StoreError> {
        let mut ids = self.cluster_ids().await?;
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

    async fn cluster_ids(&self) -> Result<Vec<ClusterId>, StoreError> {
        let mut ids = Vec::new();
        self.list(paths::CLUSTERS, |object, _| {
            if let Some(id) = paths::parse_cluster(object)
                .filter(|id| !ids.contains(id) && ids.len() < CLUSTERS_MAX)
            {
                ids.push(id);
            }
        })
        .await?;
        Ok(ids)
    }

    async fn put_cluster(&self, object: &str, ours: &ClusterObject) -> Result<(), StoreError> {
        let bug = |e: serde_json::Error| self.error(Kind::Bug, "put", object, e.to_string(), "");
        let content = Bytes::from(serde_json::to_vec_pretty(ours).map_err(bug)?);
        let fingerprint = Fingerprint {
            size: content.len() as u64,
            tail: content.clone(),
        };
        match self
            .create(object, content, &fingerprint, self.small_limits())
            .await
        {
            Ok(()) => Ok(()),
            // Another node of the same cluster and life was quicker; the name says the same.
            Err(error) if error.kind == Kind::Conflict => {
                self.read_cluster(object).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
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

/// Whose the prefix is when these clusters have objects in it; none if nobody stands against `ours`.
fn judge(ours: &ClusterId, there: &[ClusterId]) -> Option<Claim> {
    let foreign: Vec<ClusterId> = there
        .iter()
        .filter(|c| c.uuid != ours.uuid)
        .cloned()
        .collect();
    if !foreign.is_empty() {
        return Some(Claim::Foreign(foreign));
    }
    let newest = there.iter().max_by_key(|c| c.incarnation)?;
    (newest.incarnation > ours.incarnation).then(|| Claim::Newer(newest.clone()))
}

mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        let time = Timestamp::from_microsecond(*us).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&format_args!("{time:.6}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse::<Timestamp>()
            .map(|time| time.as_microsecond())
            .map_err(serde::de::Error::custom)
    }
}
