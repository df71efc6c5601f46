//! The group that a close, an RST or an orphan is counted for.
//!
//! Only the key fields in use are read. A kernel thread closes for others: then the group follows from the
//! cgroup of the socket, not from a process.

use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use linger_ebpf::{Close, Group, key_field, rule, verdict};

use super::{exe, maps, shared::opaque_zero};
use crate::kernel::{Memory, ProbeRead, Sock, Task, cgroup_id, constant, offset};

/// Whether a key field is in use, a [`key_field`] bit.
pub(crate) fn has_key_field(what: u32) -> bool {
    constant!(key_fields).value() & what != 0
}

/// Records the port and family of a connection that may be gone when its close is counted. They stay 0 where neither a
/// key field nor one of the rules needs them.
pub(crate) fn record_connection<M: Memory>(close: &mut Close, sk: &Sock<M>) {
    if needs_port(close.rules) {
        close.port = sk.accepted_port();
    }
    if has_key_field(key_field::FAMILY) {
        close.family = sk.family();
    }
}

/// The port and family of a connection, as [`record_connection`] records them.
fn connection<M: Memory>(sk: &Sock<M>, rules: u8) -> (u16, u8) {
    let port = if needs_port(rules) {
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

/// Whether a key field or one of the `rules` needs the port.
fn needs_port(rules: u8) -> bool {
    has_key_field(key_field::PORT) || rules & rule::PORTS != 0
}

/// The group of a close on this thread. If a kernel thread closes, the socket must still exist.
pub(crate) fn of_close(close: &Close) -> Group {
    let sk = Sock::<ProbeRead>::new(close.sk as *const u8);
    let is_by_thread = true;
    let connection = (close.port, close.family);
    of(&sk, is_by_thread, connection, close.rules)
}

/// The group of an RST that no close sends: of this thread or, if an interrupt on it acts, of the socket's cgroup.
pub(crate) fn of_actor(sk: &Sock<ProbeRead>, is_by_thread: bool) -> Group {
    let rules = maps::rules();
    of(sk, is_by_thread, connection(sk, rules), rules)
}

/// The group of an action on a socket; [`Group::OTHER`] if the `rules` leave it out. `connection` is the port and family
/// of the socket's connection.
///
/// Reads what the key fields in use need; [`is_left_out`] reads what the rules need. Reading both here would keep much of
/// it in memory.
fn of(sk: &Sock<ProbeRead>, is_by_thread: bool, (port, family): (u16, u8), rules: u8) -> Group {
    let task = Task::current();
    let is_by_thread = is_by_thread && !task.is_kernel_thread();
    if rules != 0 && is_left_out(sk.address(), is_by_thread.into(), port, rules) != 0 {
        return Group::OTHER;
    }
    let mut group = if is_by_thread {
        of_thread(&task)
    } else {
        of_socket(sk)
    };
    if has_key_field(key_field::PORT) && port != 0 && maps::port(port).labelled {
        group.port = port;
    }
    group.family = family.into();
    group
}

/// The group of a thread, without the fields of a connection.
fn of_thread(task: &Task) -> Group {
    let mut group = zero();
    if has_key_field(key_field::CGROUP) {
        // SAFETY: has no preconditions.
        group.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    }
    if has_key_field(key_field::COMM) {
        group.comm = task.comm();
    }
    if has_key_field(key_field::EXE) {
        (group.exe_inode, group.exe_device) = exe::of(task);
    }
    group
}

/// [`Group::ZERO`], whose zeros the compiler does not see.
#[expect(clippy::cast_possible_truncation, reason = "zero")]
fn zero() -> Group {
    let zero = opaque_zero();
    Group {
        cgroup_id: zero,
        comm: [zero; 2],
        exe_inode: zero,
        exe_device: zero as u32,
        ..Group::ZERO
    }
}

/// The group of the cgroup in which a socket was created, without the fields of a connection; the retired group if that
/// cgroup is gone.
fn of_socket(sk: &Sock<ProbeRead>) -> Group {
    let mut group = zero();
    if has_key_field(key_field::CGROUP) {
        group.cgroup_id = cgroup_of_socket(sk);
    }
    group
}

/// The id of the cgroup in which a socket was created; that of the retired group if the cgroup is gone and cgroups
/// distinguish groups.
fn cgroup_of_socket(sk: &Sock<ProbeRead>) -> u64 {
    /// `cgroup_subsys_state.flags` (include/linux/cgroup-defs.h).
    const CSS_ONLINE: u32 = 1 << 1;
    let cgroup = sk.cgroup();
    let flags: u32 = ProbeRead::read(cgroup, offset!(cgroup_flags));
    if flags & CSS_ONLINE == 0 && has_key_field(key_field::CGROUP) {
        return Group::RETIRED.cgroup_id;
    }
    cgroup_id(cgroup)
}

/// Whether the rules leave out an action: one of this thread if `is_by_thread` is not 0, else one on the socket at this
/// address.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_is_left_out")]
extern "C" fn is_left_out(sk: u64, is_by_thread: u32, port: u16, rules: u8) -> u32 {
    let is_by_thread = is_by_thread != 0;
    let mut cgroup_id = 0;
    let mut comm = [opaque_zero(); 2];
    if rules & rule::CGROUPS != 0 {
        cgroup_id = if is_by_thread {
            // SAFETY: has no preconditions.
            unsafe { bpf_get_current_cgroup_id() }
        } else {
            cgroup_of_socket(&Sock::new(sk as *const u8))
        };
    }
    if is_by_thread && rules & rule::COMMS != 0 {
        comm = Task::current().comm();
    }
    is_refused(cgroup_id, comm, port, rules).into()
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
