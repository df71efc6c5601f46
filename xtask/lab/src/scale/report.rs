//! Prints the measurements, and their extrapolation to more hosts, as Markdown.

use super::law::Line;
use super::measure::{Asked, Case};
use crate::table::{self, float};

/// Number of the slowest queries and rules that are shown.
const SLOWEST: usize = 15;
/// Numbers of hosts to extrapolate to.
const HOSTS: [f64; 4] = [100.0, 1_000.0, 3_000.0, 10_000.0];
/// Scrape intervals to extrapolate to, seconds.
const INTERVALS: [f64; 3] = [15.0, 30.0, 60.0];
const MIB: f64 = 1_048_576.0;

/// Prints all tables.
pub(super) fn print(cases: &[Case]) {
    measured(cases);
    rules(cases);
    if let Some(largest) = cases.iter().max_by_key(|case| case.hosts) {
        slowest(largest);
        dashboards(cases);
        law(cases, largest);
    }
}

fn print_table(head: &[&str], rows: &[Vec<String>]) {
    println!("\n{}", table::markdown(head, rows));
}

/// Formats a count with commas between thousands.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn measured(cases: &[Case]) {
    let head = [
        "hosts × groups, interval",
        "series a host",
        "buckets",
        "answer, KiB",
        "series",
        "samples/s",
        "scrape, ms",
        "slowest, ms",
        "missed",
        "resident, MiB",
        "KiB a series",
        "CPUs",
        "µs a sample",
        "bytes a sample",
        "index, bytes a series",
    ];
    let row = |case: &Case| {
        let answer = float(case.bytes_per_scrape as u64) / 1024.0;
        vec![
            format!(
                "{} × {}, {} s",
                case.hosts, case.groups, case.interval_seconds
            ),
            thousands(case.series_per_host),
            format!(
                "{:.0} %",
                100.0 * case.buckets_per_host / case.series_per_host
            ),
            thousands(answer),
            thousands(case.series),
            thousands(case.samples_per_second),
            format!("{:.1}", 1000.0 * case.scrape_seconds),
            format!("{:.0}", 1000.0 * case.slowest_scrape_seconds),
            thousands(case.missed_scrapes),
            thousands(case.resident_bytes / MIB),
            format!("{:.1}", case.resident_bytes / 1024.0 / case.series),
            format!("{:.2}", case.cpus),
            format!("{:.1}", 1e6 * case.cpus / case.samples_per_second),
            format!("{:.2}", case.disk.bytes_per_sample),
            thousands(case.disk.index_bytes_per_series),
        ]
    };
    print_table(&head, &cases.iter().map(row).collect::<Vec<_>>());
}

/// Prints the time of all rules together, and of the slowest.
fn rules(cases: &[Case]) {
    let Some(largest) = cases.iter().max_by_key(|case| case.hosts) else {
        return;
    };
    let mut slowest: Vec<_> = largest.rules_seconds.iter().collect();
    slowest.sort_by(|one, other| other.1.total_cmp(one.1));
    let slowest = slowest.into_iter().take(SLOWEST);
    let names: Vec<&str> = slowest.map(|(name, _)| name.as_str()).collect();
    let hosts: Vec<_> = cases
        .iter()
        .map(|case| format!("{} hosts", case.hosts))
        .collect();
    let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
    let mut rows = Vec::new();
    let mut row = |name: &str, of: &dyn Fn(&Case) -> String| {
        rows.push([vec![name.to_owned()], cases.iter().map(of).collect()].concat());
    };
    let millis = |seconds: f64| format!("{:.1}", 1000.0 * seconds);
    row("all", &|case| millis(case.rules_seconds.values().sum()));
    row("series recorded", &|case| thousands(case.recorded_series));
    row("evaluations missed", &|case| {
        thousands(case.missed_evaluations)
    });
    for name in names {
        row(name, &|case| millis(case.rules_seconds[name]));
    }
    print_table(&[&["rules, ms"], &hosts[..]].concat(), &rows);
}

fn slowest(case: &Case) {
    println!(
        "\nSlowest queries with {} hosts, over the last {} s:",
        case.hosts, case.for_seconds
    );
    let head = [
        "dashboard, panel",
        "ms",
        "samples looked at",
        "at a time",
        "series found",
    ];
    let mut queries: Vec<_> = case.queries.iter().collect();
    queries.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
    let row = |asked: &Asked| {
        let count = |number: u64| thousands(float(number));
        vec![
            format!("{}, {}", asked.dashboard, asked.panel),
            format!("{:.0}", 1000.0 * asked.seconds),
            count(asked.samples),
            count(asked.peak_samples),
            asked
                .error
                .clone()
                .unwrap_or_else(|| asked.series.to_string()),
        ]
    };
    let rows = queries.into_iter().take(SLOWEST).map(row);
    print_table(&head, &rows.collect::<Vec<_>>());
}

/// Prints the time of all queries of each dashboard, which it takes to open it.
fn dashboards(cases: &[Case]) {
    let mut names: Vec<_> = cases
        .iter()
        .flat_map(|case| case.queries.iter().map(|asked| asked.dashboard.as_str()))
        .collect();
    names.sort_unstable();
    names.dedup();
    println!("\nAll queries of a dashboard, ms:");
    let row = |case: &Case| {
        let of = |name: &&str| {
            let queries = case
                .queries
                .iter()
                .filter(|asked| asked.dashboard == **name);
            let seconds: f64 = queries.map(|asked: &Asked| asked.seconds).sum();
            format!("{:.0}", 1000.0 * seconds)
        };
        let cells = names.iter().map(of);
        [vec![case.hosts.to_string()], cells.collect()].concat()
    };
    let rows: Vec<_> = cases.iter().map(row).collect();
    print_table(&[&["hosts"][..], &names].concat(), &rows);
}

/// Prints the extrapolation to more hosts.
fn law(cases: &[Case], largest: &Case) {
    let hosts = |case: &Case| float(case.hosts as u64);
    let through =
        |of: &dyn Fn(&Case) -> (f64, f64)| Line::through(&cases.iter().map(of).collect::<Vec<_>>());
    let series = |hosts: f64| hosts * largest.series_per_host + largest.recorded_series;
    let memory = through(&|case| (case.series, case.resident_bytes));
    // Includes the rules, evaluated as often as hosts are scraped.
    let cpus = through(&|case| (case.samples_per_second, case.cpus));
    let rules = through(&|case| (hosts(case), case.rules_seconds.values().sum()));
    println!(
        "\nBy the line through these: {:.0} MiB and {:.2} KiB a series; {:.2} CPUs and {:.2} µs a sample; \
         all rules {:.3} s and {:.2} ms a host.",
        memory.start / MIB,
        memory.slope / 1024.0,
        cpus.start,
        1e6 * cpus.slope,
        rules.start,
        1000.0 * rules.slope
    );
    let head = [
        "hosts, interval",
        "series",
        "samples/s",
        "memory, GiB",
        "CPUs",
        "disk a day, GiB",
        "rules, s",
    ];
    let mut rows = Vec::new();
    for count in HOSTS {
        for interval in INTERVALS {
            let series = series(count);
            let samples = series / interval;
            let index = series * 12.0 * largest.disk.index_bytes_per_series;
            let disk = samples * 86_400.0 * largest.disk.bytes_per_sample + index;
            rows.push(vec![
                format!("{}, {interval:.0} s", thousands(count)),
                thousands(series),
                thousands(samples),
                format!("{:.1}", memory.at(series) / MIB / 1024.0),
                format!("{:.1}", cpus.at(samples)),
                format!("{:.1}", disk / MIB / 1024.0),
                format!("{:.1}", rules.at(count)),
            ]);
        }
    }
    print_table(&head, &rows);
}

#[test]
fn thousands_are_separated() {
    let texts = [0.4, 999.0, 1000.0, 1_234_567.0].map(thousands);
    assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
}
