//! Paths of cgroups and files, written down when they are first met: later they may be gone.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_probe_read_kernel_str};
use linger_ebpf::{PATH_NAMES, Path};

use super::maps::CGROUPS;
use crate::kernel::{Memory, ProbeRead, Task, cgroup_id, offset};

/// What a new path starts from; too large for the stack.
pub(crate) static ZERO: Path = Path::ZERO;

/// Writes down the path of this cgroup, if the current task is in it and that is not done yet.
///
/// Not static, and of numbers: so the verifier goes through it once, and not for each of its calls.
#[inline(never)]
#[unsafe(export_name = "linger_learn_cgroup")]
pub(crate) extern "C" fn learn_cgroup(id: u64) -> u32 {
    let cgroup = Task::current().cgroup();
    if cgroup_id(cgroup) != id
        || CGROUPS.get_ptr(id).is_some()
        || CGROUPS.insert(id, &ZERO, u64::from(BPF_NOEXIST)).is_err()
    {
        return 0;
    }
    if let Some(path) = CGROUPS.get_ptr_mut(id) {
        // SAFETY: a map value, which only who made it writes to.
        write_cgroup(unsafe { &mut *path }, cgroup);
    }
    0
}

/// Writes the names from a cgroup up to the root of the hierarchy (`kernfs_path`).
fn write_cgroup(path: &mut Path, cgroup: *const u8) {
    let mut node: u64 = ProbeRead::read(cgroup, offset!(cgroup_kn));
    for place in 0..PATH_NAMES {
        let parent: u64 = ProbeRead::read(node as *const u8, offset!(kernfs_parent));
        if parent == 0 {
            return finish(path, Path::WHOLE);
        }
        let name: u64 = ProbeRead::read(node as *const u8, offset!(kernfs_name));
        if !add(path, place, name as *const u8) {
            break;
        }
        node = parent;
    }
    finish(path, Path::CUT);
}

/// Writes a name in its place; whether it fits.
pub(crate) fn add(path: &mut Path, place: usize, name: *const u8) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "a hundred or so")]
    const SIZE: u32 = Path::NAME as u32;
    // SAFETY: a local; volatile so that the check is made where the verifier sees it.
    let place = unsafe { core::ptr::read_volatile(&raw const place) };
    if place >= PATH_NAMES {
        return false;
    }
    // SAFETY: the place is within the value, as large as the helper is told, and the helper checks
    // the address it reads from.
    let length = unsafe {
        let to = (&raw mut path.names).cast::<[u8; Path::NAME]>().add(place);
        bpf_probe_read_kernel_str(to.cast(), SIZE, name.cast())
    };
    // One that fills the place may have been longer.
    0 < length && length < i64::from(SIZE)
}

/// Says that nothing more is to come.
pub(crate) fn finish(path: &mut Path, state: u64) {
    // SAFETY: a field of a map value; volatile so that it is written last.
    unsafe { core::ptr::write_volatile(&raw mut path.state, state) };
}
