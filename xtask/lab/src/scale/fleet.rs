//! Simulated hosts: the metrics that the lingerd of each would serve, with counters that grow.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::catalogue::{Entry, entry, of_host};
use super::template::{Family, Series};

/// Closes per second of a host, of all its groups together.
const RATE: f64 = 300.0;
/// Share of them that leaves an orphan.
const ORPHANED: f64 = 0.01;
/// Period in which the load rises and falls, seconds.
const WAVE: f64 = 600.0;
/// Maximum number of closes of a group before the start.
const PAST: f64 = 1e6;

/// A sample, formatted for each scrape.
struct Sample {
    /// The name and labels, as exposed.
    text: String,
    /// Indexes of the group's counts that it adds up.
    counts: Vec<usize>,
    /// Its value for each of them.
    factor: f64,
    /// Whether it is in seconds, which are not whole.
    is_time: bool,
}

/// A group, the same on all hosts that have it.
struct Group {
    /// The outcomes and fates counted, and the share of closes that has each.
    shares: Vec<(&'static str, f64)>,
    /// Its samples by family.
    samples: Vec<Vec<Sample>>,
}

impl Group {
    fn new(entry: &Entry, families: &[Family]) -> Self {
        let halves = |names: &[&'static str], whole: f64| -> Vec<(&'static str, f64)> {
            let shares = (1..).map(|power| whole * 0.5_f64.powi(power));
            names.iter().copied().zip(shares).collect()
        };
        let shares = [
            halves(entry.habit.outcomes, 1.0),
            halves(entry.habit.fates, ORPHANED),
        ]
        .concat();
        let of_family = |family: &Family| {
            let series = family.of_group.iter();
            series
                .filter(|series| exists(series, entry))
                .map(|series| sample(series, entry, &shares))
                .collect()
        };
        Self {
            samples: families.iter().map(of_family).collect(),
            shares,
        }
    }
}

/// Returns whether a close of this outcome waited under `SO_LINGER`.
fn waited(outcome: &str) -> bool {
    matches!(
        outcome,
        "lingered" | "linger_timeout" | "linger_interrupted" | "linger_failed"
    )
}

/// Returns whether a group of this habit has the series, by the rules of `linger-daemon/src/metrics/families.rs`.
fn exists(series: &Series, entry: &Entry) -> bool {
    let outcomes = entry.habit.outcomes;
    let happens = |name: &str| outcomes.contains(&name);
    let has_orphans = !entry.habit.fates.is_empty();
    let is_outcome = |name: &str| name.contains("abort") || name.starts_with("linger");
    match (series.metric.as_str(), series.label("cause")) {
        ("linger_unread_bytes_total", _) => happens("unread_aborted"),
        ("linger_resets_sent_total", Some(cause)) => {
            happens(cause) || entry.habit.fates.contains(&cause)
        }
        (_, Some(cause)) if is_outcome(cause) => happens(cause),
        (_, Some(_)) | ("linger_orphans_total", _) => has_orphans,
        _ => match (series.label("outcome"), series.label("waited")) {
            (Some(outcome), _) => happens(outcome),
            (_, Some(wait)) => outcomes.iter().any(|one| waited(one) == (wait == "true")),
            _ => has_orphans,
        },
    }
}

/// Returns whether a series counts this outcome or fate.
fn follows(series: &Series, entry: &Entry, name: &str) -> bool {
    let labels = ["outcome", "fate", "cause"];
    let about = labels.iter().find_map(|label| series.label(label));
    let is_outcome = entry.habit.outcomes.contains(&name);
    match (about, series.label("waited"), series.metric.as_str()) {
        (Some(about), ..) => name == about,
        (_, Some(wait), _) => is_outcome && waited(name) == (wait == "true"),
        (.., "linger_unread_bytes_total") => name == "unread_aborted",
        (.., metric) if metric.starts_with("linger_orphan_duration") => !is_outcome,
        _ => name == "delivered",
    }
}

/// Derives the sample of a series from the counts of its group.
fn sample(series: &Series, entry: &Entry, shares: &[(&str, f64)]) -> Sample {
    let waits = series.label("waited") == Some("true");
    let factor = match series.metric.as_str() {
        "linger_discarded_bytes_total" if series.label("queue") == Some("unsent") => 4096.0,
        "linger_discarded_bytes_total" => 1448.0,
        "linger_unread_bytes_total" => 1000.0,
        "linger_orphaned_bytes_total" | "linger_orphan_delivered_bytes_total" => 40_000.0,
        "linger_close_blocked_seconds_sum" if waits => 0.31,
        "linger_close_blocked_seconds_sum" => 0.000_012,
        "linger_orphan_duration_seconds_sum" => 0.041,
        // A few orphans are under way.
        "linger_orphans_active" => 0.001,
        _ => series.label("le").map_or(1.0, |le| {
            let is_late = waits || series.metric.starts_with("linger_orphan");
            within(le.parse().unwrap_or(f64::INFINITY), is_late)
        }),
    };
    let comma = if series.labels.is_empty() { "" } else { "," };
    let names = shares.iter().enumerate();
    let counts = names.filter(|(_, (name, _))| follows(series, entry, name));
    Sample {
        text: format!(
            "{}{{unit=\"{}\",comm=\"{}\"{comma}{}}} ",
            series.metric, entry.unit, entry.comm, series.labels
        ),
        counts: counts.map(|(place, _)| place).collect(),
        factor,
        is_time: series.metric.ends_with("_seconds_sum"),
    }
}

/// Returns the share of closes or orphans that take at most this many seconds. The mean is 20 µs or, if `is_late`,
/// 20 ms, a round trip to the peer; for two in a hundred it is a second.
fn within(seconds: f64, is_late: bool) -> f64 {
    let usual: f64 = if is_late { 0.02 } else { 0.000_02 };
    1.0 - (-seconds / usual).exp() * 0.98 - 0.02 * (-seconds).exp()
}

/// The counts of a host so far.
struct Counted {
    /// Counts by group, then by outcome or fate.
    counts: Vec<Vec<f64>>,
    at: f64,
    random: u64,
}

/// A simulated host.
struct Host {
    groups: Vec<Arc<Group>>,
    phase: f64,
    counted: Mutex<Counted>,
}

/// All simulated hosts.
pub(super) struct Fleet {
    families: Vec<Family>,
    hosts: Vec<Host>,
    start: Instant,
}

impl Fleet {
    /// A fleet with this number of hosts, and of groups on each.
    pub(super) fn new(families: Vec<Family>, hosts: usize, groups: usize) -> Self {
        let mut known = BTreeMap::new();
        let mut group = |number| {
            let made = known.entry(number);
            Arc::clone(made.or_insert_with(|| Arc::new(Group::new(&entry(number), &families))))
        };
        let hosts = (0..hosts)
            .map(|host| {
                let groups = of_host(host, groups).into_iter().map(&mut group);
                Host::new(host, groups.collect())
            })
            .collect();
        Self {
            families,
            hosts,
            start: Instant::now(),
        }
    }

    /// Returns the number of hosts.
    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Returns the current metrics of a host; `None` if there is no such host.
    pub(super) fn scrape(&self, host: usize) -> Option<String> {
        let host = self.hosts.get(host)?;
        let mut counted = host.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.grow(host, self.start.elapsed().as_secs_f64());
        let mut text = String::new();
        for (number, family) in self.families.iter().enumerate() {
            text += &family.head;
            text.extend(family.of_host.iter().map(String::as_str));
            for (group, counts) in host.groups.iter().zip(&counted.counts) {
                for sample in &group.samples[number] {
                    sample.write(&mut text, counts);
                }
            }
        }
        Some(text)
    }
}

impl Host {
    fn new(number: usize, groups: Vec<Arc<Group>>) -> Self {
        let mut counted = Counted {
            counts: Vec::new(),
            at: 0.0,
            random: 0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1),
        };
        let phase = counted.random();
        for group in &groups {
            let past = counted.random() * PAST;
            let counts = group.shares.iter().map(|(_, share)| (share * past).floor());
            counted.counts.push(counts.collect());
        }
        Self {
            groups,
            phase,
            counted: Mutex::new(counted),
        }
    }
}

impl Counted {
    /// Adds the closes since the last call: few of most groups, many of a few.
    fn grow(&mut self, host: &Host, now: f64) {
        let load = 1.0 + 0.5 * (TAU * (now / WAVE + host.phase)).sin();
        let closes = RATE * load * (now - self.at).max(0.0);
        self.at = self.at.max(now);
        let ranks = (1..=host.groups.len())
            .map(|rank| 1.0 / f64::from(u32::try_from(rank).unwrap_or(u32::MAX)));
        let ranks: Vec<f64> = ranks.collect();
        let whole: f64 = ranks.iter().sum();
        for (number, group) in host.groups.iter().enumerate() {
            for (place, (_, share)) in group.shares.iter().enumerate() {
                let expected = closes * share * ranks[number] / whole;
                // Whole closes, as many as expected on average.
                let more = (expected * (0.5 + self.random()) + self.random()).floor();
                self.counts[number][place] += more;
            }
        }
    }

    /// Returns a random number from 0 to 1 (xorshift).
    #[expect(clippy::cast_precision_loss, reason = "random anyway")]
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Sample {
    fn write(&self, text: &mut String, counts: &[f64]) {
        let count: f64 = self.counts.iter().map(|place| counts[*place]).sum();
        let value = count * self.factor;
        text.push_str(&self.text);
        // Writing to a string does not fail.
        let _ = if self.is_time {
            writeln!(text, "{value:.9}")
        } else {
            writeln!(text, "{}", value.floor())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::parse;
    use super::*;

    const SERVED: &str = "\
# HELP linger_build_info What.\n# TYPE linger_build_info gauge\nlinger_build_info 1\n\
# HELP linger_close_blocked_seconds What.\n# TYPE linger_close_blocked_seconds histogram\n\
linger_close_blocked_seconds_bucket{unit=\"/\",comm=\"lingerd\",waited=\"false\",le=\"0.0001\"} 1\n\
linger_close_blocked_seconds_bucket{unit=\"/\",comm=\"lingerd\",waited=\"false\",le=\"1\"} 1\n\
linger_close_blocked_seconds_bucket{unit=\"/\",comm=\"lingerd\",waited=\"false\",le=\"+Inf\"} 1\n\
linger_close_blocked_seconds_bucket{unit=\"/\",comm=\"lingerd\",waited=\"true\",le=\"0.0001\"} 1\n\
linger_close_blocked_seconds_bucket{unit=\"/\",comm=\"lingerd\",waited=\"true\",le=\"1\"} 1\n\
linger_close_blocked_seconds_bucket{unit=\"/\",comm=\"lingerd\",waited=\"true\",le=\"+Inf\"} 1\n\
# HELP linger_closes_total What.\n# TYPE linger_closes_total counter\n\
linger_closes_total{unit=\"/\",comm=\"lingerd\",outcome=\"graceful\"} 1\n\
linger_closes_total{unit=\"/\",comm=\"lingerd\",outcome=\"linger_timeout\"} 1\n\
linger_closes_total{unit=\"/\",comm=\"lingerd\",outcome=\"lingered\"} 1\n\
linger_closes_total{unit=\"/\",comm=\"lingerd\",outcome=\"listener\"} 1\n\
linger_closes_total{unit=\"/\",comm=\"lingerd\",outcome=\"repaired\"} 1\n";

    fn values(text: &str) -> BTreeMap<String, f64> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.map(|line| line.rsplit_once(' ').unwrap());
        pairs
            .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn hosts_have_groups_of_their_own_and_groups_the_series_of_their_habit() {
        let fleet = Fleet::new(parse(SERVED).unwrap(), 2, 6);
        let [first, second] = [0, 1].map(|host| values(&fleet.scrape(host).unwrap()));
        assert!(fleet.scrape(2).is_none());
        // Four series of each group, one more of each with listeners, and five more of the database, which waits.
        assert_eq!((first.len(), second.len()), (1 + 6 * 4 + 4, 1 + 6 * 4 + 8));
        assert_ne!(
            first.keys().collect::<Vec<_>>(),
            second.keys().collect::<Vec<_>>()
        );
        assert!(first.keys().all(|series| !series.contains("repaired")));
    }

    #[test]
    fn counters_only_grow_and_the_widest_bucket_has_all_closes() {
        let fleet = Fleet::new(parse(SERVED).unwrap(), 1, 8);
        let host = &fleet.hosts[0];
        let before = values(&fleet.scrape(0).unwrap());
        host.counted.lock().unwrap().grow(host, 1000.0);
        let after = values(&fleet.scrape(0).unwrap());
        assert!(before.iter().all(|(series, value)| after[series] >= *value));
        let of = |parts: &[&str]| {
            let all = after.iter();
            let found = all.filter(|(series, _)| parts.iter().all(|part| series.contains(part)));
            found.map(|(_, value)| value).sum::<f64>()
        };
        for (unit, wait, outcomes) in [
            ("ssh@0.service", "false", ["graceful", "listener"]),
            (
                "postgresql@0.service",
                "true",
                ["lingered", "linger_timeout"],
            ),
        ] {
            let closes = outcomes.map(|outcome| {
                let outcome = format!("outcome=\"{outcome}\"");
                of(&["linger_closes_total", unit, &outcome])
            });
            let wait = format!("waited=\"{wait}\"");
            let [short, long, all] = ["0.0001", "\"1\"", "+Inf"]
                .map(|le| of(&["linger_close_blocked_seconds_bucket", unit, &wait, le]));
            assert!(0.0 < short && short < long && long < all, "{unit}");
            assert!(closes.iter().all(|closes| *closes > 0.0), "{unit}");
            assert!((all - closes.iter().sum::<f64>()).abs() < 0.5, "{unit}");
        }
    }
}
