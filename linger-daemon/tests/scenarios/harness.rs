//! Runs the scenarios under each plan and compares what was counted with what is true.

use std::collections::BTreeMap;
use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use linger_ebpf::Plan;

use crate::Options;
use crate::child::Report;
use crate::daemon::{Check, Daemon};
use crate::exposition::{Counted, Scrape};
use crate::load;
use crate::scenario::{self, Scenario, Settings};
use crate::sight::Sight;
use crate::summary::{Pair, Summary, Verdict};
use crate::truth::Truth;

/// How many scenarios run at a time.
const WORKERS: usize = 4;
/// How long counts may lag behind a close: a socket may end in a soft interrupt.
const LAG: Duration = Duration::from_secs(2);

/// Runs every scenario under every plan asked for.
pub(crate) fn run(options: &Options) -> Result<Summary> {
    let mut summary = Summary::default();
    let scenarios: Vec<_> = scenario::all()
        .into_iter()
        .enumerate()
        .filter(|(_, scenario)| scenario.name.contains(&options.filter))
        .collect();
    if scenarios.is_empty() {
        return Ok(summary); // The filter is for other tests.
    }
    let check = Check::run(&options.lingerd)?;
    println!("kernel {}, {} scenarios", check.kernel, scenarios.len());
    for &plan in Plan::ALL {
        if options.plan.is_some_and(|wanted| wanted != plan) {
            continue;
        }
        if let Some(reason) = check.refused(plan) {
            for (_, scenario) in &scenarios {
                let verdict = Verdict::NotRun(format!("the plan is refused: {reason}"));
                summary.add(Pair::new(scenario.name, plan, verdict));
            }
            continue;
        }
        let run = Run {
            options,
            sight: Sight::new(plan, &check.kernel),
            daemon: Daemon::start(&options.lingerd, plan)?,
            summary: Mutex::new(&mut summary),
            expected: Mutex::default(),
        };
        run.all(&scenarios)?;
    }
    Ok(summary)
}

/// One plan with its daemon.
struct Run<'a> {
    options: &'a Options,
    sight: Sight,
    daemon: Daemon,
    summary: Mutex<&'a mut Summary>,
    /// What the processes that passed had counted, to see at the end that it stayed so.
    expected: Mutex<BTreeMap<String, Counted>>,
}

impl Run<'_> {
    fn all(self, scenarios: &[(usize, Scenario)]) -> Result<()> {
        let before = self.daemon.scrape()?;
        let (load, others): (Vec<_>, Vec<_>) = scenarios
            .iter()
            .partition(|(_, scenario)| load::is_load(scenario.name));
        let (alone, together): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|(_, scenario)| scenario.is_host_wide());
        self.together(&together);
        for (number, scenario) in alone {
            self.one(*number, scenario);
        }
        self.load(&load);
        self.property("the counts stay", Self::expect_unchanged);
        self.property("nothing is lost", |run| run.expect_nothing_lost(&before));
        let Self {
            daemon,
            summary,
            sight,
            ..
        } = self;
        let verdict = Verdict::from(daemon.stop());
        let summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.add(Pair::new("the daemon ends cleanly", sight.plan, verdict));
        Ok(())
    }

    /// A property of the whole run.
    fn property(&self, name: &'static str, check: impl Fn(&Self) -> Result<()>) {
        self.report(name, Verdict::from(check(self)));
    }

    fn report(&self, name: &'static str, verdict: Verdict) {
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.add(Pair::new(name, self.sight.plan, verdict));
    }

    /// Runs these, some at a time.
    fn together(&self, scenarios: &[&(usize, Scenario)]) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    while let Some((number, scenario)) =
                        scenarios.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        self.one(*number, scenario);
                    }
                });
            }
        });
    }

    fn one(&self, number: usize, scenario: &Scenario) {
        let verdict = self.perform(number, scenario);
        let verdict = verdict.unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")));
        self.report(scenario.name, verdict);
    }

    fn perform(&self, number: usize, scenario: &Scenario) -> Result<Verdict> {
        let comm = scenario.comm(std::process::id(), number);
        // The kernel's own threads are in sight only of a scenario that runs alone.
        let kernel_threads = scenario.is_host_wide();
        let select = |name: &str| name == comm || kernel_threads && name.starts_with("kworker/");
        let before = Counted::of(&self.daemon.scrape()?, select);
        ensure!(
            kernel_threads || before == Counted::default(),
            "counted before it began: {before:?}"
        );
        let truth = match spawn(scenario.name, self.settings())? {
            Report::Ran(truth) => truth,
            Report::NotRun(reason) => return Ok(Verdict::NotRun(reason)),
            Report::Failed(reason) => return Ok(Verdict::Failed(reason)),
        };
        let after = match self.compare(&truth, &before, select)? {
            Ok(after) => after,
            Err(differences) => return Ok(Verdict::Failed(differences.join("; "))),
        };
        if !kernel_threads {
            self.expected().insert(comm, after);
        }
        Ok(Verdict::Passed)
    }

    fn settings(&self) -> Settings {
        Settings {
            load: self.options.load,
            seed: self.options.seed,
        }
    }

    fn expected(&self) -> MutexGuard<'_, BTreeMap<String, Counted>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares what was counted since `before` with the truth: what is counted now if all is
    /// right, the differences otherwise.
    fn compare(
        &self,
        truth: &Truth,
        before: &Counted,
        select: impl Fn(&str) -> bool,
    ) -> Result<Result<Counted, Vec<String>>> {
        let start = Instant::now();
        loop {
            let after = Counted::of(&self.daemon.scrape()?, &select);
            let differences = self.sight.differences(truth, &after.since(before));
            if differences.is_empty() {
                return Ok(Ok(after));
            }
            if start.elapsed() > LAG {
                return Ok(Err(differences));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs the load in all its processes at once, and scrapes meanwhile: no count may fall.
    fn load(&self, scenarios: &[&(usize, Scenario)]) {
        let done = AtomicBool::new(false);
        let scrapes = thread::scope(|scope| {
            let watch = scope.spawn(|| self.watch(&done));
            thread::scope(|scope| {
                for (number, scenario) in scenarios {
                    scope.spawn(move || self.one(*number, scenario));
                }
            });
            done.store(true, Ordering::Release);
            watch.join()
        });
        if !scenarios.is_empty() {
            let verdict = scrapes.map_or_else(
                |_| Verdict::Failed("the watching thread panicked".into()),
                Verdict::from,
            );
            self.report("no count falls under load", verdict);
        }
    }

    fn watch(&self, done: &AtomicBool) -> Result<()> {
        let mut last = BTreeMap::new();
        while !done.load(Ordering::Acquire) {
            let counters = counters(&self.daemon.scrape()?);
            for (series, value) in &last {
                let now = counters.get(series).copied().unwrap_or(f64::NAN);
                ensure!(now >= *value, "{series:?} fell from {value} to {now}");
            }
            last = counters;
        }
        Ok(())
    }

    /// What was counted for processes that have ended does not change any more.
    fn expect_unchanged(&self) -> Result<()> {
        let scrape = self.daemon.scrape()?;
        for (comm, expected) in self.expected().iter() {
            let now = Counted::of(&scrape, |name| name == comm);
            ensure!(now == *expected, "{comm}: {expected:?} became {now:?}");
        }
        Ok(())
    }

    fn expect_nothing_lost(&self, before: &Scrape) -> Result<()> {
        let lost = |scrape: &Scrape| -> BTreeMap<String, f64> {
            let samples = scrape.of("linger_lost_total");
            samples
                .map(|sample| (sample.label("what").to_owned(), sample.value))
                .collect()
        };
        let (before, after) = (lost(before), lost(&self.daemon.scrape()?));
        ensure!(!after.is_empty(), "there is no linger_lost_total");
        for (what, count) in after {
            let grown = count - before.get(&what).copied().unwrap_or(0.0);
            ensure!(
                grown == 0.0 || self.sight.may_lose(&what),
                "linger_lost_total{{what={what:?}}} grew by {grown}"
            );
        }
        Ok(())
    }
}

/// The series of a scrape that may only grow.
fn counters(scrape: &Scrape) -> BTreeMap<(String, BTreeMap<String, String>), f64> {
    const GROW: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];
    let samples = scrape.0.iter();
    samples
        .filter(|sample| GROW.iter().any(|ending| sample.name.ends_with(ending)))
        .map(|sample| ((sample.name.clone(), sample.labels.clone()), sample.value))
        .collect()
}

/// Runs a scenario in a process of its own.
fn spawn(name: &str, settings: Settings) -> Result<Report> {
    let output = Command::new(env::current_exe()?)
        .args(["child", name])
        .arg(settings.load.to_string())
        .arg(settings.seed.to_string())
        .output()?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        format!(
            "its process ended with {}: {}",
            output.status,
            errors.trim()
        )
    })
}
