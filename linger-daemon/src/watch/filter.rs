//! Selection of the closes to show.

use std::path::Path;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use linger_ebpf::{Filter, Outcome, filter_flag};

use crate::attribution::{Cgroups, Names, comm_words};
use crate::config::parse_duration;
use crate::event::WatchEvent;

/// Which closes to show: those that meet every condition.
#[derive(Debug, Default, clap::Args)]
pub(super) struct WatchFilter {
    /// Only closes with this outcome; separate several by commas, or repeat the flag
    #[arg(long = "outcome", value_name = "OUTCOME", value_delimiter = ',', value_parser = outcomes(), hide_possible_values = true)]
    outcomes: Vec<Outcome>,
    /// Only closes of this systemd unit, named as in the label of the metrics; may be repeated
    #[arg(long = "unit", value_name = "UNIT")]
    pub(super) units: Vec<String>,
    /// Only closes of processes with this name
    #[arg(long, value_name = "NAME")]
    comm: Option<String>,
    /// Only closes of connections with this port at either end
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Only closes that lost payload: at once, or after the close had left it to the kernel
    #[arg(long)]
    lost: bool,
    /// Only closes that blocked their thread for at least this long: 100ms, 2s, or a number of seconds
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    blocked: Option<Duration>,
    /// Show the stack of the program at each close
    #[arg(long)]
    pub(super) stack: bool,
}

fn outcomes() -> impl TypedValueParser<Value = Outcome> {
    let names = Outcome::ALL.iter().map(|outcome| outcome.name());
    PossibleValuesParser::new(names).map(|name| {
        let outcome = Outcome::ALL.iter().find(|outcome| outcome.name() == name);
        *outcome.expect("one of them")
    })
}

impl WatchFilter {
    /// Returns the filter for the programs, with the current cgroup of the unit: a restarted unit gets another one. The
    /// programs can filter by one cgroup; with several, only [`WatchFilter::matches`] does.
    pub(super) fn to_kernel(&self, cgroups: &Cgroups) -> Filter {
        let mut filter = Filter::ALL;
        if !self.outcomes.is_empty() {
            let bits = self.outcomes.iter().map(|outcome| 1 << outcome.index());
            filter.outcomes = bits.fold(0, |all, bit: u64| all | bit);
        }
        if let Some(comm) = &self.comm {
            filter.comm = comm_words(comm);
        }
        filter.port = self.port.unwrap_or(0).into();
        if let Some(blocked) = self.blocked {
            filter.blocked_ns = u64::try_from(blocked.as_nanos()).unwrap_or(u64::MAX);
        }
        let cgroups = self.cgroups(cgroups);
        if let [cgroup] = cgroups[..] {
            (filter.cgroup_id, filter.cgroup_level) = cgroup;
        }
        let by_cgroup = !self.units.is_empty() && cgroups.len() <= 1;
        filter.flags = (u32::from(self.lost) * filter_flag::LOST)
            | (u32::from(by_cgroup) * filter_flag::CGROUP)
            | (u32::from(self.stack) * filter_flag::STACK);
        filter
    }

    /// Returns the ids of the units' outermost cgroups, each with its level: the number of cgroups above it.
    fn cgroups(&self, cgroups: &Cgroups) -> Vec<(u64, i32)> {
        if self.units.is_empty() {
            return Vec::new();
        }
        let is_wanted = |path: &Path| {
            self.units
                .contains(&Names::of(&path.to_string_lossy()).unit)
        };
        let mut found = cgroups.all();
        found.retain(|_, path| is_wanted(path) && !path.parent().is_some_and(is_wanted));
        // The root is the first component, and at level 0.
        let level = |path: &Path| i32::try_from(path.components().count() - 1).unwrap_or(i32::MAX);
        let found = found.into_iter();
        found.map(|(id, path)| (id, level(&path))).collect()
    }

    /// Returns whether an event that the programs selected by `asked` matches. Below the cgroup of a unit there may be
    /// other units. An event of an unknown unit matches only if the programs selected it by its cgroup.
    pub(super) fn matches(&self, event: &WatchEvent, asked: &Filter) -> bool {
        let connection = match event {
            WatchEvent::Close(close) | WatchEvent::Correction(close) => &close.connection,
            WatchEvent::Orphan(end) => &end.connection,
        };
        let unit = &connection.unit;
        let by_cgroup = asked.flags & filter_flag::CGROUP != 0;
        self.units.is_empty() || self.units.contains(unit) || unit.is_empty() && by_cgroup
    }

    /// Returns whether the event completes a close, for `--count`. With `--lost`, a close that left data behind is reported
    /// when its orphan has lost some, just before the end of the orphan.
    pub(super) fn completes(&self, event: &WatchEvent) -> bool {
        match event {
            WatchEvent::Close(close) => !self.lost || close.left == 0,
            WatchEvent::Orphan(_) => self.lost,
            WatchEvent::Correction(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use linger_ebpf::Event;

    use super::*;
    use crate::event::{Clock, decode};

    #[test]
    fn without_conditions_every_close_matches() {
        let filter = WatchFilter::default().to_kernel(&Cgroups::new(None));
        assert_eq!(filter, Filter::ALL);
    }

    #[test]
    fn the_programs_get_every_condition_and_the_outermost_cgroup_of_the_unit() {
        let mount = tempfile::tempdir().unwrap();
        for folder in ["web.service/workers/one", "other.service"] {
            fs::create_dir_all(mount.path().join("system.slice").join(folder)).unwrap();
        }
        let cgroups = Cgroups::new(Some(mount.path().into()));
        let filter = WatchFilter {
            outcomes: vec![Outcome::LingerAborted, Outcome::Graceful],
            units: vec!["web.service".into()],
            comm: Some("a name that is longer".into()),
            port: Some(443),
            lost: true,
            blocked: Some(Duration::from_millis(5)),
            stack: true,
        }
        .to_kernel(&cgroups);
        let graceful = 1 << Outcome::Graceful.index();
        assert_eq!(
            filter.outcomes,
            graceful | 1 << Outcome::LingerAborted.index()
        );
        assert_eq!(
            filter.comm.map(u64::to_ne_bytes).concat(),
            *b"a name that is \0"
        );
        assert_eq!((filter.port, filter.blocked_ns), (443, 5_000_000));
        let unit = Path::new("/system.slice/web.service");
        assert_eq!(cgroups.all()[&filter.cgroup_id], unit);
        assert_eq!(filter.cgroup_level, 2);
        assert_eq!(
            filter.flags,
            filter_flag::LOST | filter_flag::CGROUP | filter_flag::STACK
        );
    }

    #[test]
    fn closes_of_an_unknown_unit_match_only_if_the_programs_know_the_cgroup() {
        let mount = tempfile::tempdir().unwrap();
        for folder in ["web.service", "other.service"] {
            fs::create_dir(mount.path().join(folder)).unwrap();
        }
        let cgroups = Cgroups::new(Some(mount.path().into()));
        let matches = |units: &[&str], names: Option<&Names>| {
            let filter = WatchFilter {
                units: units.iter().map(ToString::to_string).collect(),
                ..WatchFilter::default()
            };
            let event = decode(&Event::ZERO, names, &Clock::of_host());
            filter.matches(&event, &filter.to_kernel(&cgroups))
        };
        let web = Names::of("/web.service");
        let below = Names::of("/web.service/below.service");
        for units in [&["web.service"][..], &["web.service", "other.service"]] {
            assert!(matches(units, Some(&web)) && !matches(units, Some(&below)));
        }
        assert!(matches(&[], None) && matches(&["web.service"], None));
        assert!(!matches(&["web.service", "other.service"], None));
    }
}
