//! The nodes that the operator names, by option or environment, for commands that know some themselves.

use std::path::Path;

use confman_cli::connect::{Target, TargetArgs};
use confman_cli::failure::Failure;

/// The URLs that are named, none where only the default is left, which is nobody's word; and as whom to ask.
pub(crate) fn named(
    endpoints: Option<&str>,
    api_key_file: Option<&Path>,
) -> Result<(Vec<String>, Target), Failure> {
    let connect = TargetArgs {
        endpoints: endpoints.map(str::to_owned),
        api_key_file: api_key_file.map(Path::to_owned),
        dev: None,
        timeout: 10,
    };
    let target = connect.target(std::env::vars_os().collect(), Path::new("."))?;
    let urls = target.endpoints.iter().map(ToString::to_string);
    let is_named = target.source != "default";
    Ok((urls.filter(|_| is_named).collect(), target))
}
