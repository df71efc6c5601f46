//! The text that Prometheus reads.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use linger_daemon::metrics::{Metrics, REVISION, VERSION};
use linger_ebpf::{Counters, Outcome};
use proptest::prelude::*;

use crate::fixture;

/// Set this in the environment to accept the exposition as it is now.
const BLESS: &str = "LINGER_BLESS";

#[test]
fn is_the_golden_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.txt");
    let text = mask(&fixture::metrics(fixture::snapshot()).scrape().unwrap());
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == golden,
        "the exposition is not {}:\n{}\nif it is meant to be so: {BLESS}=1 cargo test",
        path.display(),
        diff(&path, &text)
    );
}

/// Replaces what changes from run to run and from build to build.
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

/// Runs a command with this on its standard input; whether it succeeded, and all it said.
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

/// Where `cargo xtask setup` puts it, or on the path.
fn promtool() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/promtool");
    if own.is_file() {
        own
    } else {
        "promtool".into()
    }
}

#[test]
fn satisfies_promtool() {
    let text = fixture::metrics(fixture::snapshot()).scrape().unwrap();
    let (fine, said) = run(Command::new(promtool()).args(["check", "metrics"]), &text);
    assert!(fine && said.is_empty(), "promtool says:\n{said}");
}

#[test]
fn histograms_hold_every_timed_close() {
    let text = fixture::metrics(fixture::snapshot()).scrape().unwrap();
    let series = r#"{unit="nginx.service",comm="nginx",outcome="graceful""#;
    let value = |name: &str, rest: &str| value(&text, &format!("{name}{series}{rest}"));
    // 16 of the 18 were timed, one of them above all bounds.
    assert_eq!(value("linger_closes_total", "}"), "18");
    let bucket = "linger_close_blocked_seconds_bucket";
    assert_eq!(value(bucket, r#",le="0.0001"}"#), "7");
    assert_eq!(value(bucket, r#",le="0.001"}"#), "12");
    assert_eq!(value(bucket, r#",le="120"}"#), "15");
    assert_eq!(value(bucket, r#",le="+Inf"}"#), "16");
    assert_eq!(value("linger_close_blocked_seconds_count", "}"), "16");
    assert_eq!(
        value("linger_close_blocked_seconds_sum", "}"),
        "130.000004321"
    );
}

fn value<'a>(text: &'a str, series: &str) -> &'a str {
    let mut lines = text.lines();
    lines
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no series {series} in\n{text}"))
}

#[test]
fn a_ledger_that_fails_fails_the_scrape() {
    let metrics = Metrics::new(Arc::new(|| Err("the map is gone".into())), fixture::facts());
    let error = metrics.scrape().unwrap_err();
    assert_eq!(error.to_string(), "the ledger cannot be read");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "the map is gone");
}

proptest! {
    #[test]
    fn labels_hold_anything(groups in prop::collection::btree_map(any_label(), 1..1000_u64, 1..9)) {
        let mut snapshot = fixture::snapshot();
        snapshot.groups = groups
            .iter()
            .map(|((unit, comm), count)| {
                let mut counters = Counters::ZERO;
                counters.closes[Outcome::Graceful.index()].undated = *count;
                (fixture::labels(unit, comm), counters)
            })
            .collect();
        let text = fixture::metrics(snapshot).scrape().unwrap();
        let mut read = BTreeMap::new();
        // Not lines(), which would take a carriage return for the end of a line.
        for line in text.split('\n').filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, labels, value) = parse(line).unwrap_or_else(|| panic!("broken: {line}"));
            if name == "linger_closes_total" {
                let [unit, comm, _] = <[String; 3]>::try_from(labels).unwrap();
                read.insert((unit, comm), value.parse().unwrap());
            }
        }
        prop_assert_eq!(read, groups);
    }
}

/// Any text, rich in what the format gives a meaning to.
fn any_label() -> impl Strategy<Value = (String, String)> {
    let text = || prop_oneof![any::<String>(), "[\"\\\\\n\r{}=, #a\u{0}]{0,12}"];
    (text(), text())
}

/// Name, values of the labels, and value of one line of the text format.
fn parse(line: &str) -> Option<(&str, Vec<String>, &str)> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"")?;
            if !label.bytes().all(|byte| byte.is_ascii_lowercase()) {
                return None;
            }
            let (text, after) = unquote(quoted)?;
            labels.push(text);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    Some((name, labels, rest.strip_prefix(' ')?))
}

/// The text up to the closing quote, escapes undone, and what follows.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(match chars.next()?.1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                _ => return None,
            }),
            plain => text.push(plain),
        }
    }
    None
}
