//! The text that Prometheus reads.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use linger_daemon::metrics::{Format, Metrics};
use linger_daemon::version::{REVISION, VERSION};
use linger_ebpf::{Fate, Lost, Outcome, TimeHistogram};
use linger_testkit::exposition::sample;
use linger_testkit::tools::{folder, tool};

use crate::fixture;

/// Environment variable that accepts the present exposition as golden.
const BLESS: &str = "LINGER_BLESS";

#[test]
fn is_the_golden_file() {
    for (format, name) in [
        (Format::Text, "metrics.txt"),
        (Format::OpenMetrics, "openmetrics.txt"),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let text = mask(&fixture::exposition(fixture::snapshot(), format));
        expect_golden(&folder.join(name), &text);
    }
}

fn expect_golden(path: &Path, text: &str) {
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        text == golden,
        "the exposition is not {}:\n{}\nif it is meant to be so: {BLESS}=1 cargo test",
        path.display(),
        diff(path, text)
    );
}

/// Masks values that change from run to run and from build to build.
fn mask(text: &str) -> String {
    let build = format!("version=\"{VERSION}\",revision=\"{REVISION}\"");
    text.replace(&build, "version=\"-\",revision=\"-\"")
        .lines()
        .map(|line| match line.rsplit_once(' ') {
            Some((name, _))
                if name.starts_with("process_") || name == "linger_scrape_duration_seconds" =>
            {
                format!("{name} -\n")
            }
            _ => format!("{line}\n"),
        })
        .collect()
}

fn diff(golden: &Path, text: &str) -> String {
    run(Command::new("diff").arg("-u").arg(golden).arg("-"), text).1
}

/// Runs a command with this standard input. Returns whether it succeeded, and all its output.
fn run(command: &mut Command, input: &str) -> (bool, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "{command:?} does not start ({error}): `cargo xtask setup --for test` installs it"
            )
        });
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn satisfies_promtool() {
    let text = fixture::text(fixture::snapshot());
    expect_promtool_to_accept(&text);
}

#[test]
fn is_open_metrics_to_a_strict_parser() {
    let text = fixture::exposition(fixture::snapshot(), Format::OpenMetrics);
    let count = "import sys\n\
                 from prometheus_client.openmetrics.parser import text_string_to_metric_families as families\n\
                 print(sum(len(family.samples) for family in families(sys.stdin.read())))";
    let mut python = Command::new("python3");
    python.args(["-c", count]).env("PYTHONPATH", folder());
    let (fine, said) = run(&mut python, &text);
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(fine && said.trim() == samples.to_string(), "{said}");
}

/// Expects promtool to accept this text without a remark.
pub(crate) fn expect_promtool_to_accept(text: &str) {
    let (fine, said) = run(
        Command::new(tool("promtool")).args(["check", "metrics"]),
        text,
    );
    assert!(fine && said.is_empty(), "promtool says:\n{said}");
}

#[test]
fn histograms_hold_every_timed_close() {
    let text = fixture::text(fixture::snapshot());
    let name = "linger_close_blocked_seconds";
    let of = |waited: &str, what: &str, le: &str| {
        let labels = r#"unit="nginx.service",comm="nginx""#;
        let series = format!(r#"{name}{what}{{{labels},waited="{waited}"{le}}}"#);
        value(&text, &series)
    };
    // 20 of the 22 that did not wait were timed, one of them above all bounds; and all 3 that waited.
    for (waited, buckets, sum, count) in [
        (
            "false",
            ["11", "16", "19", "19", "19", "19", "19", "20"],
            "130.000004321",
            "20",
        ),
        (
            "true",
            ["0", "1", "1", "2", "2", "3", "3", "3"],
            "1.045",
            "3",
        ),
    ] {
        let bounds = ["0.0001", "0.001", "0.01", "0.1", "1", "10", "60", "+Inf"];
        let found = bounds.map(|le| of(waited, "_bucket", &format!(r#",le="{le}""#)));
        assert_eq!(found, buckets, "waited={waited}");
        assert_eq!(of(waited, "_sum", ""), sum);
        assert_eq!(of(waited, "_count", ""), count);
    }
    let lost = fixture::snapshot().lost[Lost::Return.index()];
    assert_eq!(
        sum(&text, &format!("{name}_count"), &[]) + lost,
        sum(&text, "linger_closes_total", &[])
    );
}

#[test]
fn a_label_of_which_nothing_was_timed_has_no_histogram() {
    let mut snapshot = fixture::snapshot();
    let (_, counters) = &mut snapshot.groups[1];
    let series = |text: &str, waited: &str| {
        let waited = format!("waited=\"{waited}\"");
        let lines = text.lines().filter(|line| line.contains(&waited));
        lines.filter(|line| !line.starts_with('#')).count()
    };
    counters.blocked[1] = TimeHistogram::ZERO;
    let text = fixture::text(snapshot.clone());
    assert_eq!((series(&text, "false"), series(&text, "true")), (10, 0));
    let (_, counters) = &mut snapshot.groups[1];
    counters.blocked.swap(0, 1);
    let text = fixture::text(snapshot);
    assert_eq!((series(&text, "false"), series(&text, "true")), (0, 10));
}

fn value<'a>(text: &'a str, series: &str) -> &'a str {
    let mut lines = text.lines();
    lines
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no series {series} in\n{text}"))
}

/// Returns the sum of the samples of a metric whose labels each have one of these values.
fn sum(text: &str, name: &str, labels: &[(&str, &[&str])]) -> u64 {
    let samples = text.split('\n').filter(|line| !line.starts_with('#'));
    let samples = samples.filter_map(sample).filter(|sample| {
        let has = |(label, values): &(&str, &[&str])| {
            let value = sample.get(label);
            value.is_some_and(|value| values.contains(&value))
        };
        sample.name == name && labels.iter().all(has)
    });
    samples.map(|sample| sample.whole().unwrap()).sum()
}

/// Checks the sums of each unit's orphans, given the number and the payload of those that are active.
fn expect_orphans_add_up(text: &str, under_way: &[(&str, u64, u64)]) {
    let fates: Vec<_> = Fate::ALL.iter().map(|fate| fate.name()).collect();
    for &(unit, orphans, bytes) in under_way {
        let unit = ("unit", &[unit][..]);
        let of = |name| sum(text, name, &[unit]);
        let discarded = sum(
            text,
            "linger_discarded_bytes_total",
            &[unit, ("cause", &fates)],
        );
        assert_eq!(of("linger_orphans_active"), orphans, "{unit:?}");
        assert_eq!(
            of("linger_orphaned_bytes_total"),
            of("linger_orphan_delivered_bytes_total") + discarded + bytes,
            "{unit:?}"
        );
        assert_eq!(
            of("linger_orphans_total"),
            of("linger_orphan_duration_seconds_count"),
            "{unit:?}"
        );
    }
}

#[test]
fn bytes_of_orphans_add_up() {
    let snapshot = fixture::snapshot();
    let shell = snapshot.groups[0].0.values().next().unwrap().to_owned();
    let text = fixture::text(snapshot);
    expect_orphans_add_up(
        &text,
        &[
            (shell.as_str(), 0, 0),
            ("nginx.service", 1, fixture::UNDER_WAY),
        ],
    );
    let ended = sum(&text, "linger_orphans_total", &[]);
    assert_eq!(ended + sum(&text, "linger_orphans_active", &[]), 8);
}

#[test]
fn an_end_read_before_its_beginning_makes_no_orphan_negative() {
    let mut snapshot = fixture::snapshot();
    for (_, counters) in &mut snapshot.groups {
        counters.orphans.left = 0;
        counters.orphans.left_bytes = 0;
    }
    let text = fixture::text(snapshot);
    expect_orphans_add_up(&text, &[("nginx.service", 0, 0)]);
}

#[test]
fn a_hook_that_is_cut_off_is_shown() {
    let mut snapshot = fixture::snapshot();
    snapshot.hooks[1].1 = false;
    let metrics = fixture::metrics(snapshot);
    let exposition = metrics.read().unwrap();
    let mut text = Vec::new();
    exposition.write(Format::Text, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    for (program, attached) in [("fentry_inner_close", 1), ("fexit_check_oom", 0)] {
        let labels = [("program", &[program][..])];
        assert_eq!(sum(&text, "linger_probe_attached", &labels), attached);
        let hooks = metrics.live(&exposition).health.hooks;
        let mut hooks = hooks.iter().filter(|hook| hook.program == program);
        assert!(hooks.all(|hook| hook.attached == (attached > 0)));
    }
    assert_eq!(text.matches("\nlinger_probe_attached{").count(), 2);
}

#[test]
fn a_ledger_that_fails_fails_the_scrape() {
    let metrics = Metrics::new(Arc::new(|| Err("the map is gone".into())), fixture::facts());
    let error = metrics.read().err().unwrap();
    assert_eq!(error.to_string(), "the ledger cannot be read");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "the map is gone");
}

#[test]
fn counts_are_exact_beyond_what_a_float_holds() {
    let mut snapshot = fixture::snapshot();
    let (_, counters) = &mut snapshot.groups[1];
    counters.unread_bytes = (1 << 53) + 1;
    counters.discarded_mut(Outcome::LingerAborted).unsent = u64::MAX;
    counters.blocked[0].sum_ns = (1 << 60) + 1;
    let text = fixture::text(snapshot);
    let group = r#"{unit="nginx.service",comm="nginx""#;
    let value = |series: &str| value(&text, &series.replace('{', group));
    assert_eq!(value("linger_unread_bytes_total{}"), "9007199254740993");
    assert_eq!(
        value(r#"linger_discarded_bytes_total{,cause="linger_aborted",queue="unsent"}"#),
        "18446744073709551615"
    );
    assert_eq!(
        value(r#"linger_close_blocked_seconds_sum{,waited="false"}"#),
        "1152921504.606846977"
    );
}
