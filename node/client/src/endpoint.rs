//! Where a node serves clients: a scheme, a host and a port, and nothing else.

use std::{fmt, str::FromStr};

use url::{Host, Url};

use crate::ClientError;

/// The address of a node's API. Two are equal when scheme, host and port are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint(Url);

impl Endpoint {
    /// The endpoint that a `Location` points at; its path does not matter here.
    pub(crate) fn of_location(text: &str) -> Option<Self> {
        let mut url = Url::parse(text).ok()?;
        url.set_path("");
        url.set_query(None);
        url.set_fragment(None);
        Self::checked(url).ok()
    }

    /// The URL of a request to this endpoint. `path_and_query` starts with a slash and is encoded already.
    pub(crate) fn url(&self, path_and_query: &str) -> Result<Url, url::ParseError> {
        let url = Url::parse(&format!("{self}{path_and_query}"))?;
        debug_assert!(
            path_and_query.starts_with(url.path()),
            "{path_and_query} became {}",
            url.path()
        );
        Ok(url)
    }

    /// Traffic to it can be read on the way.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// The same place over TLS; none where it is that already.
    pub(crate) fn over_tls(&self) -> Option<Self> {
        let mut url = self.0.clone();
        (self.is_plain() && url.set_scheme("https").is_ok()).then_some(Self(url))
    }

    /// It leads to the machine, or the container, of whoever asks.
    pub fn is_loopback(&self) -> bool {
        match self.0.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        }
    }

    fn checked(url: Url) -> Result<Self, &'static str> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err("the scheme must be http or https");
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err("it names no host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it must not hold a user or password");
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("it must end after the port");
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl FromStr for Endpoint {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |why| ClientError::Endpoint {
            text: text.chars().take(200).collect(),
            why,
        };
        let url = Url::parse(text.trim()).map_err(|_| refuse("it is not a URL"))?;
        Self::checked(url).map_err(refuse)
    }
}

/// Reads `CONFMAN_ENDPOINTS`: URLs with commas between; the same one twice counts once.
///
/// # Errors
/// The first that is no endpoint, or that there is none.
pub fn parse_endpoints(text: &str) -> Result<Vec<Endpoint>, ClientError> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let endpoint = part.parse()?;
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    if endpoints.is_empty() {
        return Err(ClientError::Endpoint {
            text: text.to_owned(),
            why: "it names no host",
        });
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_when_scheme_host_and_port_are() -> Result<(), ClientError> {
        let a: Endpoint = "http://Node1:80/".parse()?;
        let b: Endpoint = "http://node1".parse()?;
        assert_eq!(a, b);
        assert_eq!(a.to_string(), "http://node1");
        assert_eq!(
            Endpoint::of_location("http://node1/api/v1/config/a/b?x=1"),
            Some(b)
        );
        Ok(())
    }

    #[test]
    fn refuses_what_is_no_endpoint() {
        for text in [
            "",
            "node1:6100",
            "127.0.0.1:6100",
            "ftp://a",
            "http://a/b",
            "http://a?x",
            "http://u:p@a",
            "http://u@a",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
        assert_eq!(Endpoint::of_location("http://evil@node1/"), None);
        assert_eq!(Endpoint::of_location("/relative"), None);
    }

    #[test]
    fn a_list_has_commas_and_no_doubles() -> Result<(), ClientError> {
        let list = parse_endpoints(" http://a:1 ,http://b:2,,http://a:1/")?;
        assert_eq!(
            list.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["http://a:1", "http://b:2"]
        );
        assert!(parse_endpoints(" , ").is_err());
        Ok(())
    }
}
