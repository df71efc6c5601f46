//! Labels hold any name of a group.

use std::collections::BTreeMap;

use clap::ValueEnum as _;
use linger_daemon::attribution::{Dimension, Labels};
use linger_daemon::ledger::Snapshot;
use linger_ebpf::{Counters, Fate, Outcome};
use linger_testkit::exposition::sample;
use proptest::prelude::*;

use crate::exposition::expect_promtool_to_accept;
use crate::fixture;

/// Groups by the values of their labels, each with a number of closes.
type Groups = BTreeMap<Vec<String>, u64>;

fn snapshot(dimensions: &[Dimension], groups: &Groups) -> Snapshot {
    let groups = groups.iter().map(|(values, &count)| {
        let mut counters = Counters::ZERO;
        counters.closes[Outcome::Graceful.index()] = count;
        let labels = Labels::new(values.iter().map(String::as_str));
        (labels.into(), counters.into())
    });
    Snapshot {
        dimensions: dimensions.into(),
        groups: groups.collect(),
        ..fixture::snapshot()
    }
}

/// Returns the groups in the closes of a text.
fn read(text: &str, dimensions: &[Dimension]) -> Groups {
    let mut names: Vec<_> = dimensions.iter().map(<&str>::from).collect();
    names.push("outcome");
    let mut groups = Groups::new();
    // Not lines(), which would drop a carriage return at the end of a line.
    let lines = text.split('\n');
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let sample = sample(line).unwrap_or_else(|| panic!("broken: {line}"));
        if sample.name == "linger_closes_total" {
            let closes = sample.whole().unwrap();
            let (found, mut values): (Vec<_>, Vec<_>) = sample.labels.into_iter().unzip();
            assert_eq!(found, names, "{line}");
            assert_eq!(values.pop().as_deref(), Some("graceful"), "{line}");
            groups.insert(values, closes);
        }
    }
    groups
}

proptest! {
    #[test]
    fn labels_hold_anything((dimensions, groups) in any_groups()) {
        let text = fixture::text(snapshot(&dimensions, &groups));
        prop_assert_eq!(read(&text, &dimensions), groups);
    }
}

proptest! {
    // Each case starts a process.
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn promtool_accepts_any_labels((dimensions, groups) in any_groups()) {
        expect_promtool_to_accept(&fixture::text(snapshot(&dimensions, &groups)));
    }
}

#[test]
fn no_label_forges_a_line() {
    let forged = "a\"} 1\nlinger_closes_total{unit=\"b";
    let groups = Groups::from([(vec![forged.to_owned()], 5)]);
    let text = fixture::text(snapshot(&[Dimension::Unit], &groups));
    assert_eq!(read(&text, &[Dimension::Unit]), groups);
    expect_promtool_to_accept(&text);
}

#[test]
fn without_dimensions_there_are_no_empty_braces() {
    let mut counters = Counters::ZERO;
    counters.unread_bytes = 7;
    counters.closes[Outcome::Graceful.index()] = 1;
    counters.blocked[0].buckets[0] = 1;
    counters.orphans.left = 1;
    counters.orphans.ends[Fate::Delivered.index()] = 1;
    counters.orphans.lived.buckets[0] = 1;
    let text = fixture::text(Snapshot {
        dimensions: [].into(),
        groups: vec![(Labels::new([""; 0]).into(), counters.into())],
        ..fixture::snapshot()
    });
    for line in [
        "linger_unread_bytes_total 7",
        "linger_closes_total{outcome=\"graceful\"} 1",
        "linger_close_blocked_seconds_bucket{waited=\"false\",le=\"0.0001\"} 1",
        "linger_close_blocked_seconds_sum{waited=\"false\"} 0",
        "linger_orphan_duration_seconds_bucket{le=\"0.001\"} 1",
        "linger_orphan_duration_seconds_sum 0",
        "linger_orphan_duration_seconds_count 1",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no {line} in\n{text}"
        );
    }
}

/// Generates some of the dimensions, in order, and groups with a value for each.
fn any_groups() -> impl Strategy<Value = (Vec<Dimension>, Groups)> {
    let some = prop::sample::subsequence(
        Dimension::value_variants(),
        0..=Dimension::value_variants().len(),
    );
    some.prop_flat_map(|dimensions| {
        let values = prop::collection::vec(any_value(), dimensions.len());
        // Without dimensions there is only one group.
        let most = if dimensions.is_empty() { 1 } else { 8 };
        let groups = prop::collection::btree_map(values, 1..1000_u64, 1..=most);
        (Just(dimensions), groups)
    })
}

/// Generates the text shown for a name: any text, rich in characters with a meaning in the format.
fn any_value() -> impl Strategy<Value = String> {
    let bytes = prop::collection::vec(any::<u8>(), 0..16);
    prop_oneof![
        any::<String>(),
        bytes.prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        "[\"\\\\\n\r{}=, #a\u{0}\u{1f980}]{0,12}",
    ]
}
