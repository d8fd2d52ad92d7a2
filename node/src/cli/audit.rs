//! `confman audit`: who changed what, newest first.

use std::process::ExitCode;

use clap::Args;
use confman_client::wire::{AuditEvent, List};
use confman_client::{AuditFilter, Page};

use super::connect::{ConnectArgs, OutputArgs};
use super::escape;
use super::failure::Failure;
use super::get::ReadArgs;
use super::output;
use super::path::check_namespace;

const PAGE_ITEMS_MAX: u32 = 1000;

/// Show who changed what, newest first
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only this namespace
    #[arg(value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// And all below it
    #[arg(long, short, requires = "namespace")]
    recursive: bool,
    /// Only this key of the namespace
    #[arg(
        long,
        value_name = "KEY",
        requires = "namespace",
        conflicts_with = "recursive"
    )]
    key: Option<String>,
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    /// Go on where a page ended (`nextCursor`)
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn run(args: AuditArgs) -> Result<ExitCode, Failure> {
    if let Some(namespace) = &args.namespace {
        check_namespace(namespace)?;
    }
    let client = args.connect.client()?;
    let filter = AuditFilter {
        namespace: args.namespace,
        recursive: args.recursive,
        key: args.key,
    };
    let mut items: Vec<AuditEvent> = Vec::new();
    let mut cursor = args.cursor;
    loop {
        let left = args
            .limit
            .saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX));
        if left == 0 {
            break;
        }
        let page = Page {
            limit: Some(left.min(PAGE_ITEMS_MAX)),
            cursor: cursor.take(),
        };
        let answered = client.audit(&filter, &page, args.read.mode()).await?;
        args.connect.note(&answered);
        items.extend(answered.value.items);
        cursor = answered.value.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    if args.out.json {
        output::json(&List {
            items,
            next_cursor: cursor,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = output::table([
        "TIME",
        "ACTOR",
        "ACTION",
        "WHAT",
        "VERSION",
        "CORRELATION",
        "ID",
    ]);
    for event in &items {
        table.add_row(row(event));
    }
    output::print_table(&table)?;
    if let Some(cursor) = cursor {
        eprintln!("there is more: --cursor {}", escape::text(&cursor));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(event: &AuditEvent) -> [String; 7] {
    let safe = |text: &str| escape::text(text).into_owned();
    let what = match (&event.namespace, &event.key) {
        (Some(namespace), Some(key)) => format!("{namespace}/{key}"),
        (Some(namespace), None) => format!("{namespace}/"),
        (None, _) => event.group.clone(),
    };
    [
        event.time.to_string(),
        safe(&event.actor),
        safe(&event.action),
        safe(&what),
        event
            .version
            .map_or_else(String::new, |version| format!("v{version}")),
        safe(event.correlation_id.as_deref().unwrap_or("")),
        safe(&event.id),
    ]
}
