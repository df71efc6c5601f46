//! Runs the scenarios under each plan and compares what was counted with what is true.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use linger_ebpf::Plan;

use crate::Options;
use crate::child::{self, Report};
use crate::common::check::Check;
use crate::common::scrape::Scrape;
use crate::common::summary::{Pair, Summary, Verdict};
use crate::daemon::Daemon;
use crate::exposition::Counted;
use crate::left::Homeless;
use crate::load;
use crate::scenario::{self, Scenario, Script};
use crate::service::{Closers, Slice};
use crate::sight::{self, Sight};
use crate::sight_orphans::{check_totals, with_hidden_ends};
use crate::truth::Truth;

/// How many scenarios run at a time.
const WORKERS: usize = 4;
/// How long counts may lag behind a close: a socket may end in a soft interrupt.
const LAG: Duration = Duration::from_secs(2);
/// Pause between the scrapes of a watch.
const PAUSE: Duration = Duration::from_millis(20);

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
    let (shared, own): (Vec<_>, Vec<_>) = scenarios
        .iter()
        .partition(|(_, scenario)| scenario.shares_daemon());
    let check = Check::run(&options.lingerd)?;
    println!("kernel {}, {} scenarios", check.kernel, scenarios.len());
    // Kept until all is read: a cgroup that is gone has no name. Without cgroup v2 none is made.
    let _slice = Slice::of_run(std::process::id()).ok();
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
        let sight = Sight::new(plan, &check.kernel);
        if !shared.is_empty() {
            Run::start(options, sight, &[], &mut summary)?.all(&shared)?;
        }
        for (number, scenario) in &own {
            match scenario.script {
                Script::Daemon(script) => {
                    let verdict = Verdict::from(script(&options.lingerd, plan));
                    summary.add(Pair::new(scenario.name, plan, verdict));
                }
                Script::BulkDaemon(script) => {
                    let result = script(&options.lingerd, plan, options.settings());
                    summary.add(Pair::new(scenario.name, plan, Verdict::from(result)));
                }
                Script::Under(daemon_options, _) => {
                    Run::start(options, sight, daemon_options, &mut summary)?
                        .only(*number, scenario);
                }
                _ => {}
            }
        }
    }
    Ok(summary)
}

/// What was counted, compared with the truth.
enum Compared {
    /// All is right; this is what is counted.
    Same(Box<Counted>),
    /// All is right but the ends of a few orphans, which the host hides.
    SameButHidden,
    /// These differ.
    Different(Vec<String>),
}

/// One plan with its daemon.
struct Run<'a> {
    options: &'a Options,
    sight: Sight,
    daemon: Daemon,
    summary: Mutex<&'a mut Summary>,
    /// What the processes that passed had counted, to see at the end that it stayed so.
    expected: Mutex<Vec<(Closers, Counted)>>,
    /// The first scrape whose totals contradicted one another.
    contradiction: Mutex<Option<anyhow::Error>>,
}

impl<'a> Run<'a> {
    fn start(
        options: &'a Options,
        sight: Sight,
        daemon_options: &[&str],
        summary: &'a mut Summary,
    ) -> Result<Self> {
        Ok(Self {
            options,
            sight,
            daemon: Daemon::start(&options.lingerd, sight.plan, daemon_options)?,
            summary: Mutex::new(summary),
            expected: Mutex::default(),
            contradiction: Mutex::default(),
        })
    }

    /// Runs the one scenario that this daemon is for, and scrapes meanwhile.
    fn only(self, number: usize, scenario: &Scenario) {
        let (verdict, watched) = self.watched(|| self.perform(number, scenario));
        let verdict = verdict.and_then(|verdict| watched.map(|()| verdict));
        let contradiction = self.expect_no_contradiction();
        let Self {
            daemon,
            summary,
            sight,
            ..
        } = self;
        let verdict = verdict
            .and_then(|verdict| contradiction.map(|()| verdict))
            .and_then(|verdict| daemon.stop().map(|()| verdict))
            .unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")));
        let summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.add(Pair::new(scenario.name, sight.plan, verdict));
    }

    fn all(self, scenarios: &[&(usize, Scenario)]) -> Result<()> {
        let before = self.scrape()?;
        let (load, others): (Vec<_>, Vec<_>) = scenarios
            .iter()
            .copied()
            .partition(|(_, scenario)| load::is_load(scenario.name));
        let (alone, together): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|(_, scenario)| scenario.is_host_wide());
        let ((), together) = self.watched(|| self.together(&together));
        // Not meanwhile: some of these have the host reset other connections, such as a scrape's.
        for (number, scenario) in alone {
            self.one(*number, scenario);
        }
        let ((), load) = self.watched(|| self.load(&load));
        self.report("no count falls", Verdict::from(together.and(load)));
        self.property("the counts stay", Self::expect_unchanged);
        self.property(
            "no scrape contradicts itself",
            Self::expect_no_contradiction,
        );
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

    /// All metrics, whose totals must be right at every moment.
    fn scrape(&self) -> Result<Scrape> {
        let scrape = self.daemon.scrape()?;
        if let Err(contradiction) = check_totals(&scrape) {
            let first = self.contradiction.lock();
            let mut first = first.unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(contradiction);
        }
        Ok(scrape)
    }

    fn expect_no_contradiction(&self) -> Result<()> {
        let first = self.contradiction.lock();
        let mut first = first.unwrap_or_else(PoisonError::into_inner);
        first.take().map_or(Ok(()), Err)
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
        let mut closers = Closers {
            comm: scenario.comm(std::process::id(), number),
            // They are in sight only of a scenario that runs alone.
            kernel_threads: scenario.is_host_wide(),
            services: Vec::new(),
        };
        let before = closers.counted(&self.scrape()?);
        ensure!(
            closers.kernel_threads || before == Counted::default(),
            "counted before it began: {before:?}"
        );
        let truth = match child::spawn(scenario.name, self.options.settings())? {
            Report::Ran(truth) => truth,
            Report::NotRun(reason) => return Ok(Verdict::NotRun(reason)),
            Report::Failed(reason) => return Ok(Verdict::Failed(reason)),
        };
        closers.services = truth.services.iter().map(|own| own.name.clone()).collect();
        match self.compare(&truth, &before, &closers)? {
            Compared::Same(after) if closers.kernel_threads => drop(after),
            Compared::Same(after) => self.expected().push((closers, *after)),
            Compared::SameButHidden => println!(
                "{}: this host hid the end of an orphan from all tracing",
                scenario.name
            ),
            Compared::Different(differences) => {
                return Ok(Verdict::Failed(differences.join("; ")));
            }
        }
        Ok(Verdict::Passed)
    }

    fn expected(&self) -> MutexGuard<'_, Vec<(Closers, Counted)>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares what was counted since `before` with the truth: what is counted now if all is
    /// right, the differences otherwise.
    fn compare(&self, truth: &Truth, before: &Counted, closers: &Closers) -> Result<Compared> {
        let start = Instant::now();
        loop {
            let scrape = self.scrape()?;
            let after = closers.counted(&scrape);
            // Only under a daemon of its own can a scenario leave any: those since its start.
            let homeless = Homeless::of(&scrape);
            let counted = after.since(before);
            let mut differences = self.sight.differences(truth, &counted, homeless);
            let of_services = sight::differences_of_services(truth, &scrape);
            let services_agree = of_services.is_empty();
            differences.extend(of_services);
            if differences.is_empty() {
                return Ok(Compared::Same(Box::new(after)));
            }
            if start.elapsed() > LAG {
                let completed = with_hidden_ends(self.sight, truth, &counted);
                let same = completed.is_some_and(|counted| {
                    let differences = self.sight.differences(truth, &counted, homeless);
                    differences.is_empty()
                });
                return Ok(if same && services_agree {
                    Compared::SameButHidden
                } else {
                    Compared::Different(differences)
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs the load in all its processes at once.
    fn load(&self, scenarios: &[&(usize, Scenario)]) {
        thread::scope(|scope| {
            for (number, scenario) in scenarios {
                scope.spawn(move || self.one(*number, scenario));
            }
        });
    }

    /// Does the work, and scrapes meanwhile: no count may fall.
    fn watched<T>(&self, work: impl FnOnce() -> T) -> (T, Result<()>) {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watch = scope.spawn(|| self.watch(&done));
            let result = work();
            done.store(true, Ordering::Release);
            let watched = watch.join();
            let watched = watched.unwrap_or_else(|_| Err(anyhow!("the watching thread panicked")));
            (result, watched)
        })
    }

    fn watch(&self, done: &AtomicBool) -> Result<()> {
        let mut last = BTreeMap::new();
        while !done.load(Ordering::Acquire) {
            let counters = counters(&self.scrape()?);
            for (series, value) in &last {
                let now = counters.get(series).copied().unwrap_or(f64::NAN);
                ensure!(now >= *value, "{series:?} fell from {value} to {now}");
            }
            last = counters;
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// What was counted for processes that have ended does not change any more.
    fn expect_unchanged(&self) -> Result<()> {
        let scrape = self.scrape()?;
        for (closers, expected) in self.expected().iter() {
            let (comm, now) = (&closers.comm, closers.counted(&scrape));
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
        let (before, after) = (lost(before), lost(&self.scrape()?));
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
