//! Which ids of a restore order have been taken up.
//!
//! A node that restored itself by an order says so here *before* it may vote. Should it lose its disk after that, it finds
//! that somebody had the id, and cannot know what was voted or acknowledged under it: the id is gone for it, as any other
//! (I14). An id that nobody took up has never voted, however often the restore before it was interrupted.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Repository;
use super::cluster::rfc3339;
use super::create::Fingerprint;
use crate::error::{Kind, StoreError};
use crate::model::ClusterId;
use crate::paths;

const VERSION: u32 = 1;
/// Largest such object, in bytes.
const OBJECT_BYTES_MAX: u64 = 64 << 10;

/// The word that a node took up an id of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberTaken {
    /// Version of this object's format: 1.
    pub version: u32,
    /// The life that the order begins.
    #[serde(flatten)]
    pub cluster: ClusterId,
    /// The plan of the order.
    pub plan_id: String,
    /// The id that was taken up.
    pub node_id: u64,
    /// The name of the node.
    pub name: String,
    /// Random, and in the data directory that took the id up: by it the directory knows its own word.
    pub nonce: String,
    /// When, microseconds since 1970 UTC; RFC 3339 in the object.
    #[serde(rename = "createdAt", with = "rfc3339")]
    pub created_us: i64,
}

/// Who has an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The asking directory, now or from an earlier try.
    Ours,
    /// Another one: this is what it wrote.
    Other(Box<MemberTaken>),
}

impl MemberTaken {
    /// The word of a directory with this nonce.
    pub fn new(
        cluster: ClusterId,
        plan_id: impl Into<String>,
        (node_id, name): (u64, &str),
        nonce: impl Into<String>,
        created_us: i64,
    ) -> Self {
        Self {
            version: VERSION,
            cluster,
            plan_id: plan_id.into(),
            node_id,
            name: name.to_owned(),
            nonce: nonce.into(),
            created_us,
        }
    }
}

impl Repository {
    /// Takes up an id of an order, or says who has it. Of two at once one wins; on a store that ignores conditions the later
    /// may replace the earlier, and both may be told that they won: they are two processes under one name, which find each
    /// other by address.
    pub async fn take_member(&self, ours: &MemberTaken) -> Result<Taken, StoreError> {
        let object = paths::cluster_member(&ours.cluster, ours.node_id);
        let bug = |e: serde_json::Error| self.error(Kind::Bug, "put", &object, e.to_string(), "");
        let content = Bytes::from(serde_json::to_vec_pretty(ours).map_err(bug)?);
        let fingerprint = Fingerprint {
            size: content.len() as u64,
            tail: content.clone(),
        };
        let limits = self.small_limits();
        match self.create(&object, content, &fingerprint, limits).await {
            Ok(()) => {}
            Err(error) if error.kind == Kind::Conflict => {}
            Err(error) => return Err(error),
        }
        // Read back: an earlier try of the same directory wrote another time, and a store may ignore conditions.
        match self.read_taken(&ours.cluster, ours.node_id).await? {
            Some(there) if there.nonce == ours.nonce => Ok(Taken::Ours),
            Some(there) => Ok(Taken::Other(Box::new(there))),
            None => {
                let detail = "it was written and is not there";
                Err(self.error(Kind::Retry, "get", &object, detail, ""))
            }
        }
    }

    /// Who took up an id of this life's order, if anybody did. One that cannot be read is an error: somebody did.
    pub async fn read_taken(
        &self,
        life: &ClusterId,
        node_id: u64,
    ) -> Result<Option<MemberTaken>, StoreError> {
        let object = paths::cluster_member(life, node_id);
        let bytes = match self.read_small(&object, OBJECT_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = |detail: String| {
            let hint =
                "the node id counts as taken: order the restore again with `drtool restore plan`";
            self.error(Kind::Damaged, "get", &object, detail, hint)
        };
        let taken: MemberTaken =
            serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if taken.cluster != *life || taken.node_id != node_id {
            return Err(damaged(format!(
                "it says node id {} of {}, which is not its name",
                taken.node_id, taken.cluster
            )));
        }
        Ok(Some(taken))
    }
}
