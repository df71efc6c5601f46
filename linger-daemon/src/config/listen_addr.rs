//! Addresses to listen on.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::slice;
use std::str::FromStr;

use serde::{Deserializer, Serializer};

use super::value;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddr {
    /// An address with its port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for ListenAddr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let address = match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') && !path.contains('\0') => {
                Some(Self::Unix(path.into()))
            }
            Some(_) => None,
            None => text.parse().ok().map(Self::Tcp),
        };
        address.ok_or("not an address to listen on")
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads one address, or a list.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ListenAddr>, D::Error> {
    value::read(from, |value| {
        let list = value
            .as_array()
            .map_or(slice::from_ref(value), Vec::as_slice);
        let addresses = list.iter().map(|address| address.as_str()?.parse().ok());
        let addresses: BTreeSet<_> = addresses.collect::<Option<_>>()?;
        Some(addresses.into_iter().collect())
    })
}

/// Writes a single address as text, any other number as a list.
pub(super) fn serialize<S: Serializer>(addresses: &[ListenAddr], to: S) -> Result<S::Ok, S::Error> {
    match addresses {
        [one] => to.collect_str(one),
        list => to.collect_seq(list.iter().map(ToString::to_string)),
    }
}
