//! `drtool snapshot diff`: what differs between two snapshots of a group.
//!
//! Both are sorted, so they are read side by side, a chunk each. A chunk that both hold with the same sum is passed over
//! without reading it.

use std::cmp::Ordering;
use std::process::ExitCode;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_client::wire::Time;
use confman_snapshot::format::ChunkEntry;
use confman_snapshot::{Record, SnapshotError, SnapshotReader};
use confman_store::keys;
use confman_store::records::EntryRecord;
use serde::Serialize;

use super::Summary;
use crate::codes;
use crate::context::Global;
use crate::store::pick::{GroupArgs, Wanted};
use crate::store::records::decode;
use crate::store::{StoreArgs, errors};

/// Compare two snapshots of a group: which keys and namespaces came, went or changed
#[derive(Debug, Args)]
#[command(after_help = "\
A key that was deleted and made again is `changed`, with its new version. What else differs (audit events, \
the group's own records) is counted only.")]
pub(super) struct DiffArgs {
    /// The one: its id or the beginning of it, its index, or `latest`
    #[arg(value_name = "A")]
    a: Wanted,
    /// The other
    #[arg(value_name = "B")]
    b: Wanted,
    /// Name at most this many; all are counted
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    limit: u32,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// How a record differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum How {
    Added,
    Removed,
    Changed,
}

/// A key or namespace that differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    how: How,
    namespace: String,
    /// None: the namespace itself.
    key: Option<String>,
    version_a: Option<u64>,
    version_b: Option<u64>,
    /// Of the newer of the two that is there.
    updated_at: Option<Time>,
    updated_by: Option<String>,
}

/// How many.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    added: u64,
    removed: u64,
    changed: u64,
    /// Records of other kinds that differ: audit events, tombstones, parts of values, the group's own.
    other_records: u64,
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    store: String,
    a: Summary,
    b: Summary,
    same_state: bool,
    counts: Counts,
    items: Vec<Change>,
    /// There are more than `--limit`.
    truncated: bool,
    chunks_read: usize,
    chunks_passed_over: usize,
}

pub(super) async fn run(args: &DiffArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = args.store.reader(global).await?;
    let a = store.pick(&args.a, args.group.group.as_ref()).await?;
    // The other one is of the same group unless its id says otherwise.
    let group = args.group.group.clone().or_else(|| match &args.b {
        Wanted::Id(_) => None,
        _ => Some(a.group.clone()),
    });
    let b = store.pick(&args.b, group.as_ref()).await?;
    if a.group != b.group {
        let what = format!("one is of {}, the other of {}", a.group, b.group);
        return Err(codes::refuse("ARGUMENT", ErrorKind::Usage, what)
            .with_hint("only two snapshots of one group can be compared"));
    }
    let failed = |error: SnapshotError| errors::snapshot(&error);
    let reader_a = store.open(&a.group, &a.listed.id).await.map_err(failed)?;
    let reader_b = store.open(&b.group, &b.listed.id).await.map_err(failed)?;
    let (summary_a, summary_b) = (Summary::new(&reader_a), Summary::new(&reader_b));
    let chunks = reader_a.manifest().chunks.len() + reader_b.manifest().chunks.len();
    let bar = global.progress("chunks", chunks as u64);
    let mut diff = Diff {
        a: Side::new(reader_a),
        b: Side::new(reader_b),
        counts: Counts::default(),
        items: Vec::new(),
        limit: usize::try_from(args.limit).unwrap_or(usize::MAX),
        passed_over: 0,
    };
    let ended = diff.run(|at| bar.set_position(at as u64)).await;
    bar.finish_and_clear();
    ended.map_err(failed)?;
    let counts = &diff.counts;
    let document = Document {
        store: store.url().to_owned(),
        same_state: summary_a.state_hash == summary_b.state_hash,
        truncated: diff.items.len() as u64 != counts.added + counts.removed + counts.changed,
        a: summary_a,
        b: summary_b,
        counts: diff.counts,
        items: diff.items,
        chunks_read: diff.a.read + diff.b.read,
        chunks_passed_over: diff.passed_over,
    };
    if global.json {
        output::json(&document)?;
    } else {
        print(&document)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One snapshot, read forward.
struct Side {
    reader: SnapshotReader,
    /// The chunk that comes after the current one.
    next: usize,
    current: std::vec::IntoIter<Record>,
    head: Option<Record>,
    read: usize,
}

impl Side {
    fn new(reader: SnapshotReader) -> Self {
        Self {
            reader,
            next: 0,
            current: Vec::new().into_iter(),
            head: None,
            read: 0,
        }
    }

    /// The chunk that would be read next, when nothing of the one before is left.
    fn at_border(&self) -> Option<&ChunkEntry> {
        let nothing_left = self.head.is_none() && self.current.len() == 0;
        self.reader
            .manifest()
            .chunks
            .get(self.next)
            .filter(|_| nothing_left)
    }

    /// Makes the next record, if there is one, the head.
    async fn fill(&mut self) -> Result<(), SnapshotError> {
        while self.head.is_none() {
            self.head = self.current.next();
            if self.head.is_some() || self.next >= self.reader.manifest().chunks.len() {
                return Ok(());
            }
            self.current = self.reader.chunk(self.next).await?.into_iter();
            self.next += 1;
            self.read += 1;
        }
        Ok(())
    }
}

struct Diff {
    a: Side,
    b: Side,
    counts: Counts,
    items: Vec<Change>,
    limit: usize,
    passed_over: usize,
}

impl Diff {
    async fn run(&mut self, mut at: impl FnMut(usize)) -> Result<(), SnapshotError> {
        loop {
            if let (Some(a), Some(b)) = (self.a.at_border(), self.b.at_border())
                && is_same(a, b)
            {
                self.a.next += 1;
                self.b.next += 1;
                self.passed_over += 2;
                continue;
            }
            self.a.fill().await?;
            self.b.fill().await?;
            at(self.a.next + self.b.next);
            let order = match (&self.a.head, &self.b.head) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let a = self.a.head.take_if(|_| order != Ordering::Greater);
            let b = self.b.head.take_if(|_| order != Ordering::Less);
            if a != b {
                self.differs(a, b)?;
            }
        }
    }

    fn differs(&mut self, a: Option<Record>, b: Option<Record>) -> Result<(), SnapshotError> {
        let how = match (&a, &b) {
            (None, _) => How::Added,
            (_, None) => How::Removed,
            _ => How::Changed,
        };
        let (value_a, value_b) = (value(&a), value(&b));
        let Some((key, _)) = b.as_ref().or(a.as_ref()) else {
            return Ok(());
        };
        let change = match key.first() {
            Some(&keys::ENTRY) => self.entry(how, key, value_a, value_b)?,
            // Its counters change with every key in it: only its coming and going is told.
            Some(&keys::NAMESPACE) if how != How::Changed => {
                keys::parse_namespace(key).map(|path| Change {
                    how,
                    namespace: path.to_owned(),
                    key: None,
                    version_a: None,
                    version_b: None,
                    updated_at: None,
                    updated_by: None,
                })
            }
            _ => None,
        };
        let Some(change) = change else {
            self.counts.other_records += 1;
            return Ok(());
        };
        match how {
            How::Added => self.counts.added += 1,
            How::Removed => self.counts.removed += 1,
            How::Changed => self.counts.changed += 1,
        }
        if self.items.len() < self.limit {
            self.items.push(change);
        }
        Ok(())
    }

    fn entry(
        &self,
        how: How,
        key: &[u8],
        a: Option<&[u8]>,
        b: Option<&[u8]>,
    ) -> Result<Option<Change>, SnapshotError> {
        let head = |side: &Side, value: Option<&[u8]>| match value {
            Some(value) => {
                let entry: EntryRecord = decode(side.reader.object(), key, value)?;
                Ok::<_, SnapshotError>(entry.head)
            }
            None => Ok(None),
        };
        let (a, b) = (head(&self.a, a)?, head(&self.b, b)?);
        let newer = b.as_ref().or(a.as_ref());
        Ok(keys::parse_entry(key).map(|(namespace, name)| Change {
            how,
            namespace: namespace.to_owned(),
            key: Some(name.to_owned()),
            version_a: a.as_ref().map(|head| head.version),
            version_b: b.as_ref().map(|head| head.version),
            updated_at: newer.map(|head| Time::from_us(head.updated_us)),
            updated_by: newer.map(|head| head.updated_by.clone()),
        }))
    }
}

fn value(record: &Option<Record>) -> Option<&[u8]> {
    record.as_ref().map(|(_, value)| value.as_ref())
}

/// Whether two chunks hold the same records. Their sums are over what is stored, so a chunk that was compressed otherwise only
/// counts as different.
fn is_same(a: &ChunkEntry, b: &ChunkEntry) -> bool {
    a.blake3 == b.blake3 && a.stored_len == b.stored_len && a.codec == b.codec
}

fn print(document: &Document) -> Result<(), Failure> {
    for (name, one) in [("a", &document.a), ("b", &document.b)] {
        output::line(&format!(
            "{name} {} {} at index {}, last change {}",
            one.group, one.id, one.index, one.last_change_at
        ))?;
    }
    for item in &document.items {
        output::line(&line(item))?;
    }
    if document.truncated {
        output::line("... and more (--limit)")?;
    }
    let counts = &document.counts;
    output::line(&format!(
        "{} added, {} removed, {} changed; {} other records differ{}",
        counts.added,
        counts.removed,
        counts.changed,
        counts.other_records,
        if document.same_state {
            "; the state is the same"
        } else {
            ""
        }
    ))
}

fn line(item: &Change) -> String {
    let sign = match item.how {
        How::Added => '+',
        How::Removed => '-',
        How::Changed => '~',
    };
    let Some(key) = &item.key else {
        return format!("{sign} {}/", item.namespace);
    };
    let version = |version: Option<u64>| version.map_or("none".to_owned(), |v| format!("v{v}"));
    let by = match (&item.updated_at, &item.updated_by) {
        (Some(at), Some(by)) => format!(", by {by} at {at}"),
        _ => String::new(),
    };
    format!(
        "{sign} {}/{key} {} -> {}{by}",
        item.namespace,
        version(item.version_a),
        version(item.version_b)
    )
}
