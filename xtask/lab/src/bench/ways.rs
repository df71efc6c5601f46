//! Ways to be watched: by nobody, by lingerd, by the floor, or by its peers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use linger_testkit::exposition::Sample;

use super::daemon::Daemon;
use super::floor::Floor;
use super::tool::{Installed, Tool};
use super::watch::Watched;

/// A way to be watched.
pub(super) struct Way<'a> {
    /// Its name in tables and figures.
    pub(super) name: String,
    /// Whether its failure is an error; otherwise it is left out.
    pub(super) required: bool,
    /// Starts the watcher.
    pub(super) start: Box<dyn Fn() -> Result<Box<dyn Watcher>> + 'a>,
}

/// A program that watches until it is stopped or dropped.
pub(super) trait Watcher {
    /// Returns the CPU time that its processes have used so far.
    fn cpu_time(&mut self) -> Result<Duration>;

    /// Checks that it has seen this number of connections, and of orphans among them.
    fn check(&mut self, connections: u64, orphans: u64) -> Result<()>;

    /// Ends the watcher.
    fn stop(self: Box<Self>) -> Result<()>;
}

/// No watcher.
struct Nobody;

impl Watcher for Nobody {
    fn cpu_time(&mut self) -> Result<Duration> {
        Ok(Duration::ZERO)
    }

    fn check(&mut self, _connections: u64, _orphans: u64) -> Result<()> {
        Ok(())
    }

    fn stop(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl<'a> Way<'a> {
    /// Without a watcher.
    pub(super) fn bare() -> Self {
        Self {
            name: "bare".to_owned(),
            required: true,
            start: Box::new(|| Ok(Box::new(Nobody))),
        }
    }

    /// With a lingerd by this plan, with these options.
    pub(super) fn lingerd(
        name: String,
        lingerd: &'a Path,
        plan: &'a str,
        args: &'a [&'a str],
    ) -> Self {
        let args = [&["--plan", plan], args].concat();
        Self {
            name,
            required: true,
            start: Box::new(move || Ok(Box::new(Daemon::start(lingerd, &args)?))),
        }
    }

    /// With a lingerd, and a `lingerd watch` with these options.
    pub(super) fn watched(
        name: String,
        lingerd: &'a Path,
        plan: &'a str,
        options: &'a [&'a str],
    ) -> Self {
        Self {
            name,
            required: false,
            start: Box::new(move || Ok(Box::new(Watched::start(lingerd, plan, options)?))),
        }
    }

    /// With programs that only count their runs, on the hooks of a plan.
    pub(super) fn floor(floor: &'a Path, plan: &'a str) -> Self {
        Self {
            name: format!("floor, {plan}"),
            required: true,
            start: Box::new(move || Ok(Box::new(Floor::start(floor, plan)?))),
        }
    }

    /// One way for each of these tools.
    pub(super) fn tools(tools: Vec<Installed>) -> impl Iterator<Item = Self> {
        tools.into_iter().map(|tool| Self {
            name: tool.name.to_owned(),
            required: false,
            start: Box::new(move || Ok(Box::new(Tool::start(&tool)?))),
        })
    }
}

impl Watcher for Daemon {
    fn cpu_time(&mut self) -> Result<Duration> {
        Daemon::cpu_time(self)
    }

    /// Checks that the churn did what its name says: one kind leaves an orphan with each connection, the others leave
    /// none. The group distinguishes orphans of other programs; without groups, nothing is checked.
    fn check(&mut self, _connections: u64, orphans: u64) -> Result<()> {
        let metrics = self.metrics()?;
        let close = metrics.of("linger_closes_total").next();
        if close.is_none_or(|close| close.get("comm").is_none()) {
            return Ok(());
        }
        let own = fs::read_to_string("/proc/self/comm")?;
        let left = ["linger_orphans_total", "linger_orphans_active"]
            .into_iter()
            .flat_map(|metric| metrics.of(metric))
            .filter(|sample| sample.get("comm") == Some(own.trim()));
        let left: u64 = left.filter_map(Sample::whole).sum();
        if left != orphans {
            bail!("{orphans} closes were to leave data, and {left} did");
        }
        Ok(())
    }

    fn stop(self: Box<Self>) -> Result<()> {
        Daemon::stop(*self)
    }
}
