//! The formats of an exposition, and how they differ.

use std::sync::LazyLock;

use linger_ebpf::{BLOCKED_BOUNDS_NS, BUCKETS, LIVED_BOUNDS_NS};

use super::family::{Bounds, Kind};
use super::number::put_seconds;

/// A format that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// `OpenMetrics`, version 1.0.
    OpenMetrics,
}

impl Format {
    /// Returns the media type, for the header `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus::TEXT_FORMAT,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Returns the name of the family of samples with this name. `OpenMetrics` strips the suffix of the type.
    pub(super) fn family_name(self, sample: &str, kind: Kind) -> &str {
        let suffix = match (self, kind) {
            (Self::OpenMetrics, Kind::Counter) => "_total",
            (Self::OpenMetrics, Kind::Info) => "_info",
            _ => "",
        };
        sample.strip_suffix(suffix).unwrap_or(sample)
    }

    /// Returns the name of a type. The text format has no type for [`Kind::Info`].
    pub(super) const fn type_name(self, kind: Kind) -> &'static str {
        match (kind, self) {
            (Kind::Counter, _) => "counter",
            (Kind::Info, Self::OpenMetrics) => "info",
            (Kind::Info, Self::Text) | (Kind::Gauge, _) => "gauge",
            (Kind::Histogram(_), _) => "histogram",
        }
    }

    /// Returns the unit to declare for a family. The text format declares none.
    pub(super) fn unit(self, family: &str) -> Option<&'static str> {
        const UNITS: [&str; 2] = ["bytes", "seconds"];
        let (_, last) = family.rsplit_once('_')?;
        let mut units = UNITS.into_iter().filter(|_| self == Self::OpenMetrics);
        units.find(|&unit| unit == last)
    }

    /// Returns whether this byte is escaped by a backslash in a help text.
    pub(super) const fn is_special_in_help(self, byte: u8) -> bool {
        matches!(byte, b'\\' | b'\n') || matches!((self, byte), (Self::OpenMetrics, b'"'))
    }

    /// Returns the end of the labels of each bucket, from its bound on: `0.1"} `.
    pub(super) fn bounds(self, bounds: Bounds) -> &'static [Vec<u8>; BUCKETS] {
        match (self, bounds) {
            (Self::Text, Bounds::Blocked) => &TEXT_BLOCKED,
            (Self::Text, Bounds::Lived) => &TEXT_LIVED,
            (Self::OpenMetrics, Bounds::Blocked) => &OPEN_METRICS_BLOCKED,
            (Self::OpenMetrics, Bounds::Lived) => &OPEN_METRICS_LIVED,
        }
    }

    /// Returns the end of an exposition.
    pub(super) const fn end(self) -> &'static [u8] {
        match self {
            Self::Text => b"",
            Self::OpenMetrics => b"# EOF\n",
        }
    }
}

/// The ends of the labels of a histogram's buckets.
type Ends = LazyLock<[Vec<u8>; BUCKETS]>;

static TEXT_BLOCKED: Ends = LazyLock::new(|| ends(&BLOCKED_BOUNDS_NS, Format::Text));
static TEXT_LIVED: Ends = LazyLock::new(|| ends(&LIVED_BOUNDS_NS, Format::Text));
static OPEN_METRICS_BLOCKED: Ends = LazyLock::new(|| ends(&BLOCKED_BOUNDS_NS, Format::OpenMetrics));
static OPEN_METRICS_LIVED: Ends = LazyLock::new(|| ends(&LIVED_BOUNDS_NS, Format::OpenMetrics));

fn ends(bounds_ns: &[u64; BUCKETS - 1], format: Format) -> [Vec<u8>; BUCKETS] {
    std::array::from_fn(|bucket| {
        let mut bytes = Vec::new();
        match bounds_ns.get(bucket) {
            Some(&bound) => put_seconds(&mut bytes, bound),
            None => bytes.extend_from_slice(b"+Inf"),
        }
        // OpenMetrics writes bounds as floating-point numbers.
        if format == Format::OpenMetrics && bytes.iter().all(u8::is_ascii_digit) {
            bytes.extend_from_slice(b".0");
        }
        bytes.extend_from_slice(b"\"} ");
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_match_the_contract() {
        for (format, bounds, contract) in [
            (
                Format::Text,
                Bounds::Blocked,
                "0.0001 0.001 0.01 0.1 1 10 60 +Inf",
            ),
            (
                Format::Text,
                Bounds::Lived,
                "0.001 0.01 0.1 1 10 60 600 +Inf",
            ),
            (
                Format::OpenMetrics,
                Bounds::Blocked,
                "0.0001 0.001 0.01 0.1 1.0 10.0 60.0 +Inf",
            ),
            (
                Format::OpenMetrics,
                Bounds::Lived,
                "0.001 0.01 0.1 1.0 10.0 60.0 600.0 +Inf",
            ),
        ] {
            let ends = format.bounds(bounds).iter();
            let ends = ends.map(|end| str::from_utf8(end).unwrap());
            let bounds: Vec<_> = ends.map(|end| end.trim_end_matches("\"} ")).collect();
            assert_eq!(bounds.join(" "), contract);
        }
    }

    #[test]
    fn open_metrics_names_families_without_the_suffix_of_their_type() {
        for (sample, kind, name, unit) in [
            ("a_total", Kind::Counter, "a", None),
            ("a_bytes_total", Kind::Counter, "a_bytes", Some("bytes")),
            ("a_total", Kind::Gauge, "a_total", None),
            ("a_info", Kind::Info, "a", None),
            ("a_seconds", Kind::Gauge, "a_seconds", Some("seconds")),
        ] {
            let format = Format::OpenMetrics;
            assert_eq!(format.family_name(sample, kind), name);
            assert_eq!(format.unit(name), unit);
            assert_eq!(Format::Text.family_name(sample, kind), sample);
            assert_eq!(Format::Text.unit(name), None);
        }
    }
}
