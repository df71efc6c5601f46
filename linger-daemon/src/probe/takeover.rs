//! Takes over, or uses, the programs and counts of another daemon.

use std::path::Path;

use linger_ebpf::{LAYOUT, PinMetadata, Plan};
use tracing::{info, warn};

use super::attach::Attachment;
use super::hooks::{Answers, Traits, hooks};
use super::kprobe::Owner;
use super::maps::Maps;
use super::options::{LoadOptions, fingerprint};
use super::pins::{FolderContents, Pins, PinsError};
use super::preemption::Preemption;
use super::programs::Programs;

/// Takes over the pinned programs if they meet these requirements, and removes them otherwise.
pub(super) fn take_over(
    pins: &Pins,
    wanted: Option<Plan>,
    options: LoadOptions,
) -> Result<Option<Attachment>, PinsError> {
    let Some(kept) = pins.contents()? else {
        return Ok(None);
    };
    match fitting(pins, &kept, wanted, options) {
        Ok((metadata, attached)) => {
            let version = version(&metadata);
            info!(
                "taking over the counts of the lingerd with process ID {}",
                metadata.pid
            );
            if metadata.object != fingerprint() {
                warn!(
                    "the programs of lingerd {version} keep counting; to replace them, stop this lingerd \
                     and run `lingerd unload`: counting then starts from zero"
                );
            }
            Ok(Some(attached))
        }
        Err(why) => {
            warn!("counting starts from zero: {why}");
            pins.clear()?;
            Ok(None)
        }
    }
}

/// The pinned programs of another lingerd.
pub struct PinnedPrograms {
    /// Their plan.
    pub plan: Plan,
    /// Their maps.
    pub maps: Maps,
    /// The programs.
    pub programs: Programs,
}

/// Opens the programs that another lingerd has pinned in this folder. `None` if there are none, they are not
/// attached, or this version does not understand them.
pub fn open_pinned(folder: &Path) -> Result<Option<PinnedPrograms>, PinsError> {
    if !Pins::are_in(folder) {
        return Ok(None);
    }
    let pins = Pins::of_another(folder);
    let understood = pins
        .metadata()
        .filter(|metadata| metadata.layout == LAYOUT)
        .and_then(|metadata| Some((plan(&metadata)?, metadata)));
    let Some((plan, metadata)) = understood else {
        return Ok(None);
    };
    let hooks = hooks(plan, metadata.keyed, traits(&metadata));
    if !hooks.iter().all(|hook| pins.is_attached(*hook)) {
        return Ok(None);
    }
    Ok(Some(PinnedPrograms {
        plan,
        maps: pins.maps()?,
        programs: pins.programs(&hooks, Owner::of(&metadata))?,
    }))
}

/// The plan of pinned programs.
fn plan(metadata: &PinMetadata) -> Option<Plan> {
    let mut plans = Plan::ALL.iter().copied();
    plans.find(|plan| *plan as u32 == metadata.plan)
}

/// The traits of the kernel for which they were loaded.
fn traits(metadata: &PinMetadata) -> Traits {
    Traits {
        sees_returns: metadata.sees_returns != 0,
        preemption: Preemption::from_index(metadata.preemption),
        preempts_tracepoints: metadata.preempts_tracepoints != 0,
        new_timer: metadata.new_timer != 0,
        answers: Answers::from_index(metadata.answers),
        sees_releases: metadata.sees_releases != 0,
    }
}

/// The pinned programs, or why they do not meet the requirements.
fn fitting(
    pins: &Pins,
    kept: &FolderContents,
    wanted: Option<Plan>,
    options: LoadOptions,
) -> Result<(PinMetadata, Attachment), String> {
    let metadata = kept
        .metadata
        .ok_or("what is pinned is not complete, or of another version of lingerd")?;
    if metadata.layout != LAYOUT {
        return Err(format!(
            "the counts of lingerd {} have the layout {}, those of this one {LAYOUT}",
            version(&metadata),
            metadata.layout
        ));
    }
    let plan = plan(&metadata).ok_or_else(|| format!("there is no plan {}", metadata.plan))?;
    if wanted.is_some_and(|wanted| wanted != plan) {
        return Err(format!("the plan was {}", plan.name()));
    }
    for (what, was, is) in [
        (
            "the labels take other fields of a group",
            metadata.keyed,
            options.keyed,
        ),
        (
            "max-groups is another",
            metadata.max_groups,
            options.max_groups,
        ),
        (
            "max-orphans is another",
            metadata.max_orphans,
            options.max_orphans,
        ),
    ] {
        if was != is {
            return Err(what.to_owned());
        }
    }
    let hooks = hooks(plan, options.keyed, traits(&metadata));
    if let Some(hook) = hooks.iter().find(|hook| !pins.is_attached(**hook)) {
        return Err(format!("{} is no longer attached", hook.point));
    }
    let programs = pins.programs(&hooks, Owner::of(&metadata));
    let programs = programs.map_err(|error| error.to_string())?;
    Ok((metadata, Attachment::pinned(plan, hooks, programs)))
}

/// The version of the daemon that loaded the programs.
fn version(metadata: &PinMetadata) -> String {
    let text = metadata.version.split(|byte| *byte == 0).next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}
