//! Writes lines of text, in the syntax common to all formats.

use std::io::Write as _;

use linger_ebpf::{BUCKETS, TimeHistogram};

use super::family::{Kind, Label, Series, Value};
use super::format::{Format, put_seconds};
use crate::attribution::{Dimension, Labels};

/// Formats the labels of a group for the series of any metric: without the closing brace, and without any brace if
/// there are no labels.
pub(super) fn group_labels(dimensions: &[Dimension], labels: &Labels) -> Vec<u8> {
    let mut bytes = Vec::new();
    let names = dimensions.iter().map(<&str>::from);
    let mut separator = b'{';
    for label in names.zip(labels.values()) {
        put_label(&mut bytes, separator, label);
        separator = b',';
    }
    bytes
}

/// The series of one metric, for one group after another.
pub(super) struct Lines<'a> {
    format: Format,
    /// The lines written so far, which may be removed.
    pub(super) bytes: &'a mut Vec<u8>,
    name: &'a str,
    help: &'a str,
    kind: Kind,
    /// The [`group_labels`] of the group whose series are being written.
    pub(super) group: &'a [u8],
    /// The [`Format::bucket_ends`] of a histogram.
    bucket_ends: Option<[Vec<u8>; BUCKETS]>,
    /// Common beginning of the bucket lines of one histogram.
    bucket: Vec<u8>,
    /// True once the lines that introduce the metric are written, just before its first series.
    introduced: bool,
}

impl<'a> Lines<'a> {
    /// Starts a metric of this name after the text written so far.
    pub(super) fn new(
        format: Format,
        bytes: &'a mut Vec<u8>,
        name: &'a str,
        help: &'a str,
        kind: Kind,
    ) -> Self {
        let bucket_ends = match kind {
            Kind::Histogram(bounds_ns) => Some(format.bucket_ends(bounds_ns)),
            _ => None,
        };
        Self {
            format,
            bytes,
            name,
            help,
            kind,
            group: &[],
            bucket_ends,
            bucket: Vec::new(),
            introduced: false,
        }
    }

    fn introduce(&mut self) {
        if self.introduced {
            return;
        }
        self.introduced = true;
        let (format, bytes) = (self.format, &mut *self.bytes);
        let name = format.family_name(self.name, self.kind);
        put_all(bytes, &["# HELP ", name, " "]);
        put_escaped(bytes, self.help, |&byte| format.is_special_in_help(byte));
        let type_name = format.type_name(self.kind);
        put_all(bytes, &["\n# TYPE ", name, " ", type_name, "\n"]);
        if let Some(unit) = format.unit(name) {
            put_all(bytes, &["# UNIT ", name, " ", unit, "\n"]);
        }
    }

    fn line(&mut self, suffix: &str, labels: &[Label], value: Value) {
        let bytes = &mut *self.bytes;
        if put_series(bytes, self.name, suffix, self.group, labels) == b',' {
            bytes.push(b'}');
        }
        bytes.push(b' ');
        match value {
            Value::Count(count) => put_all(bytes, &[itoa::Buffer::new().format(count)]),
            Value::Nanoseconds(ns) => put_seconds(bytes, ns),
            Value::Float(value) => write!(bytes, "{value}").expect("memory takes all"),
        }
        bytes.push(b'\n');
    }
}

impl Series for Lines<'_> {
    fn sample(&mut self, labels: &[Label], value: Value) {
        self.introduce();
        self.line("", labels, value);
    }

    fn histogram(&mut self, labels: &[Label], times: &TimeHistogram) {
        self.introduce();
        let bucket = &mut self.bucket;
        bucket.clear();
        let separator = put_series(bucket, self.name, "_bucket", self.group, labels);
        bucket.push(separator);
        bucket.extend_from_slice(b"le=\"");
        let mut total = 0;
        let mut digits = itoa::Buffer::new();
        let mut shown = digits.format(total);
        let ends = self.bucket_ends.iter().flatten();
        for (end, &count) in ends.zip(&times.buckets) {
            if count > 0 {
                total += count;
                shown = digits.format(total);
            }
            for part in [bucket, end, shown.as_bytes(), b"\n"] {
                self.bytes.extend_from_slice(part);
            }
        }
        self.line("_sum", labels, Value::Nanoseconds(times.sum_ns));
        self.line("_count", labels, Value::Count(total));
    }
}

/// Writes name and labels without the closing brace. Returns the separator before a further label: a comma, or the
/// opening brace if there were no labels.
fn put_series(bytes: &mut Vec<u8>, name: &str, suffix: &str, group: &[u8], labels: &[Label]) -> u8 {
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(suffix.as_bytes());
    bytes.extend_from_slice(group);
    let mut separator = if group.is_empty() { b'{' } else { b',' };
    for &label in labels {
        put_label(bytes, separator, label);
        separator = b',';
    }
    separator
}

fn put_label(bytes: &mut Vec<u8>, separator: u8, (name, value): Label) {
    bytes.push(separator);
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b"=\"");
    put_escaped(bytes, value, |byte| matches!(byte, b'\\' | b'\n' | b'"'));
    bytes.push(b'"');
}

/// Writes text with the special bytes escaped by a backslash; a line feed becomes the letter n.
fn put_escaped(bytes: &mut Vec<u8>, text: &str, special: impl Fn(&u8) -> bool) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(&special) {
        let escaped = if rest[at] == b'\n' { b'n' } else { rest[at] };
        bytes.extend_from_slice(&rest[..at]);
        bytes.extend_from_slice(&[b'\\', escaped]);
        rest = &rest[at + 1..];
    }
    bytes.extend_from_slice(rest);
}

fn put_all(bytes: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
    }
}
