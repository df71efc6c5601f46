//! Rates and trends, computed from successive readings.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use super::column::{Column, Figures, Numbers, float};
use super::state::ViewState;
use crate::live::{Group, Live};
use crate::text::escape_for_terminal;

/// Label value under which closes are counted once their cgroup is gone. Its counts grow when closes are moved there,
/// not when they happen.
const RETIRED: &str = "retired";

/// Start times that differ by less than this are of the same daemon, seconds: they are computed from the boot time,
/// which moves as the clock is adjusted.
const SAME: f64 = 2.0;

/// The label that names units.
const UNIT: &str = "unit";

/// Numbers of a unit, or of the host, over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    pub(super) figures: Figures,
    /// The latest rates, the newest last.
    past: VecDeque<Numbers>,
    /// Number of rates so far.
    seen: usize,
    /// Number of rates to keep.
    window: usize,
}

impl Track {
    /// Continues an earlier track, and keeps this many rates.
    fn follow(&mut self, earlier: Self, window: usize) {
        (self.past, self.seen, self.window) = (earlier.past, earlier.seen, window);
        if let Some(rate) = self.figures.rate {
            self.past.push_back(rate);
            self.seen += 1;
        }
        if self.past.len() > window {
            self.past.pop_front();
        }
    }

    /// Returns the trend of a column: the highest rate in each step, the newest last.
    pub(super) fn trend(&self, column: Column, steps: usize) -> Vec<f64> {
        let each = self.window.div_ceil(steps.max(1)).max(1);
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

/// A count of events.
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
    pub(super) figures: Figures,
}

/// A unit: the sum of its groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Unit {
    pub(super) track: Track,
    pub(super) outcomes: BTreeMap<String, Tally>,
    pub(super) members: Vec<Member>,
    /// Payload that closes left to the kernel, and the part of it that was acknowledged, bytes.
    pub(super) orphaned: u64,
    pub(super) delivered: u64,
}

/// A unit with its name.
pub(super) type Row<'a> = (&'a str, &'a Unit);

/// The readings so far.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// Number of rates to keep.
    window: usize,
    pub(super) host: Track,
    /// By name, safe to print.
    pub(super) units: BTreeMap<String, Unit>,
    /// The last reading.
    pub(super) live: Option<Live>,
}

impl History {
    /// Creates an empty history that will keep this many rates.
    pub(super) fn new(window: usize) -> Self {
        Self {
            window,
            host: Track::default(),
            units: BTreeMap::new(),
            live: None,
        }
    }

    pub(super) fn add(&mut self, live: Live) {
        let step = self.live.take().and_then(|last| Step::new(last, &live));
        let earlier = mem::take(&mut self.host);
        let total = Numbers::of_host(&live);
        let rate = step
            .as_ref()
            .and_then(|step| total.rate(&step.host, step.seconds));
        self.host.figures = Figures { total, rate };
        self.host.follow(earlier, self.window);
        let mut earlier = mem::take(&mut self.units);
        for group in &live.groups {
            let (name, member) = names(&live.dimensions, &group.labels);
            let unit = self.units.entry(name).or_default();
            unit.add(group, member, step.as_ref());
        }
        for (name, unit) in &mut self.units {
            let earlier = earlier.remove(name).unwrap_or_default();
            unit.track.follow(earlier.track, self.window);
        }
        self.live = Some(live);
    }

    /// Returns the labels that identify a unit: the label `unit`, or all labels if that is not in use.
    pub(super) fn title(&self) -> String {
        let dimensions = self.live.as_ref().map(|live| live.dimensions.as_slice());
        match dimensions.unwrap_or_default() {
            dimensions if dimensions.iter().any(|name| name == UNIT) => UNIT.to_owned(),
            [] => "host".to_owned(),
            dimensions => dimensions.join(" "),
        }
    }

    /// Returns the units that match the filter, sorted.
    pub(super) fn rows(&self, state: &ViewState) -> Vec<Row<'_>> {
        let wanted = state.filter.to_lowercase();
        let units = self.units.iter().map(|(name, unit)| (name.as_str(), unit));
        let mut rows: Vec<_> = units
            .filter(|(name, _)| name.to_lowercase().contains(&wanted))
            .collect();
        // They come sorted by name, and the sort is stable.
        rows.sort_by(|(a_name, a), (b_name, b)| {
            state.order((a_name, &a.track.figures), (b_name, &b.track.figures))
        });
        rows
    }
}

impl Unit {
    fn add(&mut self, group: &Group, name: String, step: Option<&Step>) {
        let (before, rate) = match step {
            Some(step) => step.since(group),
            None => (group, None),
        };
        let total = Numbers::of_group(group);
        let figures = Figures { total, rate };
        self.track.figures.add(&figures);
        for (outcome, &count) in &group.closes {
            let outcomes = &mut self.outcomes;
            let tally = outcomes.entry(escape_for_terminal(outcome)).or_default();
            tally.total += count;
            if let Some(step) = step {
                let before = before.closes.get(outcome).copied().unwrap_or(0);
                *tally.rate.get_or_insert_default() +=
                    float(count.saturating_sub(before)) / step.seconds;
            }
        }
        self.orphaned += group.orphaned;
        self.delivered += group.delivered;
        self.members.push(Member {
            name,
            labels: group.labels.clone(),
            figures,
        });
    }
}

/// The step between two readings of the same daemon.
struct Step {
    seconds: f64,
    /// The numbers of the host, and the groups, at the last reading.
    host: Numbers,
    groups: BTreeMap<BTreeMap<String, String>, Group>,
    /// True if groups were left out.
    is_cut: bool,
    /// A group before its first close.
    empty: Group,
}

impl Step {
    /// Returns `None` if the daemon is another or was restarted, or its clock stood still or was set back.
    fn new(last: Live, next: &Live) -> Option<Self> {
        let seconds = next.at - last.at;
        let is_same = (last.started - next.started).abs() < SAME && last.host == next.host;
        if !(is_same && seconds > 0.0 && seconds.is_finite()) {
            return None;
        }
        let host = Numbers::of_host(&last);
        let groups = last.groups.into_iter();
        Some(Self {
            seconds,
            host,
            groups: groups.map(|group| (group.labels.clone(), group)).collect(),
            is_cut: last.groups_omitted > 0,
            empty: Group::default(),
        })
    }

    /// Returns this group at the last reading, and its rates since. A group that cannot be compared is unchanged.
    fn since<'a>(&'a self, group: &'a Group) -> (&'a Group, Option<Numbers>) {
        let last = match self.groups.get(&group.labels) {
            _ if is_retired(group) => group,
            // It may have existed before, among the groups not shown.
            None if self.is_cut => group,
            last => last.unwrap_or(&self.empty),
        };
        let total = Numbers::of_group(group);
        match total.rate(&Numbers::of_group(last), self.seconds) {
            None => (group, total.rate(&total, self.seconds)),
            rate => (last, rate),
        }
    }
}

/// Returns whether this is the group of those whose cgroups are gone. A process may be named like that, too.
fn is_retired(group: &Group) -> bool {
    !group.labels.is_empty() && group.labels.values().all(|value| value == RETIRED)
}

/// Returns the name of a group's unit, and its other labels as text.
fn names(dimensions: &[String], labels: &BTreeMap<String, String>) -> (String, String) {
    let text = |names: Vec<&String>| {
        let values = names.into_iter().filter_map(|name| labels.get(name));
        let values = values.map(String::as_str).filter(|value| !value.is_empty());
        escape_for_terminal(&values.collect::<Vec<_>>().join(" "))
    };
    let has_unit = dimensions.iter().any(|name| name == UNIT);
    let names = dimensions.iter();
    let (unit, others) = names.partition(|name| !has_unit || *name == UNIT);
    let unit = Some(text(unit)).filter(|unit| !unit.is_empty());
    (unit.unwrap_or_else(|| "-".to_owned()), text(others))
}
