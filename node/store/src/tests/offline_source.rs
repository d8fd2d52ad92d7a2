//! I16, held from the outside: the source of the offline room has no way to write, and this test can tell.

use std::path::{Path, PathBuf};

/// What opens for writing, writes, creates, renames or removes, or leads to something that does.
const FORBIDDEN: &[&str] = &[
    "OpenOptions",
    "File::create",
    "File::options",
    "create_new",
    "DirBuilder",
    "set_permissions",
    ".set_len(",
    "write_at",
    "write_all",
    "io::Write",
    "WRONLY",
    "RDWR",
    "TRUNC",
    "OFlags::CREATE",
    "APPEND",
    "fallocate",
    "unlink",
    "sync_dir",
    "write_atomically",
    "DataDir::",
    "GroupStore",
    "LogStore",
    "StateDb",
    "surgery::",
    "ChunkedWal",
    "RaftLog::",
    "acquire_lock",
    "begin_write",
    "WriteTransaction",
    "Database::open",
    "Database::create",
    ".create(",
    "Command::new",
    "include!",
    "#[path",
];

/// All that the room may name of a module called `fs`.
const FROM_FS: &[&str] = &[
    "File",
    "DirEntry",
    "FileExt",
    "symlink_metadata",
    "read_dir",
    // rustix, in `file` only, with the flags that stand there.
    "open",
    "flock",
    "FlockOperation",
    "Mode",
    "OFlags",
];

/// Source less its comments, file by file.
fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for item in std::fs::read_dir(dir).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code: Vec<&str> = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            all.push((path, code.join("\n")));
        }
    }
    all
}

/// The names that stand behind `fs::`, in braces too.
fn named_of_fs(code: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, found) in code.match_indices("fs::") {
        // `Ffs::` is another word.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + found.len()..];
        let list = match rest.strip_prefix('{') {
            Some(inside) => inside.split('}').next().unwrap_or_default(),
            None => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
                &rest[..end.unwrap_or(rest.len())]
            }
        };
        names.extend(
            list.split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty()),
        );
        if list.is_empty() {
            names.push("*");
        }
    }
    names
}

/// What is wrong with one file.
fn offences(path: &Path, code: &str) -> Vec<String> {
    let is_file = path.ends_with("file.rs");
    let mut wrong = Vec::new();
    let mut say = |what: &str| wrong.push(format!("{}: {what}", path.display()));
    for word in FORBIDDEN {
        if code.contains(word) {
            say(word);
        }
    }
    for name in named_of_fs(code) {
        if !FROM_FS.contains(&name) {
            say(&format!("fs::{name}"));
        }
    }
    // A whole module in a short name would hide what is taken from it.
    for hidden in [
        "use std::fs;",
        "use rustix::fs;",
        "use std::{fs",
        "tokio::fs",
        "fs as ",
    ] {
        if code.contains(hidden) {
            say(hidden);
        }
    }
    let ours = code.matches("ReadFile::open(").count();
    let opens = code.matches("fs::open(").count() + code.matches("File::open(").count() - ours;
    if opens != usize::from(is_file) {
        say(&format!("{opens} places open files"));
    }
    if is_file
        && !code.contains(
            "let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;",
        )
    {
        say("the flags of the one open are others");
    }
    // The one way to a database is through the overlay.
    if code.matches("create_with_backend(").count()
        != code.matches("create_with_backend(Overlay::new(").count()
    {
        say("a database that is not behind the overlay");
    }
    wrong
}

#[test]
fn i16_nothing_in_the_offline_room_can_write() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/offline");
    let sources = sources(&dir);
    assert!(sources.len() > 10);
    let wrong: Vec<String> = sources
        .iter()
        .flat_map(|(path, code)| offences(path, code))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each way to write that somebody could add is told of.
#[test]
fn i16_the_check_of_the_room_can_fail() {
    let file =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/offline/file.rs"))
            .unwrap();
    assert_eq!(offences(Path::new("file.rs"), &file), Vec::<String>::new());
    let planted = [
        "std::fs::write(path, bytes)?;",
        "fs::rename(a, b)?;",
        "use std::fs::{File, remove_file};",
        "use std::fs::*;",
        "use std::fs;",
        "use std::fs as disk;",
        "std::fs::OpenOptions::new().append(true)",
        "File::options().write(true)",
        "File::open(path)?;",
        "rustix::fs::open(path, OFlags::RDWR, mode)",
        "rustix::fs::ftruncate(file, 0)",
        "file.write_all(b\"x\")?;",
        "file.set_len(0)?;",
        "Database::open(path)",
        "Database::builder().create_with_backend(file)",
        "builder.create(path)",
        "let log = LogStore::open(dir)?;",
        "DataDir::open(path)?.end_surgery()",
        "crate::surgery::operate(dir, &operation)",
        "std::process::Command::new(\"rm\")",
    ];
    for line in planted {
        let wrong = offences(Path::new("state.rs"), &format!("fn f() {{ {line} }}"));
        assert!(!wrong.is_empty(), "not told of: {line}");
    }
    let flags = file.replace("OFlags::RDONLY |", "OFlags::RDWR |");
    assert!(!offences(Path::new("file.rs"), &flags).is_empty());
}
