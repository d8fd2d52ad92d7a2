//! Whether the disk has room for the repaired copy, asked before anything is claimed or written.

use std::path::Path;

use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_store::{DataDir, DataPaths};

use super::alive::undo_command;
use super::copy;
use super::directory;
use super::plan::Plan;
use super::role::Standing;
use super::sources::Sources;

use crate::codes;

/// What the new life adds to the copy before its node starts: an entry, a vote and the small files, with room to spare.
const MARGIN: u64 = 4 << 20;

/// Refuses when what is going to be copied does not fit.
pub(super) fn check(
    data: &DataDir,
    plan: &Plan,
    sources: &Sources,
    standing: Standing,
) -> Result<(), Failure> {
    let root = data.paths().root();
    let mut needed = MARGIN;
    for group in &plan.groups {
        let from = sources.root_of(group.from.id).unwrap_or(root);
        needed += copy::needed(&DataPaths::new(from).group(&group.group), root)?;
    }
    match free_bytes(root) {
        Some(free) => {
            // What was begun here keeps its number claimed, and whoever sees the claim fences itself.
            let begun = matches!(standing, Standing::Begun(_));
            judge(root, needed, free, begun.then(|| undo_command(plan, root)))
        }
        // The copy will find out.
        None => Ok(()),
    }
}

fn free_bytes(root: &Path) -> Option<u64> {
    // A disk that is as full as a test says.
    fail::fail_point!("room::free", |bytes| bytes.and_then(|b| b.parse().ok()));
    directory::free_bytes(root)
}

fn judge(root: &Path, needed: u64, free: u64, undo: Option<String>) -> Result<(), Failure> {
    if needed <= free {
        return Ok(());
    }
    let text = format!(
        "{} has {} free, and the repaired copy needs {}",
        root.display(),
        output::bytes(free),
        output::bytes(needed)
    );
    let room = format!(
        "make room for {} more, or copy the whole directory to a larger disk, point CONFMAN_DATA_DIR there and apply the plan to that one",
        output::bytes(needed - free)
    );
    let hint = match undo {
        Some(undo) => format!("{room}; or take back what was begun here: {undo}"),
        None => room,
    };
    Err(codes::refuse("RECOVER_SPACE", ErrorKind::Refused, text).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_just_fits_is_enough_and_a_byte_more_is_not() {
        let root = Path::new("/data");
        judge(root, 5 << 20, 5 << 20, None).unwrap();
        let refused = judge(root, (5 << 20) + 1, 5 << 20, None).unwrap_err();
        assert!(refused.to_string().contains("needs 5.0 MiB"), "{refused}");
    }
}
