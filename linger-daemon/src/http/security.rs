//! Who may ask: TLS, client certificates and passwords, in the format of the web configuration file
//! of Prometheus' exporter-toolkit.

mod client;
mod file;
mod names;
mod passwords;
mod reload;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;

use self::passwords::Users;
pub(super) use self::passwords::Verdict;
pub use self::reload::Security;
use crate::config::FileError;

/// What one state of the file says.
#[derive(Default)]
pub(super) struct Rules {
    /// How to speak TLS; plain HTTP if none.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Who may ask; everyone if there are none.
    pub(super) users: Users,
    /// Whoever may ask has shown a password, or a certificate that is trusted.
    pub(super) knows_all: bool,
}

/// Why a web configuration is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct SecurityError {
    /// The file with the mistake: the web configuration, or one that it names.
    pub path: PathBuf,
    /// The mistake.
    pub why: Mistake,
}

/// What can be wrong with a web configuration, or with a file that it names.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// It cannot be read.
    #[error("{0}")]
    File(#[from] FileError),
    /// It is no YAML, or has keys or values that mean nothing.
    #[error("invalid web configuration: {0}")]
    Yaml(String),
    /// A key that is needed, or that contradicts another.
    #[error("{0}")]
    Contradiction(&'static str),
    /// A value that means nothing.
    #[error("{key}: found {found:?}, expected {expected}")]
    Value {
        /// The key, with those around it.
        key: String,
        /// The value.
        found: String,
        /// What it could be.
        expected: &'static str,
    },
    /// What the format allows, and lingerd does not have.
    #[error("{key}: {found} is not supported, {instead}")]
    Unsupported {
        /// The key, with those around it.
        key: &'static str,
        /// Its value.
        found: String,
        /// What there is instead.
        instead: &'static str,
    },
    /// A certificate that is none.
    #[error("found no certificate in PEM: {0}")]
    NoCertificate(String),
    /// A key that is none.
    #[error("found no private key in PEM: {0}")]
    NoKey(String),
    /// Certificate and key cannot be used.
    #[error("certificate and key cannot be used: {0}")]
    Pair(rustls::Error),
    /// The certificates of clients cannot be checked.
    #[error("client_ca cannot be used: {0}")]
    ClientCa(String),
    /// A password that is not what it must be.
    #[error("basic_auth_users: {user:?}: {why}")]
    Hash {
        /// Whose.
        user: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Mistake {
    /// The mistake, in this file.
    fn in_file(self, path: impl Into<PathBuf>) -> SecurityError {
        SecurityError {
            path: path.into(),
            why: self,
        }
    }
}
