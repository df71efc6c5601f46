//! Attaches a plan, or takes over or uses the programs and counts of another daemon.

use std::error::Error;
use std::fs::File;
use std::path::Path;

use linger_ebpf::{LAYOUT, PinMetadata, Plan};
use tracing::{info, warn};

use super::attach::{Attachment, Loader};
use super::error::ProbeError;
use super::hooks::{Hook, hooks};
use super::object;
use super::options::{LoadOptions, fingerprint};
use super::owner::Owner;
use super::pins::{Pins, PinsError};
use super::programs::{Maps, Programs};
use super::traits::KernelTraits;

/// Attaches the requested plan, or the best that works, or takes over the programs pinned by another daemon.
///
/// `prepare` gets the maps before this daemon attaches anything, and may take them. Its result is returned.
pub fn attach_or_take_over<T, E: Error + Send + Sync + 'static>(
    wanted: Option<Plan>,
    options: LoadOptions,
    pins: Option<&Pins>,
    prepare: impl Fn(&mut Maps) -> Result<T, E>,
) -> Result<(Attachment, T), ProbeError> {
    let prepare =
        |maps: &mut Maps| prepare(maps).map_err(|error| ProbeError::Prepare(error.into()));
    if let Some(pins) = pins
        && let Some(attached) = take_over(pins, wanted, options)?
    {
        let prepared = prepare(&mut pins.maps()?)?;
        return Ok((attached, prepared));
    }
    let loader = Loader::new(options)?;
    let attach = |plan| -> Result<_, ProbeError> {
        let mut programs = loader.load(plan)?;
        if let Some(pins) = pins {
            pins.pin_maps(&programs.maps)?;
        }
        let prepared = prepare(&mut programs.maps)?;
        Ok((loader.attach(programs, pins)?, prepared))
    };
    let attach_or_clear = |plan| {
        let done = attach(plan);
        if let (Err(_), Some(pins)) = (&done, pins) {
            pins.clear()?;
        }
        done
    };
    if let Some(plan) = wanted {
        return attach_or_clear(plan);
    }
    for &plan in Plan::ALL {
        match attach_or_clear(plan) {
            Err(ProbeError::Plan(error)) => info!("{error}"),
            done => return done,
        }
    }
    Err(ProbeError::NoPlan)
}

/// Takes over the pinned programs if they meet these requirements, and removes them otherwise. Returns `None` if there
/// are none, or they are removed.
fn take_over(
    pins: &Pins,
    wanted: Option<Plan>,
    options: LoadOptions,
) -> Result<Option<Attachment>, PinsError> {
    if !pins.exist()? {
        return Ok(None);
    }
    let attached = attachment_if_usable(pins, wanted, options);
    if let Err(why) = &attached {
        warn!("counting starts from zero: {why}");
        pins.clear()?;
    }
    Ok(attached.ok())
}

/// Returns the pinned programs, still attached, or the reason why they do not meet the requirements.
fn attachment_if_usable(
    pins: &Pins,
    wanted: Option<Plan>,
    options: LoadOptions,
) -> Result<Attachment, String> {
    let metadata = pins
        .metadata()
        .ok_or("the pins are incomplete, or those of another version of lingerd")?;
    let (plan, hooks) = decode(&metadata)?;
    if wanted.is_some_and(|wanted| wanted != plan) {
        return Err(format!("the plan was {}", plan.name()));
    }
    if metadata.key_fields != options.key_fields {
        return Err("labels has changed".into());
    }
    if metadata.max_groups != options.max_groups {
        return Err("max-groups has changed".into());
    }
    if metadata.max_orphans != options.max_orphans {
        return Err("max-orphans has changed".into());
    }
    if let Some(hook) = hooks.iter().find(|hook| !pins.is_attached(**hook)) {
        return Err(format!("{} is no longer attached", hook.point));
    }
    if let Some(map) = object::maps().filter(|map| !pins.has_map(map)).min() {
        return Err(format!("the map {map} is no longer pinned"));
    }
    let programs = pins.programs(&hooks, Owner::of(&metadata));
    let programs = programs.map_err(|error| error.to_string())?;
    let pid = metadata.pid;
    info!("taking over the counts of the lingerd with process ID {pid}");
    if metadata.object != fingerprint() {
        let version = version(&metadata);
        warn!(
            "the programs of lingerd {version} keep counting; to replace them, stop this lingerd \
             and run `lingerd unload`: counting then starts from zero"
        );
    }
    Ok(Attachment {
        plan,
        hooks,
        programs,
        _links: Vec::new(),
    })
}

/// The pinned programs of another lingerd.
pub struct PinnedPrograms {
    /// Their plan.
    pub plan: Plan,
    /// Their maps.
    pub maps: Maps,
    /// The programs.
    pub programs: Programs,
    /// The folder of their links, removed when they are detached.
    pub links: File,
}

/// Opens the programs that another lingerd has pinned in this folder. `None` if there are none, they are not
/// attached, or this version does not understand them.
pub fn open_pinned(folder: &Path) -> Result<Option<PinnedPrograms>, PinsError> {
    let pins = Pins::unlocked(folder);
    let Some(metadata) = pins.metadata() else {
        return Ok(None);
    };
    match decode(&metadata) {
        Ok((plan, hooks)) if hooks.iter().all(|hook| pins.is_attached(*hook)) => {
            Ok(Some(PinnedPrograms {
                plan,
                maps: pins.maps()?,
                programs: pins.programs(&hooks, Owner::of(&metadata))?,
                links: pins.open_links()?,
            }))
        }
        _ => Ok(None),
    }
}

/// Returns the plan and the hooks of pinned programs, or the reason why this version does not understand them.
fn decode(metadata: &PinMetadata) -> Result<(Plan, Vec<Hook>), String> {
    if metadata.layout != LAYOUT {
        return Err(format!(
            "the counts of lingerd {} have the layout {}, those of this one {LAYOUT}",
            version(metadata),
            metadata.layout
        ));
    }
    let mut plans = Plan::ALL.iter().copied();
    let plan = plans
        .find(|plan| *plan as u32 == metadata.plan)
        .ok_or_else(|| format!("there is no plan {}", metadata.plan))?;
    let traits = KernelTraits::recorded(metadata);
    Ok((plan, hooks(plan, metadata.key_fields, traits)))
}

fn version(metadata: &PinMetadata) -> String {
    let text = metadata.version.split(|byte| *byte == 0).next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}
