//! Ports for test clusters.
//!
//! They are taken below the range from which the system gives ports to outgoing connections: while a node is down,
//! nobody else can happen to get its port.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::bail;

const FIRST: u16 = 15_000;
const COUNT: u16 = 16_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Below those: where the nodes of `confman dev` are.
const DEV_FIRST: u16 = 7_000;
/// From one node's two ports to the next one's: `confman dev` says so.
const DEV_STEP: u16 = 100;
const DEV_NODES_MAX: u16 = 5;
/// How many clusters fit between two nodes of one.
const DEV_CLUSTERS: u16 = DEV_STEP / 2;
/// Processes that run at the same time are in one of so many places.
const DEV_PLACES: u16 = 5;

static NEXT_DEV: AtomicU16 = AtomicU16::new(0);

/// A loopback port that is free, and that this process does not give out again soon.
///
/// # Errors
/// None is free.
pub fn free_port() -> anyhow::Result<u16> {
    // Processes start at different places, so that test binaries that run at the same time rarely meet.
    let start =
        u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT)).unwrap_or_default();
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// What `confman dev --port-base` takes for up to five nodes. Any free ones (`--port-base 0`) are free until somebody takes them, and
/// tests that start at the same moment take them from each other.
///
/// # Errors
/// None is free.
pub fn dev_port_base() -> anyhow::Result<String> {
    let place = u16::try_from(std::process::id() % u32::from(DEV_PLACES)).unwrap_or_default();
    for _ in 0..DEV_CLUSTERS {
        let cluster = NEXT_DEV.fetch_add(1, Ordering::Relaxed) % DEV_CLUSTERS;
        let base = DEV_FIRST + place * DEV_NODES_MAX * DEV_STEP + cluster * 2;
        let nodes = (0..DEV_NODES_MAX).map(|node| base + node * DEV_STEP);
        let mut ports = nodes.flat_map(|api| [api, api + 1]);
        if ports.all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return Ok(base.to_string());
        }
    }
    bail!("no free ports for a cluster of confman dev from {DEV_FIRST} on")
}
