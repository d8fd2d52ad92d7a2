//! The export as one document. Its parts are written to temporary files while the snapshots are read, and put together when
//! all are proven: nobody takes half a document for a whole one.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write};
use std::path::Path;
use std::process::ExitCode;

use confman_cli::failure::{Failure, stdout_failed};
use confman_cli::output;
use confman_client::ErrorKind;
use confman_client::wire::{Entry, Time};
use confman_snapshot::{SnapshotError, SnapshotReader};
use confman_store::keys;
use confman_store::records::{AuditRecord, EntryRecord, NamespaceRecord};
use serde::Serialize;

use super::{ExportArgs, Pass, is_within};
use crate::codes;
use crate::context::Global;
use crate::store::errors;
use crate::store::reader::StoreReader;
use crate::store::records::decode;
use crate::store::snapshot::Summary;
use crate::store::values::{self, ValuePieces};

/// Version of the document.
const VERSION: u32 = 1;

/// What stands before the lists.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    format: &'static str,
    version: u32,
    store: String,
    cluster_uuid: Option<String>,
    /// The index of the one snapshot with configuration; none where there are several.
    index: Option<u64>,
    /// The time of the last change in any of them.
    timestamp: Time,
    namespace: Option<String>,
    snapshots: Vec<Summary>,
    counts: Counts,
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    namespaces: u64,
    configs: u64,
    audit_events: u64,
}

/// The report of an export to a file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    file: String,
    #[serde(flatten)]
    head: Head,
}

/// One list of the document, in a temporary file.
struct Part {
    file: BufWriter<File>,
    items: u64,
}

struct Parts {
    namespaces: Part,
    configs: Part,
    audit: Part,
}

impl Part {
    fn new() -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::new(tempfile::tempfile()?),
            items: 0,
        })
    }

    fn push(&mut self, item: &impl Serialize) -> Result<(), Failure> {
        let separator: &[u8] = if self.items == 0 { b"\n" } else { b",\n" };
        self.items += 1;
        self.file
            .write_all(separator)
            .and_then(|()| serde_json::to_writer(&mut self.file, item).map_err(io::Error::from))
            .map_err(|error| temporary(&error))
    }

    fn copy_to(self, out: &mut impl Write) -> io::Result<()> {
        let mut file = self.file.into_inner().map_err(|error| error.into_error())?;
        file.rewind()?;
        io::copy(&mut file, out).map(|_| ())
    }
}

fn temporary(error: &io::Error) -> Failure {
    codes::usage("LOCAL_FILE", format!("write a temporary file: {error}"))
        .with_hint("the document is put together in the folder for temporary files: free space there, or set TMPDIR")
}

pub(super) async fn run(
    args: &ExportArgs,
    store: &StoreReader,
    readers: Vec<SnapshotReader>,
    global: &Global,
) -> Result<ExitCode, Failure> {
    if let Some(path) = &args.to
        && path.exists()
        && !args.overwrite
    {
        return Err(codes::usage(
            "TARGET_EXISTS",
            format!("{} is there already", path.display()),
        )
        .with_hint("name another file, or write over this one with --overwrite"));
    }
    let new = || Part::new().map_err(|error| temporary(&error));
    let mut parts = Parts {
        namespaces: new()?,
        configs: new()?,
        audit: new()?,
    };
    let chunks: usize = readers.iter().map(|r| r.manifest().chunks.len()).sum();
    let bar = global.progress("chunks read", chunks as u64);
    let snapshots: Vec<Summary> = readers.iter().map(Summary::new).collect();
    for reader in readers {
        let mut pass = Pass::new(reader);
        while let Some(chunk) = next(&mut pass).await? {
            for (key, value) in &chunk {
                parts.take(args, &mut pass, key, value).await?;
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let head = head(args, store, snapshots, &parts);
    match &args.to {
        Some(path) => {
            to_file(path, &head, parts)?;
            let report = Report {
                file: path.display().to_string(),
                head,
            };
            report.print(global)?;
        }
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            write(&mut out, &head, parts).map_err(|error| stdout_failed(&error))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn next(pass: &mut Pass) -> Result<Option<Vec<confman_snapshot::Record>>, Failure> {
    let chunk = pass.stream.next_chunk().await;
    chunk.map_err(|error| errors::snapshot(&error))
}

fn head(args: &ExportArgs, store: &StoreReader, snapshots: Vec<Summary>, parts: &Parts) -> Head {
    let mut with_config = snapshots.iter().filter(|s| !s.group.is_meta());
    let index = match (with_config.next(), with_config.next()) {
        (Some(only), None) => Some(only.index),
        (None, _) => snapshots.first().map(|meta| meta.index),
        _ => None,
    };
    let last = snapshots.iter().map(|s| s.last_change_at).max();
    Head {
        format: "confman-export",
        version: VERSION,
        store: store.url().to_owned(),
        cluster_uuid: snapshots.first().map(|s| s.cluster_uuid.clone()),
        index,
        timestamp: last.unwrap_or_default(),
        namespace: args.from.clone(),
        snapshots,
        counts: Counts {
            namespaces: parts.namespaces.items,
            configs: parts.configs.items,
            audit_events: parts.audit.items,
        },
    }
}

impl Parts {
    /// Takes one record, if it is of a kind that an export holds.
    async fn take(
        &mut self,
        args: &ExportArgs,
        pass: &mut Pass,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Failure> {
        let from = args.from.as_deref();
        let object = pass.records.reader().object().to_owned();
        let failed = |error: SnapshotError| errors::snapshot(&error);
        match key.first() {
            Some(&keys::NAMESPACE) => {
                let path = keys::parse_namespace(key).ok_or_else(|| unnamed(&object, key))?;
                if is_within(path, from) {
                    let record: NamespaceRecord = decode(&object, key, value).map_err(failed)?;
                    self.namespaces.push(&values::namespace(path, &record))?;
                }
            }
            Some(&keys::ENTRY) => {
                let (namespace, name) =
                    keys::parse_entry(key).ok_or_else(|| unnamed(&object, key))?;
                if is_within(namespace, from) {
                    let entry: EntryRecord = decode(&object, key, value).map_err(failed)?;
                    let head = entry.head.clone().unwrap_or_default();
                    let head = values::entry_head(namespace, name, &head);
                    let pieces = ValuePieces::new(&object, namespace, name, entry);
                    let whole = pieces.whole(&mut pass.records).await.map_err(failed)?;
                    let value = values::to_json(head.value_type, &whole)
                        .map_err(|error| no_such_value(&object, namespace, name, &error))?;
                    self.configs.push(&Entry {
                        head,
                        value: Some(value),
                    })?;
                }
            }
            Some(&keys::AUDIT) => {
                let at = keys::parse_audit(key).ok_or_else(|| unnamed(&object, key))?;
                let record: AuditRecord = decode(&object, key, value).map_err(failed)?;
                if is_within(&record.namespace, from) {
                    let group = &pass.records.manifest().group;
                    let event = values::audit_event(group, at, &record).map_err(|error| {
                        no_such_value(&object, &record.namespace, &record.key, &error)
                    })?;
                    self.audit.push(&event)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn unnamed(object: &str, key: &[u8]) -> Failure {
    let what = format!("record {} of {object:?} has no name", hex::encode(key));
    codes::refuse("SNAPSHOT_DAMAGED", ErrorKind::Damaged, what)
}

fn no_such_value(object: &str, namespace: &str, key: &str, error: &serde_json::Error) -> Failure {
    let what = format!("a value of {namespace}/{key} in {object:?} is not of its type: {error}");
    codes::refuse("SNAPSHOT_DAMAGED", ErrorKind::Damaged, what)
}

fn to_file(path: &Path, head: &Head, parts: Parts) -> Result<(), Failure> {
    let failed = |error: io::Error| codes::local("write", path, &error);
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
    let mut out = BufWriter::new(file);
    write(&mut out, head, parts).map_err(failed)?;
    let file = out
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// The head's members, and the lists after them.
fn write(out: &mut impl Write, head: &Head, parts: Parts) -> io::Result<()> {
    let text = serde_json::to_string_pretty(head)?;
    let open = text.strip_suffix("\n}").unwrap_or(&text);
    out.write_all(open.as_bytes())?;
    let lists = [
        ("namespaces", parts.namespaces),
        ("configs", parts.configs),
        ("auditEvents", parts.audit),
    ];
    for (name, part) in lists {
        write!(out, ",\n  \"{name}\": [")?;
        part.copy_to(out)?;
        out.write_all(b"\n  ]")?;
    }
    out.write_all(b"\n}\n")?;
    out.flush()
}

impl Report {
    fn print(&self, global: &Global) -> Result<(), Failure> {
        if global.json {
            return output::json(self);
        }
        let counts = &self.head.counts;
        output::line(&format!(
            "wrote {}: {} configs in {} namespaces, {} audit events, last change {}",
            self.file, counts.configs, counts.namespaces, counts.audit_events, self.head.timestamp
        ))
    }
}
