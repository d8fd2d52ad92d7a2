//! What the two programs, `confman` and `drtool`, share at the terminal.
//!
//! - [`connect`]: from options and environment to a client of the cluster.
//! - [`failure`]: how a command ends that did not do all it was asked, with the one table of exit codes.
//! - [`output`]: tables, one JSON document, bytes as people read them.
//! - [`escape`]: text from elsewhere, made harmless for a terminal.
//! - [`transcript`]: the help as it is printed, for tests.
//! - [`tree`]: a directory that files are written below, whatever their names are.
//!
//! Promises: what has `--json` prints one document on stdout and everything else on stderr; no text of a cluster
//! can steer a terminal. Does not: know a command, a node or a store.

pub mod connect;
pub mod escape;
pub mod failure;
pub mod output;
pub mod transcript;
pub mod tree;

/// The version of both programs, as `--version`, `status` and the metrics tell it: the packages', or what `BUILD_VERSION` said when
/// they were built, such as `0.1.0+1a2b3c4`, so that two builds of one version can be told apart.
// Not a CONFMAN_* name: those are settings of the programs, and an unknown one is an error to every command.
pub const VERSION: &str = match option_env!("BUILD_VERSION") {
    Some(named) if !named.is_empty() => named,
    _ => env!("CARGO_PKG_VERSION"),
};
