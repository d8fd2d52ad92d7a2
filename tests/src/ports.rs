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
