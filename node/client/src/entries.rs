//! Questions about entries: get, put, delete, list.

use bytes::Bytes;
use reqwest::{Method, StatusCode, header::ETAG};

use crate::{
    Answered, Client, ClientError, Download, Page, Precondition, PutOptions, ReadMode, Upload,
    ask::{Ask, Body, Want},
    client::{Query, answered, decode, encode},
    names,
    routes::route_of,
    wire::{Entry, EntryHead, List, PutEnvelope, ValueType, header, parse_etag},
};

/// Above this the leader is looked for before the value is sent.
const LOOK_FOR_LEADER_BYTES: u64 = 1 << 20;

/// What to put.
#[derive(Debug, Clone)]
pub enum PutValue {
    /// A JSON value, whose type the node infers when the envelope names none.
    Json(PutEnvelope),
    /// Bytes, stored exactly.
    Raw {
        /// The bytes.
        upload: Upload,
        /// What they are.
        value_type: ValueType,
    },
}

/// What a put did.
#[derive(Debug, Clone)]
pub struct Written {
    /// The entry as it is now.
    pub head: EntryHead,
    /// The key was not there before.
    pub created: bool,
    /// It was there already, with the same bytes and type.
    pub unchanged: bool,
}

/// An entry's bytes, on their way.
#[derive(Debug)]
pub struct RawEntry {
    /// The version that they are.
    pub version: Option<u64>,
    /// What they are.
    pub value_type: Option<ValueType>,
    /// The bytes.
    pub body: Download,
}

impl Client {
    /// An entry with its value as JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(
        &self,
        namespace: &str,
        key: &str,
        mode: ReadMode,
    ) -> Result<Answered<Entry>, ClientError> {
        let ask = self
            .entry_ask(namespace, key, mode)?
            .header("accept", "application/json")?;
        self.json(&ask).await
    }

    /// An entry's bytes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_raw(
        &self,
        namespace: &str,
        key: &str,
        mode: ReadMode,
    ) -> Result<Answered<RawEntry>, ClientError> {
        let ask = self
            .entry_ask(namespace, key, mode)?
            .header("accept", "application/octet-stream")?;
        let reply = self.ask(&ask, Want::Stream).await?;
        let text = |name: &str| {
            reply
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let version = text(ETAG.as_str()).and_then(parse_etag);
        let value_type = text(header::TYPE).and_then(|name| name.parse().ok());
        let about = answered(&reply, ());
        match reply.body {
            Body::Stream(body) => Ok(about.map(|()| RawEntry {
                version,
                value_type,
                body,
            })),
            Body::Whole(_) => Err(ClientError::Answer {
                endpoint: about.endpoint.to_string(),
                why: "no body to stream".to_owned(),
            }),
        }
    }

    /// Whether an entry is still the given version: `None` then, else the entry.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_unless(
        &self,
        namespace: &str,
        key: &str,
        version: u64,
        mode: ReadMode,
    ) -> Result<Answered<Option<Entry>>, ClientError> {
        let ask = self
            .entry_ask(namespace, key, mode)?
            .header("accept", "application/json")?
            .header("if-none-match", &crate::wire::etag(version))?;
        let reply = self.ask(&ask, Want::Whole).await?;
        if reply.status == StatusCode::NOT_MODIFIED {
            return Ok(answered(&reply, None));
        }
        Ok(decode::<Entry>(reply)?.map(Some))
    }

    /// Writes a value. One that is sent twice, because an answer was lost, is applied once.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Unconfirmed`] when it may or may not have happened.
    pub async fn put(
        &self,
        namespace: &str,
        key: &str,
        value: &PutValue,
        options: &PutOptions,
    ) -> Result<Answered<Written>, ClientError> {
        let mut ask = self.write_entry_ask(Method::PUT, namespace, key, options.precondition)?;
        match value {
            PutValue::Json(envelope) => {
                ask.content_type = Some("application/json");
                ask.upload = Upload::Bytes(encode(envelope)?);
            }
            PutValue::Raw { upload, value_type } => {
                ask.content_type = Some("application/octet-stream");
                ask.upload = upload.clone();
                ask = ask.header(header::TYPE, value_type.as_str())?;
            }
        }
        if options.skip_unchanged {
            ask = ask.header(header::SKIP_UNCHANGED, "true")?;
        }
        if let Some(name) = &options.idempotency_key {
            ask = ask.header(header::IDEMPOTENCY_KEY, name)?;
        }
        if ask.upload.len() > LOOK_FOR_LEADER_BYTES {
            self.find_leader(namespace).await;
        }
        let reply = self.ask(&ask, Want::Whole).await?;
        let created = reply.status == StatusCode::CREATED;
        let unchanged = reply
            .headers
            .get(header::UNCHANGED)
            .is_some_and(|value| value == "true");
        Ok(decode::<EntryHead>(reply)?.map(|head| Written {
            head,
            created,
            unchanged,
        }))
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(
        &self,
        namespace: &str,
        key: &str,
        precondition: Precondition,
    ) -> Result<Answered<()>, ClientError> {
        let ask = self.write_entry_ask(Method::DELETE, namespace, key, precondition)?;
        Ok(answered(&self.ask(&ask, Want::Whole).await?, ()))
    }

    /// One page of the keys directly in a namespace; with their values where those are inline, if asked.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(
        &self,
        namespace: &str,
        page: &Page,
        values: bool,
        mode: ReadMode,
    ) -> Result<Answered<List<Entry>>, ClientError> {
        let mut query = Query::default();
        query.add("values", values.then_some("true"));
        query.page(page);
        let path = format!(
            "/api/v1/config/{}/{query}",
            names::namespace_path(namespace)?
        );
        self.json(&self.with_mode(self.read_ask(path), mode)?).await
    }

    fn entry_ask(&self, namespace: &str, key: &str, mode: ReadMode) -> Result<Ask, ClientError> {
        let path = format!("/api/v1/config/{}", names::entry_path(namespace, key)?);
        self.with_mode(self.read_ask(path), mode)
    }

    fn write_entry_ask(
        &self,
        method: Method,
        namespace: &str,
        key: &str,
        precondition: Precondition,
    ) -> Result<Ask, ClientError> {
        let mut ask = self.write_ask(
            method,
            format!("/api/v1/config/{}", names::entry_path(namespace, key)?),
        );
        ask.route = route_of(namespace);
        match precondition.header() {
            Some((name, value)) => ask.header(name, &value),
            None => Ok(ask),
        }
    }
}

impl From<Vec<u8>> for Upload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Bytes::from(bytes))
    }
}
