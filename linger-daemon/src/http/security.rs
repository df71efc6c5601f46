//! Access control by TLS, client certificates and passwords, in the format of the web configuration file of
//! Prometheus' exporter-toolkit.

mod client;
mod file;
mod passwords;
mod reload;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;

pub(super) use self::passwords::Refusal;
use self::passwords::Users;
pub use self::reload::Security;
use crate::config::FileError;

/// The rules in one version of the file.
#[derive(Default)]
struct Rules {
    /// Plain HTTP if `None`.
    tls: Option<ServerTls>,
    /// Users that are allowed, with their passwords; without any, everyone is allowed.
    users: Users,
}

impl Rules {
    /// Whether they allow everyone, without TLS.
    fn is_open(&self) -> bool {
        self.tls.is_none() && self.users.is_empty()
    }

    /// Whether they allow everyone, with or without TLS.
    fn admit_everyone(&self) -> bool {
        let tls = self.tls.as_ref();
        self.users.is_empty() && tls.is_none_or(|tls| !tls.requires_trusted)
    }
}

/// TLS for new connections.
#[derive(Clone)]
pub(super) struct ServerTls {
    pub(super) config: Arc<ServerConfig>,
    /// True if every client needs a trusted certificate.
    pub(super) requires_trusted: bool,
}

/// A mistake in a web configuration, with its file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct SecurityError {
    /// The file with the mistake: the web configuration, or one that it names.
    pub path: PathBuf,
    /// The mistake.
    pub why: Mistake,
}

/// A mistake in a web configuration, or in a file that it names.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// It cannot be read.
    #[error("{0}")]
    File(#[from] FileError),
    /// Not valid YAML, or has unknown keys or values.
    #[error("invalid web configuration: {0}")]
    Yaml(String),
    /// A required key is missing, or two keys contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
    /// An invalid value.
    #[error("{key}: found {found:?}, expected {expected}")]
    Value {
        /// The key, with its parents.
        key: String,
        /// The value.
        found: String,
        /// Describes valid values.
        expected: &'static str,
    },
    /// Valid in the format, but not supported by lingerd.
    #[error("{key}: {found} is not supported, {instead}")]
    Unsupported {
        /// The key, with its parents.
        key: &'static str,
        /// Its value.
        found: String,
        /// The remedy.
        instead: &'static str,
    },
    /// Not a valid certificate.
    #[error("found no certificate in PEM: {0}")]
    NoCertificate(String),
    /// Not a valid private key.
    #[error("found no private key in PEM: {0}")]
    NoKey(String),
    /// Certificate and key cannot be used.
    #[error("certificate and key cannot be used: {0}")]
    Pair(rustls::Error),
    /// The certificates of clients cannot be checked.
    #[error("client_ca cannot be used: {0}")]
    ClientCa(String),
    /// Not a valid password hash.
    #[error("basic_auth_users: {user:?}: {why}")]
    Hash {
        /// Name of the user.
        user: String,
        /// Reason why it is invalid.
        why: String,
    },
}

impl Mistake {
    /// Adds the file to the mistake.
    fn in_file(self, path: impl Into<PathBuf>) -> SecurityError {
        SecurityError {
            path: path.into(),
            why: self,
        }
    }
}
