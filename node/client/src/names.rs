//! Request paths from names. The one place that percent-encodes.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::ClientError;

/// All but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One path segment or query value.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// `.` and `..` change the path wherever a URL is parsed, encoded or not: such a request would reach another key.
fn check_segment(what: &'static str, whole: &str, segment: &str) -> Result<(), ClientError> {
    let why = match segment {
        "" => "it is empty, or has an empty segment",
        "." | ".." => "`.` and `..` cannot stand in a path",
        _ => return Ok(()),
    };
    Err(ClientError::Name {
        what,
        name: whole.chars().take(200).collect(),
        why,
    })
}

/// The namespace's segments, encoded, slashes between.
pub(crate) fn namespace_path(namespace: &str) -> Result<String, ClientError> {
    let mut path = String::with_capacity(namespace.len() + 8);
    for (i, segment) in namespace.split('/').enumerate() {
        check_segment("namespace", namespace, segment)?;
        if i > 0 {
            path.push('/');
        }
        path.push_str(&encode(segment));
    }
    Ok(path)
}

/// `{namespace}/{key}`, encoded; a slash inside the key becomes `%2F`.
pub(crate) fn entry_path(namespace: &str, key: &str) -> Result<String, ClientError> {
    check_segment("key", key, key)?;
    Ok(format!("{}/{}", namespace_path(namespace)?, encode(key)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Endpoint;

    #[test]
    fn a_slash_in_a_key_is_encoded_and_one_in_a_namespace_is_not() -> Result<(), ClientError> {
        assert_eq!(entry_path("shop/eu", "a/b c%")?, "shop/eu/a%2Fb%20c%25");
        Ok(())
    }

    #[test]
    fn x03_names_that_change_a_path_are_refused() {
        for (namespace, key) in [
            ("", "k"),
            ("a//b", "k"),
            ("/a", "k"),
            ("a/", "k"),
            ("a/../b", "k"),
            ("..", "k"),
            ("a", ".."),
            ("a", "."),
        ] {
            assert!(entry_path(namespace, key).is_err(), "{namespace:?} {key:?}");
        }
    }

    proptest! {
        #[test]
        fn a_url_keeps_the_path(namespace in "[^/]{1,12}(/[^/]{1,12}){0,3}", key in ".{1,16}") {
            if let Ok(path) = entry_path(&namespace, &key) {
                let endpoint: Endpoint = "http://127.0.0.1:1".parse().map_err(|_| TestCaseError::fail("endpoint"))?;
                let wanted = format!("/api/v1/config/{path}");
                let url = endpoint.url(&wanted).map_err(|e| TestCaseError::fail(e.to_string()))?;
                prop_assert_eq!(url.path(), wanted);
            }
        }
    }
}
