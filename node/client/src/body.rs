//! What is sent and what comes back: streamed, so that memory does not grow with a value.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{fs::File, io::AsyncReadExt};
use tokio_util::io::ReaderStream;

use crate::{ClientError, Endpoint};

const READ_BYTES: usize = 256 << 10;
/// A download that brings nothing for this long has broken off.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// The body of a request; can be sent more than once.
#[derive(Debug, Clone)]
pub enum Upload {
    /// From memory.
    Bytes(Bytes),
    /// From a file, which is opened anew for each attempt.
    File {
        /// The file.
        path: PathBuf,
        /// How many of its bytes are sent.
        bytes: u64,
    },
}

impl Upload {
    /// The whole of a file as it is now.
    ///
    /// # Errors
    /// [`ClientError::Upload`] when its size cannot be read.
    pub async fn file(path: &Path) -> Result<Self, ClientError> {
        let meta = tokio::fs::metadata(path)
            .await
            .map_err(|source| upload_error(path, source))?;
        Ok(Self::File {
            path: path.to_owned(),
            bytes: meta.len(),
        })
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) async fn body(&self) -> Result<reqwest::Body, ClientError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone().into()),
            Self::File { path, bytes } => {
                let file = File::open(path)
                    .await
                    .map_err(|source| upload_error(path, source))?;
                // A file that grows meanwhile is sent as it was measured; one that shrinks breaks the request off.
                let stream = ReaderStream::with_capacity(file.take(*bytes), READ_BYTES);
                Ok(reqwest::Body::wrap_stream(stream))
            }
        }
    }
}

impl From<Bytes> for Upload {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

fn upload_error(path: &Path, source: std::io::Error) -> ClientError {
    ClientError::Upload {
        path: path.to_owned(),
        source,
    }
}

/// The body of an answer, as it comes.
#[derive(Debug)]
pub struct Download {
    endpoint: Endpoint,
    response: reqwest::Response,
    received: u64,
}

impl Download {
    pub(crate) fn new(endpoint: Endpoint, response: reqwest::Response) -> Self {
        Self {
            endpoint,
            response,
            received: 0,
        }
    }

    /// The size that the node announced.
    pub fn announced_bytes(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next piece; `None` only when everything announced has come.
    ///
    /// # Errors
    /// [`ClientError::BrokenOff`] when the connection ends early or brings nothing for 30 s.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let chunk = match tokio::time::timeout(IDLE_MAX, self.response.chunk()).await {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(error)) => return Err(self.broken_off(chain(&error))),
            Err(_) => {
                return Err(self.broken_off(format!("nothing came for {} s", IDLE_MAX.as_secs())));
            }
        };
        self.received += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Ok(chunk)
    }

    /// All of it.
    ///
    /// # Errors
    /// [`ClientError::BrokenOff`]; [`ClientError::Answer`] when it is larger than `bytes_max`.
    pub async fn bytes(mut self, bytes_max: usize) -> Result<Bytes, ClientError> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await? {
            if all.len() + chunk.len() > bytes_max {
                let why = format!("it is larger than {bytes_max} bytes");
                return Err(ClientError::Answer {
                    endpoint: self.endpoint.to_string(),
                    why,
                });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    fn broken_off(&self, why: String) -> ClientError {
        ClientError::BrokenOff {
            endpoint: self.endpoint.to_string(),
            received: self.received,
            why,
        }
    }
}

/// An error with its causes, without the URL that reqwest repeats.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let part = error.to_string();
        let part = part.split(" for url (").next().unwrap_or_default();
        if !text.contains(part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(part);
        }
        cause = error.source();
    }
    text
}
