//! The keys of the state: built and parsed here, nowhere else.
//!
//! The first byte says the kind. Names end in a zero byte where something follows (no name holds one), numbers are
//! big-endian, so that the order of the bytes is the order that readers want.
//!
//! | kind | rest of the key | value |
//! |---|---|---|
//! | `00` | | [`FactsRecord`](crate::records::FactsRecord) |
//! | `01` | | [`ClusterRecord`](crate::records::ClusterRecord) |
//! | `02` | node id | [`NodeRecord`](crate::records::NodeRecord) |
//! | `03` | group | [`SnapshotTask`](crate::records::SnapshotTask) |
//! | `04` | group | [`SnapshotFailure`](crate::records::SnapshotFailure) |
//! | `05` | snapshot id | [`SnapshotFactRecord`](crate::records::SnapshotFactRecord) |
//! | `06` | node name | [`ExpectedRecord`](crate::membership::ExpectedRecord) |
//! | `07` | | [`ChangeRecord`](crate::membership::ChangeRecord) |
//! | `08` | | [`IncarnationRecord`](crate::records::IncarnationRecord) |
//! | `10` | namespace | [`NamespaceRecord`](crate::records::NamespaceRecord) |
//! | `11` | namespace 0 key | [`EntryRecord`](crate::records::EntryRecord) |
//! | `12` | namespace 0 key | [`TombstoneRecord`](crate::records::TombstoneRecord) |
//! | `20` | upload id, part | the bytes of the part |
//! | `21` | upload id | [`UploadRecord`](crate::records::UploadRecord) |
//! | `22` | due time, upload id | [`GarbageRecord`](crate::records::GarbageRecord) |
//! | `30` | index, sub | [`AuditRecord`](crate::records::AuditRecord) |
//! | `31` | namespace 0 index, sub | nothing: the audit of a namespace, in order |
//! | `40` | actor 0 idempotency key | [`IdempotencyRecord`](crate::records::IdempotencyRecord) |
//! | `41` | index | the key of the idempotency record made there: the order of eviction |

use crate::records::AuditRef;

/// Size of an upload id in bytes.
pub const UPLOAD_ID_BYTES: usize = 16;

pub(crate) const FACTS: u8 = 0x00;
pub(crate) const CLUSTER: u8 = 0x01;
pub(crate) const NODE: u8 = 0x02;
pub(crate) const TASK: u8 = 0x03;
pub(crate) const FAILURE: u8 = 0x04;
/// The kind of a recorded snapshot.
pub const SNAPSHOT: u8 = 0x05;
pub(crate) const EXPECTED: u8 = 0x06;
pub(crate) const CHANGE: u8 = 0x07;
pub(crate) const INCARNATION: u8 = 0x08;
/// The kind of a namespace.
pub const NAMESPACE: u8 = 0x10;
/// The kind of an entry.
pub const ENTRY: u8 = 0x11;
/// The kind of what stays of a deleted entry.
pub const TOMBSTONE: u8 = 0x12;
pub(crate) const PART: u8 = 0x20;
pub(crate) const UPLOAD: u8 = 0x21;
pub(crate) const GARBAGE: u8 = 0x22;
/// The kind of an audit record.
pub const AUDIT: u8 = 0x30;
pub(crate) const AUDIT_BY_NAMESPACE: u8 = 0x31;
pub(crate) const IDEMPOTENCY: u8 = 0x40;
pub(crate) const IDEMPOTENCY_ORDER: u8 = 0x41;

fn build(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    key.push(kind);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// The one record of small facts.
pub fn facts() -> Vec<u8> {
    vec![FACTS]
}

/// The one record of the cluster.
pub fn cluster() -> Vec<u8> {
    vec![CLUSTER]
}

/// A node.
pub fn node(id: u64) -> Vec<u8> {
    build(NODE, &[&id.to_be_bytes()])
}

/// The snapshot task of a group.
pub fn task(group: &str) -> Vec<u8> {
    build(TASK, &[group.as_bytes()])
}

/// The last failure of a group's snapshot task.
pub fn failure(group: &str) -> Vec<u8> {
    build(FAILURE, &[group.as_bytes()])
}

/// A snapshot.
pub fn snapshot(id: &str) -> Vec<u8> {
    build(SNAPSHOT, &[id.as_bytes()])
}

/// A name that may join.
pub fn expected(name: &str) -> Vec<u8> {
    build(EXPECTED, &[name.as_bytes()])
}

/// The one record of the membership's change.
pub fn change() -> Vec<u8> {
    vec![CHANGE]
}

/// The life of the cluster that the group is in.
pub fn incarnation() -> Vec<u8> {
    vec![INCARNATION]
}

/// A namespace.
pub fn namespace(path: &str) -> Vec<u8> {
    build(NAMESPACE, &[path.as_bytes()])
}

/// An entry.
pub fn entry(namespace: &str, key: &str) -> Vec<u8> {
    build(ENTRY, &[namespace.as_bytes(), &[0], key.as_bytes()])
}

/// Where the entries of a namespace begin.
pub fn entries_of(namespace: &str) -> Vec<u8> {
    build(ENTRY, &[namespace.as_bytes(), &[0]])
}

/// Where the entries of all namespaces below a namespace begin.
pub fn entries_below(namespace: &str) -> Vec<u8> {
    build(ENTRY, &[namespace.as_bytes(), b"/"])
}

/// Where the namespaces below a namespace begin.
pub fn namespaces_below(namespace: &str) -> Vec<u8> {
    build(NAMESPACE, &[namespace.as_bytes(), b"/"])
}

/// What stays of a deleted entry.
pub fn tombstone(namespace: &str, key: &str) -> Vec<u8> {
    build(TOMBSTONE, &[namespace.as_bytes(), &[0], key.as_bytes()])
}

/// Namespace and key of [`entry`] or [`tombstone`].
pub fn parse_entry(key: &[u8]) -> Option<(&str, &str)> {
    let rest = match key.split_first()? {
        (&(ENTRY | TOMBSTONE), rest) => rest,
        _ => return None,
    };
    let zero = rest.iter().position(|b| *b == 0)?;
    Some((
        str::from_utf8(&rest[..zero]).ok()?,
        str::from_utf8(&rest[zero + 1..]).ok()?,
    ))
}

/// The path of [`namespace`].
pub fn parse_namespace(key: &[u8]) -> Option<&str> {
    match key.split_first()? {
        (&NAMESPACE, path) => str::from_utf8(path).ok(),
        _ => None,
    }
}

/// One part of a value.
pub fn part(upload_id: &[u8], part: u32) -> Vec<u8> {
    build(PART, &[upload_id, &part.to_be_bytes()])
}

/// A value that is being staged.
pub fn upload(upload_id: &[u8]) -> Vec<u8> {
    build(UPLOAD, &[upload_id])
}

/// Something in the garbage queue. Times before 1970 sort first.
pub fn garbage(due_us: i64, upload_id: &[u8]) -> Vec<u8> {
    build(GARBAGE, &[&due_us.max(0).to_be_bytes(), upload_id])
}

/// Due time and upload id of [`garbage`].
pub fn parse_garbage(key: &[u8]) -> Option<(i64, &[u8])> {
    let rest = key.strip_prefix(&[GARBAGE])?;
    let (due, id) = rest.split_first_chunk::<8>()?;
    Some((i64::from_be_bytes(*due), id))
}

fn place(at: AuditRef) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&at.index.to_be_bytes());
    bytes[8..].copy_from_slice(&at.sub.to_be_bytes());
    bytes
}

fn parse_place(bytes: &[u8]) -> Option<AuditRef> {
    let (index, sub) = bytes.split_first_chunk::<8>()?;
    Some(AuditRef {
        index: u64::from_be_bytes(*index),
        sub: u32::from_be_bytes(sub.try_into().ok()?),
    })
}

/// An audit record.
pub fn audit(at: AuditRef) -> Vec<u8> {
    build(AUDIT, &[&place(at)])
}

/// The place of [`audit`].
pub fn parse_audit(key: &[u8]) -> Option<AuditRef> {
    parse_place(key.strip_prefix(&[AUDIT])?)
}

/// An audit record in the order of its namespace.
pub fn audit_by_namespace(namespace: &str, at: AuditRef) -> Vec<u8> {
    build(
        AUDIT_BY_NAMESPACE,
        &[namespace.as_bytes(), &[0], &place(at)],
    )
}

/// The place of [`audit_by_namespace`].
pub fn parse_audit_by_namespace(key: &[u8]) -> Option<AuditRef> {
    parse_place(key.get(key.len().checked_sub(12)?..)?)
}

/// What is kept of a command with an idempotency key.
pub fn idempotency(actor: &str, key: &str) -> Vec<u8> {
    build(IDEMPOTENCY, &[actor.as_bytes(), &[0], key.as_bytes()])
}

/// The place of an idempotency record in the order of eviction.
pub fn idempotency_order(index: u64) -> Vec<u8> {
    build(IDEMPOTENCY_ORDER, &[&index.to_be_bytes()])
}

/// What kind of record stands under keys that begin with this byte, in a word or two; none for a kind that this version
/// does not know.
pub fn kind(first: u8) -> Option<&'static str> {
    Some(match first {
        FACTS => "facts",
        CLUSTER => "cluster",
        NODE => "node",
        TASK => "snapshot task",
        FAILURE => "snapshot failure",
        SNAPSHOT => "snapshot",
        EXPECTED => "expected node",
        CHANGE => "membership change",
        INCARNATION => "incarnation",
        NAMESPACE => "namespace",
        ENTRY => "entry",
        TOMBSTONE => "tombstone",
        PART => "part of a value",
        UPLOAD => "upload",
        GARBAGE => "garbage",
        AUDIT => "audit event",
        AUDIT_BY_NAMESPACE => "audit index",
        IDEMPOTENCY => "idempotency key",
        IDEMPOTENCY_ORDER => "idempotency order",
        _ => return None,
    })
}

/// A key as people read it: its kind and its name. What is no key of ours is shown in hexadecimal.
pub fn describe(key: &[u8]) -> String {
    let raw = || hex::encode(&key[..key.len().min(64)]);
    let Some((first, rest)) = key.split_first() else {
        return "an empty key".to_owned();
    };
    let Some(kind) = kind(*first) else {
        return format!("unknown {}", raw());
    };
    let number = || rest.try_into().ok().map(u64::from_be_bytes);
    let text = || str::from_utf8(rest).ok().map(str::to_owned);
    let place = |at: AuditRef| format!("{}.{}", at.index, at.sub);
    let pair = |rest: &[u8]| {
        let zero = rest.iter().position(|b| *b == 0)?;
        let first = str::from_utf8(&rest[..zero]).ok()?;
        let second = str::from_utf8(&rest[zero + 1..]).ok()?;
        Some(format!("{first}/{second}"))
    };
    let name = match *first {
        FACTS | CLUSTER | CHANGE | INCARNATION if rest.is_empty() => return kind.to_owned(),
        NODE | IDEMPOTENCY_ORDER => number().map(|n| n.to_string()),
        TASK | FAILURE | SNAPSHOT | EXPECTED | NAMESPACE => text(),
        ENTRY | TOMBSTONE | IDEMPOTENCY => pair(rest),
        PART => rest
            .split_last_chunk::<4>()
            .map(|(id, part)| format!("{} {}", hex::encode(id), u32::from_be_bytes(*part))),
        UPLOAD => Some(hex::encode(rest)),
        GARBAGE => parse_garbage(key).map(|(due, id)| format!("{} due {due}", hex::encode(id))),
        AUDIT => parse_audit(key).map(place),
        AUDIT_BY_NAMESPACE => parse_audit_by_namespace(key).and_then(|at| {
            let namespace = rest.get(..rest.len().checked_sub(13)?)?;
            Some(format!("{} {}", str::from_utf8(namespace).ok()?, place(at)))
        }),
        _ => None,
    };
    format!("{kind} {}", name.unwrap_or_else(raw))
}

/// The first key after all that begin with `prefix`; none when there is no such key.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}
