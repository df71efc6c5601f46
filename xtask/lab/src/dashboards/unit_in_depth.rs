//! *Unit in depth*: the closes of one or several units.

use super::host_overview::{LATE, UNTIMED};
use super::model::Dashboard;
use super::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "unit-in-depth",
        title: "linger / Unit in depth",
        description: "How a unit closes its connections: what it loses, how long it blocks, and where.",
        by_unit: true,
        rows: vec![
            ("Now", now()),
            ("How does it close?", how()),
            ("How long is it blocked?", blocked()),
            ("What is thrown away?", thrown_away()),
            ("What becomes of what it leaves to the kernel?", orphans()),
            ("Where?", places()),
            (
                "Over all hosts (requires the recording rules; the selected hosts do not apply)",
                recorded(),
            ),
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat("Closes", "cps", "Closes of TCP sockets per second.")
            .query("closes", "sum(rate(linger_closes_total{@unit}[$__rate_interval]))")
            .or_says("no close, or no lingerd"),
        Panel::stat("Connections reset", "percentunit", "The share of connections that were aborted by their close.")
            .query(
                "aborts",
                "sum(rate(linger_closes_total{@unit,@abort}[$__rate_interval])) / sum(rate(linger_closes_total{@unit,@connection}[$__rate_interval]))",
            )
            .alarming(50),
        Panel::stat(
            "Lost after close",
            "bytes",
            "Payload that closes left to the kernel and the kernel later discarded, in this time range.",
        )
        .query("lost", "sum(increase(linger_discarded_bytes_total{@unit,@lost}[$__range]))")
        .alarming(1000),
        Panel::stat(
            "Share lost",
            "percentunit",
            "The share of the payload left to the kernel in this time range that was lost.",
        )
        .query(
            "share",
            "sum(increase(linger_discarded_bytes_total{@unit,@lost}[$__range])) / sum(increase(linger_orphaned_bytes_total{@unit}[$__range]))",
        )
        .alarming(10),
        Panel::stat("Blocked, 99th percentile", "s", &format!("One close in a hundred takes longer than this. {UNTIMED}"))
            .query(
                "p99",
                "histogram_quantile(0.99, sum by (le) (rate(linger_close_blocked_seconds_bucket{@unit}[$__rate_interval])))",
            )
            .alarming(100),
        Panel::stat("Orphans under way", "short", "Closed sockets that the kernel still serves.")
            .query("orphans", "sum(linger_orphans_active{@unit})"),
    ]
}

fn how() -> Vec<Panel> {
    vec![
        Panel::areas("Closes, by outcome", "cps", "How its closes ended.")
            .query("{{outcome}}", "sum by (outcome) (rate(linger_closes_total{@unit}[$__rate_interval]))"),
        Panel::areas(
            "Closes, by process",
            "cps",
            "Which processes of the unit close, if the label comm is configured.",
        )
        .query("{{comm}}", "sum by (comm) (rate(linger_closes_total{@unit}[$__rate_interval]))"),
        Panel::lines(
            "Connections reset, by unit",
            "percentunit",
            "The share of connections that were aborted by their close. Did it rise with a deployment? If it is always high, it is a habit: SO_LINGER 0 to avoid TIME_WAIT, for instance.",
        )
        .query(
            "{{unit}}",
            "sum by (unit) (rate(linger_closes_total{@unit,@abort}[$__rate_interval])) / sum by (unit) (rate(linger_closes_total{@unit,@connection}[$__rate_interval]))",
        ),
        Panel::areas("Resets sent, by cause", "pps", "RSTs that the host sent because of this unit. late_data answers data for connections that it had already closed.")
            .query("{{cause}}", "sum by (cause) (rate(linger_resets_sent_total{@unit}[$__rate_interval]))"),
    ]
}

fn blocked() -> Vec<Panel> {
    vec![
        Panel::heatmap("Time blocked in close", &format!("Closes by how long they blocked their thread. {UNTIMED}"))
            .query("{{le}}", "sum by (le) (increase(linger_close_blocked_seconds_bucket{@unit}[$__rate_interval]))"),
        Panel::lines(
            "Time blocked in close, 99th percentile by wait",
            "s",
            &format!("waited=true: closes that waited under SO_LINGER (lingered, linger_timeout, linger_interrupted, linger_failed). waited=false: all others, which wait for a lock at most. {UNTIMED}"),
        )
        .query(
            "waited={{waited}}",
            "histogram_quantile(0.99, sum by (waited, le) (rate(linger_close_blocked_seconds_bucket{@unit}[$__rate_interval])))",
        ),
        Panel::lines(
            "Threads blocked in close, by process",
            "short",
            &format!("The average number of threads inside close(). For an event loop, the share of its time. {UNTIMED}"),
        )
        .query("{{comm}}", "sum by (comm) (rate(linger_close_blocked_seconds_sum{@unit}[$__rate_interval]))"),
        Panel::lines(
            "Closes above 100 ms, by process",
            "cps",
            &format!("Closes that blocked their thread for more than 100 ms. {UNTIMED}"),
        )
        .query(
            "{{comm}}",
            r#"sum by (comm) (rate(linger_close_blocked_seconds_count{@unit}[$__rate_interval])) - sum by (comm) (rate(linger_close_blocked_seconds_bucket{@unit,le="0.1"}[$__rate_interval]))"#,
        ),
    ]
}

fn thrown_away() -> Vec<Panel> {
    vec![
        Panel::areas(
            "Thrown away, by cause",
            "Bps",
            "Discarded by a close (shown by its outcome) or after it (shown by the fate of its orphan).",
        )
        .query("{{cause}}", "sum by (cause) (rate(linger_discarded_bytes_total{@unit}[$__rate_interval]))"),
        Panel::areas(
            "Thrown away, by queue",
            "Bps",
            "unsent never left the host; unacked was sent, and may or may not have arrived. unread had arrived here, and no one had read it.",
        )
        .query("{{queue}}", "sum by (queue) (rate(linger_discarded_bytes_total{@unit}[$__rate_interval]))")
        .query("unread", "sum(rate(linger_unread_bytes_total{@unit}[$__rate_interval]))"),
    ]
}

fn orphans() -> Vec<Panel> {
    vec![
        Panel::areas(
            "Orphans ended, by fate",
            "cps",
            "All fates except delivered lost payload that the unit believes was sent. Under the plan tracepoint, no hook shows the RST: peer_reset and late_data are distinguished by what came last.",
        )
        .query("{{fate}}", "sum by (fate) (rate(linger_orphans_total{@unit}[$__rate_interval]))"),
        Panel::heatmap(
            "Time from close to end",
            "Orphans by the time from the close to their end, delivered or not. If most are delivered, this is how long peers take to receive what the unit believes was sent.",
        )
        .query("{{le}}", "sum by (le) (increase(linger_orphan_duration_seconds_bucket{@unit}[$__rate_interval]))"),
        Panel::lines(
            "Left to the kernel, and what became of it",
            "Bps",
            "Bytes outstanding when closes returned, shown at the time of the close; bytes delivered and lost, shown at the end of the orphan.",
        )
        .query("left", "sum(rate(linger_orphaned_bytes_total{@unit}[$__rate_interval]))")
        .query("delivered", "sum(rate(linger_orphan_delivered_bytes_total{@unit}[$__rate_interval]))")
        .query("lost", "sum(rate(linger_discarded_bytes_total{@unit,@lost}[$__rate_interval]))"),
        Panel::lines("Orphans under way, by host", "short", "Closed sockets that the kernel still serves.")
            .query("{{instance}}", "topk(10, sum by (instance) (linger_orphans_active{@unit}))"),
    ]
}

fn places() -> Vec<Panel> {
    vec![
        Panel::table(
            "Hosts and processes",
            "Where the unit closes, over the whole time range. Is it one host or all, one program or several?",
        )
        .column("lost after close", "bytes", "sum by (instance, unit, comm) (increase(linger_discarded_bytes_total{@unit,@lost}[$__range]))")
        .column("aborts", "short", "sum by (instance, unit, comm) (increase(linger_closes_total{@unit,@abort}[$__range]))")
        .column("closes", "short", "sum by (instance, unit, comm) (increase(linger_closes_total{@unit}[$__range]))")
        .column("blocked", "s", "sum by (instance, unit, comm) (increase(linger_close_blocked_seconds_sum{@unit}[$__range]))")
        .column("orphans now", "short", "sum by (instance, unit, comm) (linger_orphans_active{@unit})"),
    ]
}

fn recorded() -> Vec<Panel> {
    const RULES: &str = "From the recording rules in lingerd-recording.yaml, which make weeks of 10,000 hosts as cheap to query as one host. Empty without them.";
    vec![
        Panel::areas("Closes on all hosts, by outcome", "cps", RULES).query(
            "{{outcome}}",
            r#"sum by (outcome) (unit_outcome:linger_closes:rate5m{job=~"$job",unit=~"$unit"})"#,
        ),
        Panel::lines(
            "Connections reset on all hosts, by unit",
            "percentunit",
            RULES,
        )
        .query(
            "{{unit}}",
            r#"unit:linger_aborts:ratio_rate30m{job=~"$job",unit=~"$unit"}"#,
        ),
        Panel::lines("Lost after close on all hosts, by unit", "Bps", RULES).query(
            "{{unit}}",
            r#"unit:linger_lost_after_close_bytes:rate5m{job=~"$job",unit=~"$unit"}"#,
        ),
        Panel::lines(
            "Late data on all hosts, by unit",
            "pps",
            &format!("{LATE} {RULES}"),
        )
        .query(
            "{{unit}}",
            r#"unit_cause:linger_resets_sent:rate5m{job=~"$job",unit=~"$unit",cause="late_data"}"#,
        ),
        Panel::lines(
            "Threads blocked in close on all hosts, by unit",
            "short",
            RULES,
        )
        .query(
            "{{unit}}",
            r#"unit:linger_close_blocked_seconds_sum:rate5m{job=~"$job",unit=~"$unit"}"#,
        ),
    ]
}
