//! Rates between readings, and changes that must not count as rates.

use super::{group, history, live};
use crate::live::{Group, Live};
use crate::top::column::{Column, Numbers};
use crate::top::history::History;

fn web(closes: u64) -> Group {
    Group {
        discarded: closes * 100,
        orphans: 4,
        ..group("web", "x", &[("graceful", closes)])
    }
}

/// Returns the closes per second of the host and of the unit `web`.
fn rates(history: &History) -> [Option<f64>; 2] {
    let closes = |rate: Option<Numbers>| rate.map(|rate| rate[Column::Closes]);
    let unit = &history.units["web"];
    [history.host.figures.rate, unit.track.figures.rate].map(closes)
}

#[test]
fn a_rate_takes_two_readings() {
    assert_eq!(rates(&history([live(0.0, vec![web(10)])])), [None, None]);
    let history = history([live(0.0, vec![web(10)]), live(4.0, vec![web(30)])]);
    assert_eq!(rates(&history), [Some(5.0), Some(5.0)]);
    let rate = history.host.figures.rate.unwrap();
    assert_eq!(rate[Column::Discarded].to_bits(), 500.0_f64.to_bits());
    // A gauge keeps its value.
    assert_eq!(rate[Column::Orphans].to_bits(), 4.0_f64.to_bits());
    let graceful = history.units["web"].outcomes["graceful"];
    assert_eq!((graceful.total, graceful.rate), (30, Some(5.0)));
}

#[test]
fn a_host_without_closes_has_zeros_without_a_sign() {
    let totals = history([live(0.0, Vec::new())]).host.figures.total;
    for &column in Column::numbers() {
        assert_eq!(totals[column].to_bits(), 0, "{}", column.name());
    }
}

#[test]
fn a_restarted_daemon_has_no_rate_at_first() {
    let mut restarted = live(4.0, vec![web(3)]);
    restarted.started += 3.5;
    let mut next = live(6.0, vec![web(5)]);
    next.started += 3.5;
    let mut history = history([live(0.0, vec![web(1_000_000)]), restarted]);
    assert_eq!(rates(&history), [None, None]);
    history.add(next);
    assert_eq!(rates(&history), [Some(1.0), Some(1.0)]);
}

#[test]
fn counts_that_fell_without_a_restart_make_no_rate() {
    let history = history([live(0.0, vec![web(1000)]), live(2.0, vec![web(10)])]);
    assert_eq!(rates(&history), [None, Some(0.0)]);
    assert_eq!(history.units["web"].outcomes["graceful"].rate, Some(0.0));
}

#[test]
fn only_a_later_reading_of_the_same_host_and_start_is_compared() {
    let first = || live(0.0, vec![web(1)]);
    let second = live(2.0, vec![web(3)]);
    let mut other = second.clone();
    other.host = "web2".to_owned();
    let mut moved = second.clone();
    moved.started += 1.0;
    for (next, expected) in [
        (second, Some(1.0)),
        (other, None),
        // The clock may be adjusted, but not stand still or go back.
        (moved, Some(1.0)),
        (live(0.0, vec![web(3)]), None),
        (live(-3600.0, vec![web(3)]), None),
    ] {
        assert_eq!(rates(&history([first(), next])), [expected; 2]);
    }
}

#[test]
fn a_new_group_counts_from_zero_unless_groups_were_left_out_before() {
    let [before, after] = [live(0.0, Vec::new()), live(2.0, vec![web(8)])];
    let added = history([before.clone(), after.clone()]);
    assert_eq!(rates(&added), [Some(4.0), Some(4.0)]);
    let cut = Live {
        groups_omitted: 1,
        ..before
    };
    assert_eq!(rates(&history([cut, after]))[1], Some(0.0));
}

#[test]
fn retired_groups_make_no_rate() {
    let retired = |closes| group("retired", "retired", &[("graceful", closes)]);
    let history = history([
        live(0.0, vec![web(900), retired(5)]),
        live(2.0, vec![retired(905)]),
    ]);
    let rate = history.units["retired"].track.figures.rate.unwrap();
    assert_eq!(rate[Column::Closes].to_bits(), 0.0_f64.to_bits());
    assert!(!history.units.contains_key("web"));
}

#[test]
fn a_process_named_like_the_retired_groups_has_a_rate() {
    let unit = |closes| group("web", "retired", &[("graceful", closes)]);
    let history = history([live(0.0, vec![unit(10)]), live(2.0, vec![unit(30)])]);
    assert_eq!(rates(&history), [Some(10.0), Some(10.0)]);
}

#[test]
fn a_unit_is_the_sum_of_its_groups() {
    let unit = |a, b| {
        vec![
            group("web", "a", &[("graceful", a)]),
            group("web", "b", &[("graceful", b)]),
        ]
    };
    let history = history([live(0.0, unit(1, 2)), live(2.0, unit(5, 12))]);
    assert_eq!(rates(&history), [Some(7.0), Some(7.0)]);
    assert_eq!(history.units["web"].members.len(), 2);
}

#[test]
fn without_the_label_unit_every_group_is_a_row() {
    let rename = |mut live: Live| {
        live.dimensions = vec!["comm".to_owned(), "port".to_owned()];
        for group in &mut live.groups {
            group.labels.remove("unit");
            group.labels.insert("port".to_owned(), "443".to_owned());
        }
        live
    };
    let found = history([rename(live(0.0, vec![web(1)]))]);
    assert_eq!(found.units.keys().collect::<Vec<_>>(), ["x 443"]);
    assert_eq!(found.title(), "comm port");
    let mut one = live(0.0, vec![web(1)]);
    one.dimensions.clear();
    one.groups[0].labels.clear();
    assert_eq!(history([one]).units.keys().collect::<Vec<_>>(), ["-"]);
}

#[test]
fn a_trend_keeps_peaks_in_their_places_however_narrow() {
    let mut total = 0;
    let readings = (0..61_u32).map(|step| {
        total += if step == 31 { 200 } else { 2 };
        live(2.0 * f64::from(step), vec![web(total)])
    });
    let history = history(readings.collect::<Vec<_>>());
    let trend = |steps| history.host.trend(Column::Closes, steps);
    let wide = trend(150);
    assert_eq!(wide.len(), 60, "rates");
    assert_eq!(wide.iter().position(|&rate| rate > 99.0), Some(30));
    let narrow = trend(15);
    assert_eq!(narrow.len(), 6, "of ten rates each");
    assert_eq!(narrow.iter().position(|&rate| rate > 99.0), Some(3));
    assert!(narrow.iter().all(|&rate| rate >= 1.0));
    assert_eq!(history.host.trend(Column::Aborts, 5), [0.0; 2]);
}
