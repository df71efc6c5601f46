//! The group that a close, an RST or an orphan is counted for.
//!
//! Only the key fields in use are read. A kernel thread closes for others: then the group follows from the
//! cgroup of the socket, not from a process.

use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use linger_ebpf::{Close, Group, key_field, rule, verdict};

use super::{exe, maps};
use crate::kernel::{Memory, ProbeRead, Sock, Task, cgroup_id, constant, offset};

/// Whether a key field is in use, a [`key_field`] bit.
pub(crate) fn has_key_field(what: u32) -> bool {
    constant!(key_fields).value() & what != 0
}

/// Records the port and family of a connection that may be gone when its close is counted.
pub(crate) fn record_connection<M: Memory>(close: &mut Close, sk: &Sock<M>) {
    (close.port, close.family) = connection(sk, close.rules);
}

/// The port and family of a connection; 0 where neither a key field nor one of the `rules` needs them.
fn connection<M: Memory>(sk: &Sock<M>, rules: u8) -> (u16, u8) {
    let port = if has_key_field(key_field::PORT) || rules & rule::PORTS != 0 {
        sk.accepted_port()
    } else {
        0
    };
    let family = if has_key_field(key_field::FAMILY) {
        sk.family()
    } else {
        0
    };
    (port, family)
}

/// The group of a close on this thread. If a kernel thread closes, the socket must still exist.
pub(crate) fn of_close(close: &Close) -> Group {
    let sk = Sock::<ProbeRead>::new(close.sk as *const u8);
    let is_by_thread = true;
    let connection = (close.port, close.family);
    of(&sk, is_by_thread, connection, close.rules)
}

/// The group of an RST that no close sends: of this thread or, if an interrupt on it acts, of the socket's cgroup.
pub(crate) fn of_actor<M: Memory>(sk: &Sock<M>, is_by_thread: bool) -> Group {
    let rules = maps::rules();
    of(sk, is_by_thread, connection(sk, rules), rules)
}

/// The group of an action on a socket. `connection` is the port and family of the socket's connection.
fn of<M: Memory>(sk: &Sock<M>, is_by_thread: bool, connection: (u16, u8), rules: u8) -> Group {
    let task = Task::current();
    if !is_by_thread || task.is_kernel_thread() {
        return admit(of_socket(sk), [0; 2], connection, rules);
    }
    let mut group = Group::ZERO;
    let mut comm = [0; 2];
    if has_key_field(key_field::CGROUP) || rules & rule::CGROUPS != 0 {
        // SAFETY: has no preconditions.
        group.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    }
    if has_key_field(key_field::COMM) || rules & rule::COMMS != 0 {
        comm = task.comm();
    }
    if has_key_field(key_field::EXE) {
        (group.exe_inode, group.exe_device) = exe::of(&task);
    }
    admit(group, comm, connection, rules)
}

/// The group of the cgroup in which a socket was created; the retired group if that cgroup is gone.
fn of_socket<M: Memory>(sk: &Sock<M>) -> Group {
    /// `cgroup_subsys_state.flags` (include/linux/cgroup-defs.h).
    const CSS_ONLINE: u32 = 1 << 1;
    let cgroup = sk.cgroup();
    let flags: u32 = ProbeRead::read(cgroup, offset!(cgroup_flags));
    if flags & CSS_ONLINE == 0 && has_key_field(key_field::CGROUP) {
        return Group::RETIRED;
    }
    Group {
        cgroup_id: cgroup_id(cgroup),
        ..Group::ZERO
    }
}

/// Fills in the key fields in use; [`Group::OTHER`] if the `rules` leave the group out. `comm` is the name of the
/// process, read if a key field or a rule needs it.
fn admit(mut group: Group, comm: [u64; 2], (port, family): (u16, u8), rules: u8) -> Group {
    if rules != 0 && is_left_out(group.cgroup_id, comm[0], comm[1], port, rules) != 0 {
        return Group::OTHER;
    }
    if !has_key_field(key_field::CGROUP) && group.cgroup_id != Group::RETIRED.cgroup_id {
        group.cgroup_id = 0;
    }
    if has_key_field(key_field::COMM) {
        group.comm = comm;
    }
    if has_key_field(key_field::PORT) && port != 0 && maps::port(port).labelled {
        group.port = port;
    }
    group.family = family.into();
    group
}

/// Whether a group is left out. The process name is passed as two words: in memory, it would be written
/// even if nothing is left out.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_is_left_out")]
extern "C" fn is_left_out(cgroup_id: u64, name: u64, rest: u64, port: u16, rules: u8) -> u32 {
    is_refused(cgroup_id, [name, rest], port, rules).into()
}

/// [`is_left_out`] without the limits of a global function.
fn is_refused(cgroup_id: u64, comm: [u64; 2], port: u16, rules: u8) -> bool {
    if rules & rule::CGROUPS != 0 && maps::is_cgroup_left_out(cgroup_id) {
        return true;
    }
    if rules & rule::COMMS != 0 {
        let verdict = maps::comm_verdict(comm);
        let denied = rules & rule::COMMS_DENIED != 0 && verdict == verdict::DENIED;
        let missing = rules & rule::COMMS_ALLOWED != 0 && verdict != verdict::ALLOWED;
        if denied || missing {
            return true;
        }
    }
    if rules & rule::PORTS != 0 {
        let port = maps::port(port);
        let denied = rules & rule::PORTS_DENIED != 0 && port.denied;
        let missing = rules & rule::PORTS_ALLOWED != 0 && !port.allowed;
        if denied || missing {
            return true;
        }
    }
    false
}
