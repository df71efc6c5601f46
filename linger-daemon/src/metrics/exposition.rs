//! One scrape: a reading of the ledger, and its text.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::proto::{MetricFamily, MetricType};

use super::Facts;
use super::families::FAMILIES;
use super::family::{Kind, Rule, Series as _, Value};
use super::format::Format;
use super::text::{Lines, group_labels};
use crate::ledger::Snapshot;

/// Bytes to gather before they are written out.
const BATCH: usize = 64 * 1024;

/// The contents of one scrape.
pub struct Exposition {
    /// Time at which reading the snapshot began.
    pub(crate) at: SystemTime,
    pub(crate) snapshot: Snapshot,
    pub(crate) facts: Arc<Facts>,
    pub(crate) reading: Duration,
    pub(super) process: Vec<MetricFamily>,
}

impl Exposition {
    /// Returns the number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.snapshot.groups.len()
    }

    /// Writes the metrics in this format, in batches of whole lines. A batch exceeds 64 KiB by at most the series of
    /// one metric of one group, and those of the daemon itself.
    ///
    /// Fails only if `out` does.
    pub fn write(&self, format: Format, out: &mut impl Write) -> io::Result<()> {
        let Snapshot {
            dimensions, groups, ..
        } = &self.snapshot;
        let labels = groups
            .iter()
            .map(|(labels, _)| group_labels(dimensions, labels));
        let labels: Vec<_> = labels.collect();
        let mut bytes = Vec::new();
        for family in FAMILIES {
            let mut lines = Lines::new(format, &mut bytes, family.name, family.help, family.kind);
            match family.rule {
                Rule::Daemon(rule) => rule(self, &mut lines),
                Rule::Group(rule) => {
                    for (labels, (_, counters)) in labels.iter().zip(groups) {
                        lines.group = labels;
                        rule(counters, &mut lines);
                        pass_on(lines.bytes, out, BATCH)?;
                    }
                }
            }
        }
        // Their names sort after all others.
        for family in &self.process {
            write_process(family, format, &mut bytes);
        }
        bytes.extend_from_slice(format.end());
        pass_on(&mut bytes, out, 0)
    }

    /// Returns the value of a `process_*` gauge; zero if it could not be gathered.
    pub(crate) fn process(&self, name: &str) -> f64 {
        let family = self.process.iter().find(|family| family.name() == name);
        let metric = family.and_then(|family| family.get_metric().first());
        metric.map_or(0.0, |metric| metric.get_gauge().get_value())
    }
}

/// Writes a family that the `prometheus` crate gathered: each has one sample, without labels.
fn write_process(family: &MetricFamily, format: Format, bytes: &mut Vec<u8>) {
    let metric = family.get_metric().first();
    let (kind, value) = match family.get_field_type() {
        MetricType::COUNTER => (
            Kind::Counter,
            metric.map(|one| one.get_counter().get_value()),
        ),
        _ => (Kind::Gauge, metric.map(|one| one.get_gauge().get_value())),
    };
    if let Some(value) = value {
        let mut lines = Lines::new(format, bytes, family.name(), family.help(), kind);
        lines.sample(&[], Value::Float(value));
    }
}

/// Writes the gathered bytes to `out`, if there are at least `batch`.
fn pass_on(bytes: &mut Vec<u8>, out: &mut impl Write, batch: usize) -> io::Result<()> {
    if bytes.len() >= batch {
        out.write_all(bytes)?;
        bytes.clear();
    }
    Ok(())
}
