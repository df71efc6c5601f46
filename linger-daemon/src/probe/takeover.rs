//! Going on with the programs and counts of another daemon.

use std::path::Path;

use flate2::Crc;
use linger_ebpf::{LAYOUT, OBJECT, Origin, Plan};
use tracing::{info, warn};

use super::attach::Attached;
use super::choose::Purpose;
use super::hooks::{Answers, Traits, hooks};
use super::kprobe::Owner;
use super::maps::Maps;
use super::pins::{Kept, Pins, PinsError};
use super::preemption::Preemption;
use super::programs::Programs;

/// What tells the programs of one build from those of another.
pub(super) fn fingerprint() -> u64 {
    let mut crc = Crc::new();
    crc.update(OBJECT);
    crc.sum().into()
}

/// The programs that are pinned, if they do what is wanted. Others are removed.
pub(super) fn take_over(
    pins: &Pins,
    wanted: Option<Plan>,
    purpose: Purpose,
) -> Result<Option<Attached>, PinsError> {
    let Some(kept) = pins.kept()? else {
        return Ok(None);
    };
    match fitting(pins, &kept, wanted, purpose) {
        Ok((origin, attached)) => {
            let version = version(&origin);
            info!(
                "taking over the counts of the lingerd with process ID {}",
                origin.pid
            );
            if origin.object != fingerprint() {
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

/// Programs that another lingerd keeps.
pub struct Beside {
    /// Their plan.
    pub plan: Plan,
    /// Their maps.
    pub maps: Maps,
    /// The programs.
    pub programs: Programs,
}

/// The programs that another lingerd keeps in this folder; none if there are none that work, and that this one
/// understands.
pub fn beside(folder: &Path) -> Result<Option<Beside>, PinsError> {
    if !Pins::are_in(folder) {
        return Ok(None);
    }
    let pins = Pins::of_another(folder);
    let understood = pins
        .origin()
        .filter(|origin| origin.layout == LAYOUT)
        .and_then(|origin| Some((plan(&origin)?, origin)));
    let Some((plan, origin)) = understood else {
        return Ok(None);
    };
    let hooks = hooks(plan, origin.keyed, traits(&origin));
    if !hooks.iter().all(|hook| pins.is_attached(*hook)) {
        return Ok(None);
    }
    Ok(Some(Beside {
        plan,
        maps: pins.maps()?,
        programs: pins.programs(&hooks, Owner::of(&origin))?,
    }))
}

/// The plan of programs that are kept.
fn plan(origin: &Origin) -> Option<Plan> {
    let mut plans = Plan::ALL.iter().copied();
    plans.find(|plan| *plan as u32 == origin.plan)
}

/// What the kernel was like for which they were chosen.
fn traits(origin: &Origin) -> Traits {
    Traits {
        sees_returns: origin.sees_returns != 0,
        preemption: Preemption::from_index(origin.preemption),
        preempts_tracepoints: origin.preempts_tracepoints != 0,
        new_timer: origin.new_timer != 0,
        answers: Answers::from_index(origin.answers),
        sees_releases: origin.sees_releases != 0,
    }
}

/// The programs, or why they do not do what is wanted.
fn fitting(
    pins: &Pins,
    kept: &Kept,
    wanted: Option<Plan>,
    purpose: Purpose,
) -> Result<(Origin, Attached), String> {
    let origin = kept
        .origin
        .ok_or("what is pinned is not complete, or of another version of lingerd")?;
    if origin.layout != LAYOUT {
        return Err(format!(
            "the counts of lingerd {} have the layout {}, those of this one {LAYOUT}",
            version(&origin),
            origin.layout
        ));
    }
    let plan = plan(&origin).ok_or_else(|| format!("there is no plan {}", origin.plan))?;
    if wanted.is_some_and(|wanted| wanted != plan) {
        return Err(format!("the plan was {}", plan.name()));
    }
    for (what, was, is) in [
        (
            "the labels take other fields of a group",
            origin.keyed,
            purpose.keyed,
        ),
        (
            "max-groups is another",
            origin.max_groups,
            purpose.max_groups,
        ),
        (
            "max-orphans is another",
            origin.max_orphans,
            purpose.max_orphans,
        ),
    ] {
        if was != is {
            return Err(what.to_owned());
        }
    }
    let hooks = hooks(plan, purpose.keyed, traits(&origin));
    if let Some(hook) = hooks.iter().find(|hook| !pins.is_attached(**hook)) {
        return Err(format!("{} is no longer attached", hook.point));
    }
    let programs = pins.programs(&hooks, Owner::of(&origin));
    let programs = programs.map_err(|error| error.to_string())?;
    Ok((origin, Attached::elsewhere(plan, hooks, programs)))
}

/// The version of the daemon that loaded the programs.
fn version(origin: &Origin) -> String {
    let text = origin.version.split(|byte| *byte == 0).next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}
