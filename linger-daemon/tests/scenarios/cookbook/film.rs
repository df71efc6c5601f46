//! Counts from moment to moment while the cases run, for the recipes' pictures.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use linger_ebpf::Plan;
use linger_testkit::exposition::Scrape;
use serde_json::{Value, json};

use super::SCENARIOS;
use crate::Options;
use crate::child::{self, Report};
use crate::common::check::Check;
use crate::daemon::Daemon;
use crate::scenario::{Scenario, Settings};
use crate::service::Slice;

/// Pause between a case's connections, milliseconds.
const PACE: u64 = 100;
/// Pause between scrapes.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs every case whose name contains the filter, under the best plan that is possible, and writes the counts to a
/// file, as JSON.
pub(crate) fn make(options: &Options, file: &Path) -> Result<()> {
    let check = Check::run(&options.lingerd, None)?;
    let plan = Plan::ALL
        .iter()
        .find(|plan| check.refused(**plan).is_none());
    let plan = *plan.context("no plan is possible here")?;
    let _slice = Slice::of_run(std::process::id())?;
    let mut films = Vec::new();
    for (_, Scenario { name, .. }) in options.select(SCENARIOS.to_vec())? {
        println!("{name}");
        let settings = Settings {
            pace: PACE,
            ..options.settings()
        };
        let frames = film(options, plan, name, settings).context(name)?;
        films.push(json!({ "case": name, "frames": frames }));
    }
    let (plan, kernel) = (plan.name(), check.kernel);
    let all = json!({ "plan": plan, "kernel": kernel, "films": films });
    fs::write(file, format!("{all}\n")).with_context(|| format!("write {}", file.display()))
}

fn film(options: &Options, plan: Plan, name: &str, settings: Settings) -> Result<Vec<Value>> {
    let daemon = Daemon::start(&options.lingerd, plan, &[])?;
    let done = AtomicBool::new(false);
    let frames = thread::scope(|scope| {
        let camera = scope.spawn(|| {
            let (start, mut frames) = (Instant::now(), Vec::new());
            loop {
                // One more frame after the end.
                let last = done.load(Ordering::Acquire);
                let seconds = start.elapsed().as_secs_f64();
                frames.push(frame(seconds, &daemon.scrape()?));
                if last {
                    return Ok(frames);
                }
                thread::sleep(PAUSE);
            }
        });
        let report = child::spawn(name, settings);
        done.store(true, Ordering::Release);
        let frames: Result<_> = camera
            .join()
            .unwrap_or_else(|_| bail!("the camera panicked"));
        match report? {
            Report::Ran(_) => frames,
            Report::Failed(reason) | Report::WaitedInVain(reason) => bail!(reason),
        }
    })?;
    daemon.stop()?;
    Ok(frames)
}

/// Returns the samples of the case's services in a scrape.
fn frame(seconds: f64, scrape: &Scrape) -> Value {
    let ending = format!("-{}.service", std::process::id());
    let samples = scrape.0.iter().filter_map(|sample| {
        let unit = sample.label("unit").strip_suffix(&ending)?;
        let mut labels: BTreeMap<_, _> = sample.labels.iter().cloned().collect();
        labels.insert("unit".into(), unit.to_owned());
        (sample.value != 0.0)
            .then(|| json!({ "name": sample.name, "labels": labels, "value": sample.value }))
    });
    json!({ "seconds": seconds, "samples": samples.collect::<Vec<_>>() })
}
