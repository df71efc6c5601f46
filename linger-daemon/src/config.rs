//! The configuration: one TOML file, with a flag for every key.
//!
//! Flags override the environment, which overrides the file, which overrides the defaults.

mod access;
mod changes;
mod file;
mod filter;
mod key;
mod layers;
mod listen_addr;
mod plan;
mod ports;
mod problem;
mod raw_value;
mod report;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use linger_ebpf::{MAX_GROUPS, MAX_ORPHANS, keyed};
use toml::Value;

pub use self::access::Access;
pub use self::changes::{Change, changes, in_effect};
pub(crate) use self::file::text;
pub use self::filter::{Filter, Lists, Pattern, Patterns};
pub use self::key::{Key, Origin};
pub use self::layers::{DEFAULT_PATH, Effective, Sources, load, log_level, pins};
pub use self::listen_addr::ListenAddr;
pub use self::plan::PlanChoice;
pub use self::ports::PortSet;
pub use self::problem::{FileError, Invalid, Problem};
use self::raw_value::RawValue;
pub use self::report::{check, json, table};
use crate::attribution::Dimension;
use crate::logging::LogFilter;

/// Default folder of the programs that outlive the daemon.
const DEFAULT_PINS: &str = "/sys/fs/bpf/lingerd";

/// All settings of `lingerd run`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Addresses that serve the metrics: at least one, unless sockets are passed to the daemon.
    pub listen: Vec<ListenAddr>,
    /// Who may read them, in the format of Prometheus' web configuration; everyone if `None`.
    pub web_config_file: Option<PathBuf>,
    /// Who may read the live figures without authentication.
    pub live: Access,
    /// The plan to use.
    pub plan: PlanChoice,
    /// Whether programs and counts outlive the daemon.
    pub persist: bool,
    /// The folder in a BPF file system in which they are pinned then.
    pub pins: PathBuf,
    /// What to log.
    pub log_level: LogFilter,
    /// The labels of groups, each once, in the order of [`Dimension::ALL`]. If empty: one group.
    pub labels: Vec<Dimension>,
    /// The ports that the label `port` distinguishes. Empty exactly if that label is not in use.
    pub ports: PortSet,
    /// Maximum number of groups, 1 to 65,536.
    pub max_groups: u32,
    /// Maximum number of series: at least 1,000, and at least `max_groups`.
    pub max_series: u32,
    /// How long to keep an idle group; at least a second.
    pub retire_after: Duration,
    /// Maximum number of orphans followed, 1 to 2^22.
    pub max_orphans: u32,
    /// How long to follow an orphan; at least a second.
    pub orphan_ttl: Duration,
    /// Which closes get a group of their own.
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
            pins: DEFAULT_PINS.into(),
            log_level: LogFilter::default(),
            labels: Dimension::DEFAULT.to_vec(),
            ports: PortSet::default(),
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
    /// Key fields in use, a set of [`keyed`] bits.
    #[must_use]
    pub fn keyed(&self) -> u32 {
        let units = if self.filter.has_units() {
            keyed::CGROUP
        } else {
            0
        };
        Dimension::keyed(&self.labels) | units
    }

    /// A setting as written in the file.
    #[must_use]
    pub fn value(&self, key: Key) -> Value {
        let duration = |time| Value::from(humantime::format_duration(time).to_string());
        let Filter { allow, deny } = &self.filter;
        match key {
            Key::Listen => match self.listen.as_slice() {
                [place] => place.to_string().into(),
                places => list(places.iter().map(ToString::to_string)),
            },
            Key::WebConfigFile => {
                let file = self.web_config_file.as_deref().unwrap_or(Path::new(""));
                file.to_string_lossy().into_owned().into()
            }
            Key::Live => match self.live {
                Access::No => false.into(),
                Access::Yes => true.into(),
                Access::Loopback => self.live.name().into(),
            },
            Key::Plan => self.plan.name().into(),
            Key::Persist => self.persist.into(),
            Key::Pins => self.pins.to_string_lossy().into_owned().into(),
            Key::LogLevel => self.log_level.as_str().into(),
            Key::Labels => list(self.labels.iter().map(|label| label.name())),
            Key::Ports => list(self.ports.entries()),
            Key::MaxGroups => self.max_groups.into(),
            Key::MaxSeries => self.max_series.into(),
            Key::RetireAfter => duration(self.retire_after),
            Key::MaxOrphans => self.max_orphans.into(),
            Key::OrphanTtl => duration(self.orphan_ttl),
            Key::AllowUnits => list(allow.units.iter().map(Pattern::as_str)),
            Key::AllowComms => list(allow.comms.iter().map(String::as_str)),
            Key::AllowPorts => list(allow.ports.entries()),
            Key::DenyUnits => list(deny.units.iter().map(Pattern::as_str)),
            Key::DenyComms => list(deny.comms.iter().map(String::as_str)),
            Key::DenyPorts => list(deny.ports.entries()),
        }
    }

    /// Sets a key, or returns everything wrong with its value.
    fn set(&mut self, raw: &RawValue) -> Result<(), Vec<Problem>> {
        let Filter { allow, deny } = &mut self.filter;
        match raw.key {
            Key::Listen => self.listen = raw.places()?,
            Key::WebConfigFile => self.web_config_file = raw.file()?,
            Key::Live => self.live = raw.access()?,
            Key::Plan => self.plan = raw.plan()?,
            Key::Persist => self.persist = raw.boolean()?,
            Key::Pins => self.pins = raw.path()?,
            Key::LogLevel => self.log_level = raw.log_filter()?,
            Key::Labels => self.labels = raw.dimensions()?,
            Key::Ports => self.ports = raw.ports()?,
            Key::MaxGroups => self.max_groups = raw.whole(1..=1 << 16)?,
            Key::MaxSeries => self.max_series = raw.whole(1000..=u32::MAX)?,
            Key::RetireAfter => self.retire_after = raw.duration()?,
            Key::MaxOrphans => self.max_orphans = raw.whole(1..=1 << 22)?,
            Key::OrphanTtl => self.orphan_ttl = raw.duration()?,
            Key::AllowUnits => allow.units = raw.patterns()?,
            Key::AllowComms => allow.comms = raw.comms()?,
            Key::AllowPorts => allow.ports = raw.ports()?,
            Key::DenyUnits => deny.units = raw.patterns()?,
            Key::DenyComms => deny.comms = raw.comms()?,
            Key::DenyPorts => deny.ports = raw.ports()?,
        }
        Ok(())
    }
}

fn list(entries: impl IntoIterator<Item: Into<Value>>) -> Value {
    Value::Array(entries.into_iter().map(Into::into).collect())
}
