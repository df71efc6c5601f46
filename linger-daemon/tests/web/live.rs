//! The data of the live views.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use linger_daemon::config::Access;
use linger_daemon::http::{self, Limits};
use linger_daemon::ledger::Snapshot;
use linger_daemon::live::{Counts, Histogram, Live, Lived, Queues};
use linger_daemon::metrics::Format;
use linger_ebpf::Lost;
use linger_testkit::exposition::{Sample, Scrape};

use crate::server::{Answer, Server};
use crate::{fixture, large};

/// The samples of an exposition, to be summed.
struct Exposed(Scrape);

impl Exposed {
    fn new(text: &str) -> Self {
        Self(Scrape::parse(text).unwrap())
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.0.of(name)
    }

    /// Returns the sum over all groups.
    fn sum(&self, name: &str) -> u64 {
        self.of(name).map(whole).sum()
    }

    /// Returns the sums over all groups, by the value of a label, except zeros.
    fn by(&self, name: &str, label: &str) -> Counts {
        let mut sums = Counts::new();
        for sample in self.of(name).filter(|sample| whole(sample) > 0) {
            *sums.entry(value(sample, label)).or_default() += whole(sample);
        }
        sums
    }

    /// Returns the same for seconds.
    fn seconds_by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.of(name) {
            *sums.entry(value(sample, label)).or_default() += sample.value;
        }
        sums
    }
}

fn whole(sample: &Sample) -> u64 {
    sample.whole().unwrap()
}

fn value(sample: &Sample, label: &str) -> String {
    sample.label(label).to_owned()
}

/// Returns both views of the same reading.
fn both(snapshot: Snapshot) -> (String, Live) {
    let metrics = fixture::metrics(snapshot);
    let exposition = metrics.read().unwrap();
    let mut text = Vec::new();
    exposition.write(Format::Text, &mut text).unwrap();
    (String::from_utf8(text).unwrap(), metrics.live(&exposition))
}

fn total(sums: &BTreeMap<String, Queues>, of: fn(&Queues) -> u64) -> u64 {
    sums.values().map(of).sum()
}

/// Compares histograms: those of the exposition are cumulative, and of many groups.
fn expect_same(
    exposed: &Exposed,
    name: &str,
    label: &str,
    bounds: &[f64],
    found: &BTreeMap<String, Histogram>,
) {
    let counts: Counts = found
        .iter()
        .map(|(name, times)| (name.clone(), times.counts.iter().sum()))
        .collect();
    assert_eq!(counts, exposed.by(&format!("{name}_count"), label));
    for (value, sum) in exposed.seconds_by(&format!("{name}_sum"), label) {
        let close = (found[&value].sum - sum).abs() <= sum * 1e-12;
        assert!(close, "{name} {value}: {} is not {sum}", found[&value].sum);
    }
    for (index, bound) in bounds.iter().enumerate() {
        let mut cumulative = Counts::new();
        let bucket = format!("{name}_bucket");
        let below = exposed.of(&bucket).filter(|sample| {
            let le: f64 = self::value(sample, "le").parse().unwrap();
            le.total_cmp(bound).is_eq()
        });
        for sample in below {
            *cumulative.entry(self::value(sample, label)).or_default() += whole(sample);
        }
        for (value, times) in found {
            let below: u64 = times.counts[..=index].iter().sum();
            assert_eq!(below, cumulative[value], "{name} {value} up to {bound}");
        }
    }
}

fn expect_to_add_up(snapshot: Snapshot) {
    let (text, live) = both(snapshot);
    let exposed = Exposed::new(&text);
    let Live {
        orphans, blocked, ..
    } = &live;
    assert_eq!(live.closes, exposed.by("linger_closes_total", "outcome"));
    assert_eq!(live.resets, exposed.by("linger_resets_sent_total", "cause"));
    assert_eq!(live.unread, exposed.sum("linger_unread_bytes_total"));
    assert_eq!(orphans.now, exposed.sum("linger_orphans_active"));
    assert_eq!(orphans.orphaned, exposed.sum("linger_orphaned_bytes_total"));
    assert_eq!(
        orphans.delivered,
        exposed.sum("linger_orphan_delivered_bytes_total")
    );
    assert_eq!(orphans.ends, exposed.by("linger_orphans_total", "fate"));

    let mut discarded = exposed.by("linger_discarded_bytes_total", "cause");
    let queues = exposed.by("linger_discarded_bytes_total", "queue");
    let sum = |of| total(&live.discarded, of) + total(&orphans.discarded, of);
    let sums = [sum(|bytes| bytes.unsent), sum(|bytes| bytes.unacked)];
    assert_eq!(sums, ["unsent", "unacked"].map(|queue| queues[queue]));
    for (cause, bytes) in live.discarded.iter().chain(&orphans.discarded) {
        assert_eq!(discarded.remove(cause), Some(bytes.unsent + bytes.unacked));
    }
    assert_eq!(discarded, Counts::new());

    let (name, label) = ("linger_close_blocked_seconds", "waited");
    expect_same(&exposed, name, label, &blocked.bounds, &blocked.waited);
    let Lived { bounds, times } = &orphans.seconds;
    // It has no label of its own.
    let times = BTreeMap::from([(String::new(), times.clone())]);
    let name = "linger_orphan_duration_seconds";
    expect_same(&exposed, name, "", bounds, &times);

    assert_eq!(live.health.lost.len(), Lost::COUNT);
    for (what, &count) in &live.health.lost {
        let mut lost = exposed.of("linger_lost_total");
        let lost = lost.find(|sample| value(sample, "what") == *what);
        assert_eq!(count, whole(lost.unwrap()), "{what}");
    }
    assert_eq!(
        live.health.lost_orphan_bytes,
        exposed.sum("linger_lost_orphan_bytes_total")
    );
    for map in &live.health.maps {
        let of = |name| exposed.by(name, "map")[&map.map];
        assert_eq!(map.entries, of("linger_map_entries"));
        assert_eq!(map.capacity, of("linger_map_capacity"));
    }
    let hooks = live.health.hooks.iter().filter(|hook| hook.attached);
    assert_eq!(hooks.count(), exposed.of("linger_probe_attached").count());
    for (found, name) in [
        (live.started, "process_start_time_seconds"),
        (
            live.health.reading_seconds,
            "linger_scrape_duration_seconds",
        ),
    ] {
        let value = exposed.of(name).next().unwrap().value;
        assert!((found - value).abs() < 1e-9, "{name}: {found}, {value}");
    }
    assert_eq!(
        live.health.resident_bytes,
        exposed.sum("process_resident_memory_bytes")
    );
    assert!(live.health.resident_bytes > 0 && live.started > 1e9);
}

#[test]
fn adds_up_to_what_the_exposition_says() {
    expect_to_add_up(fixture::snapshot());
    expect_to_add_up(large::snapshot(large::typical));
    let mut few = large::snapshot(large::everything);
    few.groups.truncate(64);
    expect_to_add_up(few);
}

/// All bounds and buckets are there to be drawn, even if nothing was counted.
#[test]
fn histograms_have_their_bounds_and_buckets() {
    let (_, live) = both(fixture::snapshot());
    let empty = Snapshot {
        groups: Vec::new(),
        ..fixture::snapshot()
    };
    let (_, without) = both(empty);
    for Live {
        blocked, orphans, ..
    } in [&live, &without]
    {
        assert_eq!(blocked.bounds, [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0]);
        let seconds = &orphans.seconds;
        assert_eq!(seconds.bounds, [0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0]);
    }
    let counts = |waited: &str| live.blocked.waited[waited].counts.as_slice();
    assert_eq!(counts("false"), [11, 5, 3, 0, 0, 0, 0, 1]);
    assert_eq!(counts("true"), [0, 1, 0, 1, 0, 1, 0, 0]);
    let lived = |live: &Live| live.orphans.seconds.times.counts.clone();
    assert_eq!(lived(&live), [3, 2, 0, 0, 0, 0, 0, 2]);
    assert_eq!(without.blocked.waited, BTreeMap::new());
    assert_eq!(lived(&without), [0; 8]);
}

#[test]
fn a_group_has_what_its_series_add_up_to() {
    let mut few = large::snapshot(large::everything);
    few.groups.truncate(64);
    let (text, live) = both(few);
    let exposed = Exposed::new(&text);
    assert_eq!((live.groups.len(), live.groups_omitted), (64, 0));
    for group in &live.groups {
        let unit = &group.labels["unit"];
        let own = |sample: &&Sample| value(sample, "unit") == *unit;
        let sum = |name: &str, holds: &dyn Fn(&Sample) -> bool| -> u64 {
            let samples = exposed.of(name).filter(own);
            samples.filter(|sample| holds(sample)).map(whole).sum()
        };
        let all = |name: &str| sum(name, &|_| true);
        let closes = "linger_closes_total";
        assert_eq!(group.closes.values().sum::<u64>(), all(closes));
        let aborted = |sample: &Sample| value(sample, "outcome").ends_with("_aborted");
        assert_eq!(group.aborted, sum(closes, &aborted));
        let after = |sample: &Sample| live.orphans.ends.contains_key(&value(sample, "cause"));
        let discarded = "linger_discarded_bytes_total";
        assert_eq!(group.lost_after_close, sum(discarded, &after));
        let by_close = |sample: &Sample| !after(sample);
        assert_eq!(group.discarded, sum(discarded, &by_close));
        assert_eq!(group.unread, all("linger_unread_bytes_total"));
        assert_eq!(group.resets, all("linger_resets_sent_total"));
        assert_eq!(group.orphans, all("linger_orphans_active"));
        assert_eq!(group.orphaned, all("linger_orphaned_bytes_total"));
        assert_eq!(group.delivered, all("linger_orphan_delivered_bytes_total"));
    }
}

/// Requests a path with this host name.
fn ask_by_name(server: &Server, path: &str, name: &str) -> Answer {
    let mut stream = server.connect();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    Answer::read(&mut stream)
}

/// Prevents DNS rebinding: a browser would let a web site read it if the site's name resolved to this host.
#[test]
fn is_not_for_those_who_call_this_host_by_another_name() {
    let server = Server::attached();
    for (path, name, status) in [
        ("/live.json", "attacker.example", 403),
        ("/live.json", "attacker.example:10546", 403),
        ("/live.json", "127.0.0.1:10546", 200),
        ("/live.json", "[::1]", 200),
        ("/live.json", "localhost:1", 200),
        // A Prometheus may know it by any name.
        ("/metrics", "attacker.example", 200),
        ("/", "attacker.example", 200),
    ] {
        let answer = ask_by_name(&server, path, name);
        assert_eq!(answer.status, status, "{path} of {name}");
        assert_eq!(answer.text().contains("live = true"), status == 403);
    }
}

#[test]
fn is_for_clients_on_this_host_over_ipv6_as_well() {
    let listeners = http::bind(&["[::1]:0".parse().unwrap()]).unwrap();
    let server = Server::listening(listeners, Limits::DEFAULT);
    // Admitted, though nothing is attached yet.
    assert_eq!(server.get("/live.json").status, 503);
}

#[test]
fn is_for_whom_it_is_said_to_be() {
    for (live, status) in [
        (Access::No, 403),
        (Access::Loopback, 403),
        (Access::Yes, 200),
    ] {
        let server = Server::live_for(live);
        let answer = ask_by_name(&server, "/live.json", "attacker.example");
        assert_eq!(answer.status, status, "{live:?}");
    }
}

#[test]
fn is_json_that_is_not_cached() {
    let server = Server::attached();
    let answer = server.get("/live.json");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let live: Live = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&*live.plan, &*live.kernel), ("fentry", "6.1.0-test"));
    assert_eq!(live.dimensions, ["unit", "comm"]);
    assert_eq!(live.closes["graceful"], 18);

    let zipped = server.ask("GET /live.json", "Accept-Encoding: gzip\r\n");
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(zipped.body.as_slice());
    decoder.read_to_string(&mut text).unwrap();
    let unzipped: Live = serde_json::from_str(&text).unwrap();
    assert_eq!(unzipped.closes, live.closes);
    assert_eq!(server.ask("HEAD /live.json", "").text(), "");
}

#[test]
fn comes_once_attached_and_fails_with_the_ledger() {
    let server = Server::start(Limits::DEFAULT);
    assert_eq!(server.get("/live.json").status, 503);
    let broken = Server::reading(Limits::DEFAULT, || Err("the map is gone".into()));
    let answer = broken.get("/live.json");
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("the map is gone"));
}

#[test]
fn a_full_ledger_makes_no_long_answer() {
    let server = Server::reading(Limits::DEFAULT, || Ok(large::snapshot(large::everything)));
    let answer = server.get("/live.json");
    let live: Live = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(live.groups.len(), linger_daemon::live::MAX_GROUPS);
    assert!(
        answer.body.len() < 256 * 1024,
        "{} bytes",
        answer.body.len()
    );
}
