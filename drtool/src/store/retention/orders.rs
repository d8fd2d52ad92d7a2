//! What restore orders need that are not spent: nodes may be reading it now.

use std::collections::BTreeSet;

use confman_cli::failure::Failure;
use confman_snapshot::repository::ClusterObject;
use confman_snapshot::{GroupId, SnapshotId};

use crate::store::errors;
use crate::store::reader::StoreReader;

/// The orders that may be open, as they were when they were read.
pub(super) struct Orders(Vec<Ordered>);

enum Ordered {
    These(String, BTreeSet<(GroupId, SnapshotId)>),
    /// It cannot be read: it may need any.
    Unknown(String),
}

impl Orders {
    /// # Errors
    /// The store fails, or an object under `cluster/` cannot be read: it may be an order.
    pub(super) async fn read(store: &StoreReader) -> Result<Self, Failure> {
        let told = |error| errors::store(&error);
        let mut ordered = Vec::new();
        for object in store.clusters().await.map_err(told)? {
            if object.order.is_some() && store.may_be_open(&object.cluster).await.map_err(told)? {
                ordered.push(needs(&object));
            }
        }
        Ok(Self(ordered))
    }

    /// Why a snapshot stays for an order, if for any.
    pub(super) fn hold(&self, group: &GroupId, id: &SnapshotId) -> Option<String> {
        let key = (group.clone(), *id);
        // What names it says more than what may.
        let named = self.0.iter().find_map(|ordered| match ordered {
            Ordered::These(name, these) if these.contains(&key) => Some(format!("{name} names it")),
            _ => None,
        });
        named.or_else(|| {
            self.0.iter().find_map(|ordered| match ordered {
                Ordered::Unknown(name) => Some(format!("{name} cannot be read and may name it")),
                Ordered::These(..) => None,
            })
        })
    }
}

fn needs(object: &ClusterObject) -> Ordered {
    let name = format!(
        "the restore order of incarnation {}",
        object.cluster.incarnation
    );
    match object.order() {
        Ok(order) => {
            let records = order.into_iter().flat_map(|order| order.groups);
            Ordered::These(name, records.map(|r| (r.group, r.id)).collect())
        }
        Err(_) => Ordered::Unknown(name),
    }
}
