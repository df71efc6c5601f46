//! The capabilities that attaching needs; drops them afterwards.

use std::collections::HashSet;
use std::thread;

use caps::{CapSet, Capability};
use thiserror::Error;

/// The capabilities that attaching needs: to load programs and make maps; to trace, and read kernel memory; and to
/// attach to the release of sockets.
pub const NEEDED: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_ADMIN,
];

/// The error of too few privileges.
#[derive(Debug, Error)]
#[error("missing {missing}: run lingerd as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN")]
pub struct Missing {
    missing: String,
}

/// The capabilities of [`NEEDED`] that this process does not have.
#[must_use]
pub fn missing() -> Vec<Capability> {
    let have = caps::read(None, CapSet::Effective).unwrap_or_default();
    // CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, not for CAP_NET_ADMIN.
    let admin = have.contains(&Capability::CAP_SYS_ADMIN);
    NEEDED
        .into_iter()
        .filter(|capability| {
            let implied = admin && *capability != Capability::CAP_NET_ADMIN;
            !implied && !have.contains(capability)
        })
        .collect()
}

/// Fails if a capability of [`NEEDED`] is missing.
pub fn require() -> Result<(), Missing> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
    Err(Missing {
        missing: names.join(", "),
    })
}

/// Gives up every capability except the `wanted` ones, as far as the process has them, and every way to gain one, for
/// this thread and those it will start, if `still_works` succeeds without any.
///
/// Kernels before 5.19 may require `CAP_BPF` to read maps; there it is kept. Returns the capabilities that remain. Call
/// it before other threads are started.
pub fn drop_all_but(
    wanted: &[Capability],
    still_works: impl FnOnce() -> bool + Send,
) -> Result<HashSet<Capability>, caps::errors::CapsError> {
    let works_without = thread::scope(|scope| {
        scope
            .spawn(move || reduce_to(&HashSet::new()).is_ok() && still_works())
            .join()
            .unwrap_or(false)
    });
    let have = caps::read(None, CapSet::Permitted)?;
    let mut keep: HashSet<_> = wanted.iter().copied().collect();
    keep.retain(|capability| have.contains(capability));
    if !works_without {
        let reading = [Capability::CAP_BPF, Capability::CAP_SYS_ADMIN];
        keep.extend(reading.into_iter().find(|cap| have.contains(cap)));
    }
    reduce_to(&keep)?;
    // Fails only on kernels before 3.5.
    let _ = nix::sys::prctl::set_no_new_privs();
    Ok(keep)
}

/// Leaves this thread with these capabilities, and no way to get others.
fn reduce_to(keep: &HashSet<Capability>) -> Result<(), caps::errors::CapsError> {
    caps::set(None, CapSet::Effective, keep)?;
    caps::set(None, CapSet::Permitted, keep)?;
    caps::clear(None, CapSet::Inheritable)
}
