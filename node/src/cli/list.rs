//! `confman list`: namespaces and keys.

use std::process::ExitCode;

use clap::Args;
use confman_client::wire::{Entry, EntryHead, NamespaceInfo};
use confman_client::{Client, ErrorKind, ReadMode};
use serde::Serialize;

use super::connect::{ConnectArgs, OutputArgs};
use super::escape;
use super::failure::Failure;
use super::get::ReadArgs;
use super::output::{self, JsonList};
use super::pages::{Entries, Namespaces, PAGE_ITEMS};
use super::path::check_namespace;

/// List namespaces and keys
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The namespace; without it, the top-level namespaces
    #[arg(value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// All that is below, with full paths
    #[arg(long, short)]
    recursive: bool,
    /// Stop after this many [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A line of the list.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Item {
    Namespace(NamespaceInfo),
    Entry(Box<Entry>),
}

pub(crate) async fn run(args: ListArgs) -> Result<ExitCode, Failure> {
    let root = args
        .namespace
        .as_deref()
        .map(|text| text.trim_end_matches('/'))
        .filter(|text| !text.is_empty());
    if let Some(root) = root {
        check_namespace(root)?;
    }
    let client = args.connect.client()?;
    let mode = args.read.mode();
    let mut sink = Sink::new(args.out.json, args.recursive, args.limit)?;
    // Asked first, so that a namespace that is not there is an error and not an empty list.
    if let Some(root) = root {
        client.get_namespace(root, mode).await?;
    }
    let root_depth = root.map_or(0, |root| root.split('/').count());
    let mut below = Vec::new();
    let mut pages = Namespaces::new(&client, root, mode);
    while let Some(page) = pages.next().await? {
        for info in page {
            if args.recursive {
                below.push(info.namespace.clone());
            }
            if args.recursive || info.namespace.split('/').count() == root_depth + 1 {
                sink.push(Item::Namespace(info))?;
            }
        }
        if sink.is_full() {
            break;
        }
    }
    for namespace in root.into_iter().chain(below.iter().map(String::as_str)) {
        if sink.is_full() {
            break;
        }
        match entries(&client, namespace, mode, &mut sink).await {
            // Deleted since it was listed.
            Err(failure) if failure.kind() == Some(ErrorKind::NotFound) => {}
            other => other?,
        }
    }
    sink.end()?;
    Ok(ExitCode::SUCCESS)
}

async fn entries(
    client: &Client,
    namespace: &str,
    mode: ReadMode,
    sink: &mut Sink,
) -> Result<(), Failure> {
    let mut pages = Entries::new(client, namespace, mode);
    while let Some(page) = pages.next().await? {
        for entry in page {
            sink.push(Item::Entry(Box::new(entry)))?;
        }
        if sink.is_full() {
            break;
        }
    }
    Ok(())
}

/// Where the list goes.
struct Sink {
    json: Option<JsonList>,
    recursive: bool,
    left: Option<u64>,
    page: Vec<Item>,
    headed: bool,
}

impl Sink {
    fn new(json: bool, recursive: bool, limit: Option<u64>) -> Result<Self, Failure> {
        let json = json.then(JsonList::begin).transpose()?;
        Ok(Self {
            json,
            recursive,
            left: limit,
            page: Vec::new(),
            headed: false,
        })
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes one more, unless it is full.
    fn push(&mut self, item: Item) -> Result<(), Failure> {
        if self.is_full() {
            return Ok(());
        }
        self.left = self.left.map(|left| left - 1);
        match &mut self.json {
            Some(list) => list.push(&item)?,
            None => {
                self.page.push(item);
                if self.page.len() >= PAGE_ITEMS as usize {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.page.is_empty() {
            return Ok(());
        }
        let mut table = output::table(["NAME", "TYPE", "VERSION", "SIZE", "UPDATED", "BY"]);
        if self.headed {
            table = output::table([]);
        }
        self.headed = true;
        for item in self.page.drain(..) {
            table.add_row(row(&item, self.recursive));
        }
        output::print_table(&table)
    }

    fn end(mut self) -> Result<(), Failure> {
        self.flush()?;
        match self.json {
            Some(list) => list.end(None),
            None => Ok(()),
        }
    }
}

fn row(item: &Item, full: bool) -> [String; 6] {
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    match item {
        Item::Namespace(info) => {
            let name = if full {
                info.namespace.clone()
            } else {
                last(&info.namespace)
            };
            let created = info.created_at.to_string();
            [
                format!("{}/", escape::text(&name)),
                "namespace".into(),
                "".into(),
                "".into(),
                created,
                safe(&info.created_by),
            ]
        }
        Item::Entry(entry) => {
            let EntryHead {
                namespace,
                key,
                value_type,
                version,
                size,
                updated_at,
                updated_by,
                ..
            } = &entry.head;
            let name = if full {
                format!("{namespace}/{key}")
            } else {
                key.clone()
            };
            [
                safe(&name),
                value_type.to_string(),
                format!("v{version}"),
                output::bytes(*size),
                updated_at.to_string(),
                safe(updated_by),
            ]
        }
    }
}

fn safe(text: &str) -> String {
    escape::text(text).into_owned()
}
