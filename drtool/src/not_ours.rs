//! The operator's word that what answers at an address, and cannot be asked, is no node of the cluster.
//!
//! An address of a machine that is gone may be given to somebody else, whose service speaks TLS of its own. Whether a node of
//! ours is behind it nobody can know from here, so nothing goes on until somebody says so, address by address.

use std::collections::BTreeSet;

use clap::Args;

/// Addresses at which no node of the cluster is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct NotOurs {
    /// What answers at this URL and shakes no hands is no node of this cluster; may be given again
    #[arg(long = "not-ours", value_name = "URL")]
    urls: Vec<String>,
}

impl NotOurs {
    /// Whether the operator has said so of this address.
    pub(crate) fn holds(&self, url: &str) -> bool {
        let wanted = plain(url);
        self.urls.iter().any(|known| plain(known) == wanted)
    }

    /// Takes in what was said before.
    pub(crate) fn extend(&mut self, urls: &BTreeSet<String>) {
        self.urls.extend(urls.iter().cloned());
    }

    /// What to do about an address that cannot be asked, `hint` being what lets this program ask there.
    pub(crate) fn hint(hint: Option<&str>, url: &str) -> String {
        let own = format!(
            "if somebody else has that address now, and no node of this cluster: --not-ours {}",
            plain(url)
        );
        hint.map_or(own.clone(), |hint| format!("{hint}; {own}"))
    }
}

fn plain(url: &str) -> &str {
    url.trim().trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_given_up_by_its_own_name_and_no_other() {
        let mut not_ours = NotOurs {
            urls: vec!["https://node1:6100/".to_owned()],
        };
        assert!(not_ours.holds("https://node1:6100"));
        assert!(!not_ours.holds("https://node1:61000"));
        assert!(!not_ours.holds("http://node1:6100"));
        not_ours.extend(&BTreeSet::from(["https://node2:6100".to_owned()]));
        assert!(not_ours.holds("https://node2:6100/"));
    }
}
