//! Reading the files, with bounds.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::FileError;

/// Enough for any chain and for a bundle of all public authorities.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The bits of the mode that let everybody in.
const OTHERS: u32 = 0o007;

/// A file, and the setting that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// `CONFMAN_TLS_CERT_FILE` or the like.
    pub setting: &'static str,
    /// Where it is.
    pub path: PathBuf,
}

impl NamedFile {
    /// That file, named by that setting.
    #[must_use]
    pub fn new(setting: &'static str, path: impl Into<PathBuf>) -> Self {
        Self {
            setting,
            path: path.into(),
        }
    }

    pub(crate) fn wrong(&self, why: impl Into<String>, hint: impl Into<String>) -> FileError {
        FileError {
            setting: self.setting,
            path: self.path.clone(),
            why: why.into(),
            hint: hint.into(),
            by_time: false,
        }
    }

    /// [`NamedFile::wrong`] of a certificate that will do at another time.
    pub(crate) fn untimely(&self, why: String, hint: &str) -> FileError {
        FileError {
            by_time: true,
            ..self.wrong(why, hint)
        }
    }

    /// All of it.
    pub(crate) fn read(&self) -> Result<Vec<u8>, FileError> {
        self.read_bytes().map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => {
                    format!("put the file there, or correct {}", self.setting)
                }
                io::ErrorKind::PermissionDenied => {
                    "let the user that runs this program read it, and nobody else".to_owned()
                }
                _ => format!("let {} name a readable PEM file", self.setting),
            };
            self.wrong(error.to_string(), hint)
        })
    }

    fn read_bytes(&self) -> io::Result<Vec<u8>> {
        // Before opening: opening a pipe that nobody writes to waits for ever.
        if !fs::metadata(&self.path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(&self.path)?
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "it is longer than {FILE_BYTES_MAX} bytes"
            )));
        }
        Ok(bytes)
    }

    /// Who else can read it, in words, when everybody can.
    pub(crate) fn open_to_others(&self) -> Option<String> {
        let mode = fs::metadata(&self.path).ok()?.mode() & 0o777;
        (mode & OTHERS != 0).then(|| {
            format!(
                "{} names {}, whose mode is {mode:o}: every user of this machine can read the private key (chmod 600 it)",
                self.setting,
                self.path.display()
            )
        })
    }

    /// The certificates in its bytes, in their order.
    pub(crate) fn certificates(
        &self,
        bytes: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>, FileError> {
        let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(bytes).collect();
        let found = found.map_err(|_| {
            self.wrong(
                "it is not well-formed PEM",
                "write it anew; it was perhaps cut off",
            )
        })?;
        if !found.is_empty() {
            return Ok(found);
        }
        let hint = if contains(bytes, b"PRIVATE KEY-----") {
            "it holds a private key: were the two files taken for each other?".to_owned()
        } else {
            "it must hold `-----BEGIN CERTIFICATE-----`; `openssl x509 -inform der -in FILE` makes PEM of DER".to_owned()
        };
        Err(self.wrong("there is no certificate in it", hint))
    }

    /// The private key in its bytes. Nothing of them is ever repeated.
    pub(crate) fn key(&self, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, FileError> {
        PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
            if contains(bytes, b"ENCRYPTED") {
                return self.wrong(
                    "the private key in it is encrypted with a passphrase",
                    "`openssl pkey -in FILE -out PLAIN` takes it off; guard the file by its mode instead",
                );
            }
            if !matches!(error, pem::Error::NoItemsFound) {
                return self.wrong("it is not well-formed PEM", "write it anew; it was perhaps cut off");
            }
            let hint = if contains(bytes, b"BEGIN CERTIFICATE-----") {
                "it holds a certificate: were the two files taken for each other?"
            } else {
                "it must hold `-----BEGIN PRIVATE KEY-----`, or `RSA` or `EC` before `PRIVATE`"
            };
            self.wrong("there is no private key in it", hint)
        })
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
