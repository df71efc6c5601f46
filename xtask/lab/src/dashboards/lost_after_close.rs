//! *Lost after close*: the fate of the payload that closes left to the kernel.

use super::model::Dashboard;
use super::panel::Panel;

/// How certain fates are.
const FATES: &str = "Under the plan tracepoint, no hook shows the RST that ends an orphan: peer_reset and late_data are distinguished by what came last, \
     which is occasionally wrong.";

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "lost-after-close",
        title: "linger / Lost after close",
        description: "Payload that closes left to the kernel, after which no program can be told of its loss: how much was lost, by which unit, since when, and why.",
        by_unit: true,
        rows: vec![
            ("How much?", how_much()),
            ("Who, and since when?", who()),
            ("Why?", why()),
            ("How long does it take?", how_long()),
        ],
    }
}

fn how_much() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Lost after close",
            "bytes",
            "Payload discarded after its close had returned, in this time range.",
        )
        .query("lost", "sum(increase(linger_discarded_bytes_total{@unit,@lost}[$__range]))")
        .alarming(1000)
        .or_says("no orphan, or no lingerd"),
        Panel::stat(
            "Share of what was left",
            "percentunit",
            "The share of the payload left to the kernel in this time range that was lost.",
        )
        .query(
            "share",
            "sum(increase(linger_discarded_bytes_total{@unit,@lost}[$__range])) / sum(increase(linger_orphaned_bytes_total{@unit}[$__range]))",
        )
        .alarming(10),
        Panel::stat(
            "Orphans that lost data",
            "percentunit",
            "The share of the orphans that ended in this time range.",
        )
        .query(
            "share",
            r#"sum(increase(linger_orphans_total{@unit,fate!="delivered"}[$__range])) / sum(increase(linger_orphans_total{@unit}[$__range]))"#,
        )
        .alarming(10),
        Panel::stat("Orphans under way", "short", "Closed sockets that the kernel still serves.")
            .query("orphans", "sum(linger_orphans_active{@unit})"),
        Panel::stat(
            "Places taken",
            "percentunit",
            "How much of lingerd's table of orphans is in use on the fullest host. If it is full, the fate of further orphans is not seen.",
        )
        .query(
            "places",
            r#"max(linger_map_entries{@hosts,map="orphans"} / linger_map_capacity{@hosts,map="orphans"})"#,
        )
        .alarming(800)
        .or_says("BLIND: no lingerd answers"),
        Panel::stat(
            "Not followed",
            "bytes",
            "Payload left in this time range by orphans that found no room. What became of it is unknown.",
        )
        .query("not followed", "sum(increase(linger_lost_orphan_bytes_total{@hosts}[$__range]))")
        .alarming(1000)
        .or_says("BLIND: no lingerd answers"),
    ]
}

fn who() -> Vec<Panel> {
    vec![
        Panel::units(
            "Units",
            "Over the whole time range, worst losses first. Click a unit to open Unit in depth.",
        )
        .column("lost", "bytes", "sum by (unit) (increase(linger_discarded_bytes_total{@unit,@lost}[$__range]))")
        .column("left to the kernel", "bytes", "sum by (unit) (increase(linger_orphaned_bytes_total{@unit}[$__range]))")
        .column(
            "share lost",
            "percentunit",
            "sum by (unit) (increase(linger_discarded_bytes_total{@unit,@lost}[$__range])) / (sum by (unit) (increase(linger_orphaned_bytes_total{@unit}[$__range])) > 0)",
        )
        .column("orphans ended", "short", "sum by (unit) (increase(linger_orphans_total{@unit}[$__range]))")
        .column("of those lost data", "short", r#"sum by (unit) (increase(linger_orphans_total{@unit,fate!="delivered"}[$__range]))"#)
        .column("median time to end", "s", "histogram_quantile(0.5, sum by (unit, le) (increase(linger_orphan_duration_seconds_bucket{@unit}[$__range])))")
        .column("under way", "short", "sum by (unit) (linger_orphans_active{@unit})"),
        Panel::lines("Lost, by unit", "Bps", "The ten units that lose the most. Click a line to open its unit.")
            .top_units("rate(linger_discarded_bytes_total{@unit,@lost}[$__rate_interval])"),
        Panel::lines(
            "Left to the kernel, by unit",
            "Bps",
            "The ten units whose closes leave the most. This is not lost yet: most of it will be delivered.",
        )
        .top_units("rate(linger_orphaned_bytes_total{@unit}[$__rate_interval])"),
    ]
}

fn why() -> Vec<Panel> {
    vec![
        Panel::areas(
            "Lost, by fate",
            "Bps",
            &format!("late_data: the program closed before its peer had finished. peer_reset: the peer gave up or crashed. timed_out: it never acknowledged. {FATES}"),
        )
        .query("{{cause}}", "sum by (cause) (rate(linger_discarded_bytes_total{@unit,@lost}[$__rate_interval]))"),
        Panel::areas("Orphans ended, by fate", "cps", &format!("All fates except delivered lost payload. {FATES}"))
            .query("{{fate}}", "sum by (fate) (rate(linger_orphans_total{@unit}[$__rate_interval]))"),
        Panel::areas(
            "Lost, by queue",
            "Bps",
            "unsent never left the host: the peer has not had it. unacked was sent, and may have arrived.",
        )
        .query("{{queue}}", "sum by (queue) (rate(linger_discarded_bytes_total{@unit,@lost}[$__rate_interval]))"),
        Panel::table("Fates", "What became of orphans in this time range, by unit.")
            .column("orphans", "short", "sum by (unit, fate) (increase(linger_orphans_total{@unit}[$__range])) > 0")
            .wide(12),
    ]
}

fn how_long() -> Vec<Panel> {
    vec![
        Panel::heatmap(
            "From close to end",
            "Orphans by the time from the close to their end, delivered or not. By default, the kernel keeps trying for up to 15 minutes; unknown ends come after orphan-ttl.",
        )
        .query("{{le}}", "sum by (le) (increase(linger_orphan_duration_seconds_bucket{@unit}[$__rate_interval]))"),
        Panel::lines(
            "From close to end, percentiles",
            "s",
            "Of all orphans, whatever their fate. If most are delivered, p50 is the time that peers need: a close that waits for less under SO_LINGER usually times out.",
        )
        .query("p50", "histogram_quantile(0.5, sum by (le) (rate(linger_orphan_duration_seconds_bucket{@unit}[$__rate_interval])))")
        .query("p99", "histogram_quantile(0.99, sum by (le) (rate(linger_orphan_duration_seconds_bucket{@unit}[$__rate_interval])))"),
        Panel::lines("Orphans under way, by unit", "short", "Closed sockets that the kernel still serves, for the ten units that have the most.")
            .query("{{unit}}", "topk(10, sum by (unit) (linger_orphans_active{@unit}))")
            .wide(24)
            .leads_to_unit(),
    ]
}
