//! The text format of Prometheus, version 0.0.4.

use std::sync::LazyLock;

use linger_ebpf::{BLOCKED_BOUNDS_NS, BUCKETS, LIVED_BOUNDS_NS, Times};

use super::family::{Bounds, Family, Kind, Label, Series, Value};
use crate::attribution::{Dimension, Labels};

/// Lines that follow one another, each complete.
#[derive(Default)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    /// What the bucket lines of one histogram have in common.
    bucket: Vec<u8>,
}

/// The labels of a group, ready for the series of any metric: without the closing brace, and
/// without any brace if there are none.
pub(super) fn group_labels(dimensions: &[Dimension], labels: &Labels) -> Vec<u8> {
    let mut bytes = Vec::new();
    let names = dimensions.iter().map(|dimension| dimension.name());
    let mut separator = b'{';
    for label in names.zip(labels.values()) {
        put_label(&mut bytes, separator, label);
        separator = b',';
    }
    bytes
}

/// The series of one metric, for one group after another.
pub(super) struct Lines<'a> {
    text: &'a mut Text,
    family: &'static Family,
    /// The [`group_labels`] of the group whose series come.
    pub(super) group: &'a [u8],
    /// Whether the lines that introduce the metric are there: not before its first series.
    introduced: bool,
}

impl<'a> Lines<'a> {
    /// Lines of this metric, behind all that is there.
    pub(super) fn new(text: &'a mut Text, family: &'static Family) -> Self {
        Self {
            text,
            family,
            group: &[],
            introduced: false,
        }
    }

    /// What is written and may be taken away.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.text.bytes
    }

    fn introduce(&mut self) {
        if self.introduced {
            return;
        }
        self.introduced = true;
        let Family {
            name, help, kind, ..
        } = self.family;
        let bytes = &mut self.text.bytes;
        for part in ["# HELP ", name, " "] {
            bytes.extend_from_slice(part.as_bytes());
        }
        put_escaped(bytes, help, |byte| matches!(byte, b'\\' | b'\n'));
        for part in ["\n# TYPE ", name, " ", kind.name(), "\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
    }

    fn line(&mut self, suffix: &str, labels: &[Label], value: Value) {
        let bytes = &mut self.text.bytes;
        if put_series(bytes, self.family.name, suffix, self.group, labels) == b',' {
            bytes.push(b'}');
        }
        bytes.push(b' ');
        match value {
            Value::Count(count) => put_count(bytes, count),
            Value::Nanoseconds(ns) => put_seconds(bytes, ns),
        }
        bytes.push(b'\n');
    }
}

impl Series for Lines<'_> {
    fn sample(&mut self, labels: &[Label], value: Value) {
        self.introduce();
        self.line("", labels, value);
    }

    fn histogram(&mut self, labels: &[Label], times: &Times) {
        self.introduce();
        let bounds: &[_; BUCKETS] = match self.family.kind {
            Kind::Histogram(Bounds::Lived) => &LIVED,
            _ => &BLOCKED,
        };
        let Text { bytes, bucket } = &mut *self.text;
        bucket.clear();
        let separator = put_series(bucket, self.family.name, "_bucket", self.group, labels);
        bucket.push(separator);
        bucket.extend_from_slice(b"le=\"");
        let mut total = 0;
        let mut digits = itoa::Buffer::new();
        let mut shown = digits.format(total);
        for (bound, &count) in bounds.iter().zip(&times.buckets) {
            if count > 0 {
                total += count;
                shown = digits.format(total);
            }
            bytes.extend_from_slice(bucket);
            bytes.extend_from_slice(bound);
            bytes.extend_from_slice(shown.as_bytes());
            bytes.push(b'\n');
        }
        self.line("_sum", labels, Value::Nanoseconds(times.sum_ns));
        self.line("_count", labels, Value::Count(total));
    }
}

/// The end of each bucket's labels, from within the quotes of its bound on.
type Ends = LazyLock<[Vec<u8>; BUCKETS]>;

static BLOCKED: Ends = LazyLock::new(|| ends(&BLOCKED_BOUNDS_NS));
static LIVED: Ends = LazyLock::new(|| ends(&LIVED_BOUNDS_NS));

fn ends(bounds_ns: &[u64; BUCKETS - 1]) -> [Vec<u8>; BUCKETS] {
    std::array::from_fn(|bucket| {
        let mut bytes = Vec::new();
        match bounds_ns.get(bucket) {
            Some(&bound) => put_seconds(&mut bytes, bound),
            None => bytes.extend_from_slice(b"+Inf"),
        }
        bytes.extend_from_slice(b"\"} ");
        bytes
    })
}

/// Writes name and labels without the closing brace. Returns what has to stand before a further
/// label: a comma, or the opening brace if there were none.
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

/// Writes text in which these bytes stand behind a backslash, the end of a line as the letter n.
fn put_escaped(bytes: &mut Vec<u8>, text: &str, special: fn(&u8) -> bool) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(special) {
        let escaped = if rest[at] == b'\n' { b'n' } else { rest[at] };
        bytes.extend_from_slice(&rest[..at]);
        bytes.extend_from_slice(&[b'\\', escaped]);
        rest = &rest[at + 1..];
    }
    bytes.extend_from_slice(rest);
}

fn put_count(bytes: &mut Vec<u8>, count: u64) {
    bytes.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
}

/// Writes nanoseconds as seconds: exactly, and with no more digits than that takes.
fn put_seconds(bytes: &mut Vec<u8>, ns: u64) {
    const NS: u64 = 1_000_000_000;
    put_count(bytes, ns / NS);
    let mut fraction = ns % NS;
    if fraction == 0 {
        return;
    }
    let mut digits = *b".000000000";
    for digit in digits[1..].iter_mut().rev() {
        *digit += u8::try_from(fraction % 10).expect("a digit");
        fraction /= 10;
    }
    let zeros = digits.iter().rev().take_while(|&&digit| digit == b'0');
    let used = digits.len() - zeros.count();
    bytes.extend_from_slice(&digits[..used]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = Vec::new();
        put(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn bounds_are_the_contracts() {
        for (ends, contract) in [
            (&BLOCKED, "0.0001 0.001 0.01 0.1 1 10 60 +Inf"),
            (&LIVED, "0.001 0.01 0.1 1 10 60 600 +Inf"),
        ] {
            let ends = ends.iter().map(|end| str::from_utf8(end).unwrap());
            let bounds: Vec<_> = ends.map(|end| end.trim_end_matches("\"} ")).collect();
            assert_eq!(bounds.join(" "), contract);
        }
    }

    #[test]
    fn seconds_are_exact() {
        for (ns, seconds) in [
            (0, "0"),
            (1, "0.000000001"),
            (1_000_000_000, "1"),
            (10_500_000_000, "10.5"),
            (100_000_000_010, "100.00000001"),
            (u64::MAX, "18446744073.709551615"),
        ] {
            assert_eq!(shown(|bytes| put_seconds(bytes, ns)), seconds);
        }
    }

    #[test]
    fn help_keeps_its_quotes() {
        let escaped =
            shown(|bytes| put_escaped(bytes, "a\"b\\c\nd", |b| matches!(b, b'\\' | b'\n')));
        assert_eq!(escaped, r#"a"b\\c\nd"#);
    }
}
