//! The tree on disk, directory by directory: what is a value, and what is skipped and why.
//!
//! Links are not followed, so the walk stays below its root and ends.

use std::path::{Path, PathBuf};

use confman_store::names;
use serde::Serialize;

/// What to take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) include_git: bool,
    pub(super) value_bytes_max: u64,
}

/// One directory: one namespace.
#[derive(Debug, Default)]
pub(super) struct Dir {
    pub(super) namespace: String,
    pub(super) files: Vec<File>,
    pub(super) skips: Vec<Skip>,
}

/// One file: one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) key: String,
    pub(super) bytes: u64,
}

/// Something that was not imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Skip {
    /// Below the root, made printable where it is not UTF-8.
    pub(super) path: String,
    pub(super) reason: String,
    /// It would be missing after an export: the import is not complete.
    pub(super) lost: bool,
}

impl Skip {
    fn by_rule(path: &Path, root: &Path, reason: &str) -> Self {
        Self {
            path: shown(path, root),
            reason: reason.to_owned(),
            lost: false,
        }
    }

    pub(super) fn lost(path: &Path, root: &Path, reason: impl Into<String>) -> Self {
        Self {
            path: shown(path, root),
            reason: reason.into(),
            lost: true,
        }
    }
}

fn shown(path: &Path, root: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

/// Hands each directory to `take`, parents first, names in order, until it says `false`.
pub(super) fn walk(root: &Path, into: &str, options: Options, mut take: impl FnMut(Dir) -> bool) {
    let mut todo = vec![(root.to_owned(), into.to_owned())];
    while let Some((path, namespace)) = todo.pop() {
        let (dir, mut below) = look(root, &path, namespace, options);
        // The last pushed is the next taken.
        below.reverse();
        todo.append(&mut below);
        if !take(dir) {
            return;
        }
    }
}

type Below = Vec<(PathBuf, String)>;

fn look(root: &Path, path: &Path, namespace: String, options: Options) -> (Dir, Below) {
    let mut dir = Dir {
        namespace,
        ..Dir::default()
    };
    let mut below = Vec::new();
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) => {
            dir.skips
                .push(Skip::lost(path, root, format!("cannot be read: {e}")));
            return (dir, below);
        }
    };
    let mut children = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => children.push(entry),
            Err(e) => dir.skips.push(Skip::lost(
                path,
                root,
                format!("cannot be read to its end: {e}"),
            )),
        }
    }
    children.sort_by_key(std::fs::DirEntry::file_name);
    for child in children {
        match judge(root, &child, &dir.namespace, options) {
            Found::File(file) => dir.files.push(file),
            Found::Below(path, namespace) => below.push((path, namespace)),
            Found::Skip(skip) => dir.skips.push(skip),
        }
    }
    (dir, below)
}

enum Found {
    File(File),
    Below(PathBuf, String),
    Skip(Skip),
}

fn judge(root: &Path, child: &std::fs::DirEntry, namespace: &str, options: Options) -> Found {
    let path = child.path();
    let lost = |reason: String| Found::Skip(Skip::lost(&path, root, reason));
    let by_rule = |reason: &str| Found::Skip(Skip::by_rule(&path, root, reason));
    let Some(name) = child.file_name().to_str().map(str::to_owned) else {
        return lost("its name is not UTF-8".to_owned());
    };
    // Of the entry itself, not of what a link points at.
    let meta = match child.metadata() {
        Ok(meta) => meta,
        Err(e) => return lost(format!("cannot be read: {e}")),
    };
    if name == ".git" && !options.include_git {
        return by_rule("git's own (--include-git takes it)");
    }
    if meta.is_symlink() {
        return by_rule("a symbolic link");
    }
    if meta.is_dir() {
        let namespace = format!("{namespace}/{name}");
        return match names::check_namespace(&namespace) {
            Ok(()) => Found::Below(path, namespace),
            Err(e) => lost(format!("its name is not allowed: {e}")),
        };
    }
    if !meta.is_file() {
        return by_rule("not a file (a socket, pipe or device)");
    }
    if let Err(e) = names::check_key(&name) {
        return lost(format!("its name is not allowed: {e}"));
    }
    if meta.len() > options.value_bytes_max {
        return lost(format!(
            "too large: {} bytes, at most {}",
            meta.len(),
            options.value_bytes_max
        ));
    }
    Found::File(File {
        path,
        key: name,
        bytes: meta.len(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    const OPTIONS: Options = Options {
        include_git: false,
        value_bytes_max: 100,
    };

    fn all(root: &Path, options: Options) -> (Vec<String>, Vec<(String, bool)>) {
        let (mut files, mut skips) = (Vec::new(), Vec::new());
        walk(root, "top", options, |dir| {
            files.extend(
                dir.files
                    .iter()
                    .map(|file| format!("{}/{}", dir.namespace, file.key)),
            );
            skips.extend(
                dir.skips
                    .iter()
                    .map(|skip| (format!("{}: {}", skip.path, skip.reason), skip.lost)),
            );
            true
        });
        (files, skips)
    }

    #[test]
    fn a_tree_becomes_namespaces_and_keys_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["b/z/deep.json", "b/a.json", "a.txt", "c/x"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "1").unwrap();
        }
        let (files, skips) = all(dir.path(), OPTIONS);
        assert_eq!(
            files,
            ["top/a.txt", "top/b/a.json", "top/b/z/deep.json", "top/c/x"]
        );
        assert!(skips.is_empty(), "{skips:?}");
    }

    #[test]
    fn what_is_skipped_has_a_reason_and_only_rules_are_no_loss() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir(root.join(".git")).unwrap();
        std::fs::write(root.join(".git/config"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("sock")).unwrap();
        std::fs::write(
            root.join(std::ffi::OsString::from_vec(b"bad\xff".to_vec())),
            "x",
        )
        .unwrap();
        std::fs::write(root.join("ctrl\u{7}"), "x").unwrap();
        std::fs::write(root.join("large"), vec![b'x'; 101]).unwrap();
        std::fs::write(root.join("ok"), "x").unwrap();
        let (files, mut skips) = all(root, OPTIONS);
        assert_eq!(files, ["top/ok"]);
        skips.sort();
        let lost: Vec<_> = skips
            .iter()
            .filter(|(_, lost)| *lost)
            .map(|(text, _)| text.as_str())
            .collect();
        let by_rule: Vec<_> = skips
            .iter()
            .filter(|(_, lost)| !*lost)
            .map(|(text, _)| text.as_str())
            .collect();
        assert_eq!(
            by_rule,
            [
                ".git: git's own (--include-git takes it)",
                "link: a symbolic link",
                "sock: not a file (a socket, pipe or device)",
                "up: a symbolic link",
            ]
        );
        assert_eq!(lost.len(), 3, "{lost:?}");
        assert!(
            lost.iter()
                .any(|text| text.ends_with("its name is not UTF-8")),
            "{lost:?}"
        );
        assert!(
            lost.iter().any(|text| text.contains("control character")),
            "{lost:?}"
        );
        assert!(
            lost.contains(&"large: too large: 101 bytes, at most 100"),
            "{lost:?}"
        );
        let (files, _) = all(
            root,
            Options {
                include_git: true,
                ..OPTIONS
            },
        );
        assert_eq!(files, ["top/ok", "top/.git/config"]);
    }

    #[test]
    fn a_walk_ends_when_told() {
        let dir = tempfile::tempdir().unwrap();
        (0..5).for_each(|n| std::fs::create_dir(dir.path().join(n.to_string())).unwrap());
        let mut seen = 0;
        walk(dir.path(), "top", OPTIONS, |_| {
            seen += 1;
            seen < 2
        });
        assert_eq!(seen, 2);
    }
}
