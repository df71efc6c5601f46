//! The attached programs, and the ledger that reads their counts.

use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context as _, Result};
use linger_ebpf::key_field;
use nix::sys::utsname::uname;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::attribution::Cgroups;
use crate::config::Config;
use crate::event::{RecentCloses, WatchError};
use crate::host;
use crate::ledger::{Ledger, LedgerError, Snapshot};
use crate::live;
use crate::memory;
use crate::metrics::{Facts, Metrics, series};
use crate::privileges;
use crate::probe::{self, Attachment, LoadOptions, Maps, Pins};
use crate::sync::lock;

pub(super) struct Counting {
    pub(super) attached: Attachment,
    pub(super) counts: Arc<Counts>,
}

pub(super) struct Counts {
    pub(super) ledger: Mutex<Ledger>,
    recent: Mutex<RecentCloses>,
    /// Notified after each reading for [`Counting::metrics`].
    pub(super) read: Arc<Notify>,
}

impl Counting {
    /// Starts counting closes, and drops all capabilities that reading the counts does not need.
    pub(super) fn begin(config: &Config, pins: Option<&Pins>) -> Result<Self> {
        let (mut attached, (mut ledger, recent)) = attach(config, pins)?;
        ledger.set_programs(mem::take(&mut attached.programs));
        let works = || ledger.maintain().and_then(|()| ledger.read()).is_ok();
        let kept = privileges::drop_all_but(&[], works).context("cannot drop capabilities")?;
        if !kept.is_empty() {
            warn!("this kernel lets only privileged processes read maps: keeping {kept:?}");
        }
        // Reading the kernel's types took much memory.
        memory::release();
        let counts = Counts {
            ledger: Mutex::new(ledger),
            recent: Mutex::new(recent),
            read: Arc::default(),
        };
        Ok(Self {
            attached,
            counts: Arc::new(counts),
        })
    }

    /// Returns metrics that only read the counts: [`Counts::maintain`] has to follow.
    pub(super) fn metrics(&self) -> Result<Metrics> {
        self.metrics_of(|counts| {
            let snapshot = lock(&counts.ledger).read();
            counts.read.notify_one();
            snapshot
        })
    }

    /// Returns metrics that maintain the ledger whenever they read it, for a view that is its only reader.
    fn maintained_metrics(&self) -> Result<Metrics> {
        self.metrics_of(|counts| {
            let mut ledger = lock(&counts.ledger);
            ledger.maintain()?;
            ledger.read()
        })
    }

    /// Returns metrics that call `read` at each scrape.
    fn metrics_of(&self, read: fn(&Counts) -> Result<Snapshot, LedgerError>) -> Result<Metrics> {
        let names = uname()?;
        let facts = Facts {
            plan: self.attached.plan,
            kernel: names.release().to_string_lossy().into_owned(),
            host: names.nodename().to_string_lossy().into_owned(),
        };
        let counts = Arc::clone(&self.counts);
        let source = move || Ok(read(&counts)?);
        let counts = Arc::clone(&self.counts);
        let recent = move || counts.recent();
        Ok(Metrics::new(Arc::new(source), facts).with_recent(Arc::new(recent)))
    }
}

impl Counts {
    /// Maintains the ledger, and takes the latest costly closes from their ring.
    pub(super) fn maintain(&self) -> Result<(), LedgerError> {
        self.recent();
        lock(&self.ledger).maintain()
    }

    /// Reads the latest costly closes, newest first.
    fn recent(&self) -> Vec<live::RecentClose> {
        let mut recent = lock(&self.recent);
        let closes = recent.read(|cgroup_ids| lock(&self.ledger).names(cgroup_ids));
        closes.map(live::RecentClose::from).collect()
    }
}

/// Attaches programs for a single view, which count until the [`Attachment`] is dropped, whatever else is attached.
///
/// Drops all capabilities that reading does not need: call it before other threads are started.
pub(crate) fn attach_standalone(config: &Config) -> Result<(Attachment, Metrics)> {
    privileges::require()?;
    let counting = Counting::begin(config, None)?;
    let metrics = counting.maintained_metrics()?;
    Ok((counting.attached, metrics))
}

/// Attaches the programs, or takes over the pinned ones. If that fails, the error says what keeps this process from
/// counting, if anything is known.
fn attach(config: &Config, pins: Option<&Pins>) -> Result<(Attachment, (Ledger, RecentCloses))> {
    let started = Instant::now();
    let options = LoadOptions {
        key_fields: config.key_fields(),
        max_groups: config.max_groups,
        max_orphans: config.max_orphans,
    };
    let wanted = config.plan.plan();
    let cgroups = Cgroups::of_host();
    let prepare = |maps: &mut Maps| -> Result<_, WatchError> {
        let recent = RecentCloses::new(maps)?;
        let ledger = Ledger::new(maps, cgroups.clone(), config, series)?;
        Ok((ledger, recent))
    };
    let done = probe::attach_or_take_over(wanted, options, pins, prepare);
    let (attached, counts) = done.map_err(|error| match host::obstacle() {
        Some(obstacle) => anyhow::Error::from(error).context(obstacle),
        None => error.into(),
    })?;
    // The return of close(2) is hooked later, when needed.
    let hooks = attached.hooks.iter().filter(|hook| !hook.sees_returns());
    info!(
        plan = attached.plan.name(),
        hooks = hooks.count(),
        milliseconds = started.elapsed().as_millis(),
        "attached"
    );
    if config.key_fields() & key_field::CGROUP != 0
        && let Some(shortcoming) = cgroups.shortcoming()
    {
        warn!("{shortcoming}");
    }
    Ok((attached, counts))
}
