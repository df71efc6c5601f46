//! Access to `/live.json`, which shows processes and addresses.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Value;

use super::value;

/// Clients that may read `/live.json` without a password or a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// None, not even with one of these.
    No,
    /// Clients on this host that address it by IP address or by its own name.
    #[default]
    Loopback,
    /// All.
    Yes,
}

const LOOPBACK: &str = "loopback";

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        value::read(from, |value| match value {
            Value::Boolean(false) => Some(Self::No),
            Value::Boolean(true) => Some(Self::Yes),
            value => (value.as_str()? == LOOPBACK).then_some(Self::Loopback),
        })
    }
}

impl Serialize for Access {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::No => to.serialize_bool(false),
            Self::Yes => to.serialize_bool(true),
            Self::Loopback => to.serialize_str(LOOPBACK),
        }
    }
}
