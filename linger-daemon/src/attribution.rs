//! Names of the processes that close, as an operator knows them.
//!
//! `namer` finds the labels of a group, `names` reads units, containers and pods from the path of a cgroup, `cgroups`
//! looks at the hierarchy in the file system.

mod cgroups;
mod namer;
mod names;

use clap::ValueEnum;
use linger_ebpf::key_field;
use serde::{Deserialize, Serialize};

pub(crate) use self::cgroups::whole_cgroup_root;
pub use self::cgroups::{Cgroups, cgroup_root};
pub(crate) use self::namer::comm_words;
pub use self::namer::{Cgroup, Namer, comm};
pub use self::names::Names;

/// A label of the metrics that says who closed. The labels stand in this order.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::IntoStaticStr,
    ValueEnum,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Dimension {
    /// The systemd unit, or the plain path of the cgroup that is in none
    Unit,
    /// The systemd slice
    Slice,
    /// The container: the first 12 hex digits of its id, or the name of one that has none
    Container,
    /// The Kubernetes pod: its UID
    Pod,
    /// The name of the process
    Comm,
    /// The file that the process executes
    Exe,
    /// The local port of a connection that this host accepted
    Port,
    /// ipv4 or ipv6
    Family,
}

impl Dimension {
    /// The default dimensions.
    pub const DEFAULT: &[Self] = &[Self::Unit, Self::Comm];

    /// The key fields that these dimensions need, a set of [`key_field`] bits.
    #[must_use]
    pub fn key_fields(dimensions: &[Self]) -> u32 {
        let bits = dimensions.iter().map(|dimension| match dimension {
            Self::Unit | Self::Slice | Self::Container | Self::Pod => key_field::CGROUP,
            Self::Comm => key_field::COMM,
            Self::Exe => key_field::EXE,
            Self::Port => key_field::PORT,
            Self::Family => key_field::FAMILY,
        });
        bits.fold(0, |all, bit| all | bit)
    }
}

/// Values of the metrics' labels: one for each dimension in use, in their order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Box<[Box<str>]>);

impl Labels {
    /// Labels with these values. The value of a label that does not apply is empty.
    pub fn new(values: impl IntoIterator<Item: Into<Box<str>>>) -> Self {
        Self(values.into_iter().map(Into::into).collect())
    }

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}
