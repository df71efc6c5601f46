//! The executable of a process.
//!
//! An exiting process releases its memory, and with it the executable, before it closes its sockets: the
//! executable's identity is kept until then.

use aya_ebpf::bindings::BPF_NOEXIST;
use linger_ebpf::{Exe, ExitingProcess, PATH_NAMES, Path, Slot};

use super::{
    maps::{EXES, EXITING},
    path,
};
use crate::kernel::{BtfTyped, Memory, ProbeRead, Task, current_tgid, offset, read_pointer};

/// Inode and device of the current task's executable, also while it exits; zeros if unknown.
pub(crate) fn of(task: &Task) -> (u64, u32) {
    let file = task.exe_file();
    if file.is_null() {
        return of_exiting(task);
    }
    let inode = read_pointer(file, offset!(file_inode));
    identity::<BtfTyped>(inode, read_pointer(inode, offset!(inode_sb)))
}

/// Number of an inode, combined with its generation, and number of its device.
fn identity<M: Memory>(inode: *const u8, sb: *const u8) -> (u64, u32) {
    let number: u64 = M::read(inode, offset!(inode_number));
    let generation: u32 = M::read(inode, offset!(inode_generation));
    (
        number ^ u64::from(generation) << u32::BITS,
        M::read(sb, offset!(sb_device)),
    )
}

fn of_exiting(task: &Task) -> (u64, u32) {
    let tgid = current_tgid();
    let Some(kept) = EXITING.get(Slot::index(tgid)) else {
        return (0, 0);
    };
    if kept.tgid == tgid && kept.start_time == task.process_start_time() {
        (kept.exe_inode, kept.exe_device)
    } else {
        (0, 0)
    }
}

/// Records the executable of an exiting process that releases its memory (`struct mm_struct`) as the last user.
pub(crate) fn record_exiting(mm: *const u8) {
    let task = Task::current();
    // Not on execve(2).
    if !task.is_exiting() {
        return;
    }
    let file = ProbeRead::read::<u64>(mm, offset!(exe_file)) as *const u8;
    let inode = ProbeRead::read::<u64>(file, offset!(file_inode)) as *const u8;
    let sb = ProbeRead::read::<u64>(inode, offset!(inode_sb)) as *const u8;
    let (exe_inode, exe_device) = identity::<ProbeRead>(inode, sb);
    let tgid = current_tgid();
    let exiting = ExitingProcess {
        start_time: task.process_start_time(),
        exe_inode,
        exe_device,
        tgid,
    };
    if let Some(kept) = EXITING.get_ptr_mut(Slot::index(tgid)) {
        // SAFETY: a map value. Processes that share it may overwrite each other; then the executable is
        // unknown.
        unsafe { *kept = exiting };
    }
    let exe = Exe {
        inode: exe_inode,
        device: exe_device.into(),
    };
    record_path(&exe, file);
}

/// Records the path of the current task's executable under this identity, if that is not done yet.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_record_exe_path")]
pub(crate) extern "C" fn record_current_path(inode: u64, device: u64) -> u32 {
    record_path(&Exe { inode, device }, Task::current().exe_file());
    0
}

/// Records the path of a file (`struct file`), if that is not done yet.
fn record_path(exe: &Exe, file: *const u8) {
    if file.is_null() || exe.inode == 0 || EXES.get_ptr(exe).is_some() {
        return;
    }
    if EXES
        .insert(exe, &path::ZERO, u64::from(BPF_NOEXIST))
        .is_err()
    {
        return;
    }
    if let Some(path) = EXES.get_ptr_mut(exe) {
        // SAFETY: a map value, written only by its creator.
        write(unsafe { &mut *path }, file);
    }
}

/// Writes the names from the file up to the root of its mount namespace, as `d_path` does. A step from one
/// mount to the next leaves its place empty: with indices that depend on the data, the verifier would have
/// to follow many paths.
fn write(path: &mut Path, file: *const u8) {
    let mut dentry: u64 = ProbeRead::read(file, offset!(file_dentry));
    let mut vfsmount: u64 = ProbeRead::read(file, offset!(file_mnt));
    for place in 0..PATH_NAMES {
        let root: u64 = ProbeRead::read(vfsmount as *const u8, offset!(mnt_root));
        let parent: u64 = ProbeRead::read(dentry as *const u8, offset!(dentry_parent));
        if dentry == root {
            let mount = vfsmount.wrapping_sub(offset!(mount_mnt).value().into());
            let above: u64 = ProbeRead::read(mount as *const u8, offset!(mount_parent));
            if above == mount {
                return path::finish(path, Path::WHOLE);
            }
            dentry = ProbeRead::read(mount as *const u8, offset!(mountpoint));
            vfsmount = above.wrapping_add(offset!(mount_mnt).value().into());
            continue;
        }
        let name: u64 = ProbeRead::read(dentry as *const u8, offset!(dentry_name));
        if !path::add(path, place, name as *const u8) {
            break;
        }
        if dentry == parent {
            // On no mount: a file in memory, which has only a name.
            return path::finish(path, Path::WHOLE);
        }
        dentry = parent;
    }
    path::finish(path, Path::CUT);
}
