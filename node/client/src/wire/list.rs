//! A page of anything.

use serde::{Deserialize, Serialize};

/// One page of a list. `next_cursor` is `null` on the last page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// The items of this page, in the order of the list.
    pub items: Vec<T>,
    /// What `?cursor=` takes to go on; opaque to clients.
    pub next_cursor: Option<String>,
}

impl<T> List<T> {
    /// A page that has nothing after it.
    pub fn complete(items: Vec<T>) -> Self {
        Self {
            items,
            next_cursor: None,
        }
    }
}
