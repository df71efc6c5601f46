//! The formats of an exposition, and how they differ.

use std::io::Write as _;

use linger_ebpf::BUCKETS;

use super::family::Kind;

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
    pub(super) fn unit(self, family: &str) -> Option<&str> {
        let (_, last) = family.rsplit_once('_')?;
        (self == Self::OpenMetrics && ["bytes", "seconds"].contains(&last)).then_some(last)
    }

    /// Returns whether this byte is escaped by a backslash in a help text.
    pub(super) const fn is_special_in_help(self, byte: u8) -> bool {
        matches!(byte, b'\\' | b'\n') || matches!((self, byte), (Self::OpenMetrics, b'"'))
    }

    /// Returns the end of the labels of each bucket, from its bound on: `0.1"} `.
    pub(super) fn bucket_ends(self, bounds_ns: &[u64; BUCKETS - 1]) -> [Vec<u8>; BUCKETS] {
        std::array::from_fn(|bucket| {
            let mut bytes = Vec::new();
            match bounds_ns.get(bucket) {
                Some(&bound) => put_seconds(&mut bytes, bound),
                None => bytes.extend_from_slice(b"+Inf"),
            }
            // OpenMetrics writes bounds as floating-point numbers.
            if self == Self::OpenMetrics && bytes.iter().all(u8::is_ascii_digit) {
                bytes.extend_from_slice(b".0");
            }
            bytes.extend_from_slice(b"\"} ");
            bytes
        })
    }

    pub(super) const fn end(self) -> &'static [u8] {
        match self {
            Self::Text => b"",
            Self::OpenMetrics => b"# EOF\n",
        }
    }
}

/// Writes nanoseconds as seconds, exactly and without trailing zeros.
pub(super) fn put_seconds(bytes: &mut Vec<u8>, ns: u64) {
    const NS: u64 = 1_000_000_000;
    write!(bytes, "{}.{:09}", ns / NS, ns % NS).expect("memory takes all");
    while bytes.pop_if(|digit| *digit == b'0').is_some() {}
    bytes.pop_if(|last| *last == b'.');
}
