//! *Host overview*: the data being lost now, by which unit, since when, and why.

use super::model::Dashboard;
use super::panel::Panel;

/// The closes that the plan `tracepoint` does not time.
pub(super) const UNTIMED: &str = "Under the plan tracepoint closes that wait under SO_LINGER have no time before lingerd has \
     seen one, outside close(2), and before Linux 6.6: they are missing here.";

/// The meaning of late data.
pub(super) const LATE: &str = "RSTs that answer data for connections that these units had closed. If a unit keeps idle connections for a shorter time than the proxy in front of it, that data are requests, and the proxy answers 502.";

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "host-overview",
        title: "linger / Host overview",
        description: "What closes of TCP connections lose now on these hosts, which unit does it, since when, and why.",
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
        "Closes of TCP sockets a second, each counted once. A host that is scraped always has some: lingerd closes its own web connections.",
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
            "Hosts whose lingerd answers. Without any, all that follows is empty because nobody looks, not because all is well.",
        )
        .query("hosts", "count(linger_build_info{@hosts})")
        .or_says("BLIND: no lingerd answers"),
        Panel::stat(
            "Hosts down",
            "short",
            "Hosts whose lingerd is known to Prometheus and does not answer: nothing is known of their closes.",
        )
        .query("hosts", "count((up{@hosts} == 0) and on (job, instance) last_over_time(linger_build_info{@hosts}[$__range])) or 0 * count(last_over_time(linger_build_info{@hosts}[$__range]))")
        .alarming(1000)
        .or_says("BLIND: no target"),
        Panel::stat(
            "Not recorded",
            "short",
            "What could not be recorded in this time range, of all kinds but missed times of closes (which the plan tracepoint never sees) and missed live events. See lingerd itself.",
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
            "Hosts by the set of kernel hooks in use. fentry sees everything; tracepoint does not time every close, and tells fates of orphans apart with less certainty.",
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
            "Alerts of lingerd that are true, and since when; some wait for minutes before they fire. Takes the rules of lingerd-alerts.yaml: empty without them. Each has a page in docs/runbooks.",
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
            "Payload that closes left to the kernel, and that it then threw away. The programs believe it sent: close() returned 0.",
        )
        .query("lost after close", "sum(rate(linger_discarded_bytes_total{@now,@lost}[$__rate_interval]))")
        .alarming(1)
        .leads_to_unit(),
        Panel::stat(
            "Thrown away by closes",
            "Bps",
            "Payload in the send queue that a close itself threw away: aborts, and waits under SO_LINGER that failed.",
        )
        .query(
            "by closes",
            "sum(rate(linger_discarded_bytes_total{@now,@by_close}[$__rate_interval]))",
        )
        .alarming(1),
        Panel::stat(
            "Received, never read",
            "Bps",
            "Payload that had arrived and been acknowledged, and that a close threw away because no one had read it. Its sender believes it delivered.",
        )
        .query("unread", "sum(rate(linger_unread_bytes_total{@now}[$__rate_interval]))")
        .alarming(1),
        Panel::stat(
            "Connections reset by closes",
            "percentunit",
            "Aborts among the closes of connections. What never was a connection is not among them.",
        )
        .query(
            "aborts",
            "sum(rate(linger_closes_total{@now,@abort}[$__rate_interval])) / sum(rate(linger_closes_total{@now,@connection}[$__rate_interval]))",
        )
        .alarming(50),
        Panel::stat(
            "Threads blocked in close",
            "short",
            "How many threads are inside close() at a time, on average. ",
        )
        .query("threads", "sum(rate(linger_close_blocked_seconds_sum{@now}[$__rate_interval]))")
        .alarming(1000),
        Panel::stat(
            "Orphans under way",
            "short",
            "Sockets whose close returned while payload was unsent or unacknowledged, and whose end has not come.",
        )
        .query("orphans", "sum(linger_orphans_active{@hosts})"),
    ]
}

fn who() -> Vec<Panel> {
    vec![
        Panel::units(
            "Units",
            "Every unit, over the whole time range, the one that lost most first; a unit leads to Unit in depth. `other` has what has no group of its own. Units that are gone for good are left out: what they did is in the graphs.",
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
            "The ten units that lose most of what their closes left to the kernel. A line leads to its unit.",
        )
        .top_units("rate(linger_discarded_bytes_total{@now,@lost}[$__rate_interval])"),
        Panel::lines(
            "Aborts, by unit",
            "cps",
            "The ten units that reset most connections by closing them.",
        )
        .top_units("rate(linger_closes_total{@now,@abort}[$__rate_interval])"),
        Panel::lines(
            "Threads blocked in close, by unit",
            "short",
            &format!("How many threads of each of the ten most blocked units are inside close() at a time, on average. {UNTIMED}"),
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
            "The ten hosts on which most is lost: one, or all of them?",
        )
        .query("{{instance}}", "topk(10, sum by (instance) (rate(linger_discarded_bytes_total{@now,@lost}[$__rate_interval])))"),
    ]
}

fn why() -> Vec<Panel> {
    vec![
        Panel::areas(
            "Closes, by outcome",
            "cps",
            "How closes ended. graceful, lingered, already_closed, not_connected and listener are as they should be; see the README for the others.",
        )
        .query("{{outcome}}", "sum by (outcome) (rate(linger_closes_total{@now}[$__rate_interval]))"),
        Panel::areas(
            "Thrown away, by cause",
            "Bps",
            "Payload thrown away: by a close (its outcome), or after it (the fate of its orphan). Under the plan tracepoint peer_reset and late_data are told apart by what came last, which may rarely be wrong.",
        )
        .query("{{cause}}", "sum by (cause) (rate(linger_discarded_bytes_total{@now}[$__rate_interval]))"),
        Panel::areas(
            "Resets sent, by cause",
            "pps",
            "Every RST that these hosts sent: by a close or a timer, or in answer to a packet. late_data answers data for a connection that a close of these hosts had ended; no_socket and refused answer what is for no one, and stand for no unit.",
        )
        .query("{{cause}}", "sum by (cause) (rate(linger_resets_sent_total{@now}[$__rate_interval]))"),
        Panel::heatmap(
            "Time blocked in close",
            &format!("How many closes blocked their thread for how long. An event loop must not be above a millisecond. {UNTIMED}"),
        )
        .query("{{le}}", "sum by (le) (increase(linger_close_blocked_seconds_bucket{@now}[$__rate_interval]))"),
    ]
}
