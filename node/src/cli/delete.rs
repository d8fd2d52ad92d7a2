//! `confman delete`: one key.

use std::process::ExitCode;

use clap::Args;
use confman_client::Precondition;
use serde_json::json;

use super::connect::{ConnectArgs, OutputArgs};
use super::failure::Failure;
use super::output;
use super::path::EntryArgs;

/// Delete one key; its history stays in the audit
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    entry: EntryArgs,
    /// Only if the key is at this version (`v6`)
    #[arg(long, value_name = "VERSION")]
    if_match: Option<Precondition>,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn run(args: DeleteArgs) -> Result<ExitCode, Failure> {
    let (namespace, key) = args.entry.split()?;
    let client = args.connect.client()?;
    let answered = client
        .delete(namespace, key, args.if_match.unwrap_or_default())
        .await?;
    args.connect.note(&answered);
    if args.out.json {
        output::json(&json!({"deleted": true, "namespace": namespace, "key": key}))?;
    } else {
        output::line(&format!("deleted {namespace}/{key}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
