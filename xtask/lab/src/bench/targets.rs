//! Targets for the figures. A target that is not met is shown, but fails nothing.

use linger_xtask::kernels::PLANS;
use serde::Serialize;

use self::Bound::{AtLeast, AtMost};
use super::report::{Figure, Report};
use crate::table;

/// The bound of a figure.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least}"),
            Self::AtMost(most) => format!("≤ {most}"),
        }
    }
}

/// A target: a pattern of the names of its figures, what it is about, its bound, and the decimals to show. In each part of
/// a pattern, `*` matches `lingerd, ` with any plan, and `?` anything.
type Target = (&'static str, &'static str, Bound, usize);

const TARGETS: [Target; 11] = [
    (
        "closes/?/*/rate, of bare",
        "connections/s, relative to bare",
        AtLeast(0.93),
        3,
    ),
    (
        "closes/?/*/rate, of tcplife",
        "connections/s, relative to tcplife",
        AtLeast(3.0),
        2,
    ),
    (
        "closes/?/*/added, of the floor",
        "added to a close, relative to the floor",
        AtMost(2.0),
        2,
    ),
    (
        "closes/?/*/added, of tcplife",
        "added to a close, relative to tcplife",
        AtMost(0.2),
        3,
    ),
    (
        "instructions/?/*/added, of the floor",
        "instructions added to a close, relative to the floor",
        AtMost(2.0),
        2,
    ),
    (
        "contention/8 threads/*/added, of 1 thread",
        "added to a close by 8 threads, relative to one",
        AtMost(1.25),
        2,
    ),
    (
        "load/no scrapes/*/wake-ups",
        "wake-ups of the daemon per second, without scrapes",
        // The timers listed in docs/performance.md: up to five wake-ups every ten seconds.
        AtMost(0.5),
        2,
    ),
    (
        "ledger/4096 of 4 outcomes/?/scrape, a group",
        "scrape with 4,096 groups, µs per group",
        AtMost(5.0),
        2,
    ),
    (
        "ledger/100 of 4 outcomes/?/resident at most",
        "peak resident memory with 100 groups, MiB",
        AtMost(16.0),
        1,
    ),
    (
        "ledger/4096 of 4 outcomes/?/resident at most",
        "peak resident memory with 4,096 groups, MiB",
        AtMost(32.0),
        1,
    ),
    (
        "start/?/*/start to attached",
        "start to attached, ms",
        AtMost(200.0),
        0,
    ),
];

/// A target, and whether it is met.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Judged {
    what: &'static str,
    /// The load, and the way to be watched.
    of: String,
    target: String,
    measured: Figure,
    met: bool,
    #[serde(skip)]
    decimals: usize,
}

/// Judges every target that has a figure.
pub(super) fn judge(report: &Report) -> Vec<Judged> {
    let judged = TARGETS.iter().flat_map(|target| {
        let figures = report.figures().iter();
        figures.filter_map(|figure| judge_one(target, figure))
    });
    judged.collect()
}

/// Judges a target by a figure, unless it is about others.
fn judge_one((pattern, what, bound, decimals): &Target, figure: &Figure) -> Option<Judged> {
    let parts: Vec<_> = figure.name.split('/').collect();
    let [_, load, way, _] = parts[..] else {
        return None;
    };
    let matches = pattern
        .split('/')
        .zip(&parts)
        .all(|(pattern, part)| match pattern {
            "?" => true,
            "*" => is_lingerd(part),
            exact => exact == *part,
        });
    matches.then(|| Judged {
        what,
        of: format!("{load}: {way}"),
        target: bound.text(),
        measured: figure.clone(),
        met: bound.holds(table::spread(&figure.values)[0]),
        decimals: *decimals,
    })
}

/// Returns whether the way is lingerd with default options, by any plan.
fn is_lingerd(way: &str) -> bool {
    let plan = way.strip_prefix("lingerd, ");
    plan.is_some_and(|plan| PLANS.contains(&plan))
}

/// Formats the table of targets; `None` if no target has a figure.
pub(super) fn markdown(judged: &[Judged]) -> Option<String> {
    let rows: Vec<_> = judged
        .iter()
        .map(|judged| {
            vec![
                format!("{} ({})", judged.what, judged.of),
                judged.target.clone(),
                table::cell(&judged.measured.values, judged.decimals),
                if judged.met { "yes" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    let table = table::markdown(&["", "target", "measured", "met"], &rows);
    let text = "Medians, with the middle half of the rounds in brackets.";
    (!rows.is_empty()).then(|| format!("### Targets\n\n{text}\n\n{table}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str, values: &[f64]) -> Vec<Judged> {
        let figure = Figure {
            name: name.to_owned(),
            unit: "",
            values: values.to_vec(),
        };
        TARGETS
            .iter()
            .filter_map(|target| judge_one(target, &figure))
            .collect()
    }

    #[test]
    fn the_median_decides() {
        let name = "closes/aborts/lingerd, fentry/rate, of bare";
        assert!(judged(name, &[0.5, 0.93, 0.99])[0].met);
        assert!(!judged(name, &[0.5, 0.92, 0.99])[0].met);
        let name = "start/run/lingerd, fentry/start to attached";
        assert!(judged(name, &[200.0])[0].met);
        assert!(!judged(name, &[201.0])[0].met);
    }

    #[test]
    fn targets_apply_to_lingerd_with_default_options() {
        for way in ["tcplife", "lingerd, fentry, every label", "floor, fentry"] {
            assert!(judged(&format!("closes/aborts/{way}/rate, of bare"), &[1.0]).is_empty());
        }
    }

    #[test]
    fn a_table_shows_which_targets_are_met() {
        let page = markdown(&judged(
            "closes/aborts/lingerd, kprobe/rate, of bare",
            &[0.9],
        ))
        .unwrap();
        let last = page.lines().last().unwrap();
        for part in ["connections/s, relative to bare", "≥ 0.93", "0.900", "no"] {
            assert!(last.contains(part), "{last}");
        }
        assert_eq!(markdown(&[]), None);
    }
}
