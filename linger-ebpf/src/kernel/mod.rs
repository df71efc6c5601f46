//! The kernel's state, as far as the programs read it.

mod clock;
mod memory;
mod sock;
mod task;

pub(crate) use clock::{elapsed_ns, now_ns, ticks};
pub(crate) use memory::{BtfTyped, Constant, Memory, ProbeRead, constant, offset, read_pointer};
pub(crate) use sock::{Flags, IPPROTO_TCP, SOCK_STREAM, Segment, Sock, Tcp, narrow, state};
pub(crate) use task::{Registers, Task, cgroup_id, current_tgid, current_tid};
