//! Collections and plans as files: read within a bound, written whole or not at all, never over another file unasked.
//!
//! They are carried from machine to machine and into containers, and hold no secret: everybody may read them.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use confman_cli::failure::Failure;
use serde::{Deserialize, Serialize};

use crate::codes;

/// Read by all, written by the owner.
const MODE: u32 = 0o644;

/// The whole file, when it has at most `limit` bytes.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let failed = |e: std::io::Error| codes::local("read", path, &e);
    let mut bytes = Vec::new();
    // One byte more than allowed tells that it is too large.
    std::fs::File::open(path)
        .map_err(failed)?
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        let text = format!("{} has more than {limit} bytes", path.display());
        return Err(codes::usage("RECOVER_FILE", text));
    }
    Ok(bytes)
}

/// What every file of ours says of itself, read before the rest: the rest may look otherwise in a newer version.
#[derive(Deserialize)]
struct Head {
    kind: String,
    version: u32,
}

/// The version of a file that is of this kind, and not newer than what is known; the complaint if it is not.
pub(super) fn check_head(bytes: &[u8], kind: &str, newest: u32) -> Result<u32, String> {
    let head: Head = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if head.kind != kind {
        let found: String = head.kind.chars().take(60).collect();
        return Err(format!("it is a {found:?}, not a {kind:?}"));
    }
    if head.version == 0 || head.version > newest {
        return Err(format!(
            "it has version {}, this program reads up to {newest}",
            head.version
        ));
    }
    Ok(head.version)
}

/// Writes a document readably: beside the place first, then by a rename, so that it is whole or not there.
pub(super) fn write_json(
    path: &Path,
    document: &impl Serialize,
    replace: bool,
) -> Result<(), Failure> {
    let failed = |e: std::io::Error| codes::local("write", path, &e);
    if !replace && path.exists() {
        return Err(codes::usage(
            "RECOVER_FILE",
            format!("{} is there already", path.display()),
        )
        .with_hint("name another file with --out, or replace it with --force"));
    }
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    let written = serde_json::to_writer_pretty(&mut file, document)
        .map_err(std::io::Error::from)
        .and_then(|()| file.write_all(b"\n"))
        // A copy keeps the mode, and the program that reads it elsewhere is another user.
        .and_then(|()| file.as_file().set_permissions(Permissions::from_mode(MODE)))
        .and_then(|()| file.as_file().sync_all());
    written.map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_runs_the_next_command_may_read_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.json");
        for replace in [false, true] {
            write_json(&path, &["a plan"], replace).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o644);
        }
        // Nothing else is left beside it.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
