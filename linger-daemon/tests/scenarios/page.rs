//! The page in a browser shows the metrics of real closes.

use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_ebpf::Plan;
use linger_testkit::exposition::{Sample, Scrape};
use serde_json::Value;

use crate::born::{Cgroup, close_after_reset};
use crate::browser::{Browser, MISSING};
use crate::closes::{sum, wait_until};
use crate::daemon::Daemon;
use crate::needs::Need;
use crate::netns;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::daemon("page", page)
    .once()
    .needs(&[Need::Chromium])];

/// A process name that would be harmful if taken for more than text.
const NAME: &str = "<img src=x>";

/// Payload that it leaves unread, bytes.
const UNREAD: usize = 1000;

fn page(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let mut browser = Browser::start()?.context(MISSING)?;
        let daemon = Daemon::start(lingerd, plan, &[])?;
        let cgroup = Cgroup::new("page.service")?;
        let loopback = Loopback::new()?;
        // SAFETY: `leave_unread` only makes system calls.
        unsafe { cgroup.bear(NAME, || leave_unread(&loopback)) }?;
        exercise(lingerd)?;
        wait_until(&daemon, |scrape| {
            let counted = own_numbers(scrape, cgroup.unit());
            ensure!(counted[..2] == [2, 1], "counted {counted:?}");
            Ok(())
        })?;

        let own = own_numbers(&daemon.scrape()?, cgroup.unit());
        browser.open(&format!("http://{}/", daemon.address()), 1280, false)?;
        browser.wait_for("document.documentElement.dataset.readings >= 2")?;
        let before = daemon.scrape()?;
        let readings = browser.evaluate("Number(document.documentElement.dataset.readings)")?;
        // The second of these readings began after that scrape.
        browser.wait_for(&format!(
            "document.documentElement.dataset.readings >= {readings} + 2"
        ))?;
        let shown = browser.evaluate(SHOWN)?;
        let after = daemon.scrape()?;
        expect_between(
            &shown["closes"],
            &before,
            &after,
            "linger_closes_total",
            "outcome",
        )?;
        expect_between(
            &shown["ends"],
            &before,
            &after,
            "linger_orphans_total",
            "fate",
        )?;
        expect_between(&shown["lost"], &before, &after, "linger_lost_total", "what")?;
        let groups = shown["groups"].as_array().context("there are groups")?;
        let row = groups
            .iter()
            .find(|row| row[0] == cgroup.unit() && row[1] == NAME)
            .with_context(|| format!("{NAME} is not among {groups:?}"))?;
        let found: Vec<_> = (2..7).map(|at| row[at].as_u64()).collect();
        ensure!(
            found == own.map(Some),
            "the page says {found:?}, the metrics {own:?}"
        );
        ensure!(own[4] == UNREAD as u64, "unread: {own:?}");
        ensure!(shown["images"] == 0, "a name became an image");
        let complaints = browser.complaints();
        ensure!(complaints.is_empty(), "{complaints:?}");
        drop(browser);
        cgroup.remove()?;
        daemon.stop()
    })
}

/// Closes an end of a connection with unread payload, then the other. Does not allocate.
fn leave_unread(loopback: &Loopback) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    (&client).write_all(&[0; UNREAD])?;
    server.peek(&mut [MaybeUninit::uninit()])?;
    tcp::close(server)?;
    close_after_reset(client)
}

/// Script that returns everything that the page shows, from one reading.
const SHOWN: &str = "
(() => {
  const rows = (id) => [...document.querySelectorAll(`#${id} tr`)];
  const number = (cell) => Number(cell.querySelector('data').value);
  const named = (id, name, at) =>
    Object.fromEntries(rows(id).map((row) => [row.dataset[name], number(row.cells[at])]));
  const whole = document.getElementById('all-groups');
  if (!whole.hidden) whole.click();
  return {
    closes: named('outcomes', 'outcome', 3),
    ends: named('fates', 'fate', 1),
    lost: named('lost', 'lost', 1),
    groups: [...document.querySelectorAll('#groups tbody tr')].map((row) => [...row.cells].map((cell) => {
      const data = cell.querySelector('data');
      return data ? Number(data.value) : cell.textContent;
    })),
    images: document.images.length,
  };
})()";

/// Returns the process's numbers in the metrics, in the order of the page's columns.
fn own_numbers(scrape: &Scrape, unit: &str) -> [u64; 5] {
    let own = |sample: &Sample| sample.label("unit") == unit && sample.label("comm") == NAME;
    let all = |metric| sum(scrape, metric, own);
    let by_close = |sample: &Sample| sample.label("cause").ends_with("_aborted");
    let discarded = "linger_discarded_bytes_total";
    [
        all("linger_closes_total"),
        sum(scrape, "linger_closes_total", |sample| {
            own(sample) && sample.label("outcome").ends_with("_aborted")
        }),
        sum(scrape, discarded, |sample| own(sample) && by_close(sample)),
        sum(scrape, discarded, |sample| own(sample) && !by_close(sample)),
        all("linger_unread_bytes_total"),
    ]
}

/// Makes closes that lose data or wait, as users do.
fn exercise(lingerd: &Path) -> Result<()> {
    let kinds = [
        "linger_aborted_data",
        "unread_aborted",
        "orphan_peer_reset",
        "lingered",
    ];
    let status = Command::new(lingerd)
        .arg("exercise")
        .args(kinds.iter().flat_map(|kind| ["--kind", kind]))
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "lingerd exercise: {status}");
    Ok(())
}

/// Fails unless each number shown lies between those of two scrapes, which are equal where nothing happens meanwhile.
fn expect_between(
    shown: &Value,
    before: &Scrape,
    after: &Scrape,
    metric: &str,
    label: &str,
) -> Result<()> {
    let shown = shown.as_object().context("it is a table")?;
    ensure!(!shown.is_empty(), "{metric}: nothing is shown");
    for (name, number) in shown {
        let of = |scrape| {
            sum(scrape, metric, |sample: &Sample| {
                sample.label(label) == name
            })
        };
        let range = of(before)..=of(after);
        let number = number.as_u64().context("it is a count")?;
        ensure!(
            range.contains(&number),
            "{metric} {name}: {number} is not in {range:?}"
        );
    }
    let known = before.of(metric).filter(|sample| sample.value > 0.0);
    for sample in known {
        let name = sample.label(label);
        ensure!(shown.contains_key(name), "{metric}: {name} is not shown");
    }
    Ok(())
}
