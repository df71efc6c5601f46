//! Chooses a plan and attaches it.

use std::error::Error;

use linger_ebpf::{LAYOUT, MAX_GROUPS, MAX_ORPHANS, PinMetadata, Plan};
use thiserror::Error;
use tracing::info;

use super::attach::{Attachment, Loader, PlanError};
use super::btf::KernelError;
use super::hooks::Traits;
use super::kprobe::Owner;
use super::maps::Maps;
use super::pins::{Pins, PinsError};
use super::takeover;
use crate::attribution::Dimension;
use crate::version::VERSION;

/// Why nothing is attached.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The kernel's types cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The requested plan does not work here.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The configuration cannot be written to the maps.
    #[error("the maps cannot be prepared")]
    Prepare(#[source] Box<dyn Error + Send + Sync>),
    /// Pins cannot be made or taken over.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// No plan works here.
    #[error("no plan works on this kernel; `lingerd check` tells why")]
    NoPlan,
}

/// Options with which the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Key fields in use, a set of [`linger_ebpf::keyed`] bits.
    pub keyed: u32,
    /// Maximum number of groups with counters of their own.
    pub max_groups: u32,
    /// Maximum number of orphans that are followed.
    pub max_orphans: u32,
}

impl LoadOptions {
    /// The metadata to pin with programs that outlive this daemon.
    pub(super) fn metadata(self, plan: Plan, traits: Traits) -> PinMetadata {
        let mut version = [0; 32];
        for (to, from) in version.iter_mut().zip(VERSION.bytes()) {
            *to = from;
        }
        let owner = Owner::here();
        PinMetadata {
            layout: LAYOUT,
            object: takeover::fingerprint(),
            version,
            plan: plan as u32,
            keyed: self.keyed,
            max_groups: self.max_groups,
            max_orphans: self.max_orphans,
            sees_returns: traits.sees_returns.into(),
            preemption: traits.preemption as u32,
            preempts_tracepoints: traits.preempts_tracepoints.into(),
            new_timer: traits.new_timer.into(),
            answers: traits.answers as u32,
            sees_releases: traits.sees_releases.into(),
            pid: owner.pid,
            pid_namespace: owner.namespace,
        }
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            keyed: Dimension::keyed(Dimension::DEFAULT),
            max_groups: MAX_GROUPS,
            max_orphans: MAX_ORPHANS,
        }
    }
}

/// Attaches the requested plan, or the best that works, or takes over the programs pinned by another daemon.
///
/// `prepare` gets the maps before anything is attached, and may take them. Its result is returned.
pub fn choose<T, E: Error + Send + Sync + 'static>(
    wanted: Option<Plan>,
    options: LoadOptions,
    pins: Option<&Pins>,
    prepare: impl Fn(&mut Maps, Plan) -> Result<T, E>,
) -> Result<(Attachment, T), ProbeError> {
    let prepare = |maps: &mut Maps, plan| {
        prepare(maps, plan).map_err(|error| ProbeError::Prepare(error.into()))
    };
    if let Some(pins) = pins
        && let Some(attached) = takeover::take_over(pins, wanted, options)?
    {
        let prepared = prepare(&mut pins.maps()?, attached.plan)?;
        return Ok((attached, prepared));
    }
    let loader = Loader::new(options)?;
    let attempt = |plan| -> Result<_, ProbeError> {
        let mut ready = loader.load(plan)?;
        if let Some(pins) = pins {
            pins.keep_maps(&ready.maps)?;
        }
        let prepared = prepare(&mut ready.maps, plan)?;
        Ok((loader.attach(ready, pins)?, prepared))
    };
    let attempt = |plan| {
        let done = attempt(plan);
        if let (Err(_), Some(pins)) = (&done, pins) {
            pins.clear()?;
        }
        done
    };
    if let Some(plan) = wanted {
        return attempt(plan);
    }
    for &plan in Plan::ALL {
        match attempt(plan) {
            Err(ProbeError::Plan(error)) => info!("{error}"),
            done => return done,
        }
    }
    Err(ProbeError::NoPlan)
}
