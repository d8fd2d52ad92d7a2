//! Entries, their values, tombstones and namespaces.

use bytes::Bytes;
use confman_snapshot::{ValueHasher, value_hash};

use super::{Ctx, Looked, codes, keys};
use crate::names::{check_key, check_namespace, parent};
use crate::records::{
    AuditRecord, AuditRef, BlobRef, EntryHead, EntryRecord, GarbageRecord, NamespaceRecord,
    StoredContent, TombstoneRecord, UploadRecord, ValueType,
};

/// Namespaces, in order. Those that the current path begins with are open: a parent comes before its children, and what
/// stands between begins with it too, so that no more are open than a path has bytes.
#[derive(Default)]
pub(super) struct Namespaces {
    open: Vec<Open>,
    keys: u64,
}

struct Open {
    path: String,
    record: NamespaceRecord,
    children: u64,
}

impl Namespaces {
    pub(super) fn take(&mut self, ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
        let Some(path) = keys::parse_namespace(key).filter(|p| check_namespace(p).is_ok()) else {
            return ctx.damaged(key, "no namespace may have this name");
        };
        let Some(record) = ctx.decode::<NamespaceRecord>(key, value) else {
            return;
        };
        while let Some(last) = self.open.pop_if(|open| !path.starts_with(&open.path)) {
            close(ctx, &last);
        }
        if let Some(above) = parent(path) {
            match self.open.iter_mut().rev().find(|open| open.path == above) {
                Some(open) => open.children += 1,
                None => ctx.error(
                    codes::RECORDS_DISAGREE,
                    format!("there is a namespace {path} and none above it ({above})"),
                ),
            }
        }
        self.keys = self.keys.saturating_add(record.keys);
        self.open.push(Open {
            path: path.to_owned(),
            record,
            children: 0,
        });
    }

    /// How many keys all namespaces say that they hold.
    pub(super) fn end(self, ctx: &mut Ctx<'_>) -> u64 {
        for open in self.open.iter().rev() {
            close(ctx, open);
        }
        self.keys
    }
}

fn close(ctx: &mut Ctx<'_>, open: &Open) {
    if open.children != open.record.children {
        ctx.error(
            codes::RECORDS_DISAGREE,
            format!(
                "namespace {} says that {} namespaces are directly below it, there are {}",
                open.path, open.record.children, open.children
            ),
        );
    }
}

/// Entries, in order: those of one namespace stand together.
#[derive(Default)]
pub(super) struct Entries {
    namespace: String,
    count: u64,
    total: u64,
    wrong_counts: bool,
    parts_expected: u64,
    pub(super) parts_found: u64,
}

impl Entries {
    pub(super) fn entry(&mut self, ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
        let Some((namespace, name)) = keys::parse_entry(key) else {
            return ctx.damaged(key, "it has no name");
        };
        if check_namespace(namespace).is_err() || check_key(name).is_err() {
            return ctx.damaged(key, "no entry may have this name");
        }
        if namespace != self.namespace {
            self.close(ctx);
            namespace.clone_into(&mut self.namespace);
        }
        self.count += 1;
        self.total += 1;
        if ctx.has(&keys::tombstone(namespace, name)) {
            ctx.error(
                codes::RECORDS_DISAGREE,
                format!("{namespace}/{name} is there and deleted at once"),
            );
        }
        let Some(record) = ctx.decode::<EntryRecord>(key, value) else {
            return;
        };
        let Some(head) = &record.head else {
            return ctx.damaged(key, "it has no head");
        };
        if head.version == 0
            || ValueType::try_from(head.value_type).is_err()
            || head.updated_us < head.created_us
        {
            ctx.damaged(key, "version, type or times cannot be");
        }
        self.value(ctx, key, &record, head);
        let change = Named {
            namespace,
            key: name,
            version: head.version,
            hash: &head.hash,
        };
        change.check(ctx, record.changed);
    }

    fn value(&mut self, ctx: &mut Ctx<'_>, key: &[u8], record: &EntryRecord, head: &EntryHead) {
        match &record.content {
            None => ctx.damaged(key, "it has no value"),
            Some(StoredContent::Inline(bytes)) => {
                if bytes.len() as u64 != head.size || value_hash(bytes).as_slice() != head.hash {
                    ctx.damaged(key, "size or hash is not that of its value");
                }
            }
            Some(StoredContent::Blob(blob)) => {
                self.parts_expected += u64::from(blob.parts);
                if let Some(wrong) = wrong_parts(ctx, blob, head) {
                    ctx.damaged(key, &wrong);
                }
            }
        }
    }

    pub(super) fn upload(&mut self, ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
        if let Some(upload) = ctx.decode::<UploadRecord>(key, value) {
            self.parts_expected += u64::from(upload.parts);
        }
    }

    pub(super) fn garbage(&mut self, ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
        if let Some(item) = ctx.decode::<GarbageRecord>(key, value)
            && !item.staged
        {
            self.parts_expected += u64::from(item.parts.saturating_sub(item.removed));
        }
    }

    /// The keys of one namespace are counted: its record must say the same.
    fn close(&mut self, ctx: &mut Ctx<'_>) {
        let count = std::mem::take(&mut self.count);
        if count == 0 {
            return;
        }
        let said = match ctx.look::<NamespaceRecord>(&keys::namespace(&self.namespace)) {
            Looked::Found(record) if record.keys == count => return,
            Looked::Found(record) => format!("it says {}", record.keys),
            Looked::Missing => "there is no such namespace".to_owned(),
            Looked::Unreadable => return,
        };
        self.wrong_counts = true;
        let what = format!("namespace {} holds {count} keys, {said}", self.namespace);
        ctx.error(codes::RECORDS_DISAGREE, what);
    }

    pub(super) fn end(mut self, ctx: &mut Ctx<'_>, keys_counted: u64) {
        self.close(ctx);
        if !self.wrong_counts && keys_counted != self.total {
            ctx.error(
                codes::RECORDS_DISAGREE,
                format!(
                    "all namespaces say that they hold {keys_counted} keys, there are {}",
                    self.total
                ),
            );
        }
        if self.parts_expected != self.parts_found {
            ctx.warning(
                codes::RECORDS_DISAGREE,
                format!(
                    "there are {} parts of values, entries, uploads and garbage speak of {}",
                    self.parts_found, self.parts_expected
                ),
            );
        }
    }
}

/// Reads a value in parts; what is wrong with it.
fn wrong_parts(ctx: &Ctx<'_>, blob: &BlobRef, head: &EntryHead) -> Option<String> {
    let mut hasher = ValueHasher::new();
    let mut size = 0;
    for number in 0..blob.parts {
        match ctx.view.get(&keys::part(&blob.id, number)) {
            Ok(Some(bytes)) => {
                hasher.update(&bytes);
                size += bytes.len() as u64;
            }
            Ok(None) => {
                return Some(format!("part {number} of {} is missing", blob.parts));
            }
            // The pass over all parts tells of it.
            Err(_) => return None,
        }
    }
    let sound = size == blob.size && size == head.size && hasher.finish().as_slice() == head.hash;
    (!sound).then(|| "size or hash is not that of its parts".to_owned())
}

pub(super) fn tombstone(ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
    let Some((namespace, name)) = keys::parse_entry(key) else {
        return ctx.damaged(key, "it has no name");
    };
    let Some(record) = ctx.decode::<TombstoneRecord>(key, value) else {
        return;
    };
    let change = Named {
        namespace,
        key: name,
        version: record.version,
        hash: &[],
    };
    change.check(ctx, record.changed);
}

/// What the last audit event of a key must say.
struct Named<'a> {
    namespace: &'a str,
    key: &'a str,
    version: u64,
    hash: &'a [u8],
}

impl Named<'_> {
    fn check(&self, ctx: &mut Ctx<'_>, changed: Option<AuditRef>) {
        let name = || format!("{}/{}", self.namespace, self.key);
        let Some(at) = changed else {
            let what = format!("{} names no audit event", name());
            return ctx.error(codes::AUDIT_BROKEN, what);
        };
        let wrong = match ctx.look::<AuditRecord>(&keys::audit(at)) {
            Looked::Unreadable => return,
            Looked::Missing => "which is not there",
            Looked::Found(event)
                if (event.namespace.as_str(), event.key.as_str()) != (self.namespace, self.key) =>
            {
                "which is about another key"
            }
            Looked::Found(event)
                if event.version != self.version || event.new_hash != self.hash =>
            {
                "which tells of another version or value"
            }
            Looked::Found(_) => return,
        };
        let what = format!(
            "{} was changed by event {}.{}, {wrong}",
            name(),
            at.index,
            at.sub
        );
        ctx.error(codes::AUDIT_BROKEN, what);
    }
}
