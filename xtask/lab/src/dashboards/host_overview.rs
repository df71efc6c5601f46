//! *Host overview*: the data being lost now, by which unit, since when, and why.

use super::model::Dashboard;
use super::panel::Panel;

/// The closes that the plan `tracepoint` does not time.
pub(super) const UNTIMED: &str = "Under the plan tracepoint, closes that wait under SO_LINGER are missing here before Linux 6.6, \
     outside close(2), and until lingerd has seen the first of them.";

/// The meaning of late data.
pub(super) const LATE: &str = "RSTs sent in answer to data for connections that these units had already closed. If a unit closes idle connections earlier than the proxy in front of it, that data is requests, and the proxy answers with 502.";

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "host-overview",
        title: "linger / Host overview",
        description: "What closing TCP connections loses on these hosts now: which unit, since when, and why.",
        by_unit: false,
        rows: vec![
            ("Is everything seen?", sight()),
            ("What is wrong, and since when?", alerts()),
            ("What is being lost now?", now()),
            ("Who does it?", who()),
            ("Since when?", when()),
            ("Why?", why()),
        ],
    }
}

/// Panels that show whether the numbers below can be relied upon.
pub(super) fn sight() -> Vec<Panel> {
    let closes = Panel::stat(
        "Closes",
        "cps",
        "Closes of TCP sockets per second, each counted once. A host that is scraped always has some, because lingerd closes its own web connections.",
    )
    .query("closes", "sum(rate(linger_closes_total{@now}[$__rate_interval]))")
    .wide(6)
    .or_says("BLIND: no close counted");
    seen().into_iter().chain([closes]).collect()
}

/// Panels that show which hosts are seen, and how completely.
pub(super) fn seen() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Hosts seen",
            "short",
            "Hosts whose lingerd answers. If there are none, everything below is empty because nothing is measured, not because all is well.",
        )
        .query("hosts", "count(linger_build_info{@hosts})")
        .or_says("BLIND: no lingerd answers"),
        Panel::stat(
            "Hosts down",
            "short",
            "Hosts whose lingerd Prometheus knows but cannot scrape. Nothing is known about their closes.",
        )
        .query("hosts", "count((up{@hosts} == 0) and on (job, instance) last_over_time(linger_build_info{@hosts}[$__range])) or 0 * count(last_over_time(linger_build_info{@hosts}[$__range]))")
        .alarming(1000)
        .or_says("BLIND: no target"),
        Panel::stat(
            "Not recorded",
            "short",
            "Everything that could not be recorded in this time range, except times of closes (some of which the plan tracepoint never sees) and live events. See lingerd itself.",
        )
        .query(
            "lost counts",
            r#"sum(increase(linger_lost_total{@hosts,what!~"event|return"}[$__range]))"#,
        )
        .alarming(1)
        .or_says("BLIND: no lingerd answers"),
        Panel::stat(
            "Plans",
            "short",
            "Hosts by the set of kernel hooks in use. fentry sees everything; tracepoint does not time every close and is less certain about the fates of orphans.",
        )
        .query("{{plan}}", "count by (plan) (linger_probe_info{@hosts})")
        .wide(6)
        .or_says("BLIND: not attached"),
    ]
}

/// Panels of the alerts that are pending or firing.
pub(super) fn alerts() -> Vec<Panel> {
    vec![
        Panel::units(
            "Alerts",
            "Pending and firing alerts of lingerd, and since when. Requires the rules in lingerd-alerts.yaml; without them, this is empty. docs/runbooks has a page on each alert.",
        )
        .column(
            "since",
            "dateTimeFromNow",
            // LingerdAbsent has no job.
            r#"1000 * max by (alertname, severity, unit, comm, instance) (ALERTS_FOR_STATE{job=~"$job|",alertname=~"Linger.*"})"#,
        )
        .high(6)
        .or_says("none, or no rules"),
    ]
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Lost after close",
            "Bps",
            "Payload that closes left to the kernel and the kernel later discarded. The programs believe it was sent: close() returned 0.",
        )
        .query("lost after close", "sum(rate(linger_discarded_bytes_total{@now,@lost}[$__rate_interval]))")
        .alarming(1)
        .leads_to_unit(),
        Panel::stat(
            "Thrown away by closes",
            "Bps",
            "Payload in the send queue that the close itself discarded: by aborting, or when a wait under SO_LINGER failed.",
        )
        .query(
            "by closes",
            "sum(rate(linger_discarded_bytes_total{@now,@by_close}[$__rate_interval]))",
        )
        .alarming(1),
        Panel::stat(
            "Received, never read",
            "Bps",
            "Payload that had been received and acknowledged, but that a close discarded because the program had not read it. Its sender believes it was delivered.",
        )
        .query("unread", "sum(rate(linger_unread_bytes_total{@now}[$__rate_interval]))")
        .alarming(1),
        Panel::stat(
            "Connections reset by closes",
            "percentunit",
            "The share of connections that were aborted by their close. Sockets that never had a connection do not count.",
        )
        .query(
            "aborts",
            "sum(rate(linger_closes_total{@now,@abort}[$__rate_interval])) / sum(rate(linger_closes_total{@now,@connection}[$__rate_interval]))",
        )
        .alarming(50),
        Panel::stat(
            "Threads blocked in close",
            "short",
            "The average number of threads inside close(). ",
        )
        .query("threads", "sum(rate(linger_close_blocked_seconds_sum{@now}[$__rate_interval]))")
        .alarming(1000),
        Panel::stat(
            "Orphans under way",
            "short",
            "Sockets whose close returned while payload was unsent or unacknowledged, and that have not ended yet.",
        )
        .query("orphans", "sum(linger_orphans_active{@hosts})"),
    ]
}

fn who() -> Vec<Panel> {
    vec![
        Panel::units(
            "Units",
            "Every unit over the whole time range, worst losses first. Click a unit to open Unit in depth. `other` collects what has no group of its own. Units that no longer exist are left out; the graphs show what they did.",
        )
        .column("lost after close", "bytes", "sum by (unit) (increase(linger_discarded_bytes_total{@now,@lost}[$__range]))")
        .column("thrown away by closes", "bytes", "sum by (unit) (increase(linger_discarded_bytes_total{@now,@by_close}[$__range]))")
        .column("received, never read", "bytes", "sum by (unit) (increase(linger_unread_bytes_total{@now}[$__range]))")
        .column("aborts", "short", "sum by (unit) (increase(linger_closes_total{@now,@abort}[$__range]))")
        .column("closes", "short", "sum by (unit) (increase(linger_closes_total{@now}[$__range]))")
        .column("blocked", "s", "sum by (unit) (increase(linger_close_blocked_seconds_sum{@now}[$__range]))")
        .column("orphans now", "short", "sum by (unit) (linger_orphans_active{@now})"),
    ]
}

fn when() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Lost after close, by unit",
            "Bps",
            "The ten units that lose the most of what their closes left to the kernel. Click a line to open its unit.",
        )
        .top_units("rate(linger_discarded_bytes_total{@now,@lost}[$__rate_interval])"),
        Panel::lines(
            "Aborts, by unit",
            "cps",
            "The ten units that reset the most connections by closing them.",
        )
        .top_units("rate(linger_closes_total{@now,@abort}[$__rate_interval])"),
        Panel::lines(
            "Threads blocked in close, by unit",
            "short",
            &format!("The average number of threads inside close(), for the ten units that block the most. {UNTIMED}"),
        )
        .top_units("rate(linger_close_blocked_seconds_sum{@now}[$__rate_interval])"),
        Panel::lines(
            "Late data, by unit",
            "pps",
            LATE,
        )
        .top_units(r#"rate(linger_resets_sent_total{@now,cause="late_data"}[$__rate_interval])"#),
        Panel::lines(
            "Lost after close, by host",
            "Bps",
            "The ten hosts that lose the most. Is it one host, or all of them?",
        )
        .query("{{instance}}", "topk(10, sum by (instance) (rate(linger_discarded_bytes_total{@now,@lost}[$__rate_interval])))"),
    ]
}

fn why() -> Vec<Panel> {
    vec![
        Panel::areas(
            "Closes, by outcome",
            "cps",
            "How closes ended. graceful, lingered, already_closed, not_connected and listener are normal; docs/outcomes.md explains the others.",
        )
        .query("{{outcome}}", "sum by (outcome) (rate(linger_closes_total{@now}[$__rate_interval]))"),
        Panel::areas(
            "Thrown away, by cause",
            "Bps",
            "Payload discarded by a close (shown by its outcome) or after it (shown by the fate of its orphan). Under the plan tracepoint, peer_reset and late_data are distinguished by what came last, which is occasionally wrong.",
        )
        .query("{{cause}}", "sum by (cause) (rate(linger_discarded_bytes_total{@now}[$__rate_interval]))"),
        Panel::areas(
            "Resets sent, by cause",
            "pps",
            "Every RST that these hosts sent: by a close or a timer, or in answer to a packet. late_data answers data for a connection that these hosts had already closed; no_socket and refused answer packets that no socket was waiting for, so they belong to no unit.",
        )
        .query("{{cause}}", "sum by (cause) (rate(linger_resets_sent_total{@now}[$__rate_interval]))"),
        Panel::heatmap(
            "Time blocked in close",
            &format!("Closes by how long they blocked their thread. In an event loop, none should take longer than a millisecond. {UNTIMED}"),
        )
        .query("{{le}}", "sum by (le) (increase(linger_close_blocked_seconds_bucket{@now}[$__rate_interval]))"),
    ]
}
