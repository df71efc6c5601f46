//! Filters and sorts the units.

use std::cmp::Ordering;

use super::column::{Column, Numbers};
use super::history::{History, Track, Unit};
use super::state::{Shown, ViewState};

/// A unit with its name.
pub(super) type Row<'a> = (&'a str, &'a Unit);

/// The units that pass the filter, sorted.
pub(super) fn rows<'a>(history: &'a History, state: &ViewState) -> Vec<Row<'a>> {
    let wanted = state.filter.to_lowercase();
    let units = history
        .units
        .iter()
        .map(|(name, unit)| (name.as_str(), unit));
    let mut rows: Vec<_> = units
        .filter(|(name, _)| name.to_lowercase().contains(&wanted))
        .collect();
    // They come sorted by name, and the sort is stable.
    rows.sort_by(|(a_name, a), (b_name, b)| {
        let order = match state.sort {
            Column::Unit => a_name.cmp(b_name),
            column => compare(&b.track, &a.track, column, state.shown),
        };
        if state.reverse {
            order.reverse()
        } else {
            order
        }
    });
    rows
}

/// Compares by the shown number, then by the other one, so that quiet units keep their places.
fn compare(a: &Track, b: &Track, column: Column, shown: Shown) -> Ordering {
    let rate = |track: &Track| number(track, column, Shown::Rates).unwrap_or(0.0);
    let by_rate = rate(a).total_cmp(&rate(b));
    let by_total = a.total[column].total_cmp(&b.total[column]);
    match shown {
        Shown::Rates => by_rate.then(by_total),
        Shown::Totals => by_total.then(by_rate),
    }
}

/// The shown number, if known.
pub(super) fn number(track: &Track, column: Column, shown: Shown) -> Option<f64> {
    of(&track.total, track.rate.as_ref(), column, shown)
}

/// The number of this column.
pub(super) fn of(
    total: &Numbers,
    rate: Option<&Numbers>,
    column: Column,
    shown: Shown,
) -> Option<f64> {
    match shown {
        Shown::Rates if !column.is_gauge() => rate.map(|rate| rate[column]),
        _ => Some(total[column]),
    }
}
