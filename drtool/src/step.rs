//! Places between two steps of a command, where a test can kill the program or hold it.

/// One such place.
pub(crate) fn step(name: &'static str) {
    fail::fail_point!(name, |file: Option<String>| match file {
        None => die(),
        Some(file) => hold(std::path::Path::new(&file)),
    });
    tracing::debug!(step = name, "done");
}

#[cfg_attr(not(feature = "failpoints"), allow(dead_code))]
fn die() {
    // As `kill -9` would: nothing is flushed, no destructor runs.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

/// Goes on when the test has made that file.
#[cfg_attr(not(feature = "failpoints"), allow(dead_code))]
fn hold(file: &std::path::Path) {
    while !file.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
