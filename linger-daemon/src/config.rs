//! The configuration: one TOML file, with a flag for every key.
//!
//! Flags override the environment, which overrides the file, which overrides the defaults. The keys are the fields of
//! [`Config`] as serde names them; all other code gets them from it.

mod access;
mod changes;
mod file;
mod filter;
mod key;
mod listen_addr;
mod load;
mod plan;
mod ports;
mod problem;
mod report;
mod validate;
mod value;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use linger_ebpf::{MAX_GROUPS, MAX_ORPHANS, key_field};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub use self::access::Access;
pub use self::changes::{Change, changes, in_effect};
pub use self::file::FileError;
pub(crate) use self::file::text;
pub use self::filter::{Filter, Lists};
pub use self::key::keys;
pub use self::listen_addr::ListenAddr;
pub use self::load::{DEFAULT_PATH, Effective, Sources, load, log_level, pins};
pub use self::plan::PlanChoice;
pub use self::problem::{Invalid, Origin, Problem, flag};
pub use self::report::{Setting, check, table};
pub(crate) use self::value::duration::parse as parse_duration;
use crate::attribution::Dimension;
use crate::logging::LogFilter;

/// All settings of `lingerd run`, in the order of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Config {
    /// Addresses that serve the metrics, at least one. Sockets passed to the daemon replace them.
    #[serde(with = "listen_addr")]
    pub listen: Vec<ListenAddr>,
    /// Web configuration in the format of Prometheus, which limits access to the metrics; if `None`, everyone may
    /// read them.
    #[serde(with = "value::optional_path")]
    pub web_config_file: Option<PathBuf>,
    /// Clients that may read the live figures without authentication.
    pub live: Access,
    /// The plan to use.
    pub plan: PlanChoice,
    /// True if programs and counts outlive the daemon.
    pub persist: bool,
    /// Absolute path of the directory in a BPF file system in which `persist` pins them.
    pub pins: PathBuf,
    /// The log filter.
    #[serde(deserialize_with = "value::parsed")]
    pub log_level: LogFilter,
    /// Labels of groups, each once, in the order of [`Dimension`]. Without any, there is one group.
    #[serde(deserialize_with = "value::sorted")]
    pub labels: Vec<Dimension>,
    /// Ports that the label `port` distinguishes. Empty if and only if that label is not in use.
    #[serde(with = "ports")]
    pub ports: BTreeSet<u16>,
    /// Maximum number of groups, 1 to 65,536.
    pub max_groups: u32,
    /// Maximum number of series, at least 1,000 and `max_groups`.
    pub max_series: u32,
    /// Time to keep an idle group, at least a second.
    #[serde(with = "value::duration")]
    pub retire_after: Duration,
    /// Maximum number of orphans followed, 1 to 4,194,304.
    pub max_orphans: u32,
    /// Time to follow an orphan, at least a second.
    #[serde(with = "value::duration")]
    pub orphan_ttl: Duration,
    /// Closes that get a group of their own.
    #[serde(flatten)]
    pub filter: Filter,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddr::Tcp((Ipv4Addr::LOCALHOST, 10546).into())],
            web_config_file: None,
            live: Access::default(),
            plan: PlanChoice::Auto,
            persist: false,
            pins: "/sys/fs/bpf/lingerd".into(),
            log_level: LogFilter::default(),
            labels: Dimension::DEFAULT.to_vec(),
            ports: BTreeSet::new(),
            max_groups: MAX_GROUPS,
            max_series: 100_000,
            retire_after: Duration::from_secs(15 * 60),
            max_orphans: MAX_ORPHANS,
            orphan_ttl: Duration::from_secs(30 * 60),
            filter: Filter::default(),
        }
    }
}

impl Config {
    /// Returns the key fields in use, a set of [`key_field`] bits.
    #[must_use]
    pub fn key_fields(&self) -> u32 {
        let units = if self.filter.has_units() {
            key_field::CGROUP
        } else {
            0
        };
        Dimension::key_fields(&self.labels) | units
    }

    /// Returns every key with its value as written in the file. Keys of a table contain a dot: `allow.units`.
    #[must_use]
    pub fn settings(&self) -> Vec<(String, Value)> {
        let mut settings = Vec::new();
        for (name, value) in self.to_table() {
            match value {
                Value::Table(table) => {
                    let keys = table.into_iter();
                    settings.extend(keys.map(|(key, value)| (format!("{name}.{key}"), value)));
                }
                value => settings.push((name, value)),
            }
        }
        settings
    }

    /// Returns the value of a key, as written in the file.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Value> {
        let mut settings = self.settings().into_iter();
        settings.find_map(|(name, value)| (name == key).then_some(value))
    }

    /// Returns a copy with one key set; `None` if the key does not accept the value.
    fn with(&self, key: &str, value: Value) -> Option<Self> {
        let mut settings = Value::Table(self.to_table());
        let names = key.split('.');
        *names.fold(&mut settings, |table, name| &mut table[name]) = value;
        settings.try_into().ok().filter(value::is_valid)
    }

    fn to_table(&self) -> Table {
        Table::try_from(self).expect("settings are text, numbers and lists")
    }
}
