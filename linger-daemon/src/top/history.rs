//! Rates and trends, computed from successive readings.

use std::collections::{BTreeMap, VecDeque};

use super::column::{Column, Numbers, float};
use crate::live::{Counts, Group, Live};
use crate::text::escape_for_terminal;

/// The name under which closes are counted once their cgroup is gone. It grows when they are moved, not
/// when they happen.
const RETIRED: &str = "retired";

/// Start times of a daemon that differ by less are the same start, seconds: they are computed from the
/// boot time, which moves as the clock is adjusted.
const SAME: f64 = 2.0;

/// Numbers of a unit, or of the host, over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// Totals at the last reading.
    pub(super) total: Numbers,
    /// Rates per second between the last two readings; `None` if they are not comparable.
    pub(super) rate: Option<Numbers>,
    /// The latest rates, the newest last.
    past: VecDeque<Numbers>,
    /// Number of rates so far.
    seen: usize,
}

impl Track {
    fn push(&mut self, rate: Numbers, most: usize) {
        self.rate = Some(rate);
        self.past.push_back(rate);
        self.seen += 1;
        while self.past.len() > most {
            self.past.pop_front();
        }
    }

    /// The trend of a column over the last `window` readings: the highest rate in each step, the newest last.
    pub(super) fn trend(&self, column: Column, window: usize, steps: usize) -> Vec<f64> {
        let each = window.div_ceil(steps.max(1)).max(1);
        // Steps begin at multiples of their length, so that peaks move without changing.
        let first = self.seen - self.past.len();
        let mut trend: Vec<f64> = Vec::new();
        let mut step = None;
        for (index, rate) in (first..).zip(&self.past) {
            if step.replace(index / each) != Some(index / each) {
                trend.push(0.0);
            }
            if let Some(last) = trend.last_mut() {
                *last = last.max(rate[column]);
            }
        }
        trend.split_off(trend.len().saturating_sub(steps))
    }
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) total: u64,
    /// Rate per second, if known.
    pub(super) rate: Option<f64>,
}

/// One group of a unit.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its labels other than the unit's, as text.
    pub(super) name: String,
    /// Its labels.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) total: Numbers,
    pub(super) rate: Option<Numbers>,
}

/// A unit: the sum of its groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Unit {
    pub(super) track: Track,
    pub(super) outcomes: BTreeMap<String, Tally>,
    pub(super) members: Vec<Member>,
    /// Payload that closes left to the kernel, and of that acknowledged, bytes.
    pub(super) orphaned: u64,
    pub(super) delivered: u64,
}

/// The readings so far.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// How many rates to keep.
    pub(super) window: usize,
    pub(super) host: Track,
    /// By name, safe to print.
    pub(super) units: BTreeMap<String, Unit>,
    /// The last reading.
    pub(super) live: Option<Live>,
}

impl History {
    /// An empty history that will keep this many rates.
    pub(super) fn new(window: usize) -> Self {
        Self {
            window,
            host: Track::default(),
            units: BTreeMap::new(),
            live: None,
        }
    }

    /// Adds a reading.
    pub(super) fn add(&mut self, live: Live) {
        let step = self.live.take().and_then(|last| Step::new(last, &live));
        self.host.total = Numbers::of_host(&live);
        self.host.rate = None;
        if let Some(rate) = step.as_ref().and_then(|step| step.host(&live)) {
            self.host.push(rate, self.window);
        }
        let mut units: BTreeMap<String, Unit> = BTreeMap::new();
        for group in &live.groups {
            let (name, member) = names(&live.dimensions, &group.labels);
            let unit = units.entry(name).or_default();
            let change = step.as_ref().map(|step| step.group(group));
            unit.add(group, member, change.as_ref());
        }
        for (name, unit) in &mut units {
            let rate = unit.track.rate;
            if let Some(last) = self.units.remove(name) {
                unit.track.past = last.track.past;
                unit.track.seen = last.track.seen;
            }
            if let Some(rate) = rate {
                unit.track.push(rate, self.window);
            }
        }
        self.units = units;
        self.live = Some(live);
    }

    /// The labels that identify a unit: the label `unit`, or all labels if that is not in use.
    pub(super) fn title(&self) -> String {
        let dimensions = self.live.as_ref().map(|live| live.dimensions.as_slice());
        match dimensions.unwrap_or_default() {
            dimensions if dimensions.iter().any(|name| name == UNIT) => UNIT.to_owned(),
            [] => "host".to_owned(),
            dimensions => dimensions.join(" "),
        }
    }
}

impl Unit {
    fn add(&mut self, group: &Group, name: String, change: Option<&Change>) {
        let total = Numbers::of_group(group);
        let rate = change.map(|change| change.rate);
        self.track.total.add(&total);
        if let Some(rate) = &rate {
            self.track.rate.get_or_insert_default().add(rate);
        }
        for (outcome, &count) in &group.closes {
            let tally = self
                .outcomes
                .entry(escape_for_terminal(outcome))
                .or_default();
            tally.total += count;
            if let Some(change) = change {
                *tally.rate.get_or_insert_default() += change.outcome(outcome, count);
            }
        }
        self.orphaned += group.orphaned;
        self.delivered += group.delivered;
        self.members.push(Member {
            name,
            labels: group.labels.clone(),
            total,
            rate,
        });
    }
}

/// The step between two readings of the same daemon.
struct Step {
    last: Live,
    seconds: f64,
    groups: BTreeMap<BTreeMap<String, String>, Group>,
}

/// The change of a group in a step.
struct Change {
    rate: Numbers,
    seconds: f64,
    /// The closes that it began with; none if it stood still, whatever its counts say.
    before: Option<Counts>,
}

impl Change {
    /// Closes with an outcome per second.
    fn outcome(&self, outcome: &str, count: u64) -> f64 {
        let Some(before) = &self.before else {
            return 0.0;
        };
        let before = before.get(outcome).copied().unwrap_or(0);
        float(count.saturating_sub(before)) / self.seconds
    }
}

impl Step {
    /// `None` if the daemon was restarted, or its clock stands still or was set back.
    fn new(mut last: Live, next: &Live) -> Option<Self> {
        let seconds = next.at - last.at;
        let is_same = (last.started - next.started).abs() < SAME && last.host == next.host;
        if !(is_same && seconds > 0.0 && seconds.is_finite()) {
            return None;
        }
        let groups = std::mem::take(&mut last.groups);
        let groups = groups.into_iter();
        Some(Self {
            groups: groups.map(|group| (group.labels.clone(), group)).collect(),
            last,
            seconds,
        })
    }

    /// The change of the whole host; unknown if its counts began again.
    fn host(&self, next: &Live) -> Option<Numbers> {
        let since = Numbers::of_host(next).since(&Numbers::of_host(&self.last))?;
        Some(since.per(self.seconds))
    }

    fn group(&self, group: &Group) -> Change {
        let total = Numbers::of_group(group);
        let (since, before) = match self.groups.get(&group.labels) {
            _ if group.labels.values().any(|value| value == RETIRED) => (None, None),
            Some(last) => (
                total.since(&Numbers::of_group(last)),
                Some(last.closes.clone()),
            ),
            // It may have existed before, among the groups not shown.
            None if self.last.groups_omitted > 0 => (None, None),
            None => (Some(total), Some(Counts::new())),
        };
        Change {
            rate: since.unwrap_or_else(|| total.still()).per(self.seconds),
            seconds: self.seconds,
            before: before.filter(|_| since.is_some()),
        }
    }
}

/// The label that names units.
const UNIT: &str = "unit";

/// The name of a group's unit, and its other labels as text.
fn names(dimensions: &[String], labels: &BTreeMap<String, String>) -> (String, String) {
    let value = |name: &String| labels.get(name).map_or("", String::as_str);
    let joined = |names: &mut dyn Iterator<Item = &String>| {
        let values = names.map(value).filter(|value| !value.is_empty());
        escape_for_terminal(&values.collect::<Vec<_>>().join(" "))
    };
    let has_unit = dimensions.iter().any(|name| name == UNIT);
    let (unit, member) = if has_unit {
        (
            joined(&mut dimensions.iter().filter(|name| *name == UNIT)),
            joined(&mut dimensions.iter().filter(|name| *name != UNIT)),
        )
    } else {
        (joined(&mut dimensions.iter()), String::new())
    };
    (
        if unit.is_empty() {
            "-".to_owned()
        } else {
            unit
        },
        member,
    )
}
