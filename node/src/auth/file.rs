//! The keys file: `{"version": 1, "keys": [{"name", "role", "hash", "createdAt"}]}`, hashes as SHA-256 in hex.
//!
//! It is changed only by replacing it: a new file, synced, renamed over the old one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize, Serializer};

use super::error::{KEYS_MAX, KeysError, NAME_CHARS_MAX, NAME_RESERVED};
use super::{Role, sha256};

/// The only format so far.
const VERSION: u32 = 1;
/// Enough for [`KEYS_MAX`] keys.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What a key starts with, so that scanners for leaked secrets can find it.
const KEY_PREFIX: &str = "confman_";

/// A key as the file tells about it; the key itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecord {
    /// Who holds it: the actor in the audit history.
    pub name: String,
    /// What it may do.
    #[serde(with = "role_word")]
    pub role: Role,
    /// When it was made.
    #[serde(serialize_with = "six_digits")]
    pub created_at: Timestamp,
}

/// A key as it is compared.
pub(super) struct StoredKey {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) hash: [u8; 32],
    created_at: Timestamp,
}

impl StoredKey {
    fn record(&self) -> KeyRecord {
        KeyRecord {
            name: self.name.clone(),
            role: self.role,
            created_at: self.created_at,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    version: u32,
    keys: Vec<Item>,
}

/// Read before the rest, so that a newer file is called that and not damaged.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Item {
    name: String,
    #[serde(with = "role_word")]
    role: Role,
    hash: String,
    #[serde(serialize_with = "six_digits")]
    created_at: Timestamp,
}

/// The role that the word means.
///
/// # Errors
/// Says which words there are.
pub(super) fn role_from_word(word: &str) -> Result<Role, String> {
    Role::ALL
        .into_iter()
        .find(|role| role.word() == word)
        .ok_or_else(|| format!("expected one of {}", Role::ALL.map(Role::word).join(", ")))
}

mod role_word {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Role, role_from_word};

    pub(super) fn serialize<S: Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(role.word())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Role, D::Error> {
        role_from_word(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// RFC 3339 with microseconds, as every time that is printed.
fn six_digits<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.6}"))
}

/// Makes a key, keeps its hash in the file (made if it is not there), and returns the key: the only time
/// that it is to be seen.
///
/// # Errors
/// When the name is wrong or taken, or the file is damaged or cannot be written. Then no key is made.
pub fn create_key(path: &Path, name: &str, role: Role) -> Result<String, KeysError> {
    create_key_from(path, name, role, rand::random(), Timestamp::now())
}

/// [`create_key`] with randomness and time given by argument.
pub(super) fn create_key_from(
    path: &Path,
    name: &str,
    role: Role,
    random: [u8; 32],
    now: Timestamp,
) -> Result<String, KeysError> {
    if !is_name(name) {
        return Err(KeysError::Name {
            name: name.to_owned(),
        });
    }
    let key = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let _lock = lock(path)?;
    let mut keys = match read(path) {
        Ok(keys) => keys,
        Err(KeysError::Missing { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    if keys.len() >= KEYS_MAX {
        return Err(KeysError::Full {
            path: path.to_owned(),
        });
    }
    if keys.iter().any(|key| key.name == name) {
        return Err(KeysError::NameTaken {
            path: path.to_owned(),
            name: name.to_owned(),
        });
    }
    keys.push(StoredKey {
        name: name.to_owned(),
        role,
        hash: sha256(&key),
        created_at: now,
    });
    write(path, &keys)?;
    Ok(key)
}

/// The keys of a file, in the order in which they were made.
///
/// # Errors
/// When the file is missing, damaged, or cannot be read.
pub fn list_keys(path: &Path) -> Result<Vec<KeyRecord>, KeysError> {
    Ok(read(path)?.iter().map(StoredKey::record).collect())
}

/// Takes a key out of the file; running nodes refuse it within about a second.
///
/// # Errors
/// When there is no key of that name, or the file is damaged or cannot be written.
pub fn revoke_key(path: &Path, name: &str) -> Result<KeyRecord, KeysError> {
    let _lock = lock(path)?;
    let mut keys = read(path)?;
    let Some(place) = keys.iter().position(|key| key.name == name) else {
        return Err(KeysError::NoSuchKey {
            path: path.to_owned(),
            name: name.to_owned(),
        });
    };
    let revoked = keys.remove(place);
    write(path, &keys)?;
    Ok(revoked.record())
}

fn is_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name != NAME_RESERVED
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'@' | b'-'))
}

/// Tells one state of the file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    // A file that was replaced within the clock's grain has another inode.
    inode: u64,
    mode: u32,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
            inode: metadata.ino(),
            mode: metadata.mode(),
        }
    }
}

/// The file's stamp; `None` while it is not there.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().as_ref().map(Stamp::of)
}

fn read(path: &Path) -> Result<Vec<StoredKey>, KeysError> {
    read_with_stamp(path).map(|(keys, _)| keys)
}

/// Reads and checks the file.
pub(super) fn read_with_stamp(path: &Path) -> Result<(Vec<StoredKey>, Stamp), KeysError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeysError::Missing {
            path: path.to_owned(),
        },
        _ => KeysError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        },
    };
    // Before opening: opening a pipe that nobody writes to waits for ever.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(KeysError::WritableByOthers {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let keys = parse(&bytes).map_err(|why| KeysError::Content {
        path: path.to_owned(),
        why,
    })?;
    Ok((keys, Stamp::of(&metadata)))
}

/// The keys in a file's bytes; what is wrong is said without any hash.
fn parse(bytes: &[u8]) -> Result<Vec<StoredKey>, String> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
    }
    let VersionOnly { version } =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version != VERSION {
        return Err(format!(
            "its version is {version}, and this confman knows {VERSION}"
        ));
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if document.keys.len() > KEYS_MAX {
        return Err(format!("it has more than {KEYS_MAX} keys"));
    }
    let mut names = std::collections::BTreeSet::new();
    let mut keys = Vec::with_capacity(document.keys.len());
    for (at, item) in (1_usize..).zip(document.keys) {
        if !is_name(&item.name) {
            return Err(format!("the name of key {at} is not one"));
        }
        let mut hash = [0; 32];
        hex::decode_to_slice(&item.hash, &mut hash)
            .map_err(|_| format!("the hash of key {at} is not 64 hexadecimal digits"))?;
        if !names.insert(item.name.clone()) {
            return Err(format!("two keys are named `{}`", item.name));
        }
        keys.push(StoredKey {
            name: item.name,
            role: item.role,
            hash,
            created_at: item.created_at,
        });
    }
    Ok(keys)
}

fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// One writer at a time, by a lock on the directory: the file itself is replaced, and a lock beside it
/// would be litter.
fn lock(path: &Path) -> Result<File, KeysError> {
    let failed = |source: io::Error| KeysError::Io {
        action: "lock",
        path: path.to_owned(),
        source,
    };
    let directory = File::open(directory(path)).map_err(failed)?;
    flock(&directory, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    Ok(directory)
}

/// Replaces the file as a whole; after a crash there is the old one or the new one.
fn write(path: &Path, keys: &[StoredKey]) -> Result<(), KeysError> {
    let items = keys.iter().map(|key| Item {
        name: key.name.clone(),
        role: key.role,
        hash: hex::encode(key.hash),
        created_at: key.created_at,
    });
    let document = Document {
        version: VERSION,
        keys: items.collect(),
    };
    let failed = |source: io::Error| KeysError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    };
    let mut bytes = serde_json::to_vec_pretty(&document).map_err(|error| failed(error.into()))?;
    bytes.push(b'\n');
    replace(path, &bytes).map_err(failed)
}

/// Replaces a small file as a whole, under the lock of its directory, readable by its owner only.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Under the lock, so that nobody else uses the name; what a crash left there is overwritten.
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("it names no file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    let temporary = directory(path).join(temporary);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory(path))?.sync_all()
}

/// Makes a token that nodes show each other in a file, readable by its owner only, unless the file is there. Whether it
/// was made.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn create_token(path: &Path) -> Result<bool, KeysError> {
    create_token_from(path, rand::random())
}

/// [`create_token`] with randomness given by argument.
pub(super) fn create_token_from(path: &Path, random: [u8; 32]) -> Result<bool, KeysError> {
    let failed = |source: io::Error| KeysError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    };
    let _lock = lock(path)?;
    match fs::symlink_metadata(path) {
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let token = format!("{}\n", URL_SAFE_NO_PAD.encode(random));
    replace(path, token.as_bytes()).map_err(failed)?;
    Ok(true)
}
