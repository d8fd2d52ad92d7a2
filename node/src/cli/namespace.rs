//! `confman namespace`: make, delete, list and show namespaces.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::connect::{ConnectArgs, OutputArgs};
use super::escape;
use super::failure::Failure;
use super::get::ReadArgs;
use super::output::{self, JsonList};
use super::pages::Namespaces;
use super::path::check_namespace;

/// Make, delete, list and show namespaces
#[derive(Debug, Args)]
pub(crate) struct NamespaceArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a namespace; one that is there already stays as it is
    Create(One),
    /// Delete a namespace with every key and namespace below it
    Delete {
        #[command(flatten)]
        one: One,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// List all namespaces, or those below one
    List {
        /// Only those below this one
        #[arg(value_name = "NAMESPACE")]
        below: Option<String>,
        #[command(flatten)]
        read: ReadArgs,
        #[command(flatten)]
        out: OutputArgs,
        #[command(flatten)]
        connect: ConnectArgs,
    },
    /// Show one namespace
    Show {
        #[command(flatten)]
        read: ReadArgs,
        #[command(flatten)]
        one: One,
    },
}

#[derive(Debug, Args)]
struct One {
    /// The namespace, for example shop/eu
    #[arg(value_name = "NAMESPACE")]
    namespace: String,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn run(args: NamespaceArgs) -> Result<ExitCode, Failure> {
    match args.action {
        Action::Create(one) => create(one).await?,
        Action::Delete { one, yes } => delete(one, yes).await?,
        Action::List {
            below,
            read,
            out,
            connect,
        } => list(below, read, out, connect).await?,
        Action::Show { read, one } => show(one, read).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(one: One) -> Result<(), Failure> {
    check_namespace(&one.namespace)?;
    let answered = one
        .connect
        .client()?
        .create_namespace(&one.namespace)
        .await?;
    one.connect.note(&answered);
    let (info, created) = answered.value;
    if one.out.json {
        return output::json(&info);
    }
    let what = if created {
        "created"
    } else {
        "was there already:"
    };
    output::line(&format!("{what} {}", info.namespace))
}

async fn delete(one: One, yes: bool) -> Result<(), Failure> {
    check_namespace(&one.namespace)?;
    if !yes {
        confirm(&one.namespace)?;
    }
    let answered = one
        .connect
        .client()?
        .delete_namespace(&one.namespace)
        .await?;
    one.connect.note(&answered);
    if one.out.json {
        return output::json(&json!({"deleted": true, "namespace": one.namespace}));
    }
    output::line(&format!("deleted {} and all below it", one.namespace))
}

/// Asks on a terminal; elsewhere only `--yes` will do.
fn confirm(namespace: &str) -> Result<(), Failure> {
    let refused = || {
        Failure::usage(format!(
            "{namespace} and all below it would be deleted, and nobody has said yes"
        ))
        .with_hint("add --yes")
    };
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(refused());
    }
    eprint!(
        "delete {} and all below it? [y/N] ",
        escape::text(namespace)
    );
    // A prompt that cannot be shown is no reason to fail: the answer decides.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    stdin
        .read_line(&mut answer)
        .map_err(|e| Failure::usage(format!("read stdin: {e}")))?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(refused())
    }
}

async fn list(
    below: Option<String>,
    read: ReadArgs,
    out: OutputArgs,
    connect: ConnectArgs,
) -> Result<(), Failure> {
    if let Some(below) = &below {
        check_namespace(below)?;
    }
    let client = connect.client()?;
    let mut json = out.json.then(JsonList::new);
    let mut pages = Namespaces::new(&client, below.as_deref(), read.mode());
    while let Some(page) = pages.next().await? {
        for info in page {
            match &mut json {
                Some(list) => list.push(&info)?,
                None => output::line(&info.namespace)?,
            }
        }
    }
    json.map_or(Ok(()), |list| list.end(None))
}

async fn show(one: One, read: ReadArgs) -> Result<(), Failure> {
    check_namespace(&one.namespace)?;
    let answered = one
        .connect
        .client()?
        .get_namespace(&one.namespace, read.mode())
        .await?;
    one.connect.note(&answered);
    let info = answered.value;
    if one.out.json {
        return output::json(&info);
    }
    let count =
        |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut table = output::table([]);
    table.add_row([
        "namespace".to_owned(),
        escape::text(&info.namespace).into_owned(),
    ]);
    table.add_row(["created".to_owned(), info.created_at.to_string()]);
    table.add_row(["by".to_owned(), escape::text(&info.created_by).into_owned()]);
    table.add_row(["keys".to_owned(), count(info.keys)]);
    table.add_row(["namespaces in it".to_owned(), count(info.children)]);
    output::print_table(&table)
}
