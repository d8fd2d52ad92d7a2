//! Opening a directory for reading, and what the reader found so far.

use std::path::Path;

use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_store::StoreError;
use confman_store::offline::{OfflineNode, panic_is_caught};

use crate::codes;
use crate::context::Global;

/// Looks at a directory; everything but "there is none" is a finding.
pub(super) fn open(dir: &Path, global: &Global) -> Result<OfflineNode, Failure> {
    let doing = format!("{} is read", dir.display());
    let opened = global.during_blocking(&doing, || OfflineNode::open(dir));
    let node = opened.map_err(|error| failed(dir, &error))?;
    if let Some(in_use) = &node.in_use {
        global.note(format!("{} is held by {}", dir.display(), in_use.holder));
    }
    Ok(node)
}

fn failed(dir: &Path, error: &StoreError) -> Failure {
    let missing = matches!(error, StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
    if missing {
        return codes::refuse("DIR_MISSING", ErrorKind::NotFound,
            format!("there is no directory {}", dir.display()))
        .with_hint("give the node's data directory (CONFMAN_DATA_DIR); `confman config` of that node shows it");
    }
    let text = error.to_string();
    let text = text.split("\nhint: ").next().unwrap_or_default();
    codes::refuse("DIR_UNREADABLE", ErrorKind::Usage, text)
        .with_hint("run as the user that the node runs as, and give its data directory")
}

/// redb panics on some damaged pages; the reader catches that and tells of it as a finding, so the panic's own words would
/// only frighten. Every other panic is told as ever.
pub fn keep_quiet_on_caught_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic_is_caught() {
            tell(panic);
        }
    }));
}
