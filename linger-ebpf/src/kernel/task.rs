//! The current task, and its registers.

use core::ptr;

use aya_ebpf::{
    bindings::task_struct,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task_btf, bpf_get_task_stack, bpf_task_pt_regs},
    },
};
use linger_ebpf::{FRAMES, clear_after_end};

use super::memory::{BtfTyped, Memory as _, ProbeRead, constant, offset, read_pointer};

/// The current `struct task_struct`, a typed pointer in every kind of program.
pub(crate) struct Task(*mut task_struct);

const ENOSYS: i32 = 38;
const PF_EXITING: u32 = 0x4;
const PF_KTHREAD: u32 = 0x20_0000;

impl Task {
    pub(crate) fn current() -> Self {
        // SAFETY: has no preconditions.
        Self(unsafe { bpf_get_current_task_btf() })
    }

    /// Its id, in the initial namespace. Reading it costs less than `bpf_get_current_pid_tgid`.
    pub(crate) fn tid(&self) -> u32 {
        BtfTyped::read(self.0.cast(), offset!(tid))
    }

    /// Whether it is exiting (`PF_EXITING`): its closes never wait.
    pub(crate) fn is_exiting(&self) -> bool {
        BtfTyped::read::<u32>(self.0.cast(), offset!(task_flags)) & PF_EXITING != 0
    }

    /// Whether it is a kernel thread, owned by no process (`PF_KTHREAD`). `io_uring` workers belong to the
    /// process they work for.
    pub(crate) fn is_kernel_thread(&self) -> bool {
        BtfTyped::read::<u32>(self.0.cast(), offset!(task_flags)) & PF_KTHREAD != 0
    }

    /// The name of its process, zero-terminated bytes, in words: it is written with the width with which it
    /// is read later. Only zeros follow its end: it is compared as a whole.
    pub(crate) fn comm(&self) -> [u64; 2] {
        let leader = read_pointer(self.0.cast(), offset!(group_leader));
        let comm = [
            BtfTyped::read(leader, offset!(comm)),
            BtfTyped::read(leader, offset!(comm).plus::<8>()),
        ];
        if constant!(leaves_old_names).value() == 0 {
            comm
        } else {
            clear_after_end(comm)
        }
    }

    /// Its v2 cgroup (`struct cgroup`).
    pub(crate) fn cgroup(&self) -> *const u8 {
        let set: u64 = BtfTyped::read(self.0.cast(), offset!(task_cgroups));
        ProbeRead::read::<u64>(set as *const u8, offset!(dfl_cgroup)) as *const u8
    }

    /// Its executable (`struct file`), null if it has none or has released its memory.
    pub(crate) fn exe_file(&self) -> *const u8 {
        let mm = read_pointer(self.0.cast(), offset!(mm));
        if mm.is_null() {
            return ptr::null();
        }
        read_pointer(mm, offset!(exe_file))
    }

    /// Writes the return addresses of its user stack. Returns their length in bytes.
    pub(crate) fn user_stack(&self, stack: &mut [u64; FRAMES as usize]) -> u64 {
        const BPF_F_USER_STACK: u64 = 1 << 8;
        const LENGTH: u32 = FRAMES * 8;
        let to = stack.as_mut_ptr().cast();
        // SAFETY: the kernel writes no more than the length.
        let written = unsafe { bpf_get_task_stack(self.0.cast(), to, LENGTH, BPF_F_USER_STACK) };
        u64::try_from(written).unwrap_or(0)
    }

    /// When the first thread of its process began, nanoseconds since boot: unique together with the process id.
    pub(crate) fn process_start_time(&self) -> u64 {
        let leader = read_pointer(self.0.cast(), offset!(group_leader));
        BtfTyped::read(leader, offset!(start_time))
    }

    /// The registers with which it entered the kernel.
    pub(crate) fn registers(&self) -> Registers {
        // SAFETY: takes the current task.
        let registers = unsafe { bpf_task_pt_regs(self.0) };
        Registers::new(registers as *const u8)
    }
}

/// A `struct pt_regs` of a system call.
pub(crate) struct Registers(*const u8);

impl Registers {
    pub(crate) fn new(registers: *const u8) -> Self {
        Self(registers)
    }

    /// Number of the system call.
    pub(crate) fn syscall(&self) -> u32 {
        BtfTyped::read(self.0, offset!(syscall))
    }

    /// Whether the result of the system call is yet to be stored. During close(0) on arm64 it counts as stored, because
    /// it cannot be distinguished from the argument.
    ///
    /// kernel: v6.6.. `arch/x86/entry/entry_64.S`: ax is -ENOSYS until then
    /// kernel: v6.6.. arch/arm64/kernel/syscall.c: `orig_x0` is a copy of `regs[0]`, which the result replaces
    pub(crate) fn is_inside(&self) -> bool {
        let result: u32 = BtfTyped::read(self.0, offset!(syscall_result));
        if !offset!(syscall_argument).is_present() {
            return result.cast_signed() == -ENOSYS;
        }
        let argument: u32 = BtfTyped::read(self.0, offset!(syscall_argument));
        result == argument && argument != 0
    }
}

/// Id of the current process, in the initial namespace.
pub(crate) fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> u32::BITS) as u32
}

/// Id of the current thread, in the initial namespace.
pub(crate) fn current_tid() -> u32 {
    Task::current().tid()
}

/// Id of a `struct cgroup`.
pub(crate) fn cgroup_id(cgroup: *const u8) -> u64 {
    let kn: u64 = ProbeRead::read(cgroup, offset!(cgroup_kn));
    ProbeRead::read(kn as *const u8, offset!(kernfs_id))
}
