//! Names, queries and pictures of the cookbook's recipes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use linger_ebpf::{Cause, Fate, Lost, Outcome, WAITED};
use linger_testkit::tools::tool;

use crate::package;

/// Returns the recipes and the index.
fn pages() -> Vec<(String, String)> {
    let entries = fs::read_dir(folder()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let mut pages: Vec<_> = pages.map(|path| (name(&path), read(&path))).collect();
    pages.sort();
    pages
}

fn folder() -> PathBuf {
    package().join("../docs/cookbook")
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// Returns the recipes without the index.
fn recipes() -> Vec<(String, String)> {
    let mut pages = pages();
    pages.retain(|(name, _)| name != "README.md");
    pages
}

/// Returns the code blocks in this language.
fn blocks<'a>(page: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let begin = format!("```{language}\n");
    let blocks = page.split("```").enumerate();
    let code = blocks.filter(|(number, _)| number % 2 == 1);
    code.filter_map(move |(_, block)| block.strip_prefix(&begin[3..]))
}

#[test]
fn the_index_has_every_recipe_with_its_question() {
    let index = read(&folder().join("README.md"));
    let recipes = recipes();
    assert_eq!(recipes.len(), 11);
    for (name, recipe) in recipes {
        let question = recipe.lines().next().unwrap().trim_start_matches("# ");
        assert!(index.contains(&format!("[{question}]({name})")), "{name}");
    }
}

#[test]
fn every_recipe_has_a_query_a_picture_and_a_change() {
    for (name, recipe) in recipes() {
        assert!(blocks(&recipe, "promql").count() > 0, "{name}: no query");
        let picture = name.replace(".md", ".svg");
        assert!(
            recipe.contains(&format!("({picture})")),
            "{name}: no picture"
        );
        for part in ["**How to read it.**", "**What to change"] {
            assert!(recipe.contains(part), "{name}: {part} is missing");
        }
    }
}

#[test]
fn pictures_are_small_say_where_they_come_from_and_suit_dark_pages() {
    for (name, _) in recipes() {
        let file = folder().join(name.replace(".md", ".svg"));
        let picture = read(&file);
        assert!(picture.len() <= 30_000, "{name}: {} bytes", picture.len());
        assert!(picture.contains("<desc>Counted by lingerd"), "{name}");
        assert!(picture.contains("prefers-color-scheme:dark"), "{name}");
    }
}

/// Returns every query, with its page.
fn queries() -> Vec<(String, String)> {
    let recipes = recipes().into_iter();
    let queries = recipes.flat_map(|(name, recipe)| {
        let queries = blocks(&recipe, "promql").map(str::to_owned);
        let queries = queries.collect::<Vec<_>>().into_iter();
        queries.map(move |query| (name.clone(), query))
    });
    queries.collect()
}

/// Runs Prometheus' own test of rules: series with every metric and value of a label for a day, and the queries as
/// rules, each of which must find something at the end.
///
/// On the second day there are more closes, and some leave data unread.
#[test]
fn every_query_finds_what_it_asks_for() {
    let queries = queries();
    assert!(queries.len() > 20, "{} queries", queries.len());
    let numbered = || queries.iter().enumerate();
    let rules = numbered().map(|(number, (page, query))| {
        let query = query.replace('\n', "\n      ");
        format!(
            "  - record: cookbook:query\n    labels: {{query: '{page} {number}'}}\n    expr: |\n      {query}\n"
        )
    });
    let expected = numbered().map(|(number, (page, _))| {
        format!("    - {{labels: '{{query=\"{page} {number}\"}}', value: 1}}\n")
    });
    let expected: String = expected.collect();
    let test = format!(
        "rule_files: [rules.yml]\nevaluation_interval: 30m\ntests:\n- interval: 1m\n  \
         input_series:\n{}  promql_expr_test:\n  - expr: group by (query) (cookbook:query)\n    \
         eval_time: 1500m\n    exp_samples:\n{expected}",
        series()
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.yml");
    let rules = format!(
        "groups:\n- name: cookbook\n  rules:\n{}",
        rules.collect::<String>()
    );
    fs::write(folder.path().join("rules.yml"), rules).unwrap();
    fs::write(&file, test).unwrap();
    let check = Command::new(tool("promtool"))
        .args(["test", "rules"])
        .arg(&file)
        .output();
    let check = check.expect("promtool is in target/tools/bin after cargo xtask setup --for test");
    let said = String::from_utf8_lossy(&check.stdout) + String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{said}");
}

/// Returns the series of a host and a service, a sample a minute.
fn series() -> String {
    let waits = || values("waited");
    let nginx = || BTreeSet::from(["nginx"]);
    let buckets = [("0.1", 8), ("1", 9), ("+Inf", 10)].map(|(bound, growth)| {
        let bound = format!("le=\"{bound}\",");
        let closes = grown(
            "linger_close_blocked_seconds_bucket",
            &bound,
            "waited",
            &waits(),
            growth,
        );
        closes
            + &grown(
                "linger_orphan_duration_seconds_bucket",
                &bound,
                "comm",
                &nginx(),
                growth,
            )
    });
    let others = [
        "linger_unread_bytes_total",
        "linger_orphans_active",
        "linger_orphaned_bytes_total",
        "linger_orphan_delivered_bytes_total",
        "node_netstat_Tcp_OutRsts",
        "node_sockstat_TCP_orphan",
        "node_sysctl_net_ipv4_tcp_max_orphans",
    ];
    let others = others.map(|name| grown(name, "", "comm", &nginx(), 1000));
    [
        grown("linger_closes_total", "", "outcome", &values("outcome"), 10),
        grown(
            "linger_close_blocked_seconds_count",
            "",
            "waited",
            &waits(),
            10,
        ),
        grown(
            "linger_close_blocked_seconds_sum",
            "",
            "waited",
            &waits(),
            5,
        ),
        grown(
            "linger_discarded_bytes_total",
            "",
            "cause",
            &values("cause"),
            100,
        ),
        grown(
            "linger_resets_sent_total",
            "",
            "cause",
            &values("cause"),
            10,
        ),
        grown("linger_orphans_total", "", "fate", &values("fate"), 10),
        buckets.concat(),
        others.concat(),
    ]
    .concat()
}

/// Returns a series of a metric for each of these values of a label.
fn grown(name: &str, more: &str, label: &str, values: &BTreeSet<&str>, growth: u32) -> String {
    let series = values.iter().map(|value| {
        let numbers = match *value {
            // Both are for the question of what a deploy changed.
            "unread_aborted" => format!("_x1450 0+{growth}x60"),
            "graceful" => format!("0+{growth}x1450 {}+{}x60", growth * 1450, growth * 3),
            _ => format!("0+{growth}x1510"),
        };
        let labels = format!("instance=\"host\",unit=\"nginx.service\",{more}{label}=\"{value}\"");
        format!("  - {{series: '{name}{{{labels}}}', values: '{numbers}'}}\n")
    });
    series.collect()
}

#[test]
fn every_metric_is_one_of_lingerd() {
    let exposition = read(&package().join("tests/golden/metrics.txt"));
    let known: BTreeSet<&str> = exposition
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    for (name, page) in pages() {
        for word in page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            // Outcomes such as `linger_timeout` are not metrics.
            let is_metric = word.starts_with("linger_") && !is_value(word);
            assert!(!is_metric || known.contains(word), "{name}: {word}");
        }
    }
}

/// Returns whether this is a value of a label.
fn is_value(word: &str) -> bool {
    ["outcome", "cause", "fate", "what"]
        .iter()
        .any(|label| values(label).contains(word))
}

/// Returns the values of a label.
fn values(label: &str) -> BTreeSet<&'static str> {
    let outcomes = Outcome::ALL.iter().map(|one| one.name());
    let causes = Cause::ALL.iter().map(|one| one.name());
    let fates = Fate::ALL.iter().map(|one| one.name());
    match label {
        "outcome" => outcomes.collect(),
        // Includes the causes of discarded bytes: closes, and fates of orphans.
        "cause" => causes.chain(fates).chain(["linger_failed"]).collect(),
        "fate" => fates.collect(),
        "what" => Lost::ALL.iter().map(|one| one.name()).collect(),
        "waited" => BTreeSet::from(WAITED),
        _ => BTreeSet::new(),
    }
}

#[test]
fn every_value_of_a_label_is_one_of_lingerd() {
    let mut count = 0;
    for (name, page) in pages() {
        for label in ["outcome", "cause", "fate", "what", "waited"] {
            for rest in page.split(&format!("{label}=")).skip(1) {
                let quoted = rest.split('"').nth(1).unwrap_or_default();
                for value in quoted.split('|') {
                    let known = values(label).contains(value);
                    assert!(known, "{name}: {label}={value:?}");
                    count += 1;
                }
            }
        }
        let options = page.split("--outcome ").skip(1);
        for value in options.filter_map(|rest| rest.split_whitespace().next()) {
            for value in value.split(',') {
                assert!(
                    values("outcome").contains(value),
                    "{name}: --outcome {value}"
                );
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count} values");
}

#[test]
fn the_cases_that_recipes_name_are_tests() {
    let scenarios = read(&package().join("tests/scenarios/cookbook/mod.rs"));
    for (name, page) in pages() {
        for case in page.split('`').filter(|word| word.starts_with("cookbook_")) {
            assert!(scenarios.contains(&format!("\"{case}\"")), "{name}: {case}");
        }
    }
}

#[test]
fn the_options_of_watch_that_recipes_use_are_there() {
    let help = Command::new(env!("CARGO_BIN_EXE_lingerd"))
        .args(["watch", "--help"])
        .output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    let mut count = 0;
    for (name, page) in pages() {
        for line in page
            .lines()
            .filter(|line| line.starts_with("lingerd watch"))
        {
            for option in line
                .split_whitespace()
                .filter(|word| word.starts_with("--"))
            {
                assert!(help.contains(&format!(" {option}")), "{name}: {option}");
                count += 1;
            }
        }
    }
    assert!(count > 8, "{count} options");
}
