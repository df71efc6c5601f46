//! The programs to watch by: those that a service has pinned, or programs of its own.

use std::fs::File;
use std::mem;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, MapData};
use linger_ebpf::{Filter, MAX_WATCHED, Path as RecordedPath};
use tracing::info;

use crate::config::PlanChoice;
use crate::event::{WatchError, Watcher};
use crate::ledger::{ReturnHook, Undecided, take};
use crate::probe::{self, Attachment, LoadOptions, Maps, Programs};

/// Groups of its own programs: few, because only their paths are used, to name the units.
const GROUPS: u32 = 1024;

/// Attached programs with their maps.
pub(super) struct WatchPrograms {
    pub(super) maps: WatchMaps,
    programs: Programs,
    /// Set if the programs are this process's own: no service maintains their hooks.
    own: Option<Attachment>,
    /// The folder of the links that a service has pinned.
    links: Option<File>,
}

/// The maps of the programs that are used.
pub(super) struct WatchMaps {
    pub(super) watcher: Watcher,
    /// Paths of cgroups, as recorded in the kernel.
    pub(super) paths: HashMap<MapData, u64, RecordedPath>,
    undecided: Undecided,
    return_hook: ReturnHook,
}

impl WatchMaps {
    fn take(maps: &mut Maps, filter: &Filter) -> Result<Self, WatchError> {
        Ok(Self {
            undecided: Undecided::map(maps)?,
            return_hook: ReturnHook::map(maps)?,
            watcher: Watcher::new(maps, filter)?,
            paths: take(maps, "CGROUPS")?,
        })
    }
}

impl WatchPrograms {
    /// Opens the programs that a service has pinned in this folder. Attaches its own if there are none, or if a plan is
    /// wanted.
    pub(super) fn open(filter: &Filter, plan: Option<PlanChoice>, pins: &Path) -> Result<Self> {
        if plan.is_none()
            && let Some(mut pinned) =
                probe::open_pinned(pins).context("cannot watch beside the service")?
        {
            let maps = WatchMaps::take(&mut pinned.maps, filter)?;
            let (plan, pins) = (pinned.plan.name(), pins.display());
            info!(plan, "watching by the programs pinned in {pins}");
            return Ok(Self {
                maps,
                programs: pinned.programs,
                own: None,
                links: Some(pinned.links),
            });
        }
        let load = LoadOptions {
            max_groups: GROUPS,
            // As many as closes that can be watched at the same time.
            max_orphans: MAX_WATCHED,
            ..LoadOptions::default()
        };
        let plan = plan.and_then(PlanChoice::plan);
        let prepare = |maps: &mut Maps| WatchMaps::take(maps, filter);
        let (mut attached, mut maps) = probe::attach_or_take_over(plan, load, None, prepare)?;
        // Attaching may have taken longer than the lease.
        maps.watcher.renew_lease()?;
        info!(plan = attached.plan.name(), "watching by its own programs");
        Ok(Self {
            maps,
            programs: mem::take(&mut attached.programs),
            own: Some(attached),
            links: None,
        })
    }

    /// Hooks the returns that own programs need; a service does so for its programs. Call it from the start, so that
    /// the time of the first waiting close is known too.
    pub(super) fn hook_returns(&mut self) {
        if self.own.is_some() {
            let is_relied_on = true;
            self.maps.return_hook.expect_waits();
            self.maps.return_hook.update(&self.programs, is_relied_on);
        }
    }

    /// Settles undecided orphans, and maintains the hooks of its own programs. Fails if those of a service are detached.
    pub(super) fn maintain(&mut self) -> Result<()> {
        if let Some(links) = &self.links {
            ensure!(
                links.metadata()?.nlink() > 0,
                "the programs of the service were detached, by `lingerd unload` or a lingerd with other settings: \
                 start lingerd watch again"
            );
        }
        self.maps.undecided.settle_by(&self.programs)?;
        self.hook_returns();
        Ok(())
    }
}
