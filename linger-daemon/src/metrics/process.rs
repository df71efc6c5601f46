//! The `process_*` metrics, which the `prometheus` crate gathers.

use prometheus::proto::{MetricFamily, MetricType};

use super::family::{Kind, Series as _, Value};
use super::text::{Lines, Text};

/// Writes a family: each has one sample, without labels.
pub(super) fn write(family: &MetricFamily, text: &mut Text) {
    let metric = family.get_metric().first();
    let (kind, value) = match family.get_field_type() {
        MetricType::COUNTER => (
            Kind::Counter,
            metric.map(|one| one.get_counter().get_value()),
        ),
        _ => (Kind::Gauge, metric.map(|one| one.get_gauge().get_value())),
    };
    let mut lines = Lines::new(text, family.name(), family.help(), kind);
    if let Some(value) = value {
        lines.sample(&[], Value::Float(value));
    }
}
