//! Whose a data directory is: what root writes into one of another user, that user's node cannot open on the next start.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use confman_cli::failure::Failure;
use confman_client::ErrorKind;

use crate::codes::{self, Code};

/// The refusals of this room.
pub(crate) const CODES: &[Code] = &[Code {
    name: "DIRECTORY_OWNER",
    meaning: "The command runs as root and would change a data directory whose node runs as another user: that node could not open what root had written, and would not start.",
    remedy: "Run it as that user: `sudo -u '#UID' drtool ...`, or by the user's name. The files that it reads must be readable for that user.",
}];

/// What says who the node runs as, the first that is there.
const WITNESSES: [&str; 3] = ["identity", "groups", "."];

/// Refuses to go on as root in a directory that the node of another user has written.
///
/// # Errors
/// `DIRECTORY_OWNER`; or the directory cannot be looked at.
pub(crate) fn refuse_stranger(dir: &Path) -> Result<(), Failure> {
    let owner = owner(dir).map_err(|e| codes::local("look at", dir, &e))?;
    refuse(dir, rustix::process::geteuid().as_raw(), owner)
}

fn refuse(dir: &Path, own: u32, owner: Option<u32>) -> Result<(), Failure> {
    let Some(owner) = owner.filter(|owner| own == 0 && *owner != 0) else {
        return Ok(());
    };
    Err(codes::refuse(
        "DIRECTORY_OWNER",
        ErrorKind::Refused,
        format!(
            "{}: the node runs as user {owner} and this runs as root: the node could not open what it writes; nothing was done",
            dir.display()
        ),
    )
    .with_hint(format!("run it again with `sudo -u '#{owner}'` before it")))
}

/// The user whose files lie in the directory; none where it is not there.
fn owner(dir: &Path) -> io::Result<Option<u32>> {
    for name in WITNESSES {
        match std::fs::symlink_metadata(dir.join(name)) {
            Ok(found) => return Ok(Some(found.uid())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_writes_only_where_root_runs_the_node() {
        let at = Path::new("/data");
        refuse(at, 0, Some(0)).unwrap();
        refuse(at, 0, None).unwrap();
        // Whoever is not root gets the system's own answer, where it is no.
        refuse(at, 1000, Some(10_001)).unwrap();
        let refused = refuse(at, 0, Some(10_001)).unwrap_err();
        let document = refused.document().unwrap();
        assert_eq!(document["error"]["code"], "DIRECTORY_OWNER");
        let hint = document["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("'#10001'"), "{hint}");
    }

    #[test]
    fn the_node_is_known_by_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::fs::metadata(dir.path()).unwrap().uid();
        assert_eq!(owner(dir.path()).unwrap(), Some(own));
        std::fs::write(dir.path().join("identity"), "").unwrap();
        assert_eq!(owner(dir.path()).unwrap(), Some(own));
        assert_eq!(owner(&dir.path().join("absent")).unwrap(), None);
        if std::os::unix::fs::chown(dir.path().join("identity"), Some(10_001), None).is_ok() {
            // Not the directory's: where a container's root runs the node on a folder of somebody else, root may go on.
            assert_eq!(owner(dir.path()).unwrap(), Some(10_001));
        }
    }
}
