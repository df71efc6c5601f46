//! One plan with its daemon: runs scenarios and compares the counts with the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use linger_testkit::exposition::Scrape;

use crate::child::{self, Report};
use crate::closes::{lost, nobodys_late_data, sum};
use crate::common::expected::Evidence;
use crate::common::summary::{Pair, Summary, Verdict};
use crate::daemon::Daemon;
use crate::exposition::Counted;
use crate::harness::with_another_try;
use crate::left::Homeless;
use crate::load;
use crate::options::Options;
use crate::scenario::{Scenario, Settings};
use crate::service::Closers;
use crate::sight::{self, Sight};
use crate::sight_orphans::{check_totals, with_hidden_ends};
use crate::truth::Truth;

/// Scenarios that run at a time.
const WORKERS: usize = 4;
/// Longest lag of counts behind a close: a socket may end in a soft interrupt, and an emulated machine be busy.
const LAG: Duration = Duration::from_secs(10);
/// Pause between the scrapes of a watch: without one, scrapes take most of an emulated machine.
const PAUSE: Duration = Duration::from_millis(100);

/// Properties of a whole run, each reported as a pair of its own.
pub(crate) const PROPERTIES: [&str; 5] = [
    NO_COUNT_FALLS,
    COUNTS_STAY,
    NO_CONTRADICTION,
    NOTHING_LOST,
    ENDS_CLEANLY,
];
const NO_COUNT_FALLS: &str = "no count falls";
const COUNTS_STAY: &str = "the counts stay";
const NO_CONTRADICTION: &str = "no scrape contradicts itself";
const NOTHING_LOST: &str = "nothing is lost";
const ENDS_CLEANLY: &str = "the daemon ends cleanly";

/// Result of comparing counts with the truth.
enum Compared {
    /// They agree; these are the counts.
    Same(Box<Counted>),
    /// They agree except for this many ends of orphans, which the host hides.
    SameButHidden(u64),
    /// The differences.
    Different(Vec<String>),
}

/// The state before a scenario.
struct Before {
    scrape: Scrape,
    /// Runs of programs that the kernel had skipped.
    skipped: u64,
}

/// One plan with its daemon.
pub(crate) struct Run<'a> {
    options: &'a Options,
    sight: Sight,
    daemon: Daemon,
    summary: Mutex<&'a mut Summary>,
    /// Counts of the processes that passed, to check at the end that they have not changed.
    expected: Mutex<Vec<(Closers, Counted)>>,
    /// The first contradiction between the totals of a scrape.
    contradiction: Mutex<Option<anyhow::Error>>,
}

impl<'a> Run<'a> {
    /// Starts a daemon with these options.
    pub(crate) fn start(
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

    /// Runs the one scenario that this daemon was started for, and scrapes meanwhile.
    pub(crate) fn only(self, number: usize, scenario: &Scenario, attempt: u32) -> Pair {
        let start = Instant::now();
        let (performed, watched) = self.watched(|| self.perform(number, scenario, attempt));
        let contradiction = self.expect_no_contradiction();
        let Self { daemon, sight, .. } = self;
        let verdict = watched
            .and(contradiction)
            .and_then(|()| daemon.stop())
            .err()
            .map(|error| Verdict::Failed(format!("{error:#}")));
        let (verdict, forgiven) = match (performed, verdict) {
            ((Verdict::Passed, _), Some(failed)) => (failed, 0),
            (performed, _) => performed,
        };
        Pair::new(scenario.name, sight.plan, verdict)
            .forgiving(forgiven)
            .taking(start.elapsed())
    }

    /// Runs these scenarios, and checks the properties of the whole: [`PROPERTIES`].
    pub(crate) fn all(self, scenarios: &[(usize, Scenario)]) -> Result<()> {
        let before = self.scrape()?;
        let (load, others): (Vec<_>, Vec<_>) = scenarios
            .iter()
            .copied()
            .partition(|(_, scenario)| load::is_load(scenario.name));
        let (alone, together): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|(_, scenario)| scenario.is_host_wide());
        let ((), together) = self.watched(|| self.together(&together));
        // Not while scraping: some of these make the host reset other connections, such as a scrape's.
        for (number, scenario) in alone {
            self.one(number, &scenario);
        }
        let ((), load) = self.watched(|| self.load(&load));
        self.report(NO_COUNT_FALLS, Verdict::from(together.and(load)));
        self.property(COUNTS_STAY, Self::expect_unchanged);
        self.property(NO_CONTRADICTION, Self::expect_no_contradiction);
        self.property(NOTHING_LOST, |run| run.expect_nothing_lost(&before));
        let Self {
            daemon,
            summary,
            sight,
            ..
        } = self;
        let skipped = daemon.skipped_runs()?;
        if skipped > 0 {
            println!("the kernel skipped {skipped} runs of programs");
        }
        let verdict = Verdict::from(daemon.stop());
        let summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.add(Pair::new(ENDS_CLEANLY, sight.plan, verdict));
        Ok(())
    }

    /// Scrapes all metrics; their totals must agree at every moment.
    fn scrape(&self) -> Result<Scrape> {
        let scrape = self.daemon.scrape()?;
        if let Err(contradiction) = check_totals(&scrape) {
            let first = self.contradiction.lock();
            let mut first = first.unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(contradiction);
        }
        Ok(scrape)
    }

    /// Checks that lingerd and the kernel agree on the skipped runs, and that no scrape contradicted itself.
    fn expect_no_contradiction(&self) -> Result<()> {
        let before = self.daemon.skipped_runs()?;
        let scrape = self.scrape()?;
        let told = sum(&scrape, "linger_probe_skipped_runs_total", |_| true);
        let after = self.daemon.skipped_runs()?;
        ensure!(
            (before..=after).contains(&told),
            "{told} skipped runs, where the kernel says {before} to {after}"
        );
        let first = self.contradiction.lock();
        let mut first = first.unwrap_or_else(PoisonError::into_inner);
        first.take().map_or(Ok(()), Err)
    }

    /// Reports a property of the whole run.
    fn property(&self, name: &'static str, check: impl Fn(&Self) -> Result<()>) {
        self.report(name, Verdict::from(check(self)));
    }

    fn report(&self, name: &'static str, verdict: Verdict) {
        let pair = Pair::new(name, self.sight.plan, verdict);
        let evidence = self.evidence_since(&Scrape::default());
        self.lock_summary().add(pair.showing(evidence));
    }

    /// Returns what showed since a scrape that the kernel kept the daemon from counting.
    fn evidence_since(&self, before: &Scrape) -> BTreeSet<Evidence> {
        let after = self.daemon.scrape();
        after.map_or_else(
            |_| BTreeSet::new(),
            |after| Evidence::between(before, &after),
        )
    }

    fn lock_summary(&self) -> MutexGuard<'_, &'a mut Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs these scenarios, [`WORKERS`] at a time.
    fn together(&self, scenarios: &[(usize, Scenario)]) {
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
        let pair = with_another_try(|attempt| {
            let start = Instant::now();
            let before = self.daemon.scrape();
            let (verdict, forgiven) = self.perform(number, scenario, attempt);
            let evidence = match before {
                Ok(before) if verdict.has_failed() => self.evidence_since(&before),
                _ => BTreeSet::new(),
            };
            Pair::new(scenario.name, self.sight.plan, verdict)
                .forgiving(forgiven)
                .taking(start.elapsed())
                .showing(evidence)
        });
        self.lock_summary().add(pair);
    }

    /// Runs a scenario and compares. Returns the verdict, and how many missing ends are forgiven.
    fn perform(&self, number: usize, scenario: &Scenario, attempt: u32) -> (Verdict, u64) {
        match self.try_perform(number, scenario, attempt) {
            Ok(performed) => performed,
            Err(error) => (Verdict::from(Err(error)), 0),
        }
    }

    fn try_perform(
        &self,
        number: usize,
        scenario: &Scenario,
        attempt: u32,
    ) -> Result<(Verdict, u64)> {
        let mut closers = Closers {
            comm: scenario.comm(std::process::id(), number, attempt),
            // Those can be attributed only to a scenario that runs alone.
            kernel_threads: scenario.is_host_wide(),
            services: Vec::new(),
        };
        let before = Before {
            scrape: self.scrape()?,
            skipped: self.daemon.skipped_runs()?,
        };
        let counted = closers.counted(&before.scrape);
        ensure!(
            closers.kernel_threads || counted == Counted::default(),
            "counted before it began: {counted:?}"
        );
        let settings = Settings {
            attempt,
            ..self.options.settings()
        };
        let truth = match child::spawn(scenario.name, settings)? {
            Report::Ran(truth) => truth,
            Report::Failed(reason) => return Ok((Verdict::Failed(reason), 0)),
            Report::WaitedInVain(reason) => return Ok((Verdict::WaitedInVain(reason), 0)),
        };
        closers.services = truth.services.iter().map(|own| own.name.clone()).collect();
        match self.compare(&truth, &before, &closers)? {
            Compared::Same(after) if closers.kernel_threads => drop(after),
            Compared::Same(after) => self.expected().push((closers, *after)),
            Compared::SameButHidden(ends) => return Ok((Verdict::Passed, ends)),
            Compared::Different(differences) => {
                return Ok((Verdict::Failed(differences.join("; ")), 0));
            }
        }
        Ok((Verdict::Passed, 0))
    }

    fn expected(&self) -> MutexGuard<'_, Vec<(Closers, Counted)>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares the counts since `before` with the truth. Returns the present counts if they agree, the differences
    /// otherwise.
    fn compare(&self, truth: &Truth, before: &Before, closers: &Closers) -> Result<Compared> {
        let start = Instant::now();
        // Another attempt may have counted for the same services.
        let counted_before = closers.counted(&before.scrape);
        let nobodys_before = nobodys_late_data(&before.scrape);
        loop {
            let scrape = self.scrape()?;
            let after = closers.counted(&scrape);
            // Counted since the daemon's start: only a scenario with its own daemon can leave any.
            let homeless = Homeless::of(&scrape);
            let counted = after.since(&counted_before);
            // Those of earlier scenarios hide nothing here.
            let skipped = self.daemon.skipped_runs()?.saturating_sub(before.skipped);
            let nobodys = nobodys_late_data(&scrape) - nobodys_before;
            let sight = self.sight.with_missed(skipped, nobodys);
            let mut differences = sight.differences(truth, &counted, homeless);
            let of_services = sight::differences_of_services(sight, truth, &before.scrape, &scrape);
            let services_agree = of_services.is_empty();
            differences.extend(of_services);
            if differences.is_empty() {
                return Ok(Compared::Same(Box::new(after)));
            }
            if start.elapsed() > LAG {
                let completed = with_hidden_ends(sight, truth, &counted);
                // The host is not to blame for runs that the kernel skipped: they are not forgiven.
                let hidden = completed.filter(|(counted, _)| {
                    let differences = sight.differences(truth, counted, homeless);
                    differences.is_empty() && services_agree && skipped == 0
                });
                if skipped > 0 {
                    differences.push(format!("the kernel skipped {skipped} runs of programs"));
                }
                return Ok(match hidden {
                    Some((_, ends)) => Compared::SameButHidden(ends),
                    None => Compared::Different(differences),
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs the load scenarios, all at once.
    fn load(&self, scenarios: &[(usize, Scenario)]) {
        thread::scope(|scope| {
            for (number, scenario) in scenarios {
                scope.spawn(move || self.one(*number, scenario));
            }
        });
    }

    /// Does the work and scrapes meanwhile: no count may fall.
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

    /// Checks that the counts of processes that have ended do not change any more.
    fn expect_unchanged(&self) -> Result<()> {
        let scrape = self.scrape()?;
        for (closers, expected) in self.expected().iter() {
            let (comm, now) = (&closers.comm, closers.counted(&scrape));
            ensure!(now == *expected, "{comm}: {expected:?} became {now:?}");
        }
        Ok(())
    }

    /// Checks identity 6 on the whole host: every close has a time, or its return is counted as lost. Retries, as
    /// others may close at any moment.
    fn expect_times_of_all(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let scrape = self.scrape()?;
            let closes = sum(&scrape, "linger_closes_total", |_| true);
            let times = sum(&scrape, "linger_close_blocked_seconds_count", |_| true);
            let lost = lost(&scrape, "return");
            if closes == times + lost {
                return Ok(());
            }
            ensure!(
                start.elapsed() < LAG,
                "{closes} closes, {times} of them with a time, and {lost} lost returns"
            );
            thread::sleep(PAUSE);
        }
    }

    fn expect_nothing_lost(&self, before: &Scrape) -> Result<()> {
        self.expect_times_of_all()?;
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

/// Returns the series of a scrape that may only grow.
fn counters(scrape: &Scrape) -> BTreeMap<(String, Vec<(String, String)>), f64> {
    const GROW: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];
    let samples = scrape.0.iter();
    samples
        .filter(|sample| GROW.iter().any(|ending| sample.name.ends_with(ending)))
        .map(|sample| ((sample.name.clone(), sample.labels.clone()), sample.value))
        .collect()
}
