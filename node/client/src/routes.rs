//! Who leads what, as this client has seen it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::Endpoint;

const ROUTES_MAX: usize = 10_000;

/// Who took the last write below each first segment.
#[derive(Debug, Default)]
pub(crate) struct Routes(Mutex<HashMap<String, Endpoint>>);

impl Routes {
    pub(crate) fn get(&self, route: Option<&str>) -> Option<Endpoint> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(route?)
            .cloned()
    }

    pub(crate) fn put(&self, route: Option<&str>, endpoint: &Endpoint) {
        let Some(route) = route else { return };
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.get(route) == Some(endpoint) {
            return;
        }
        if routes.len() >= ROUTES_MAX {
            routes.clear();
        }
        routes.insert(route.to_owned(), endpoint.clone());
    }

    pub(crate) fn forget(&self, route: Option<&str>, endpoint: &Endpoint) {
        let Some(route) = route else { return };
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.get(route) == Some(endpoint) {
            routes.remove(route);
        }
    }
}

/// What a leader is remembered by.
pub(crate) fn route_of(namespace: &str) -> Option<String> {
    namespace
        .split('/')
        .next()
        .filter(|first| !first.is_empty())
        .map(str::to_owned)
}

/// A guess at the node's own routing, for [`Client::find_leader`]: a wrong one costs a redirect, nothing else.
pub(crate) fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
