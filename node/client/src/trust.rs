//! Which hosts may see the API key and the values.

use std::sync::{PoisonError, RwLock};

use crate::{Endpoint, wire::Status};

/// The given endpoints, in their order, then the members that those have named.
pub(crate) struct Trust {
    given: Vec<Endpoint>,
    learned: RwLock<Vec<Endpoint>>,
}

/// More members than any cluster has: what a broken node names beyond this is not kept.
const LEARNED_MAX: usize = 64;

impl Trust {
    pub(crate) fn new(given: Vec<Endpoint>) -> Self {
        Self {
            given,
            learned: RwLock::default(),
        }
    }

    /// All that may be asked: given ones first.
    pub(crate) fn all(&self) -> Vec<Endpoint> {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        self.given.iter().chain(learned.iter()).cloned().collect()
    }

    pub(crate) fn given(&self) -> &[Endpoint] {
        &self.given
    }

    pub(crate) fn holds(&self, endpoint: &Endpoint) -> bool {
        self.given.contains(endpoint)
            || self
                .learned
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(endpoint)
    }

    /// Where to go for this endpoint, if it may be asked at all. A node that has just come over to TLS is known to the others by its address of
    /// before until it has registered the new one: it is asked over TLS where that is trusted, and never the other way round.
    pub(crate) fn way_to(&self, endpoint: Endpoint) -> Option<Endpoint> {
        if self.holds(&endpoint) {
            return Some(endpoint);
        }
        endpoint.over_tls().filter(|secure| self.holds(secure))
    }

    /// Takes the members that a trusted node names. A node reached in the clear is not believed about others that
    /// are, when a given endpoint is encrypted: the key would leave the encrypted path.
    pub(crate) fn learn(&self, status: &Status) {
        let encrypted = !self.given.iter().any(Endpoint::is_plain);
        let named = status.groups.iter().flat_map(|group| {
            group
                .members
                .iter()
                .map(|m| &m.api_url)
                .chain(group.leader.iter().map(|l| &l.api_url))
        });
        let mut learned = self.learned.write().unwrap_or_else(PoisonError::into_inner);
        for text in named {
            let Ok(endpoint) = text.parse::<Endpoint>() else {
                continue;
            };
            let new = !self.given.contains(&endpoint) && !learned.contains(&endpoint);
            if new && learned.len() < LEARNED_MAX && !(encrypted && endpoint.is_plain()) {
                learned.push(endpoint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_came_over_to_tls_is_asked_over_tls_and_none_in_the_clear() {
        let at = |text: &str| text.parse::<Endpoint>().unwrap();
        let trust = Trust::new(vec![at("https://node3:6300"), at("http://node4:6400")]);
        let way = |text: &str| trust.way_to(at(text)).map(|way| way.to_string());
        let secure = Some("https://node3:6300".to_owned());
        assert_eq!(way("https://node3:6300"), secure);
        assert_eq!(way("http://node3:6300"), secure);
        assert_eq!(way("http://node3:6301"), None);
        assert_eq!(way("http://elsewhere:6300"), None);
        // Who was given in the clear does not lead the key to where nobody knows the certificate.
        assert_eq!(way("https://node4:6400"), None);
    }
}
