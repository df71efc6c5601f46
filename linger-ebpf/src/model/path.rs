//! Paths of cgroups and files, recorded when first seen: later they may be gone.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_probe_read_kernel_str};
use linger_ebpf::{PATH_NAMES, Path};

use super::maps::CGROUPS;
use crate::kernel::{Memory, ProbeRead, Task, cgroup_id, offset};

/// The initial value of a path, too large for the stack.
pub(crate) static ZERO: Path = Path::ZERO;

/// Records the path of this cgroup, if the current task is in it and the path is not recorded yet.
///
/// A [global function](super): the verifier checks it once instead of at each call.
#[inline(never)]
#[unsafe(export_name = "linger_record_cgroup_path")]
pub(crate) extern "C" fn record_cgroup_path(id: u64) -> u32 {
    let cgroup = Task::current().cgroup();
    if cgroup_id(cgroup) != id
        || CGROUPS.get_ptr(id).is_some()
        || CGROUPS.insert(id, &ZERO, u64::from(BPF_NOEXIST)).is_err()
    {
        return 0;
    }
    if let Some(path) = CGROUPS.get_ptr_mut(id) {
        // SAFETY: a map value, written only by its creator.
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

/// Writes a name at its index. Returns whether it fits.
pub(crate) fn add(path: &mut Path, place: usize, name: *const u8) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "a hundred or so")]
    const SIZE: u32 = Path::NAME as u32;
    // SAFETY: a local; volatile so that the verifier sees the check.
    let place = unsafe { core::ptr::read_volatile(&raw const place) };
    if place >= PATH_NAMES {
        return false;
    }
    // SAFETY: the destination is within the value and has the given size; the helper checks the address
    // it reads from.
    let length = unsafe {
        let to = (&raw mut path.names).cast::<[u8; Path::NAME]>().add(place);
        bpf_probe_read_kernel_str(to.cast(), SIZE, name.cast())
    };
    // A name that fills the place may have been longer.
    0 < length && length < i64::from(SIZE)
}

/// Marks the path as finished.
pub(crate) fn finish(path: &mut Path, state: u64) {
    // SAFETY: a field of a map value; volatile so that it is written last.
    unsafe { core::ptr::write_volatile(&raw mut path.state, state) };
}
