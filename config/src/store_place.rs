//! What a tool that needs only the object store reads.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::catalog as declared;
use crate::errors::SettingsErrors;
use crate::machine::{Machine, ThisMachine};
use crate::reader::Reader;
use crate::tls::ClientTlsSettings;

/// Where the object store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePlace {
    /// Its URL; `{data}` in it stands for [`StorePlace::data_dir`].
    pub url: String,
    /// The data directory that `{data}` means.
    pub data_dir: PathBuf,
    /// Whose certificate an https store may show, and what it is shown.
    pub tls: ClientTlsSettings,
}

impl StorePlace {
    /// Reads and checks what says where the store is. Other settings may be there too; only their names are checked.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn from_env(
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsErrors> {
        Self::resolve(env, &ThisMachine)
    }

    fn resolve(
        env: impl IntoIterator<Item = (OsString, OsString)>,
        machine: &dyn Machine,
    ) -> Result<Self, SettingsErrors> {
        let mut reader = Reader::new(env, machine);
        let url = reader.read(&declared::OBJECT_STORE_URL);
        let data_dir = reader.read(&declared::DATA_DIR);
        let tls = ClientTlsSettings::read_for_store(&mut reader);
        reader.finish()?;
        // What is missing has left an error, so that `finish` has returned it.
        match (url, data_dir) {
            (Some(url), Some(data_dir)) => Ok(Self { url, data_dir, tls }),
            _ => Err(SettingsErrors(Vec::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(env: &[(&str, &str)]) -> Result<StorePlace, String> {
        let env = env
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        StorePlace::from_env(env).map_err(|errors| errors.to_string())
    }

    #[test]
    fn the_store_is_where_a_node_with_this_environment_would_look() {
        let default = place(&[]).unwrap();
        assert_eq!(default.url, "file://{data}/objects");
        assert_eq!(default.data_dir, PathBuf::from("confman-data"));
        let named = place(&[
            ("CONFMAN_OBJECT_STORE_URL", "s3://bucket/prefix"),
            ("CONFMAN_NODE_NAME", "node1"),
        ]);
        assert_eq!(named.unwrap().url, "s3://bucket/prefix");
    }

    #[test]
    fn i20_a_certificate_for_the_store_and_its_key_go_together() {
        let (cert, key) = (
            ("CONFMAN_TLS_STORE_CERT_FILE", "/c"),
            ("CONFMAN_TLS_STORE_KEY_FILE", "/k"),
        );
        let tls = place(&[cert, key]).unwrap().tls;
        assert_eq!(tls.identity, Some(("/c".into(), "/k".into())));
        let error = place(&[cert]).unwrap_err();
        assert!(error.contains("set CONFMAN_TLS_STORE_KEY_FILE"), "{error}");
        let error = place(&[key]).unwrap_err();
        assert!(error.contains("set CONFMAN_TLS_STORE_CERT_FILE"), "{error}");
    }

    #[test]
    fn i20_a_misspelt_name_is_refused_here_too() {
        let error = place(&[("CONFMAN_OBJECT_STORE_ULR", "s3://bucket/prefix")]).unwrap_err();
        assert!(error.contains("CONFMAN_OBJECT_STORE_URL"), "{error}");
        assert!(place(&[("CONFMAN_OBJECT_STORE_URL", "nowhere")]).is_err());
    }
}
