//! `confman put`: one value, from the command line, a file or stdin.

use std::io::{IsTerminal, Read, Seek, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use confman_client::wire::ValueType;
use confman_client::{Precondition, PutOptions, PutValue, Upload};

use super::connect::{ConnectArgs, OutputArgs};
use super::content;
use super::failure::Failure;
use super::output;
use super::path::EntryArgs;

/// More than this from stdin is kept in a temporary file until it is sent.
const STDIN_MEMORY_BYTES: usize = 4 << 20;

/// Write one value
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  confman put shop/eu/currency EUR
  confman put shop/eu/tax 0.19 --type number
  confman put shop/eu/rules --file rules.json
  echo '[1,2]' | confman put shop/eu/list - --type json
  confman put shop/eu/tax 0.2 --type number --if-match v6")]
pub(crate) struct PutArgs {
    #[command(flatten)]
    entry: EntryArgs,
    /// The value; `-` reads stdin, as does leaving it out when stdin is not a terminal
    #[arg(
        value_name = "VALUE",
        conflicts_with = "file",
        allow_hyphen_values = true
    )]
    value: Option<String>,
    /// Read the value from this file, byte for byte
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What it is: string, number, boolean, json or binary [default: string for VALUE, by content for a file or stdin]
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    value_type: Option<ValueType>,
    /// Only if the key is at this version (`v6`), or is there at all (`*`)
    #[arg(long, value_name = "VERSION")]
    if_match: Option<Precondition>,
    /// Only if the key is not there
    #[arg(long, conflicts_with = "if_match")]
    if_absent: bool,
    /// Make no new version when the same bytes and type are there already
    #[arg(long)]
    skip_unchanged: bool,
    /// Name of this write: repeating it with the same name applies it once [default: a new one]
    #[arg(long, value_name = "NAME")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What is to be sent; the temporary file lives as long as this.
struct Source {
    upload: Upload,
    value_type: ValueType,
    _spool: Option<tempfile::NamedTempFile>,
}

pub(crate) async fn run(args: PutArgs) -> Result<ExitCode, Failure> {
    let (namespace, key) = args.entry.split()?;
    let source = match (&args.value, &args.file) {
        (Some(text), _) if text != "-" => from_argument(text, args.value_type)?,
        (_, Some(path)) if path.as_os_str() != "-" => from_file(path, args.value_type)?,
        (None, None) if std::io::stdin().is_terminal() => {
            return Err(Failure::usage("no value is given")
                .with_hint("give VALUE, --file FILE, or - for stdin"));
        }
        _ => from_stdin(args.value_type)?,
    };
    let client = args.connect.client()?;
    let options = PutOptions {
        precondition: if args.if_absent {
            Precondition::Absent
        } else {
            args.if_match.unwrap_or_default()
        },
        skip_unchanged: args.skip_unchanged,
        idempotency_key: args.idempotency_key.clone(),
    };
    let value = PutValue::Raw {
        upload: source.upload,
        value_type: source.value_type,
    };
    let answered = client.put(namespace, key, &value, &options).await?;
    args.connect.note(&answered);
    let written = &answered.value;
    if args.out.json {
        output::json(&written.head)?;
    } else {
        let head = &written.head;
        let what = match (written.unchanged, written.created) {
            (true, _) => "unchanged",
            (false, true) => "created",
            (false, false) => "updated",
        };
        let size = output::bytes(head.size);
        output::line(&format!(
            "{what} {}/{} v{} {} {size}",
            head.namespace, head.key, head.version, head.value_type
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn from_argument(text: &str, value_type: Option<ValueType>) -> Result<Source, Failure> {
    let value_type = value_type.unwrap_or(ValueType::String);
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    content::check(value_type, &bytes)?;
    Ok(Source {
        upload: Upload::Bytes(bytes),
        value_type,
        _spool: None,
    })
}

fn from_file(path: &std::path::Path, value_type: Option<ValueType>) -> Result<Source, Failure> {
    let doing = |e: &std::io::Error| Failure::local("read", path, e);
    let file = std::fs::File::open(path).map_err(|e| doing(&e))?;
    let meta = file.metadata().map_err(|e| doing(&e))?;
    if !meta.is_file() {
        return Err(Failure::usage(format!("{} is not a file", path.display())));
    }
    let value_type = match value_type {
        Some(value_type) => value_type,
        None => {
            content::of_reader(&path.to_string_lossy(), file)
                .map_err(|e| doing(&e))?
                .value_type
        }
    };
    Ok(Source {
        upload: Upload::File {
            path: path.to_owned(),
            bytes: meta.len(),
        },
        value_type,
        _spool: None,
    })
}

fn from_stdin(value_type: Option<ValueType>) -> Result<Source, Failure> {
    let failed = |e: std::io::Error| Failure::usage(format!("read stdin: {e}"));
    let mut stdin = std::io::stdin().lock();
    let mut head = Vec::new();
    stdin
        .by_ref()
        .take(STDIN_MEMORY_BYTES as u64 + 1)
        .read_to_end(&mut head)
        .map_err(failed)?;
    if head.len() <= STDIN_MEMORY_BYTES {
        let value_type = match value_type {
            Some(value_type) => value_type,
            None => {
                content::of_reader("", head.as_slice())
                    .map_err(failed)?
                    .value_type
            }
        };
        return Ok(Source {
            upload: Upload::from(head),
            value_type,
            _spool: None,
        });
    }
    let mut spool = tempfile::NamedTempFile::new().map_err(failed)?;
    spool.write_all(&head).map_err(failed)?;
    let bytes = head.len() as u64 + std::io::copy(&mut stdin, &mut spool).map_err(failed)?;
    spool
        .flush()
        .and_then(|()| spool.rewind())
        .map_err(failed)?;
    let value_type = match value_type {
        Some(value_type) => value_type,
        None => {
            content::of_reader("", spool.as_file())
                .map_err(failed)?
                .value_type
        }
    };
    let upload = Upload::File {
        path: spool.path().to_owned(),
        bytes,
    };
    Ok(Source {
        upload,
        value_type,
        _spool: Some(spool),
    })
}
