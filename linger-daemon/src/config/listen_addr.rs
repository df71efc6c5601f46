//! Addresses to listen on.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserializer, Serializer};
use toml::Value;

use super::value;

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

/// Describes valid values.
const EXPECTED: &str = "an address with its port such as 127.0.0.1:10546 or \
                                   [::]:10546, unix: and the path of a socket, or a list of these";

impl FromStr for ListenAddr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let address = match text.strip_prefix(UNIX) {
            Some(path) if path.starts_with('/') && !path.contains('\0') => {
                Some(Self::Unix(path.into()))
            }
            Some(_) => None,
            None => text.parse().ok().map(Self::Tcp),
        };
        address.ok_or(EXPECTED)
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

/// Reads one or several.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ListenAddr>, D::Error> {
    let read = |value: &Value| value.as_str()?.parse().ok();
    let addresses = value::one(from, EXPECTED, |value| match value {
        Value::Array(list) if list.is_empty() => None,
        Value::Array(list) => value::different(list, read),
        one => Some([read(one)?].into()),
    })?;
    Ok(addresses.into_iter().collect())
}

/// Writes a list unless there is one only.
pub(super) fn serialize<S: Serializer>(addresses: &[ListenAddr], to: S) -> Result<S::Ok, S::Error> {
    match addresses {
        [one] => to.collect_str(one),
        list => to.collect_seq(list.iter().map(ToString::to_string)),
    }
}
