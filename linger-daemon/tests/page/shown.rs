//! The contents of the page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use linger_daemon::http::Limits;
use linger_daemon::live::{Live, RecentClose};
use linger_ebpf::{Counters, Outcome};
use serde_json::{Value, json};

use crate::Test;
use crate::browser::Browser;
use crate::fixture;
use crate::server::Server;

pub(crate) const TESTS: &[Test] = &[
    ("shows_the_numbers_of_the_ledger", numbers),
    ("shows_names_as_text", names),
    ("sorts_groups_by_any_column", sorting),
    ("shows_no_rate_of_retired_groups", retired),
    ("says_that_nothing_is_attached_yet", attaching),
    ("says_that_the_daemon_is_gone", gone),
];

/// Names that try to be more than text.
const HOSTILE: [&str; 4] = [
    "<img src=x onerror=\"document.title='owned'\">",
    "</td></table><script>document.title='owned'</script>",
    "\u{202e}txt.exe\u{ad}\u{e0041}\u{1b}[31m\n",
    "&lt;b&gt;",
];

/// Returns two costly closes.
fn recent() -> Vec<RecentClose> {
    let recent = |comm: &str, at| RecentClose {
        at,
        comm: comm.to_owned(),
        pid: 4711,
        unit: HOSTILE[1].to_owned(),
        local: "192.0.2.1:80".to_owned(),
        remote: "[2001:db8::1]:51234".to_owned(),
        outcome: "linger_aborted".to_owned(),
        blocked_seconds: Some(0.25),
        unsent: 1000,
        unacked: 2000,
        unread: 3000,
    };
    vec![recent(HOSTILE[0], 1.8e9), recent("nginx", 1.7e9)]
}

/// Starts a server with the known counts, two recent closes and, instead of the shell, hostile names.
pub(crate) fn serve() -> Server {
    let server = Server::start(Limits::DEFAULT);
    let mut snapshot = fixture::snapshot();
    let shell = snapshot.groups[0].1.clone();
    snapshot.groups.clear();
    for name in HOSTILE {
        let labels = fixture::labels(name, name).into();
        snapshot.groups.push((labels, shell.clone()));
    }
    let web = fixture::snapshot().groups.remove(1);
    snapshot.groups.push(web);
    let metrics = fixture::metrics(snapshot).with_recent(Arc::new(recent));
    server.state.attached(metrics);
    server
}

/// Opens the page, and waits for two readings, so that there are rates.
pub(crate) fn open(browser: &mut Browser, server: &Server, width: u32, dark: bool) -> Result<()> {
    browser.open(&format!("http://{}/", server.address()), width, dark)?;
    browser.wait_for("document.documentElement.dataset.readings >= 2")
}

/// Returns the numbers of a column, by the name of each row.
fn table(browser: &mut Browser, id: &str, name: &str, column: usize) -> Result<Value> {
    browser.evaluate(&format!(
        "Object.fromEntries([...document.querySelectorAll('#{id} tr')].map((row) => \
         [row.dataset.{name}, Number(row.cells[{column}].querySelector('data').value)]))"
    ))
}

fn expect(what: &str, found: &Value, expected: &Value) -> Result<()> {
    ensure!(found == expected, "{what}: {found} instead of {expected}");
    Ok(())
}

fn numbers(browser: &mut Browser) -> Result<()> {
    let server = serve();
    open(browser, &server, 1280, false)?;
    let live: Live = serde_json::from_slice(&server.get("/live.json").body)?;
    expect(
        "closes",
        &table(browser, "outcomes", "outcome", 3)?,
        &json!(live.closes),
    )?;
    expect(
        "rates",
        &table(browser, "outcomes", "outcome", 1)?,
        &json!({
            "graceful": 0, "linger_aborted": 0, "linger_timeout": 0, "lingered": 0, "unread_aborted": 0,
        }),
    )?;
    expect(
        "ends",
        &table(browser, "fates", "fate", 1)?,
        &json!(live.orphans.ends),
    )?;
    expect(
        "lost",
        &table(browser, "lost", "lost", 1)?,
        &json!(live.health.lost),
    )?;
    let fates = |of: fn(&linger_daemon::live::Queues) -> u64| {
        let fates = live.orphans.ends.keys();
        let bytes = fates.map(|fate| (fate, live.orphans.discarded.get(fate).map_or(0, of)));
        json!(bytes.collect::<std::collections::BTreeMap<_, _>>())
    };
    expect(
        "unsent",
        &table(browser, "fates", "fate", 2)?,
        &fates(|bytes| bytes.unsent),
    )?;
    expect(
        "unacked",
        &table(browser, "fates", "fate", 3)?,
        &fates(|bytes| bytes.unacked),
    )?;
    let maps: Value = live
        .health
        .maps
        .iter()
        .map(|map| json!([map.map, map.entries, map.capacity]))
        .collect();
    let shown = "[...document.querySelectorAll('#maps tr')].map((row) => \
        [row.dataset.map, ...[2, 3].map((at) => Number(row.cells[at].firstChild.value))])";
    expect("maps", &browser.evaluate(shown)?, &maps)?;

    histogram(browser, &live)?;
    let orphaned =
        "[...document.querySelectorAll('#orphaned data')].map((data) => Number(data.value))";
    let lost: u64 = live
        .orphans
        .discarded
        .values()
        .map(|bytes| bytes.unsent + bytes.unacked)
        .sum();
    let delivered = live.orphans.delivered;
    let outstanding = live.orphans.orphaned - delivered - lost;
    expect(
        "orphaned",
        &browser.evaluate(orphaned)?,
        &json!([delivered, lost, outstanding]),
    )?;
    let recent = "[...document.querySelectorAll('#recent tr:first-child data')].map((data) => Number(data.value))";
    expect(
        "recent",
        &browser.evaluate(recent)?,
        &json!([0.25, 1000, 2000, 3000]),
    )?;
    let health = browser.evaluate("document.getElementById('health').textContent")?;
    let health = health.as_str().unwrap_or_default();
    for words in [
        "The map orphans is 100 % full.",
        "Not recorded: 2 × orphans",
    ] {
        ensure!(health.contains(words), "no {words:?} in {health:?}");
    }
    ensure!(
        browser.complaints().is_empty(),
        "{:?}",
        browser.complaints()
    );
    Ok(())
}

/// Compares the times of all closes at first, then those of the chosen closes.
fn histogram(browser: &mut Browser, live: &Live) -> Result<()> {
    let buckets = live.blocked.bounds.len() + 1;
    for chosen in ["", "false", "true"] {
        let waited = live.blocked.waited.iter();
        let waited: Vec<_> = waited
            .filter(|(waited, _)| chosen.is_empty() || *waited == chosen)
            .collect();
        let counts: Vec<u64> = (0..buckets)
            .map(|bucket| waited.iter().map(|(_, times)| times.counts[bucket]).sum())
            .collect();
        let bars = format!(
            "(() => {{
                const select = document.getElementById('blocked-waited');
                select.value = '{chosen}';
                select.dispatchEvent(new Event('change'));
                return [...document.querySelectorAll('#blocked tr')].map((row) => Number(row.cells[2].firstChild.value));
            }})()"
        );
        expect("histogram", &browser.evaluate(&bars)?, &json!(counts))?;
    }
    Ok(())
}

fn names(browser: &mut Browser) -> Result<()> {
    let server = serve();
    open(browser, &server, 1280, false)?;
    let shown = browser.evaluate("document.getElementById('groups').textContent")?;
    let shown = shown.as_str().unwrap_or_default();
    for name in [
        HOSTILE[0],
        HOSTILE[1],
        HOSTILE[3],
        "\u{fffd}txt.exe\u{fffd}\u{fffd}\u{241b}[31m\u{240a}",
    ] {
        ensure!(shown.contains(name), "no {name:?} in {shown:?}");
    }
    let recent = browser.evaluate("document.getElementById('recent').textContent")?;
    ensure!(
        recent.as_str().unwrap_or_default().contains(HOSTILE[0]),
        "{recent}"
    );
    let harm =
        "[document.images.length, document.scripts.length, document.title.includes('owned')]";
    expect("harm", &browser.evaluate(harm)?, &json!([0, 1, false]))?;
    ensure!(
        browser.complaints().is_empty(),
        "{:?}",
        browser.complaints()
    );
    Ok(())
}

fn sorting(browser: &mut Browser) -> Result<()> {
    let server = serve();
    open(browser, &server, 1280, false)?;
    let columns = browser.evaluate(
        "[...document.querySelectorAll('#groups th[data-column]')].map((head) => head.dataset.column)",
    )?;
    let expected = [
        "unit",
        "comm",
        "closed",
        "aborted",
        "discarded",
        "lost_after_close",
        "unread",
        "blocked_seconds",
    ];
    expect("columns", &columns, &json!(expected))?;
    for (at, column) in expected.iter().enumerate().skip(2) {
        for direction in ["descending", "ascending"] {
            let head = format!("document.querySelector('#groups th[data-column={column}]')");
            // On the column that is sorted already, the first of the two clicks would reverse the order.
            browser.evaluate(&format!(
                "if ({head}.getAttribute('aria-sort') !== '{direction}') {head}.querySelector('button').click()"
            ))?;
            let found = browser.evaluate(&format!("{head}.getAttribute('aria-sort')"))?;
            expect(column, &found, &json!(direction))?;
            let values = browser.evaluate(&format!(
                "[...document.querySelectorAll('#groups tbody tr')].map((row) => \
                 Number(row.cells[{at}].firstChild.value))"
            ))?;
            let values: Vec<f64> = serde_json::from_value(values)?;
            ensure!(values.len() == 5, "{column}: {values:?}");
            let is_sorted = if direction == "ascending" {
                values.is_sorted()
            } else {
                values.iter().rev().is_sorted()
            };
            ensure!(is_sorted, "{column}, {direction}: {values:?}");
        }
    }
    browser.evaluate("document.getElementById('per-second').click()")?;
    browser.wait_for(
        "[...document.querySelectorAll('#groups tbody data')].length > 0 && \
         [...document.querySelectorAll('#groups tbody data')].every((data) => data.value === '0')",
    )
}

/// Counts that grow from reading to reading are rates, unless they were only moved.
fn retired(browser: &mut Browser) -> Result<()> {
    let readings = AtomicU64::new(0);
    let server = Server::reading(Limits::DEFAULT, move || {
        let mut counters = Counters::ZERO;
        let reading = readings.fetch_add(1, Ordering::Relaxed);
        counters.closes[Outcome::Graceful.index()] = 100 * (1 + reading);
        let mut snapshot = fixture::snapshot();
        snapshot.groups.clear();
        for name in ["retired", "web"] {
            let labels = fixture::labels(name, name).into();
            snapshot.groups.push((labels, counters.into()));
        }
        Ok(snapshot)
    });
    open(browser, &server, 1280, false)?;
    browser.evaluate("document.getElementById('per-second').click()")?;
    browser.wait_for(
        "(() => {
            const rows = [...document.querySelectorAll('#groups tbody tr')].map((row) =>
                [row.cells[0].textContent, row.cells[2].querySelector('data')?.value]);
            const rates = Object.fromEntries(rows);
            return Number(rates.web) > 0 && 'retired' in rates && rates.retired === undefined;
        })()",
    )
}

fn attaching(browser: &mut Browser) -> Result<()> {
    let server = Server::start(Limits::DEFAULT);
    browser.open(&format!("http://{}/", server.address()), 1280, false)?;
    browser
        .wait_for("document.getElementById('state').textContent.includes('not attached yet')")?;
    server.state.attached(fixture::metrics(fixture::snapshot()));
    browser.wait_for("document.getElementById('state').textContent.startsWith('Live')")?;
    browser.wait_for("!document.getElementById('main').hidden")
}

fn gone(browser: &mut Browser) -> Result<()> {
    let mut server = serve();
    open(browser, &server, 1280, false)?;
    server.stop();
    browser
        .wait_for("document.getElementById('state').textContent.includes('cannot be reached')")?;
    let shown = browser.evaluate(
        "[document.getElementById('state').className, document.querySelectorAll('#outcomes tr').length]",
    )?;
    expect("what was read before", &shown, &json!(["bad", 5]))
}
