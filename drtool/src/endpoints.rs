//! The nodes that the operator names, by option or environment, for commands that know some themselves.

use std::path::Path;

use confman_cli::connect::{Target, TargetArgs};
use confman_cli::failure::Failure;

use crate::context::Global;

/// The URLs that are named, none where only the default is left, which is nobody's word; and as whom to ask.
pub(crate) fn named(
    endpoints: Option<&str>,
    api_key_file: Option<&Path>,
    global: &Global,
) -> Result<(Vec<String>, Target), Failure> {
    let connect = TargetArgs {
        endpoints: endpoints.map(str::to_owned),
        api_key_file: api_key_file.map(Path::to_owned),
        // Where both are said, the dev cluster is the store's alone.
        dev: global.dev.clone().filter(|_| endpoints.is_none()),
        timeout: 10,
    };
    let target = connect.target(std::env::vars_os().collect(), Path::new("."))?;
    let urls = target.endpoints.iter().map(ToString::to_string);
    let is_named = target.source != "default";
    Ok((urls.filter(|_| is_named).collect(), target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dev_cluster_that_is_named_is_asked_unless_endpoints_are_named_too() {
        let dir = tempfile::tempdir().unwrap();
        let dev = r#"{"apiKey": "key", "endpoints": ["http://127.0.0.1:6180"]}"#;
        std::fs::write(dir.path().join("dev.json"), dev).unwrap();
        let global = Global {
            dev: Some(dir.path().to_owned()),
            ..Global::default()
        };
        let (urls, target) = named(None, None, &global).unwrap();
        assert_eq!(urls, ["http://127.0.0.1:6180"]);
        assert!(target.api_key.is_some());
        let (urls, _) = named(Some("http://127.0.0.1:1"), None, &global).unwrap();
        assert_eq!(urls, ["http://127.0.0.1:1"]);
    }
}
