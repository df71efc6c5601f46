//! Addresses to listen on.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddr {
    /// An address with its port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Prefix of the path of a Unix socket.
const UNIX: &str = "unix:";

/// Not a valid address to listen on.
#[derive(Debug, thiserror::Error)]
#[error("neither an address with its port, nor unix: and an absolute path")]
pub struct ParseListenAddrError;

impl FromStr for ListenAddr {
    type Err = ParseListenAddrError;

    fn from_str(text: &str) -> Result<Self, ParseListenAddrError> {
        match text.strip_prefix(UNIX) {
            Some(path) if Path::new(path).is_absolute() && !path.contains('\0') => {
                Ok(Self::Unix(path.into()))
            }
            Some(_) => Err(ParseListenAddrError),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| ParseListenAddrError),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}
