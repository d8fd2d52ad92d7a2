//! Names in requests: percent-decoding by hand and the rules for namespaces and keys, in one place.
//!
//! Promises: a name that passes is UTF-8, has no control characters, no `.` or `..` part, and is short enough for
//! the store; decoding never turns a `%2F` of a key into a separator, because the raw path is cut before it is
//! decoded.
//!
//! Does not: touch the file system (names are ids there); escape for a terminal (whoever prints does).

use confman_client::wire::ProblemKind;
use confman_store::names;

use super::failure::Failure;

/// Deepest namespace: one write makes at most that many.
pub(crate) const SEGMENTS_MAX: usize = 64;

/// What a path under `/api/v1/config/` names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConfigPath {
    /// `{namespace}/`: its keys.
    List { namespace: String },
    /// `{namespace}/{key}`: one entry.
    Entry { namespace: String, key: String },
}

/// Cuts the raw, still encoded rest of a config path at its last `/`.
pub(crate) fn config_path(raw: &str) -> Result<ConfigPath, Failure> {
    let Some((namespace, key)) = raw.rsplit_once('/') else {
        return Err(bad(
            "namespace",
            "a key stands in a namespace, the path has none",
        )
        .hint("use /api/v1/config/{namespace}/{key}; encode a slash inside a key as %2F"));
    };
    let namespace = namespace_path(namespace)?;
    if key.is_empty() {
        return Ok(ConfigPath::List { namespace });
    }
    let key = decode("key", key)?;
    check_key(&key)?;
    Ok(ConfigPath::Entry { namespace, key })
}

/// Decodes a raw namespace path, segment by segment.
pub(crate) fn namespace_path(raw: &str) -> Result<String, Failure> {
    let mut path = String::with_capacity(raw.len().min(names::NAMESPACE_BYTES_MAX));
    for (i, segment) in raw.split('/').enumerate() {
        let segment = decode("namespace", segment)?;
        if segment.contains('/') {
            return Err(
                bad("namespace", "a namespace segment holds an encoded slash")
                    .hint("segments are joined by plain slashes; only keys may hold %2F"),
            );
        }
        if i > 0 {
            path.push('/');
        }
        path.push_str(&segment);
    }
    check_namespace(&path)?;
    Ok(path)
}

/// The rules for a decoded namespace path: the store's, and a bound on its depth.
pub(crate) fn check_namespace(path: &str) -> Result<(), Failure> {
    names::check_namespace(path).map_err(|e| bad(e.what, e.to_string()))?;
    if path.split('/').count() > SEGMENTS_MAX {
        return Err(bad(
            "namespace",
            format!("namespace has more than {SEGMENTS_MAX} segments"),
        ));
    }
    Ok(())
}

/// The rules for a decoded key: the store's, and no `.` or `..` between slashes, because keys become file names in
/// an export.
pub(crate) fn check_key(key: &str) -> Result<(), Failure> {
    names::check_key(key).map_err(|e| bad(e.what, e.to_string()))?;
    match key.split('/').find(|part| matches!(*part, "." | "..")) {
        Some(part) => Err(bad("key", format!("key has the part {part:?}"))),
        None => Ok(()),
    }
}

/// Strict percent-decoding to UTF-8; `+` is itself.
pub(crate) fn decode(field: &'static str, raw: &str) -> Result<String, Failure> {
    let bytes = decode_bytes(raw.as_bytes()).ok_or_else(|| {
        bad(
            field,
            format!("the {field} has a percent sign that two hex digits do not follow"),
        )
    })?;
    String::from_utf8(bytes).map_err(|_| bad(field, format!("the {field} is not UTF-8")))
}

fn decode_bytes(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = hex_digit(rest.next()?)?;
        let low = hex_digit(rest.next()?)?;
        out.push(high << 4 | low);
    }
    Some(out)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn bad(field: &'static str, detail: impl Into<String>) -> Failure {
    Failure::new(ProblemKind::InvalidName, detail).field(field)
}

#[cfg(test)]
mod tests {
    use confman_store::names::KEY_BYTES_MAX;
    use confman_store::names::SEGMENT_BYTES_MAX;
    use proptest::prelude::*;

    use super::*;

    fn entry(namespace: &str, key: &str) -> ConfigPath {
        ConfigPath::Entry {
            namespace: namespace.to_owned(),
            key: key.to_owned(),
        }
    }

    #[test]
    fn the_path_is_cut_before_it_is_decoded() {
        assert_eq!(config_path("shop/eu/tax").unwrap(), entry("shop/eu", "tax"));
        assert_eq!(
            config_path("shop/eu%2Ftax").unwrap(),
            entry("shop", "eu/tax")
        );
        assert_eq!(config_path("a%20b/%C3%A4+1").unwrap(), entry("a b", "ä+1"));
        assert_eq!(
            config_path("shop/eu/").unwrap(),
            ConfigPath::List {
                namespace: "shop/eu".to_owned()
            }
        );
    }

    #[test]
    fn i19_hostile_names_are_refused_with_the_field() {
        let long_segment = "a".repeat(SEGMENT_BYTES_MAX + 1);
        let long_key = format!("a/{}", "k".repeat(KEY_BYTES_MAX + 1));
        let deep = format!("{}key", "a/".repeat(SEGMENTS_MAX + 1));
        let cases = [
            ("key", "namespace"),
            ("", "namespace"),
            ("/", "namespace"),
            ("//", "namespace"),
            ("/key", "namespace"),
            ("a//key", "namespace"),
            ("../key", "namespace"),
            ("a/../key", "namespace"),
            ("a/%2e%2e/key", "namespace"),
            ("a%2Fb/key", "namespace"),
            ("a%00/key", "namespace"),
            ("a%1b[31m/key", "namespace"),
            ("a%zz/key", "namespace"),
            ("a%/key", "namespace"),
            ("a%f/key", "namespace"),
            ("%ff%fe/key", "namespace"),
            ("a/..", "key"),
            ("a/%2e", "key"),
            ("a/b%2F..%2Fc", "key"),
            ("a/%0a", "key"),
            ("a/%c2%85", "key"),
            ("a/%ff", "key"),
            ("a/%2", "key"),
            (long_segment.as_str(), "namespace"),
            (long_key.as_str(), "key"),
            (deep.as_str(), "namespace"),
        ];
        for (raw, field) in cases {
            let problem = config_path(raw).expect_err(raw).into_problem();
            assert_eq!(problem.status, 400, "{raw}");
            assert_eq!(problem.field.as_deref(), Some(field), "{raw}: {problem:?}");
        }
    }

    proptest! {
        #[test]
        fn any_key_survives_full_encoding(key in "[^\u{0}-\u{1f}\u{7f}-\u{9f}/]{1,60}") {
            prop_assume!(key != "." && key != "..");
            let encoded: String = key.bytes().map(|b| format!("%{b:02X}")).collect();
            prop_assert_eq!(config_path(&format!("ns/{encoded}")).unwrap(), entry("ns", &key));
        }

        #[test]
        fn no_raw_path_panics(raw in ".{0,200}") {
            let _ = config_path(&raw);
            let _ = namespace_path(&raw);
        }
    }
}
