//! Valid settings, and their effect.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::time::Duration;

use clap::{CommandFactory as _, ValueEnum as _};
use linger_daemon::attribution::Dimension;
use linger_daemon::cli::Cli;
use linger_daemon::config::{
    Access, Config, Filter, ListenAddr, Lists, Origin, PlanChoice, flag, keys,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use wildmatch::WildMatch;

use crate::fixture::{Dir, config, load, written};

const PACKAGED: &str = include_str!("../../packaging/lingerd.toml");

/// Returns the packaged file with all its keys uncommented.
fn uncommented() -> String {
    let lines = PACKAGED.lines();
    let lines = lines.map(|line| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|first: char| first == '[' || first.is_alphabetic()) => key,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_packaged_file_persists_and_changes_nothing_else() {
    assert_eq!(config(PACKAGED), packaged_config());
    assert_eq!(config(""), Config::default());
}

fn packaged_config() -> Config {
    Config {
        persist: true,
        ..Config::default()
    }
}

#[test]
fn the_packaged_file_says_every_key_with_its_default() {
    let packaged = load(uncommented()).unwrap();
    assert_eq!(packaged.config, packaged_config());
    for key in keys() {
        assert!(
            matches!(packaged.origin(key), Origin::Line(..)),
            "{key} is not in the file"
        );
    }
}

#[test]
fn every_key_is_a_flag_under_a_heading_of_its_own() {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    for key in keys() {
        let flag = flag(key);
        let mut arguments = run.get_arguments().chain(command.get_arguments());
        let argument = arguments.find(|argument| argument.get_long() == flag.strip_prefix("--"));
        let argument = argument.unwrap_or_else(|| panic!("there is no {flag}"));
        assert_eq!(
            argument.get_help_heading().is_some(),
            key != "log-level",
            "{flag}"
        );
    }
}

#[test]
fn every_key_of_the_file_is_read() {
    let config = config(
        r#"
            listen = ["unix:/run/l.sock", "[::1]:9"]
            web-config-file = "/etc/linger/web.yml"
            live = true
            plan = "kprobe"
            persist = true
            pins = "/sys/fs/bpf/ours"
            log-level = "warn,linger_daemon::http=debug"
            labels = ["port", "unit"]
            ports = [443, "8000-8099", "8050-8200", 444]
            max-groups = 1
            max-series = 1000
            retire-after = "1h 30m"
            max-orphans = 4_194_304
            orphan-ttl = 90
            [allow]
            units = ["nginx.service", "app-*.service"]
            [deny]
            comms = ["sshd"]
            ports = ["6000 - 6100", "65534-65535", "65535-65535"]
        "#,
    );
    let wanted = Config {
        listen: ["[::1]:9", "unix:/run/l.sock"]
            .map(|place| place.parse().unwrap())
            .into(),
        web_config_file: Some("/etc/linger/web.yml".into()),
        live: Access::Yes,
        plan: PlanChoice::Kprobe,
        persist: true,
        pins: "/sys/fs/bpf/ours".into(),
        log_level: "warn,linger_daemon::http=debug".parse().unwrap(),
        labels: vec![Dimension::Unit, Dimension::Port],
        ports: [443..=444, 8000..=8200].into_iter().flatten().collect(),
        max_groups: 1,
        max_series: 1000,
        retire_after: Duration::from_secs(5400),
        max_orphans: 1 << 22,
        orphan_ttl: Duration::from_secs(90),
        filter: Filter {
            allow: Lists {
                units: ["app-*.service", "nginx.service"]
                    .map(WildMatch::new)
                    .into(),
                ..Lists::default()
            },
            deny: Lists {
                comms: ["sshd".to_owned()].into(),
                ports: (6000..=6100).chain([65534, 65535]).collect(),
                ..Lists::default()
            },
        },
    };
    assert_eq!(config, wanted);
}

#[test]
fn a_flag_wins_over_the_file_and_that_over_the_default() {
    let dir = Dir::with("max-groups = 7\n\nretire-after = \"1m\"\ndeny.comms = [\"a\", \"b\"]\n");
    let effective = dir
        .load(&dir.told(&[
            "--max-groups",
            "8",
            "--deny-comm=c,d",
            "--deny-comm=e",
            "--labels=",
        ]))
        .unwrap();
    let config = &effective.config;
    assert_eq!(config.max_groups, 8);
    assert_eq!(config.retire_after, Duration::from_secs(60));
    assert_eq!(config.max_orphans, Config::default().max_orphans);
    assert_eq!(
        config.value("deny.comms").unwrap().to_string(),
        r#"["c", "d", "e"]"#
    );
    assert_eq!(config.labels, []);
    for (key, origin) in [
        ("max-groups", Origin::Flag("max-groups".to_owned())),
        ("retire-after", Origin::Line(dir.file().into(), 3)),
        ("max-orphans", Origin::Default),
        ("deny.comms", Origin::Flag("deny.comms".to_owned())),
        ("labels", Origin::Flag("labels".to_owned())),
    ] {
        assert_eq!(effective.origin(key), &origin);
    }
}

#[test]
fn the_environment_stands_between_the_file_and_the_flag() {
    let dir = Dir::with("log-level = \"error\"");
    let level = |environment: &str, flag: Option<&str>| {
        let mut sources = dir.sources();
        sources.environment = Some(OsString::from(environment));
        let flag = flag.map(|flag| ("log-level".to_owned(), flag.into()));
        sources.flags.extend(flag);
        let effective = dir.load(&sources).unwrap();
        let origin = effective.origin("log-level").clone();
        (effective.config.log_level.as_str().to_owned(), origin)
    };
    let line = Origin::Line(dir.file().into(), 1);
    assert_eq!(level("", None), ("error".to_owned(), line));
    let environment = ("warn".to_owned(), Origin::Environment);
    assert_eq!(level(" warn ", None), environment);
    let flag = ("trace".to_owned(), Origin::Flag("log-level".to_owned()));
    assert_eq!(level("warn", Some("trace")), flag);
    // A value that the flag overrides need not be valid.
    assert_eq!(level("no such level", Some("trace")), flag);
}

#[test]
fn times_without_a_unit_are_seconds() {
    for text in ["90", "\"90s\"", "\"1m 30s\"", "\"1m30s\""] {
        let config = config(&format!("orphan-ttl = {text}"));
        assert_eq!(config.orphan_ttl, Duration::from_secs(90), "{text}");
    }
    let dir = Dir::with("");
    for (text, milliseconds) in [("2", 2000), ("2.5", 2500), ("2s", 2000)] {
        let sources = dir.told(&["--orphan-ttl", text]);
        let config = dir.load(&sources).unwrap().config;
        assert_eq!(config.orphan_ttl, Duration::from_millis(milliseconds));
    }
}

#[test]
fn closes_must_be_in_every_allowed_list_and_in_no_denied_one() {
    let filter = |text: &str| config(text).filter;
    let open = filter("");
    let allow = filter("allow = { units = ['app-*.service', '/docker/*'], comms = ['web'] }");
    let both = filter(
        "allow.units = ['*.service']\ndeny = { units = ['ssh?.service'], comms = ['cron'] }",
    );
    assert_eq!(
        [&open, &allow, &both].map(Filter::has_units),
        [false, true, true]
    );
    for (filter, unit, is_admitted) in [
        (&open, "nginx.service", true),
        (&open, "", true),
        (&allow, "app-7.service", true),
        (&allow, "/docker/0123/init", true),
        (&allow, "app.service", false),
        (&allow, "an-app-7.service", false),
        (&both, "ssh.service", true),
        (&both, "sshd.service", false),
    ] {
        assert_eq!(filter.admits_unit(unit), is_admitted, "{unit}");
    }
    for (filter, comm, is_admitted) in [
        (&open, "nginx", true),
        (&open, "", true),
        (&allow, "web", true),
        (&allow, "webber", false),
        (&both, "sshd", true),
        (&both, "cron", false),
    ] {
        assert_eq!(filter.admits_comm(comm), is_admitted, "{comm}");
    }
}

fn port_sets(first: u16, size: std::ops::Range<usize>) -> impl Strategy<Value = BTreeSet<u16>> {
    let ranges = (0..5000_u16, 0..300_u16)
        .prop_map(move |(start, more)| first + start..=first + start + more);
    proptest::collection::vec(ranges, size)
        .prop_map(|ranges| ranges.into_iter().flatten().collect())
}

/// Generates lists whose entries begin with this letter, or are ports from `first` on.
fn lists(letter: &'static str, first: u16) -> impl Strategy<Value = Lists> {
    let units = proptest::collection::vec("[^\\pC\\[\\]{}]{0,20}", 0..4);
    let comms = proptest::collection::btree_set("[^\0]{0,3}", 0..4);
    (units, comms, port_sets(first, 0..4)).prop_map(move |(units, comms, ports)| Lists {
        units: units
            .iter()
            .map(|unit| WildMatch::new(&format!("{letter}{unit}")))
            .map(|unit| (unit.to_string(), unit))
            .collect::<BTreeMap<_, _>>()
            .into_values()
            .collect(),
        comms: comms.iter().map(|comm| format!("{letter}{comm}")).collect(),
        ports,
    })
}

fn places() -> impl Strategy<Value = ListenAddr> {
    prop_oneof![
        any::<(std::net::IpAddr, u16)>().prop_map(|address| ListenAddr::Tcp(address.into())),
        "/[^\0]{0,20}".prop_map(|path| ListenAddr::Unix(path.into())),
    ]
}

fn configs() -> impl Strategy<Value = Config> {
    let levels = select(&["info", "trace", "warn,linger_daemon=debug"][..]);
    let times = || (1..10_000_000_000_u64, 0..1_000_000_000_u32);
    let groups = (1..=65536_u32, 0..=u32::MAX);
    let files = proptest::option::of("[^\0]{1,20}");
    (
        (
            proptest::collection::btree_set(places(), 1..4),
            files,
            0..4_usize,
            levels,
        ),
        (
            subsequence(
                Dimension::value_variants(),
                0..=Dimension::value_variants().len(),
            ),
            port_sets(1, 1..5),
        ),
        (groups, times(), 1..=1_u32 << 22, times()),
        (lists("a", 1), lists("d", 20_000)),
    )
        .prop_map(|(general, counting, sizes, (allow, deny))| {
            let (listen, file, plan, level) = general;
            let (labels, ports) = counting;
            let ((max_groups, max_series), retire_after, max_orphans, orphan_ttl) = sizes;
            let has_port = labels.contains(&Dimension::Port);
            Config {
                listen: listen.into_iter().collect(),
                web_config_file: file.map(Into::into),
                live: [Access::No, Access::Loopback, Access::Yes][max_orphans as usize % 3],
                plan: <PlanChoice as clap::ValueEnum>::value_variants()[plan],
                persist: max_groups % 2 == 0,
                pins: format!("/sys/fs/bpf/{max_orphans}").into(),
                log_level: level.parse().unwrap(),
                ports: if has_port { ports } else { BTreeSet::new() },
                labels,
                max_groups,
                max_series: max_series.max(max_groups).max(1000),
                retire_after: Duration::new(retire_after.0, retire_after.1),
                max_orphans,
                orphan_ttl: Duration::new(orphan_ttl.0, orphan_ttl.1),
                filter: Filter { allow, deny },
            }
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(config in configs()) {
        let text = written(&config);
        let read = load(&text);
        prop_assert!(read.is_ok(), "{text}\n{read:?}");
        prop_assert_eq!(read.unwrap().config, config);
    }
}
