//! What is fixed about one metric, and the making of its series.

use std::collections::HashMap;

use linger_ebpf::{BUCKET_BOUNDS_NS, BUCKETS};
use prometheus::core::Desc;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::attribution::{Dimension, Labels};

/// The fixed part of a metric.
pub(super) struct Family {
    pub(super) name: &'static str,
    /// What it counts, in which unit, and how to read it.
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    /// Its series differ in who closed: the labels of attribution come before the others.
    pub(super) attributed: bool,
    /// The other labels.
    pub(super) labels: &'static [&'static str],
}

impl Family {
    pub(super) fn description(&self) -> Desc {
        let labels = self.label_names().map(str::to_owned).collect();
        Desc::new(
            self.name.to_owned(),
            self.help.to_owned(),
            labels,
            HashMap::new(),
        )
        .expect("the names of metrics and labels are valid")
    }

    pub(super) fn with(&self, series: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(series);
        family
    }

    /// A series of one group.
    pub(super) fn of_group(&self, group: &Labels, labels: &[&str], value: u64) -> Metric {
        let values = group.values().chain(labels.iter().copied());
        self.metric(values, float(value))
    }

    /// A series of the daemon.
    pub(super) fn of_daemon(&self, labels: &[&str], value: f64) -> Metric {
        self.metric(labels.iter().copied(), value)
    }

    /// A histogram of one group's times: by bucket, and their sum in nanoseconds.
    pub(super) fn histogram(
        &self,
        group: &Labels,
        labels: &[&str],
        buckets: &[u64; BUCKETS],
        sum_ns: u64,
    ) -> Metric {
        let mut histogram = Histogram::default();
        histogram.set_bucket(cumulative(buckets));
        histogram.set_sample_count(buckets.iter().sum());
        histogram.set_sample_sum(seconds(sum_ns));
        let values = group.values().chain(labels.iter().copied());
        let mut metric = Metric::from_label(self.label_pairs(values));
        metric.set_histogram(histogram);
        metric
    }

    fn metric<'a>(&self, labels: impl Iterator<Item = &'a str>, value: f64) -> Metric {
        let mut metric = Metric::from_label(self.label_pairs(labels));
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    }

    fn label_pairs<'a>(&self, values: impl Iterator<Item = &'a str>) -> Vec<LabelPair> {
        self.label_names()
            .zip(values)
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name(name.to_owned());
                pair.set_value(value.to_owned());
                pair
            })
            .collect()
    }

    fn label_names(&self) -> impl Iterator<Item = &'static str> {
        let attribution: &[Dimension] = if self.attributed {
            Dimension::DEFAULT
        } else {
            &[]
        };
        let attribution = attribution.iter().map(|dimension| dimension.name());
        attribution.chain(self.labels.iter().copied())
    }
}

/// The bounded buckets, each with all that lie below it; the encoder adds the one above.
fn cumulative(buckets: &[u64; BUCKETS]) -> Vec<Bucket> {
    let mut sum = 0;
    BUCKET_BOUNDS_NS
        .iter()
        .zip(buckets)
        .map(|(&bound, count)| {
            sum += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(bound));
            bucket.set_cumulative_count(sum);
            bucket
        })
        .collect()
}

/// Nanoseconds in the exposition's unit.
fn seconds(nanoseconds: u64) -> f64 {
    float(nanoseconds) / 1e9
}

/// A count as the exposition has it.
#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers; exact below 2^53"
)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_the_contracts() {
        let bounds: Vec<f64> = cumulative(&[0; BUCKETS])
            .iter()
            .map(Bucket::upper_bound)
            .collect();
        let contract = [
            0.0001, 0.001, 0.01, 0.05, 0.1, 0.5, 1., 2., 5., 10., 30., 60., 120.,
        ];
        assert_eq!(bounds, contract);
    }
}
