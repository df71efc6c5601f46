//! *lingerd itself*: whether it sees everything, and its cost.

use super::host_overview::sight;
use super::model::Dashboard;
use super::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "lingerd-itself",
        title: "linger / lingerd itself",
        description: "Whether lingerd sees everything on these hosts, what it misses, and what it costs.",
        by_unit: false,
        rows: vec![
            ("Is everything seen?", sight()),
            ("What is not recorded, and how full is it?", blind()),
            ("What does it cost?", costs()),
            ("What runs where?", hosts()),
        ],
    }
}

fn blind() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Answers",
            "bool_on_off",
            "1 while lingerd answers Prometheus. A gap, or 0: nothing is known of that time, unless programs persist.",
        )
        .query("{{instance}}", "max by (instance) (up{@hosts} and on (job, instance) last_over_time(linger_build_info{@hosts}[$__range]))")
        .or_says("BLIND: no target"),
        Panel::lines(
            "Programs attached",
            "short",
            "As many as the plan has hooks. If there are fewer than before, something has detached them. Only tracepoint_sys_exit, in the plan tracepoint, comes and goes with closes that wait.",
        )
        .query("{{instance}}", "sum by (instance) (linger_probe_attached{@hosts})")
        .or_says("BLIND: not attached"),
        Panel::lines(
            "Not recorded, by kind",
            "cps",
            "group: counted under other. close: in no counter. orphan: not followed. return: counted without its time, which is normal under the plan tracepoint. event: only missed by who watches live.",
        )
        .query("{{instance}} {{what}}", "sum by (instance, what) (rate(linger_lost_total{@hosts}[$__rate_interval]))"),
        Panel::lines(
            "Tables, how full",
            "percentunit",
            "How full each kernel map is on the fullest host. Whatever finds no room is counted as not recorded.",
        )
        .query("{{map}}", "max by (map) (linger_map_entries{@hosts} / linger_map_capacity{@hosts})"),
        Panel::lines(
            "Counted under other",
            "percentunit",
            "The share of closes that have no group of their own, because of max-groups, max-series, or [allow] and [deny].",
        )
        .query(
            "{{instance}}",
            r#"(sum by (instance) (rate(linger_closes_total{@hosts,unit="other"}[$__rate_interval])) or 0 * sum by (instance) (rate(linger_closes_total{@now}[$__rate_interval]))) / (sum by (instance) (rate(linger_closes_total{@now}[$__rate_interval])) > 0)"#,
        ),
        Panel::lines(
            "Restarts",
            "short",
            "Starts of lingerd. Without persist, each start loses the closes since the last stop and resets all counters.",
        )
        .query("{{instance}}", "sum by (instance) (changes(process_start_time_seconds{@hosts}[$__rate_interval]) @lingerd)"),
    ]
}

fn costs() -> Vec<Panel> {
    vec![
        Panel::lines("Processor", "percentunit", "The daemon's share of one CPU. Counting itself runs in the closing thread, about 1 µs per close.")
            .query("{{instance}}", "sum by (instance) (rate(process_cpu_seconds_total{@hosts}[$__rate_interval]) @lingerd)"),
        Panel::lines("Memory", "bytes", "Of the process, without its maps in the kernel.")
            .query("{{instance}}", "max by (instance) (process_resident_memory_bytes{@hosts} @lingerd)"),
        Panel::lines(
            "Time of a scrape",
            "s",
            "read: reading the ledger. answer: all that Prometheus waited for.",
        )
        .query("{{instance}} read", "max by (instance) (linger_scrape_duration_seconds{@hosts})")
        .query("{{instance}} answer", "max by (instance) (scrape_duration_seconds{@hosts} @lingerd)"),
        Panel::lines("Series", "short", "Samples per scrape. max-series limits those of groups.")
            .query("{{instance}}", "max by (instance) (scrape_samples_scraped{@hosts} @lingerd)"),
        Panel::lines("Open files", "short", "File descriptors, including connections.")
            .query("{{instance}}", "max by (instance) (process_open_fds{@hosts} @lingerd)"),
        Panel::lines("Threads", "short", "Of the process.")
            .query("{{instance}}", "max by (instance) (process_threads{@hosts} @lingerd)"),
    ]
}

fn hosts() -> Vec<Panel> {
    vec![
        Panel::table("Versions", "Which lingerd runs where.")
            .column("lingerd", "short", "max by (instance, version, revision) (linger_build_info{@hosts})")
            .column("running since", "dateTimeFromNow", "1000 * max by (instance) (process_start_time_seconds{@hosts} @lingerd)")
            .wide(12)
            .or_says("BLIND: no lingerd answers"),
        Panel::table("Plans and kernels", "Which hosts use which hooks. Run `lingerd check` on a host to see what rules out a better plan.")
            .column("host", "short", "max by (instance, plan, kernel) (linger_probe_info{@hosts})")
            .wide(12)
            .or_says("BLIND: not attached"),
        Panel::table("Programs", "What is attached to what.")
            .column("attached", "bool_yes_no", "max by (instance, program, target) (linger_probe_attached{@hosts})")
            .or_says("BLIND: not attached"),
    ]
}
