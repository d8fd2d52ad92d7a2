//! Which snapshot an operator means: `latest`, an id, the beginning of one, or the index that it stands at.
//!
//! Promises: what could be two is refused with both names; a group is never guessed where it makes a difference, and
//! `latest` is the highest position of the newest incarnation, never the latest time.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::str::FromStr;

use clap::Args;
use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_snapshot::repository::Listed;
use confman_snapshot::{GroupId, SnapshotId};

use super::errors;
use super::reader::StoreReader;

use crate::codes;

/// As many candidates are named when a name is not clear.
const CANDIDATES_MAX: usize = 8;

/// A snapshot as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The newest.
    Latest,
    /// This one.
    Id(SnapshotId),
    /// The one that stands at this index.
    Index(u64),
    /// The one whose id begins so.
    Prefix(String),
}

/// The option of every command that looks at groups.
#[derive(Debug, Clone, Default, Args)]
pub struct GroupArgs {
    /// Only this group, such as config/0 or __meta/0
    #[arg(long, value_name = "GROUP")]
    pub group: Option<GroupId>,
}

impl FromStr for Wanted {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        // An id begins with zeros, an index never does.
        let index = text.parse().ok().filter(|i: &u64| i.to_string() == text);
        Ok(index.map_or_else(|| Self::Prefix(text.to_owned()), Self::Index))
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Id(id) => id.fmt(f),
            Self::Index(index) => index.fmt(f),
            Self::Prefix(prefix) => f.write_str(prefix),
        }
    }
}

impl Wanted {
    fn fits(&self, id: &SnapshotId) -> bool {
        match self {
            Self::Latest => true,
            Self::Id(wanted) => wanted == id,
            Self::Index(index) => id.index == *index,
            Self::Prefix(prefix) => !prefix.is_empty() && id.to_string().starts_with(prefix),
        }
    }
}

/// One snapshot of one group, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picked {
    /// The group.
    pub group: GroupId,
    /// The snapshot.
    pub listed: Listed,
}

impl StoreReader {
    /// The snapshots of the group, or of all groups, each group's newest first.
    ///
    /// # Errors
    /// The store fails.
    pub async fn groups(
        &self,
        group: Option<&GroupId>,
    ) -> Result<BTreeMap<GroupId, Vec<Listed>>, Failure> {
        let told = |error| errors::store(&error);
        let Some(group) = group else {
            return Ok(self.inventory().await.map_err(told)?.groups);
        };
        let listing = self.snapshots(group).await.map_err(told)?;
        let there = (group.clone(), listing.snapshots);
        Ok(BTreeMap::from([there]))
    }

    /// The snapshot that is meant. Without a group `latest` is that of `config/0`, and an id is looked for in all groups.
    ///
    /// # Errors
    /// There is none, or more than one; the store fails.
    pub async fn pick(&self, wanted: &Wanted, group: Option<&GroupId>) -> Result<Picked, Failure> {
        let config = GroupId::config(0);
        let group = match (group, wanted) {
            (None, Wanted::Latest) => Some(&config),
            (group, _) => group,
        };
        let mut groups = self.groups(group).await?;
        if *wanted == Wanted::Latest {
            let never_were = self.never_were().await?;
            for listed in groups.values_mut() {
                listed.retain(|listed| !never_were.contains(&listed.id.incarnation));
            }
        }
        choose(wanted, group, groups, self.url())
    }

    /// The incarnations that were undone, and are no other cluster's that shares the prefix.
    async fn never_were(&self) -> Result<BTreeSet<u64>, Failure> {
        let told = |error| errors::store(&error);
        let undone = self.undone_lives().await.map_err(told)?;
        let mut numbers: BTreeSet<u64> = undone.iter().map(|life| life.incarnation).collect();
        if !numbers.is_empty() {
            for owner in self.clusters().await.map_err(told)? {
                numbers.remove(&owner.cluster.incarnation);
            }
        }
        Ok(numbers)
    }
}

/// The one among these that is meant.
///
/// # Errors
/// There is none, or more than one.
pub fn choose(
    wanted: &Wanted,
    group: Option<&GroupId>,
    groups: BTreeMap<GroupId, Vec<Listed>>,
    url: &str,
) -> Result<Picked, Failure> {
    let all = groups.into_iter().flat_map(|(group, listed)| {
        listed.into_iter().map(move |listed| Picked {
            group: group.clone(),
            listed,
        })
    });
    let mut found = all.filter(|picked| wanted.fits(&picked.listed.id));
    let Some(first) = found.next() else {
        return Err(none(wanted, group, url));
    };
    // The newest comes first.
    if *wanted == Wanted::Latest {
        return Ok(first);
    }
    let others: Vec<Picked> = found.take(CANDIDATES_MAX).collect();
    if others.is_empty() {
        return Ok(first);
    }
    let mut names: Vec<String> = std::iter::once(&first)
        .chain(&others)
        .take(CANDIDATES_MAX)
        .map(|picked| format!("{} {}", picked.group, picked.listed.id))
        .collect();
    if others.len() >= CANDIDATES_MAX {
        names.push("others".to_owned());
    }
    Err(codes::usage(
        "SNAPSHOT_AMBIGUOUS",
        format!("{wanted} may be {}", names.join(", or ")),
    )
    .with_hint("name the group with --group, or give more of the id"))
}

fn none(wanted: &Wanted, group: Option<&GroupId>, url: &str) -> Failure {
    let place = group.map_or_else(String::new, |group| format!(" of {group}"));
    let what = match wanted {
        Wanted::Latest => format!("no snapshot{place} in {url}"),
        wanted => format!("no snapshot {wanted}{place} in {url}"),
    };
    codes::refuse("STORE_NOT_FOUND", ErrorKind::NotFound, what)
        .with_hint("`drtool snapshot list` shows what there is; check that the URL names the cluster's bucket and prefix")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(index: u64, nonce: u32) -> Listed {
        let id = SnapshotId {
            index,
            incarnation: 1,
            term: 1,
            nonce,
        };
        Listed {
            id,
            object: String::new(),
            bytes: 1,
        }
    }

    fn pick(text: &str, group: Option<&str>) -> Result<String, String> {
        let mut groups = BTreeMap::from([
            (GroupId::config(0), vec![listed(200, 1), listed(100, 1)]),
            (GroupId::meta(), vec![listed(200, 9), listed(7, 1)]),
        ]);
        let group: Option<GroupId> = group.map(|group| group.parse().unwrap());
        if let Some(group) = &group {
            groups.retain(|there, _| there == group);
        }
        let wanted: Wanted = text.parse().unwrap();
        choose(&wanted, group.as_ref(), groups, "memory://x")
            .map(|picked| format!("{} {}", picked.group, picked.listed.id.index))
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn an_index_a_prefix_an_id_and_latest_name_a_snapshot() {
        assert_eq!(pick("100", None).unwrap(), "config/0 100");
        assert_eq!(pick("7", None).unwrap(), "__meta/0 7");
        assert_eq!(pick("00000000000000000007", None).unwrap(), "__meta/0 7");
        let id = listed(200, 9).id.to_string();
        assert_eq!(pick(&id, None).unwrap(), "__meta/0 200");
        assert_eq!(pick("latest", Some("config/0")).unwrap(), "config/0 200");
        assert_eq!(pick("200", Some("__meta/0")).unwrap(), "__meta/0 200");
    }

    #[test]
    fn what_may_be_two_is_refused_with_both_names() {
        let error = pick("200", None).unwrap_err();
        assert!(
            error.contains("config/0 0000") && error.contains("__meta/0 0000"),
            "{error}"
        );
        assert!(pick("0000000000000000", None).is_err());
    }

    #[test]
    fn what_is_not_there_is_said_and_nothing_is_not_everything() {
        assert!(pick("8", None).unwrap_err().contains("no snapshot 8"));
        assert!(pick("", Some("config/0")).is_err());
        assert!(pick("latest", Some("config/7")).is_err());
    }
}
