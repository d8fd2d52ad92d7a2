//! Certificates, keys and authorities: read from PEM files, judged, and made into what rustls takes.
//!
//! - [`NodeFiles`]: what a node speaks TLS with. [`NodeFiles::read`] takes the files as they are now, [`Contents::judge`]
//!   makes [`Credentials`] of them or says everything that is wrong;
//! - [`ClientFiles`]: whom a client trusts and what it shows;
//! - [`FileError`]: one wrong file, with the setting that names it and what to do.
//!
//! Promises
//! - all that is wrong is said at once, each with file and remedy (I20), by the same code that judges at a handshake:
//!   a certificate that is taken here is one that the others will take;
//! - a private key is in no error and in no `Debug`;
//! - TLS 1.2 and 1.3 with ring, whatever else the process has installed.
//!
//! Does not: open sockets, watch files, log, measure, or read the environment. Time comes in by argument.

mod client;
mod credentials;
mod error;
mod files;
mod judge;
#[cfg(feature = "throwaway")]
pub mod throwaway;

pub use client::{ClientFiles, ClientTls};
pub use credentials::{Contents, Credentials, NodeFiles, PeerConfigs, Portrait};
pub use error::{FileError, FileErrors};
pub use files::NamedFile;
pub use judge::rfc3339;
