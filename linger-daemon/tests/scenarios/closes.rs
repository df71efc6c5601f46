//! Counts of closes in the metrics, by any labels.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use linger_ebpf::Cause;
use linger_testkit::exposition::{Sample, Scrape};

use crate::daemon::Daemon;

/// Longest lag of counts behind a close, on a slow machine.
const LAG: Duration = Duration::from_secs(20);
/// Pause between two scrapes.
const PAUSE: Duration = Duration::from_millis(50);

/// Numbers of closes, by the values of some labels.
pub(crate) type Closes = BTreeMap<Vec<String>, u64>;

/// Returns the closes of the groups whose samples satisfy `select`, by the values of these labels.
pub(crate) fn closes(scrape: &Scrape, labels: &[&str], select: impl Fn(&Sample) -> bool) -> Closes {
    let mut closes = Closes::new();
    let samples = scrape.of("linger_closes_total");
    for sample in samples.filter(|sample| sample.value != 0.0 && select(sample)) {
        let values = labels.iter().map(|label| sample.label(label).to_owned());
        *closes.entry(values.collect()).or_default() += whole(sample.value);
    }
    closes
}

/// Returns the sum of a metric over the groups whose samples satisfy `select`.
pub(crate) fn sum(scrape: &Scrape, metric: &str, select: impl Fn(&Sample) -> bool) -> u64 {
    let samples = scrape.of(metric).filter(|sample| select(sample));
    samples.map(|sample| whole(sample.value)).sum()
}

/// Returns how much of this could not be recorded (`linger_lost_total`).
pub(crate) fn lost(scrape: &Scrape, what: &str) -> u64 {
    sum(scrape, "linger_lost_total", |sample| {
        sample.label("what") == what
    })
}

/// Returns the RSTs that answered late data after the closer had been forgotten.
pub(crate) fn nobodys_late_data(scrape: &Scrape) -> u64 {
    sum(scrape, "linger_resets_sent_total", |sample| {
        sample.label("cause") == Cause::LateData.name() && sample.label("comm").is_empty()
    })
}

/// Returns whether the sample is of processes without a group of their own.
pub(crate) fn is_other(sample: &Sample) -> bool {
    sample.label("comm") == "other"
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole, positive and below 2^53"
)]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

/// Scrapes until `look` finds what is expected, which may lag, and checks that it stays so.
pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(
    daemon: &Daemon,
    expected: &T,
    look: impl Fn(&Scrape) -> T,
) -> Result<()> {
    wait_until(daemon, |scrape| {
        let found = look(scrape);
        ensure!(found == *expected, "found {found:?}, expected {expected:?}");
        Ok(())
    })?;
    let found = look(&daemon.scrape()?);
    ensure!(
        found == *expected,
        "then found {found:?}, expected {expected:?}"
    );
    Ok(())
}

/// Scrapes until nothing is wrong; fails with the last error otherwise.
pub(crate) fn wait_until(daemon: &Daemon, wrong: impl Fn(&Scrape) -> Result<()>) -> Result<()> {
    let start = Instant::now();
    loop {
        let result = wrong(&daemon.scrape()?);
        if result.is_ok() || start.elapsed() > LAG {
            return result;
        }
        thread::sleep(PAUSE);
    }
}
