//! Request headers as values: ids, preconditions, read mode, media types, switches.
//!
//! Promises: a header that is present and not understood is refused by name, never ignored, where ignoring it would
//! change what a write does (preconditions, idempotency, type, switches).

use confman_client::wire::ValueType;
use confman_client::wire::VersionToken;
use confman_client::wire::header as names;
use confman_client::wire::parse_etag;
use http::HeaderMap;
use http::StatusCode;
use http::header;

use super::backend::ReadError;
use super::backend::ReadMode;
use super::failure::Failure;
use super::read;

/// Longest request, correlation and idempotency id.
const ID_BYTES_MAX: usize = 128;

/// What `If-Match` and `If-None-Match` ask of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteCondition {
    /// Nothing.
    None,
    /// The entry has this version.
    VersionIs(u64),
    /// The entry exists.
    Exists,
    /// The entry does not exist.
    Absent,
}

impl WriteCondition {
    /// The condition as text that stays the same: idempotency keys stand for it.
    pub(crate) fn tag(self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::VersionIs(version) => format!("version {version}"),
            Self::Exists => "exists".to_owned(),
            Self::Absent => "absent".to_owned(),
        }
    }
}

/// One representation of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Representation {
    /// The JSON entry.
    Json,
    /// The stored bytes.
    Raw,
    /// Either of them.
    Any,
}

/// The one value of a header, refusing repeats and bytes that are no visible ASCII.
pub(crate) fn single<'h>(
    headers: &'h HeaderMap,
    name: &'static str,
) -> Result<Option<&'h str>, Failure> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Failure::invalid(
            name,
            format!("header {name} is given twice"),
        ));
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(Failure::invalid(
            name,
            format!("header {name} is not visible ASCII"),
        )),
    }
}

/// An id from the client, if it is sane: short, and of characters that are harmless in logs and headers.
pub(crate) fn sane_id(headers: &HeaderMap, name: &'static str) -> Option<String> {
    let text = single(headers, name).ok()??;
    is_sane_id(text).then(|| text.to_owned())
}

fn is_sane_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ID_BYTES_MAX
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@#~".contains(&b))
}

/// `Idempotency-Key`: a write does not silently lose its protection, so a wrong one is refused.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    match single(headers, names::IDEMPOTENCY_KEY)? {
        None => Ok(None),
        // The draft standard writes it as a quoted string; both spellings name the same key.
        Some(text) => {
            let text = text
                .strip_prefix('"')
                .and_then(|text| text.strip_suffix('"'))
                .unwrap_or(text);
            check_idempotency_key(names::IDEMPOTENCY_KEY, text).map(Some)
        }
    }
}

/// The rule for idempotency keys, in headers and in batch items.
pub(crate) fn check_idempotency_key(field: &str, text: &str) -> Result<String, Failure> {
    if is_sane_id(text) {
        Ok(text.to_owned())
    } else {
        Err(Failure::invalid(
            field,
            format!(
                "an idempotency key is 1 to {ID_BYTES_MAX} of the characters A-Z a-z 0-9 - _ . : / + = @ # ~"
            ),
        ))
    }
}

/// A switch header: `true` or `false`, `false` when absent.
pub(crate) fn flag(headers: &HeaderMap, name: &'static str) -> Result<bool, Failure> {
    match single(headers, name)? {
        None => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(Failure::invalid(
            name,
            format!("header {name} is true or false"),
        )),
    }
}

/// The condition of a write.
pub(crate) fn write_condition(headers: &HeaderMap) -> Result<WriteCondition, Failure> {
    let if_match = single(headers, "if-match")?;
    let if_none_match = single(headers, "if-none-match")?;
    match (if_match, if_none_match) {
        (None, None) => Ok(WriteCondition::None),
        (Some(_), Some(_)) => Err(Failure::invalid(
            "if-match",
            "if-match and if-none-match do not go together",
        )),
        (Some("*"), None) => Ok(WriteCondition::Exists),
        (None, Some("*")) => Ok(WriteCondition::Absent),
        (Some(text), None) => match parse_etag(text) {
            Some(version) if !text.starts_with("W/") => Ok(WriteCondition::VersionIs(version)),
            _ => Err(Failure::invalid(
                "if-match",
                "if-match is * or one entity tag of the form \"v6\"",
            )),
        },
        (None, Some(_)) => Err(Failure::invalid(
            "if-none-match",
            "if-none-match of a write is *: the key must not exist",
        )),
    }
}

/// Whether `If-None-Match` of a read names `version`, so that 304 is the answer.
pub(crate) fn not_modified(headers: &HeaderMap, version: u64) -> Result<bool, Failure> {
    let Some(text) = single(headers, "if-none-match")? else {
        return Ok(false);
    };
    if text == "*" {
        return Ok(true);
    }
    Ok(text.split(',').any(|tag| parse_etag(tag) == Some(version)))
}

/// Whether `If-Match` of a read leaves out `version`, so that 412 is the answer.
pub(crate) fn match_fails(headers: &HeaderMap, version: u64) -> Result<bool, Failure> {
    let Some(text) = single(headers, "if-match")? else {
        return Ok(false);
    };
    if text == "*" {
        return Ok(false);
    }
    Ok(!text.split(',').any(|tag| parse_etag(tag) == Some(version)))
}

/// How fresh a read has to be. A token alone does not change the mode: answers carry one and clients echo it. One of
/// another life of the cluster is refused in every mode: what it saw may not be there any more.
pub(crate) fn read_mode(headers: &HeaderMap, incarnation: u64) -> Result<ReadMode, Failure> {
    let token = single(headers, names::VERSION)?
        .map(str::parse::<VersionToken>)
        .transpose()
        .map_err(|e| Failure::invalid(names::VERSION, e.to_string()))?;
    if let Some(token) = token
        && token.incarnation != incarnation
    {
        return Err(read::failure(ReadError::OldIncarnation {
            token: token.incarnation,
            current: incarnation,
        }));
    }
    consistency(headers, token)
}

fn consistency(headers: &HeaderMap, token: Option<VersionToken>) -> Result<ReadMode, Failure> {
    match single(headers, names::CONSISTENCY)? {
        None | Some("linearizable") => Ok(ReadMode::Linearizable),
        Some("eventual") => Ok(ReadMode::Eventual),
        Some("read-your-writes") => token.map(ReadMode::ReadYourWrites).ok_or_else(|| {
            Failure::invalid(
                names::VERSION,
                "read-your-writes needs the token of the write",
            )
            .hint("send back the X-Confman-Version that the write answered")
        }),
        Some(_) => Err(Failure::invalid(
            names::CONSISTENCY,
            "the consistency is linearizable, read-your-writes or eventual",
        )),
    }
}

/// `X-Confman-Type` of a raw upload.
pub(crate) fn value_type(headers: &HeaderMap) -> Result<ValueType, Failure> {
    match single(headers, names::TYPE)? {
        None => Ok(ValueType::Binary),
        Some(text) => text
            .parse()
            .map_err(|e: confman_client::wire::ParseValueTypeError| {
                Failure::invalid(names::TYPE, e.to_string())
            }),
    }
}

/// Whether the body is the JSON envelope: `application/json`, whatever its parameters.
pub(crate) fn is_json(headers: &HeaderMap) -> Result<bool, Failure> {
    Ok(single(headers, "content-type")?.is_some_and(|text| {
        let essence = text.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    }))
}

/// Refuses what would change what a body means: nothing here decodes a body or takes a part of one.
pub(crate) fn refuse_codings(headers: &HeaderMap) -> Result<(), Failure> {
    if single(headers, "content-encoding")?
        .is_some_and(|text| !text.eq_ignore_ascii_case("identity"))
    {
        return Err(Failure::invalid(
            "content-encoding",
            "bodies are taken as they are, without a content encoding",
        )
        .status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if headers.contains_key("content-range") {
        return Err(Failure::invalid(
            "content-range",
            "a value is put as a whole",
        ));
    }
    Ok(())
}

/// The representation that `Accept` likes best; JSON when it does not care, where the value is not too large for it.
pub(crate) fn representation(headers: &HeaderMap) -> Representation {
    let mut raw = 0u16;
    let mut json: Option<u16> = None;
    let mut any = 0u16;
    let values = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';');
        let kind = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let quality = parts
            .filter_map(|part| part.trim().strip_prefix("q="))
            .find_map(quality)
            .unwrap_or(1000);
        match kind.as_str() {
            "application/octet-stream" => raw = raw.max(quality),
            "application/json" => json = Some(json.unwrap_or(0).max(quality)),
            "application/*" | "*/*" => any = any.max(quality),
            _ => {}
        }
    }
    if raw > json.unwrap_or(any.saturating_sub(1)) {
        Representation::Raw
    } else if json.is_none() && (any > 0 || !headers.contains_key(header::ACCEPT)) {
        Representation::Any
    } else {
        Representation::Json
    }
}

/// A quality in thousandths.
fn quality(text: &str) -> Option<u16> {
    let value: f32 = text.trim().parse().ok()?;
    // The range is checked, so the cast keeps the value.
    (0.0..=1.0)
        .contains(&value)
        .then_some((value * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn conditions_of_a_write() {
        let of = |pairs: &[(&'static str, &'static str)]| write_condition(&headers(pairs));
        assert_eq!(of(&[]).unwrap(), WriteCondition::None);
        assert_eq!(
            of(&[("if-match", "\"v6\"")]).unwrap(),
            WriteCondition::VersionIs(6)
        );
        assert_eq!(of(&[("if-match", "*")]).unwrap(), WriteCondition::Exists);
        assert_eq!(
            of(&[("if-none-match", "*")]).unwrap(),
            WriteCondition::Absent
        );
        for (pairs, field) in [
            (&[("if-match", "v6")][..], "if-match"),
            (&[("if-match", "")], "if-match"),
            (&[("if-match", "W/\"v6\"")], "if-match"),
            (&[("if-match", "\"v1\", \"v2\"")], "if-match"),
            (&[("if-match", "\"v99999999999999999999999\"")], "if-match"),
            (&[("if-none-match", "\"v6\"")], "if-none-match"),
            (&[("if-match", "*"), ("if-none-match", "*")], "if-match"),
        ] {
            let problem = of(pairs).expect_err("refused").into_problem();
            assert_eq!(
                (problem.status, problem.field.as_deref()),
                (400, Some(field)),
                "{pairs:?}"
            );
        }
        let mut twice = headers(&[("if-match", "\"v1\"")]);
        twice.append("if-match", HeaderValue::from_static("\"v2\""));
        assert!(
            write_condition(&twice).is_err(),
            "a repeated condition is not a choice"
        );
    }

    #[test]
    fn conditions_of_a_read() {
        for (value, version, expected) in [
            ("\"v6\"", 6, true),
            ("W/\"v6\"", 6, true),
            ("\"v5\", \"v6\"", 6, true),
            ("*", 6, true),
            ("\"v5\"", 6, false),
            ("nonsense", 6, false),
        ] {
            let map = headers(&[("if-none-match", value)]);
            assert_eq!(not_modified(&map, version).unwrap(), expected, "{value}");
            let map = headers(&[("if-match", value)]);
            assert_eq!(match_fails(&map, version).unwrap(), !expected, "{value}");
        }
    }

    #[test]
    fn the_accept_header_chooses() {
        use Representation::{Any, Json, Raw};
        for (accept, expected) in [
            ("application/octet-stream", Raw),
            ("application/octet-stream, */*;q=0.1", Raw),
            ("application/octet-stream;q=0.5, application/json", Json),
            ("application/json;q=0.5, application/octet-stream", Raw),
            ("APPLICATION/OCTET-STREAM", Raw),
            ("application/octet-stream;q=0", Json),
            ("*/*", Any),
            ("application/json, */*", Json),
            ("text/html", Json),
            ("", Json),
            (";;,,;q=x", Json),
        ] {
            assert_eq!(
                representation(&headers(&[("accept", accept)])),
                expected,
                "{accept}"
            );
        }
        assert_eq!(representation(&HeaderMap::new()), Any);
    }

    #[test]
    fn read_modes_and_their_tokens() {
        let of = |pairs: &[(&'static str, &'static str)]| read_mode(&headers(pairs), 1);
        assert_eq!(of(&[]).unwrap(), ReadMode::Linearizable);
        assert_eq!(
            of(&[("x-confman-version", "1.2.3")]).unwrap(),
            ReadMode::Linearizable
        );
        assert_eq!(
            of(&[("x-confman-consistency", "eventual")]).unwrap(),
            ReadMode::Eventual
        );
        assert_eq!(
            of(&[
                ("x-confman-consistency", "read-your-writes"),
                ("x-confman-version", "1.2.3")
            ])
            .unwrap(),
            ReadMode::ReadYourWrites(VersionToken {
                incarnation: 1,
                term: 2,
                index: 3
            })
        );
        assert!(of(&[("x-confman-consistency", "read-your-writes")]).is_err());
        assert!(of(&[("x-confman-consistency", "strong")]).is_err());
        assert!(of(&[("x-confman-version", "1.2")]).is_err());
        for mode in ["linearizable", "eventual", "read-your-writes"] {
            let old = of(&[
                ("x-confman-consistency", mode),
                ("x-confman-version", "2.2.3"),
            ]);
            assert_eq!(old.expect_err(mode).into_problem().status, 409, "{mode}");
        }
    }

    #[test]
    fn i19_insane_ids_are_not_taken() {
        let long: &'static str = Box::leak("x".repeat(ID_BYTES_MAX + 1).into_boxed_str());
        assert_eq!(
            sane_id(
                &headers(&[("x-correlation-id", "job-7:step.2")]),
                "x-correlation-id"
            )
            .as_deref(),
            Some("job-7:step.2")
        );
        for value in ["", "a b", "a\"b", "<script>", long] {
            let map = headers(&[("x-correlation-id", value), ("idempotency-key", value)]);
            assert_eq!(sane_id(&map, "x-correlation-id"), None, "{value}");
            assert!(idempotency_key(&map).is_err(), "{value}");
        }
        assert_eq!(
            idempotency_key(&headers(&[("idempotency-key", "\"abc\"")]))
                .unwrap()
                .as_deref(),
            Some("abc")
        );
    }
}
