//! How a user names an entry: `NAMESPACE/KEY`.

use clap::Args;
use confman_store::names;

use super::failure::Failure;

/// An entry.
#[derive(Debug, Clone, Args)]
pub(crate) struct EntryArgs {
    /// The entry as NAMESPACE/KEY; with --key, the namespace alone
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// The key, when it holds a slash itself
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
}

impl EntryArgs {
    /// Namespace and key.
    pub(crate) fn split(&self) -> Result<(&str, &str), Failure> {
        let (namespace, key) = match &self.key {
            Some(key) => (self.path.as_str(), key.as_str()),
            None => self.path.rsplit_once('/').ok_or_else(|| {
                Failure::usage(format!("{:?} names no namespace", self.path))
                    .with_hint("an entry is NAMESPACE/KEY, for example shop/eu/tax")
            })?,
        };
        check_namespace(namespace)?;
        if key.is_empty() {
            return Err(Failure::usage(format!(
                "{:?} ends with a slash, so it names no key",
                self.path
            ))
            .with_hint("`confman list NAMESPACE` lists the keys of a namespace"));
        }
        names::check_key(key).map_err(|e| Failure::usage(format!("key {key:?}: {e}")))?;
        Ok((namespace, key))
    }
}

/// The same rules as in the node, so that a typing error needs no cluster.
pub(crate) fn check_namespace(namespace: &str) -> Result<(), Failure> {
    names::check_namespace(namespace).map_err(|e| {
        Failure::usage(format!("namespace {namespace:?}: {e}"))
            .with_hint("a namespace is segments with slashes between, for example shop/eu")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, key: Option<&str>) -> EntryArgs {
        EntryArgs {
            path: path.to_owned(),
            key: key.map(str::to_owned),
        }
    }

    #[test]
    fn the_last_slash_ends_the_namespace() {
        assert_eq!(
            entry("shop/eu/tax", None).split().unwrap(),
            ("shop/eu", "tax")
        );
        assert_eq!(entry("shop", Some("a/b")).split().unwrap(), ("shop", "a/b"));
    }

    #[test]
    fn what_is_no_entry_is_refused_here() {
        for (path, key) in [
            ("tax", None),
            ("shop/", None),
            ("/tax", None),
            ("a/../b", None),
            ("a//b", None),
            ("", Some("k")),
        ] {
            assert!(entry(path, key).split().is_err(), "{path:?} {key:?}");
        }
    }
}
