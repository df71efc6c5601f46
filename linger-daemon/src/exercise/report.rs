//! The report for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::Done;
use crate::table::{self, Column};

const COLUMNS: [(&str, Column); 11] = [
    ("kind", Column::Left(0)),
    ("times", Column::Right(0)),
    ("closes", Column::Left(0)),
    ("orphans", Column::Left(0)),
    ("orphaned", Column::Right(0)),
    ("delivered", Column::Right(0)),
    ("unsent", Column::Right(0)),
    ("unacked", Column::Right(0)),
    ("unread", Column::Right(0)),
    ("resets", Column::Right(0)),
    ("blocked", Column::Right(0)),
];

/// Formats an aligned table with a row for each kind of close: the fates of its orphans, bytes left to the kernel and
/// of those delivered, bytes discarded by the close or after it, RSTs sent, and the time the closes took. Below it are
/// the kinds that were left out, with the reasons.
#[must_use]
pub fn table(report: &[Done]) -> String {
    let mut rows = vec![COLUMNS.map(|(head, _)| head.to_owned())];
    rows.extend(report.iter().filter(|done| done.times > 0).map(row));
    let mut text = table::table(&COLUMNS.map(|(_, column)| column), &rows);
    for done in report {
        if let Some(reason) = &done.left_out {
            // Writing to a string does not fail.
            let _ = writeln!(text, "left out: {}: {reason}", done.kind);
        }
    }
    text
}

fn row(done: &Done) -> [String; COLUMNS.len()] {
    let total = done.tally.total();
    let orphans = &done.tally.orphans;
    let lost = orphans.total();
    [
        done.kind.to_string(),
        done.times.to_string(),
        numbers(
            done.tally
                .closes
                .iter()
                .map(|(of, closes)| (of, closes.count)),
        ),
        numbers(orphans.ended.iter().map(|(of, ended)| (of, ended.count))),
        orphans.bytes.to_string(),
        orphans.delivered.to_string(),
        (total.unsent + lost.unsent).to_string(),
        (total.unacked + lost.unacked).to_string(),
        done.tally.unread.to_string(),
        done.tally.resets.values().sum::<u64>().to_string(),
        time(Duration::from_nanos(total.blocked_ns)),
    ]
}

fn numbers<'a>(all: impl Iterator<Item = (&'a String, u64)>) -> String {
    let words: Vec<_> = all.map(|(of, count)| format!("{count} {of}")).collect();
    words.join(", ")
}

fn time(time: Duration) -> String {
    if time < Duration::from_millis(1) {
        format!("{} µs", time.as_micros())
    } else if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::Queues;
    use super::super::{Closes, Kind, Tally};
    use super::*;
    use linger_ebpf::Fate;

    #[test]
    fn columns_are_aligned_and_reasons_follow() {
        let mut tally = Tally::default();
        let closes = Closes {
            count: 2,
            unsent: 1000,
            unacked: 20,
            blocked_ns: 1_500_000,
            quick: 0,
        };
        tally.closes.insert("linger_aborted".into(), closes);
        tally.resets.insert("linger_aborted".into(), 2);
        let [left, lost] = [700, 300].map(|unsent| Queues {
            unsent,
            ..Queues::default()
        });
        tally.orphans.count(left, Fate::PeerReset, lost);
        let done = |kind, times, left_out: Option<&str>| Done {
            kind,
            times,
            tally: tally.clone(),
            left_out: left_out.map(String::from),
        };
        let report = [
            done(Kind::LingerAborted, 2, None),
            done(Kind::Repaired, 0, Some("needs CAP_NET_ADMIN")),
        ];
        let expected = "\
kind            times  closes            orphans       orphaned  delivered  unsent  unacked  unread  resets  blocked
linger_aborted      2  2 linger_aborted  1 peer_reset       700        400    1300       20       0       2     1 ms
left out: repaired: needs CAP_NET_ADMIN
";
        assert_eq!(table(&report), expected);
    }
}
