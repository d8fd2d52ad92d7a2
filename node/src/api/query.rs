//! Query parameters, strictly: what is not known, given twice or not decodable is refused by name.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::failure::Failure;

/// Items of a page when the client does not say.
const LIMIT_DEFAULT: usize = 100;
/// Most items of a page.
pub(crate) const LIMIT_MAX: usize = 1000;
/// Longest list of parameters that is looked at.
const PARAMETERS_MAX: usize = 32;

/// The parameters of one request.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads `raw`, of which only the `allowed` names may appear.
    pub(crate) fn parse(raw: Option<&str>, allowed: &[&'static str]) -> Result<Self, Failure> {
        let mut found: Vec<(&'static str, String)> = Vec::new();
        let pairs = raw
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        for (i, pair) in pairs.enumerate() {
            if i >= PARAMETERS_MAX {
                return Err(Failure::invalid(
                    "query",
                    "there are too many query parameters",
                ));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| {
                Failure::invalid("query", "a query parameter's name is not valid")
            })?;
            let Some(known) = allowed.iter().copied().find(|known| *known == name) else {
                let name: String = name.chars().take(80).collect();
                return Err(Failure::invalid(
                    name.clone(),
                    format!("unknown query parameter {name:?}"),
                )
                .hint(match allowed {
                    [] => "this takes no query parameters".to_owned(),
                    _ => format!("known here: {}", allowed.join(", ")),
                }));
            };
            if found.iter().any(|(name, _)| *name == known) {
                return Err(Failure::invalid(
                    known,
                    format!("query parameter {known} is given twice"),
                ));
            }
            let value = decode(value).ok_or_else(|| {
                Failure::invalid(
                    known,
                    format!("query parameter {known} is not decodable UTF-8"),
                )
            })?;
            found.push((known, value));
        }
        Ok(Self(found))
    }

    /// The value of a parameter, if given.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.as_str())
    }

    /// `limit`, between 1 and [`LIMIT_MAX`].
    pub(crate) fn limit(&self) -> Result<usize, Failure> {
        let Some(text) = self.get("limit") else {
            return Ok(LIMIT_DEFAULT);
        };
        match text.parse::<usize>() {
            Ok(limit) if (1..=LIMIT_MAX).contains(&limit) && !text.starts_with('+') => Ok(limit),
            _ => Err(Failure::invalid(
                "limit",
                format!("limit is a number from 1 to {LIMIT_MAX}"),
            )),
        }
    }

    /// `cursor`: the name that the last page ended with.
    pub(crate) fn cursor(&self) -> Result<Option<String>, Failure> {
        self.get("cursor").map(read_cursor).transpose()
    }

    /// A switch: `true` or `false`, `false` when absent.
    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, Failure> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Failure::invalid(name, format!("{name} is true or false"))),
        }
    }
}

/// An opaque cursor that holds `text`.
pub(crate) fn cursor(text: &str) -> String {
    BASE64.encode(text)
}

/// What [`cursor`] made.
pub(crate) fn read_cursor(text: &str) -> Result<String, Failure> {
    let bytes = BASE64.decode(text).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|text| !text.is_empty() && !text.contains('\0'))
        .ok_or_else(|| {
            Failure::invalid("cursor", "the cursor is none that this API gave")
                .hint("pass nextCursor of the page before, unchanged")
        })
}

/// Form decoding: `+` is a space.
fn decode(raw: &str) -> Option<String> {
    let spaced = raw.replace('+', "%20");
    super::names::decode("query", &spaced).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(result: Result<impl std::fmt::Debug, Failure>) -> Option<String> {
        result.expect_err("a failure").into_problem().field
    }

    #[test]
    fn known_parameters_are_decoded() {
        let query = Query::parse(
            Some("limit=5&namespace=a%2Fb+c"),
            &["limit", "namespace", "key"],
        )
        .unwrap();
        assert_eq!(query.limit().unwrap(), 5);
        assert_eq!(query.get("namespace"), Some("a/b c"));
        assert_eq!(query.get("key"), None);
        assert_eq!(Query::default().limit().unwrap(), LIMIT_DEFAULT);
    }

    #[test]
    fn i19_wrong_parameters_are_named() {
        let allowed = &["limit", "cursor", "values"];
        assert_eq!(
            field(Query::parse(Some("limits=1"), allowed)).as_deref(),
            Some("limits")
        );
        assert_eq!(
            field(Query::parse(Some("limit=1&limit=2"), allowed)).as_deref(),
            Some("limit")
        );
        assert_eq!(
            field(Query::parse(Some("cursor=%ff"), allowed)).as_deref(),
            Some("cursor")
        );
        assert_eq!(
            field(Query::parse(Some("cursor=%f"), allowed)).as_deref(),
            Some("cursor")
        );
        for text in ["0", "-1", "1001", "x", "", "+5", "99999999999999999999999"] {
            let query = Query::parse(Some(&format!("limit={text}")), allowed).unwrap();
            assert_eq!(field(query.limit()).as_deref(), Some("limit"), "{text}");
        }
        let query = Query::parse(Some("values=yes"), allowed).unwrap();
        assert_eq!(field(query.flag("values")).as_deref(), Some("values"));
        assert!(Query::parse(Some(&"limit=1&".repeat(1000)), allowed).is_err());
    }
}
