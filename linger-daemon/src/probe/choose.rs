//! Chooses a plan and attaches it.

use std::error::Error;

use linger_ebpf::Plan;
use tracing::info;

use super::attach::{Attachment, Loader};
use super::error::ProbeError;
use super::options::LoadOptions;
use super::pins::Pins;
use super::programs::Maps;
use super::takeover;

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
