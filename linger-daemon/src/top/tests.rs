//! Tests of the view: as drawn from readings with known numbers, and as changed by keys.

mod drawn;
mod hostile;
mod keys;
mod rates;

use std::collections::BTreeMap;

use super::history::History;
use crate::ledger::MapFill;
use crate::live::{
    Blocked, Counts, Group, Health, Histogram, Hook, Live, Orphans, Queues, RecentClose,
};

/// Start of the daemon of these readings, Unix seconds.
const STARTED: f64 = 1_700_000_000.0;

fn counts(counts: &[(&str, u64)]) -> Counts {
    counts
        .iter()
        .map(|&(name, count)| (name.to_owned(), count))
        .collect()
}

/// Returns a history of these readings that keeps 150 rates.
fn history(readings: impl IntoIterator<Item = Live>) -> History {
    let mut history = History::new(150);
    for live in readings {
        history.add(live);
    }
    history
}

/// Returns a reading of these groups, `seconds` after the start.
fn live(seconds: f64, groups: Vec<Group>) -> Live {
    let sum = |value: fn(&Group) -> u64| groups.iter().map(value).sum::<u64>();
    let mut closes = Counts::new();
    for (outcome, count) in groups.iter().flat_map(|group| &group.closes) {
        *closes.entry(outcome.clone()).or_default() += count;
    }
    let queues = |unsent| {
        let queues = Queues { unsent, unacked: 0 };
        BTreeMap::from([("x".to_owned(), queues)])
    };
    let blocked = Histogram {
        sum: groups.iter().map(|group| group.blocked_seconds).sum(),
        ..Histogram::default()
    };
    Live {
        at: STARTED + seconds,
        started: STARTED,
        host: "web1".to_owned(),
        version: "0.1.0".to_owned(),
        plan: "fentry".to_owned(),
        kernel: "6.12.0-test".to_owned(),
        closes,
        blocked: Blocked {
            waited: BTreeMap::from([("true".to_owned(), blocked)]),
            ..Blocked::default()
        },
        discarded: queues(sum(|group| group.discarded)),
        unread: sum(|group| group.unread),
        resets: counts(&[("linger_aborted", sum(|group| group.resets))]),
        orphans: Orphans {
            now: sum(|group| group.orphans),
            orphaned: sum(|group| group.orphaned),
            delivered: sum(|group| group.delivered),
            discarded: queues(sum(|group| group.lost_after_close)),
            ..Orphans::default()
        },
        dimensions: ["unit", "comm"].map(str::to_owned).into(),
        groups,
        health: health(),
        ..Live::default()
    }
}

fn health() -> Health {
    let map = |map: &str, entries, capacity| MapFill {
        map: map.to_owned(),
        entries,
        capacity,
    };
    let hook = |program: &str, target: &str| Hook {
        program: program.to_owned(),
        target: target.to_owned(),
        attached: true,
    };
    Health {
        lost: counts(&[("close", 0), ("group", 0), ("orphan", 0), ("return", 0)]),
        maps: vec![
            map("groups", 5, 4096),
            map("rows", 31, 53_248),
            map("closes", 1, 4096),
            map("orphans", 3, 65_536),
        ],
        hooks: vec![
            hook("fentry_inner_close", "__tcp_close"),
            hook("fexit_check_oom", "tcp_check_oom"),
        ],
        reading_seconds: 0.000_42,
        resident_bytes: 9_750_000,
        ..Health::default()
    }
}

fn group(unit: &str, comm: &str, closes: &[(&str, u64)]) -> Group {
    let labels = [("unit", unit), ("comm", comm)];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let aborted = closes
        .iter()
        .filter(|(outcome, _)| outcome.ends_with("_aborted"));
    Group {
        labels: labels.into(),
        closes: counts(closes),
        aborted: aborted.map(|(_, count)| count).sum(),
        ..Group::default()
    }
}

/// Returns reading number `step` of a busy host, two seconds after the one before.
fn busy(step: u32) -> Live {
    let n = u64::from(step);
    let wave = [0, 3, 7, 12, 7, 3, 0, 1][step as usize % 8];
    let nginx = Group {
        blocked_seconds: 0.002 * f64::from(step),
        discarded: n * 40_000,
        unread: n * 512,
        resets: n * 12,
        orphans: 3,
        orphaned: n * 900_000,
        delivered: n * 890_000,
        lost_after_close: n * 10_000,
        ..group(
            "nginx.service",
            "nginx",
            &[
                ("graceful", n * 2500),
                ("linger_aborted", n * 10 + wave),
                ("unread_aborted", n * 2),
                ("already_closed", n * 300),
                ("listener", 2),
            ],
        )
    };
    let worker = Group {
        blocked_seconds: 0.8 * f64::from(step),
        ..group(
            "nginx.service",
            "cache",
            &[("graceful", n), ("lingered", n / 2)],
        )
    };
    let docker = Group {
        discarded: 229_187,
        unread: 4096,
        ..group(
            "/docker/0123456789ab0123456789ab0123456789ab",
            "python3",
            &[("graceful", n), ("unread_aborted", 7)],
        )
    };
    let shell = group("session-3.scope", "curl", &[("graceful", 12)]);
    let backup = Group {
        blocked_seconds: 1.9 * f64::from(step),
        ..group(
            "backup@daily.service",
            "rsync",
            &[("linger_timeout", n), ("graceful", 3)],
        )
    };
    let mut live = live(
        2.0 * f64::from(step) + 7300.0,
        vec![nginx, worker, docker, shell, backup],
    );
    live.recent = recent(live.at);
    live
}

/// Returns costly closes before `now`, Unix seconds.
fn recent(now: f64) -> Vec<RecentClose> {
    let base = RecentClose {
        at: now - 3.0,
        comm: "nginx".to_owned(),
        pid: 4711,
        unit: "nginx.service".to_owned(),
        local: "192.0.2.1:443".to_owned(),
        remote: "198.51.100.7:51234".to_owned(),
        outcome: "linger_aborted".to_owned(),
        blocked_seconds: Some(0.000_012),
        unsent: 229_187,
        unacked: 49_125,
        unread: 0,
    };
    vec![
        base.clone(),
        RecentClose {
            at: now - 95.0,
            comm: "rsync".to_owned(),
            pid: 99,
            unit: "backup@daily.service".to_owned(),
            remote: "[2001:db8::1234:5678]:873".to_owned(),
            outcome: "linger_timeout".to_owned(),
            blocked_seconds: Some(2.004),
            unsent: 0,
            unacked: 0,
            ..base.clone()
        },
        RecentClose {
            at: now - 7200.0,
            outcome: "unread_aborted".to_owned(),
            unsent: 0,
            unacked: 0,
            unread: 512,
            ..base
        },
    ]
}
