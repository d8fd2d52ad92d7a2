//! Places between two steps of a command, where a test can kill the program.

/// One such place.
pub(crate) fn step(name: &'static str) {
    fail::fail_point!(name, |_| die());
    tracing::debug!(step = name, "done");
}

#[cfg_attr(not(feature = "failpoints"), allow(dead_code))]
fn die() {
    // As `kill -9` would: nothing is flushed, no destructor runs.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
