//! `confman list`: namespaces and keys.

use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use confman_client::wire::{Entry, EntryHead, NamespaceInfo};
use confman_client::{Client, ErrorKind, ReadMode};
use serde::{Deserialize, Serialize};

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
    /// Go on where a list with --limit ended: the `nextCursor` of its --json
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
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

/// Where a list that was cut by `--limit` goes on: first come the namespaces, then the entries of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Place {
    /// Among the namespaces, at this cursor of the node's list.
    Namespaces { cursor: Option<String> },
    /// Among the entries of one namespace, at this cursor of the node's list.
    Entries {
        namespace: String,
        cursor: Option<String>,
    },
    /// Behind all that is in this namespace itself.
    Behind { namespace: String },
}

impl Place {
    fn read(text: &str) -> Result<Self, Failure> {
        URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or_else(|| {
                Failure::usage("--cursor: this is no nextCursor that `confman list --json` gave")
            })
    }

    fn write(&self) -> Result<String, Failure> {
        let json = serde_json::to_vec(self)
            .map_err(|e| Failure::new(ErrorKind::Bug, format!("write a cursor: {e}")))?;
        Ok(URL_SAFE_NO_PAD.encode(json))
    }

    /// Where in the entries of `namespace` to go on; nothing when they have been listed. Namespaces come sorted.
    fn entries_of(&self, namespace: &str) -> Option<Option<String>> {
        match self {
            Self::Namespaces { .. } => Some(None),
            Self::Entries {
                namespace: at,
                cursor,
            } if at == namespace => Some(cursor.clone()),
            Self::Entries { namespace: at, .. } => (namespace > at.as_str()).then_some(None),
            Self::Behind { namespace: at } => (namespace > at.as_str()).then_some(None),
        }
    }
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
    let place = match &args.cursor {
        Some(text) => Place::read(text)?,
        None => Place::Namespaces { cursor: None },
    };
    let client = args.connect.client()?;
    let mode = args.read.mode();
    let sink = Sink::new(args.out.json, args.recursive, args.limit)?;
    // Asked first, so that a namespace that is not there is an error and not an empty list.
    if let Some(root) = root {
        client.get_namespace(root, mode).await?;
    }
    let mut walk = Walk {
        client: &client,
        root,
        mode,
        recursive: args.recursive,
        sink,
    };
    let next = walk.go(place).await?;
    walk.sink.end(next.as_ref())?;
    Ok(ExitCode::SUCCESS)
}

/// One pass over what is below a namespace.
struct Walk<'a> {
    client: &'a Client,
    root: Option<&'a str>,
    mode: ReadMode,
    recursive: bool,
    sink: Sink,
}

impl Walk<'_> {
    /// Lists from `place` on; where it goes on when the limit ended it.
    async fn go(&mut self, place: Place) -> Result<Option<Place>, Failure> {
        if let Place::Namespaces { cursor } = &place
            && let Some(next) = self.namespaces(cursor.clone()).await?
        {
            return Ok(Some(next));
        }
        if let Some(root) = self.root
            && let Some(next) = self.entries(root, &place).await?
        {
            return Ok(Some(next));
        }
        if !self.recursive {
            return Ok(None);
        }
        let mut below = Namespaces::new(self.client, self.root, self.mode);
        while let Some(page) = below.next().await? {
            for info in page {
                if let Some(next) = self.entries(&info.namespace, &place).await? {
                    return Ok(Some(next));
                }
            }
        }
        Ok(None)
    }

    async fn namespaces(&mut self, cursor: Option<String>) -> Result<Option<Place>, Failure> {
        let root_depth = self.root.map_or(0, |root| root.split('/').count());
        let mut pages = Namespaces::new(self.client, self.root, self.mode).from(cursor);
        loop {
            if self.sink.left == 0 {
                return Ok(Some(match (pages.rest(), self.root) {
                    (Some(cursor), _) => Place::Namespaces {
                        cursor: Some(cursor.to_owned()),
                    },
                    (None, Some(root)) => Place::Entries {
                        namespace: root.to_owned(),
                        cursor: None,
                    },
                    // Sorts before every namespace.
                    (None, None) => Place::Behind {
                        namespace: String::new(),
                    },
                }));
            }
            let Some(page) = pages.next_of(self.sink.left).await? else {
                return Ok(None);
            };
            for info in page {
                if self.recursive || info.namespace.split('/').count() == root_depth + 1 {
                    self.sink.push(Item::Namespace(info))?;
                }
            }
        }
    }

    async fn entries(&mut self, namespace: &str, place: &Place) -> Result<Option<Place>, Failure> {
        let Some(cursor) = place.entries_of(namespace) else {
            return Ok(None);
        };
        let mut pages = Entries::new(self.client, namespace, self.mode).from(cursor);
        loop {
            if self.sink.left == 0 {
                let namespace = namespace.to_owned();
                return Ok(Some(match pages.rest() {
                    Some(cursor) => Place::Entries {
                        namespace,
                        cursor: Some(cursor.to_owned()),
                    },
                    None => Place::Behind { namespace },
                }));
            }
            match pages.next_of(self.sink.left).await {
                Ok(Some(page)) => {
                    for entry in page {
                        self.sink.push(Item::Entry(Box::new(entry)))?;
                    }
                }
                Ok(None) => return Ok(None),
                // Deleted since it was listed.
                Err(failure) if failure.kind() == Some(ErrorKind::NotFound) => return Ok(None),
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// Where the list goes.
struct Sink {
    json: Option<JsonList>,
    recursive: bool,
    /// How many more may be listed.
    left: u64,
    page: Vec<Item>,
    headed: bool,
}

impl Sink {
    fn new(json: bool, recursive: bool, limit: Option<u64>) -> Result<Self, Failure> {
        let json = json.then(JsonList::new);
        Ok(Self {
            json,
            recursive,
            left: limit.unwrap_or(u64::MAX),
            page: Vec::new(),
            headed: false,
        })
    }

    /// Takes one more. Pages are asked for no longer than what is left.
    fn push(&mut self, item: Item) -> Result<(), Failure> {
        self.left = self.left.saturating_sub(1);
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

    /// Ends the list, with where it would go on.
    fn end(mut self, next: Option<&Place>) -> Result<(), Failure> {
        self.flush()?;
        match self.json {
            Some(list) => list.end(next.map(Place::write).transpose()?.as_deref()),
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
