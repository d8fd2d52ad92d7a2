//! Every `CONFMAN_*` setting: declared once, read once, checked all together.
//!
//! Promises
//! - One declaration per setting ([`catalog`]): its name, default, kind of value and meaning. The
//!   README table, `confman config`, the parser and the error messages all come from it.
//! - An unknown `CONFMAN_*` name or a wrong value is refused, all of them in one answer, each with
//!   what was expected and a remedy (I20). Nothing is silently replaced by a default.
//! - A secret is never printed: not in errors, not in `Debug`, not in [`EffectiveSetting`].
//! - No input panics.
//!
//! Does not
//! - read `AWS_*`, `GOOGLE_*` or `AZURE_*`: those belong to the object store. [`store_environment`]
//!   only lists which of them are in force.
//! - open sockets, directories or stores: whether a path or a URL works is for those who use it.
//!
//! Where to go next: [`catalog`] to add a setting, `settings.rs` to hand it on, `rules.rs` for what
//! must hold between settings.

pub mod catalog;
mod client;
mod effective;
mod errors;
pub mod kinds;
mod machine;
mod reader;
pub mod readme;
mod retention;
mod rules;
mod settings;
mod store_env;
mod store_place;
mod suggest;
mod tls;

pub use client::ClientSettings;
pub use effective::{EffectiveSetting, Source};
pub use errors::{SettingError, SettingsErrors};
pub use machine::{Machine, ThisMachine};
pub use readme::readme_table;
pub use retention::RetentionSettings;
pub use secrecy::{ExposeSecret, SecretString};
pub use settings::{Compression, LogFormat, OtlpSettings, Peer, Settings, SnapshotSettings};
pub use store_env::{StoreVariable, store_environment};
pub use store_place::StorePlace;
pub use tls::{ClientCertificates, ClientTlsSettings, TlsSettings};
