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
    remedy: "Run it as that user, with the node's environment: `setpriv --reuid UID --regid GID --clear-groups drtool ...` keeps it, `sudo` does not unless it is told to. The files that it reads must be readable for that user.",
}];

/// What says who the node runs as, the first that is there. Not the directory itself, which may be a volume's and somebody else's.
const WITNESSES: [&str; 3] = ["identity", "groups", "surgery"];

/// Refuses to go on as root in a directory that the node of another user has written.
///
/// # Errors
/// `DIRECTORY_OWNER`; or the directory cannot be looked at.
pub(crate) fn refuse_stranger(dir: &Path) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let told = |e| codes::local("look at", dir, &e);
    let Some(owner) = owner(dir).map_err(told)? else {
        return Ok(());
    };
    // A network's or a container's file system may give what root writes to somebody else.
    let own = tempfile::tempfile_in(dir).and_then(|file| file.metadata());
    refuse(dir, own.map_err(told)?.uid(), owner)
}

/// `own`: whose is what this process writes there.
fn refuse(dir: &Path, own: u32, owner: Owner) -> Result<(), Failure> {
    if own != 0 || owner.user == 0 {
        return Ok(());
    }
    let Owner { user, group } = owner;
    Err(codes::refuse(
        "DIRECTORY_OWNER",
        ErrorKind::Refused,
        format!(
            "{}: the node runs as user {user} and this runs as root: the node could not open what it writes; nothing was done",
            dir.display()
        ),
    )
    .with_hint(format!(
        "put `setpriv --reuid {user} --regid {group} --clear-groups` before the same command: it keeps the environment, which names the store"
    )))
}

/// Who wrote a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    user: u32,
    group: u32,
}

/// Whose files lie in the directory; none where none lies there.
fn owner(dir: &Path) -> io::Result<Option<Owner>> {
    for name in WITNESSES {
        match std::fs::symlink_metadata(dir.join(name)) {
            Ok(found) => {
                let (user, group) = (found.uid(), found.gid());
                return Ok(Some(Owner { user, group }));
            }
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
        let of = |user| Owner { user, group: 7 };
        refuse(at, 0, of(0)).unwrap();
        // What root writes there is that user's, as on a network's file system.
        refuse(at, 10_001, of(10_001)).unwrap();
        let refused = refuse(at, 0, of(10_001)).unwrap_err();
        let document = refused.document().unwrap();
        assert_eq!(document["error"]["code"], "DIRECTORY_OWNER");
        let hint = document["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("--reuid 10001 --regid 7"), "{hint}");
    }

    #[test]
    fn the_node_is_known_by_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let user = || owner(dir.path()).unwrap().map(|owner| owner.user);
        let own = std::fs::metadata(dir.path()).unwrap().uid();
        assert_eq!(user(), None);
        std::fs::write(dir.path().join("identity"), "").unwrap();
        assert_eq!(user(), Some(own));
        refuse_stranger(dir.path()).unwrap();
        assert_eq!(owner(&dir.path().join("absent")).unwrap(), None);
        if std::os::unix::fs::chown(dir.path().join("identity"), Some(10_001), None).is_ok() {
            // Not the directory's: where a container's root runs the node on a folder of somebody else, root may go on.
            assert_eq!(user(), Some(10_001));
            refuse_stranger(dir.path()).unwrap_err();
        }
    }
}
