//! *Fleet*: the data being lost on all hosts, from the sums of the recording rules.

use super::host_overview::{LATE, UNTIMED, alerts, seen};
use super::model::Dashboard;
use super::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "fleet",
        title: "linger / Fleet",
        description: "What closing TCP connections loses on all hosts: which unit, which host, and why. For \
                      hundreds of hosts and more. Requires the recording rules in lingerd-recording.yaml; Host \
                      overview shows the same for the selected hosts without them.",
        by_unit: false,
        rows: vec![
            ("Is everything seen?", sight()),
            ("What is wrong, and since when?", alerts()),
            ("What is being lost now, on all hosts?", now()),
            ("Which unit is it?", units()),
            ("Which host is it?", hosts()),
            ("Why?", why()),
        ],
    }
}

fn sight() -> Vec<Panel> {
    let closes = Panel::stat(
        "Closes",
        "cps",
        "Closes of TCP sockets per second, each counted once.",
    )
    .query("closes", "sum(instance:linger_closes:rate5m{@hosts})")
    .wide(6)
    .or_says("BLIND: no close counted, or no rules");
    seen().into_iter().chain([closes]).collect()
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Lost after close, all hosts",
            "Bps",
            "Payload that closes left to the kernel and the kernel later discarded. The programs believe it was sent: close() returned 0.",
        )
        .query("lost after close", "sum(unit:linger_lost_after_close_bytes:rate5m{@jobs})")
        .alarming(1),
        Panel::stat(
            "Thrown away by closes, all hosts",
            "Bps",
            "Payload in the send queue that the close itself discarded: by aborting, or when a wait under SO_LINGER failed.",
        )
        .query(
            "by closes",
            "sum(unit_cause:linger_discarded_bytes:rate5m{@jobs,@by_close})",
        )
        .alarming(1),
        Panel::stat(
            "Received, never read, all hosts",
            "Bps",
            "Payload that had been received and acknowledged, but that a close discarded because the program had not read it.",
        )
        .query("unread", "sum(unit:linger_unread_bytes:rate5m{@jobs})")
        .alarming(1),
        Panel::stat(
            "Connections reset by closes, all hosts",
            "percentunit",
            "The share of connections that were aborted by their close.",
        )
        .query(
            "aborts",
            "sum(unit:linger_aborts:rate5m{@jobs}) / sum(unit_outcome:linger_closes:rate5m{@jobs,@connection})",
        )
        .alarming(50),
        Panel::stat(
            "Threads blocked in close, all hosts",
            "short",
            &format!("The average number of threads inside close(). {UNTIMED}"),
        )
        .query("threads", "sum(unit:linger_close_blocked_seconds_sum:rate5m{@jobs})")
        .alarming(1000),
        Panel::stat(
            "Orphans under way, all hosts",
            "short",
            "Sockets whose close returned while payload was unsent or unacknowledged, and that have not ended yet.",
        )
        .query("orphans", "sum(unit:linger_orphans_active:sum{@jobs})"),
    ]
}

fn units() -> Vec<Panel> {
    vec![
        Panel::units(
            "Units, all hosts",
            "Every unit, averaged over the time range, worst losses first. Click a unit to open Unit in depth.",
        )
        .column("lost after close", "Bps", "sum by (unit) (avg_over_time(unit:linger_lost_after_close_bytes:rate5m{@jobs}[$__range]))")
        .column("left to the kernel", "Bps", "sum by (unit) (avg_over_time(unit:linger_orphaned_bytes:rate5m{@jobs}[$__range]))")
        .column("received, never read", "Bps", "sum by (unit) (avg_over_time(unit:linger_unread_bytes:rate5m{@jobs}[$__range]))")
        .column("aborts", "cps", "sum by (unit) (avg_over_time(unit:linger_aborts:rate5m{@jobs}[$__range]))")
        .column("closes", "cps", "sum by (unit) (avg_over_time(unit:linger_closes:rate5m{@jobs}[$__range]))")
        .column("threads blocked", "short", "sum by (unit) (avg_over_time(unit:linger_close_blocked_seconds_sum:rate5m{@jobs}[$__range]))"),
        Panel::lines(
            "Lost after close on all hosts, by unit",
            "Bps",
            "The ten units that lose the most of what their closes left to the kernel. Click a line to open its unit.",
        )
        .top_units("unit:linger_lost_after_close_bytes:rate5m{@jobs}"),
        Panel::lines(
            "Aborts on all hosts, by unit",
            "cps",
            "The ten units that reset the most connections by closing them.",
        )
        .top_units("unit:linger_aborts:rate5m{@jobs}"),
        Panel::lines("Late data on all hosts, by unit", "pps", LATE)
            .top_units(r#"unit_cause:linger_resets_sent:rate5m{@jobs,cause="late_data"}"#),
    ]
}

fn hosts() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Lost after close, by host",
            "Bps",
            "The ten hosts that lose the most. Is it one host, or all of them? Select them in Host overview.",
        )
        .query("{{instance}}", "topk(10, instance:linger_lost_after_close_bytes:rate5m{@hosts})"),
        Panel::lines(
            "Aborts, by host",
            "cps",
            "The ten hosts that reset the most connections.",
        )
        .query("{{instance}}", "topk(10, instance:linger_aborts:rate5m{@hosts})"),
    ]
}

fn why() -> Vec<Panel> {
    vec![
        Panel::areas(
            "Closes on all hosts, by outcome",
            "cps",
            "How closes ended.",
        )
        .query(
            "{{outcome}}",
            "sum by (outcome) (unit_outcome:linger_closes:rate5m{@jobs})",
        ),
        Panel::areas(
            "Thrown away on all hosts, by cause",
            "Bps",
            "Payload discarded by a close (shown by its outcome) or after it (shown by the fate of its orphan).",
        )
        .query(
            "{{cause}}",
            "sum by (cause) (unit_cause:linger_discarded_bytes:rate5m{@jobs})",
        ),
        Panel::areas(
            "Resets sent on all hosts, by cause",
            "pps",
            "Every RST that these hosts sent. no_socket and refused answer packets that no socket was waiting for, so they belong to no unit.",
        )
        .query(
            "{{cause}}",
            "sum by (cause) (unit_cause:linger_resets_sent:rate5m{@jobs})",
        ),
        Panel::areas(
            "Orphans ended on all hosts, by fate",
            "cps",
            "All fates except delivered lost payload that the unit believes was sent.",
        )
        .query(
            "{{fate}}",
            "sum by (fate) (unit_fate:linger_orphans_ended:rate5m{@jobs})",
        ),
        Panel::heatmap(
            "Time blocked in close on all hosts",
            &format!("Closes per second, by how long they blocked their thread. {UNTIMED}"),
        )
        .query(
            "{{le}}",
            "sum by (le) (unit_le:linger_close_blocked_seconds_bucket:rate5m{@jobs})",
        ),
        Panel::heatmap(
            "Time from close to end on all hosts",
            "Orphans per second, by the time from the close to their end, delivered or not.",
        )
        .query(
            "{{le}}",
            "sum by (le) (unit_le:linger_orphan_duration_seconds_bucket:rate5m{@jobs})",
        ),
    ]
}
