//! Offsets of the kernel's fields that the programs read: one table for the programs, which use it, and for
//! the daemon, which fills it from the kernel's BTF.

#[cfg(not(target_arch = "bpf"))]
use super::group::key_field;

/// The required form of a field.
#[cfg(not(target_arch = "bpf"))]
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// This many bytes.
    Bytes(usize),
    /// At least this many bytes, of which the first are read.
    Array(usize),
    /// One bit.
    Bit,
    /// This many bytes; the field may be missing.
    Optional(usize),
    /// At least this many bytes, of which the first are read; not looked up on an architecture whose system calls are
    /// not recognized.
    Register(usize),
}

/// One row of the table.
#[cfg(not(target_arch = "bpf"))]
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The struct.
    pub name: &'static str,
    /// Path of the field in it; alternatives for different kernels are separated by `|`.
    pub path: &'static str,
    /// Its required form.
    pub shape: Shape,
    /// The [`key_field`] bit that needs it; 0 if it is always needed.
    pub key_fields: u32,
    /// Sets its offset.
    pub set: fn(&mut Offsets, u32),
    /// Sets its mask, for a bit.
    pub set_mask: fn(&mut Offsets, u32),
}

/// Makes [`Offsets`] and [`Field::ALL`] from a table.
macro_rules! offsets {
    ($(
        $(#[$meta:meta])*
        $field:ident $(/ $mask:ident)? = $name:literal, $path:literal, $shape:expr $(, for $key:ident)?;
    )+) => {
        /// Byte offsets in the running kernel of all fields that the programs read, from its BTF.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Offsets {
            $(
                #[doc = concat!("In `struct ", $name, "`: `", $path, "`.")]
                #[doc = ""]
                $(#[$meta])*
                pub $field: u32,
                $(
                    #[doc = concat!("The bit of `", $path, "` in that byte.")]
                    pub $mask: u32,
                )?
            )+
        }

        impl Offsets {
            /// The offset of a field that this kernel does not have.
            pub const ABSENT: u32 = u32::MAX;
            /// Nothing resolved yet.
            pub const ZERO: Self = Self { $($field: 0, $($mask: 0,)?)+ };

            /// All of them, in their order.
            #[cfg(not(target_arch = "bpf"))]
            #[must_use]
            pub const fn words(&self) -> [u32; size_of::<Self>() / size_of::<u32>()] {
                [$(self.$field, $(self.$mask,)?)+]
            }
        }

        #[cfg(not(target_arch = "bpf"))]
        impl Field {
            /// Every field that the programs read.
            pub const ALL: &[Self] = &[$(
                Self {
                    name: $name,
                    path: $path,
                    shape: $shape,
                    key_fields: 0 $(| key_field::$key)?,
                    set: |offsets, at| offsets.$field = at,
                    set_mask: offsets!(@mask $($mask)?),
                },
            )+];
        }
    };
    (@mask) => { |_, _| {} };
    (@mask $mask:ident) => { |offsets, mask| offsets.$mask = mask };
}

offsets! {
    state = "sock", "__sk_common.skc_state", Shape::Bytes(1);
    /// `sk_flags`.
    flags = "sock", "__sk_common.skc_flags", Shape::Bytes(8);
    /// Big-endian.
    dport = "sock", "__sk_common.skc_dport", Shape::Bytes(2);
    /// The local port, also of a `TIME_WAIT` socket.
    num = "sock", "__sk_common.skc_num", Shape::Bytes(2);
    shutdown = "sock", "sk_shutdown", Shape::Bytes(1);
    owned = "sock", "sk_lock.owned", Shape::Bytes(4);
    backlog_len = "sock", "sk_backlog.len", Shape::Bytes(4);
    err = "sock", "sk_err", Shape::Bytes(4);
    socket = "sock", "sk_socket", Shape::Bytes(8);
    kern_sock / kern_sock_mask = "sock", "sk_kern_sock", Shape::Bit;
    receive_qlen = "sock", "sk_receive_queue.qlen", Shape::Bytes(4);
    /// Jiffies.
    lingertime = "sock", "sk_lingertime", Shape::Bytes(8);
    cgroup = "sock", "sk_cgrp_data.cgroup", Shape::Bytes(8);
    cgroup_kn = "cgroup", "kn", Shape::Bytes(8);
    kernfs_id = "kernfs_node", "id", Shape::Bytes(8);
    write_seq = "tcp_sock", "write_seq", Shape::Bytes(4);
    snd_nxt = "tcp_sock", "snd_nxt", Shape::Bytes(4);
    snd_una = "tcp_sock", "snd_una", Shape::Bytes(4);
    rcv_nxt = "tcp_sock", "rcv_nxt", Shape::Bytes(4);
    copied_seq = "tcp_sock", "copied_seq", Shape::Bytes(4);
    packets_out = "tcp_sock", "packets_out", Shape::Bytes(4);
    /// Which timer is set for retransmissions or window probes; 0 while it is handled.
    timer_pending = "tcp_sock", "inet_conn.icsk_pending", Shape::Bytes(1);
    linger2 = "tcp_sock", "linger2", Shape::Bytes(4);
    repair / repair_mask = "tcp_sock", "repair", Shape::Bit;
    /// Absent where the kernel has no MPTCP.
    is_mptcp = "tcp_sock", "is_mptcp", Shape::Optional(1);
    /// `sk_net`.
    net = "sock", "__sk_common.skc_net.net", Shape::Bytes(8);
    // Renamed in v6.18.
    /// 0 when it is being removed.
    net_users = "net", "ns.count|ns.__ns_ref", Shape::Bytes(4);
    /// A `struct tcp_skb_cb`.
    skb_cb = "sk_buff", "cb", Shape::Array(8);
    skb_dst = "sk_buff", "_skb_refdst", Shape::Bytes(8);
    cb_seq = "tcp_skb_cb", "seq", Shape::Bytes(4);
    cb_end_seq = "tcp_skb_cb", "end_seq", Shape::Bytes(4);
    /// Flags of the TCP header, in the lowest byte.
    cb_flags = "tcp_skb_cb", "tcp_flags", Shape::Array(1);
    /// Absent in a kernel without the struct, like all optional fields.
    rt_type = "rtable", "rt_type", Shape::Optional(2);
    rt6i_flags = "rt6_info", "rt6i_flags", Shape::Optional(4);
    /// The thread's id in the initial namespace.
    tid = "task_struct", "pid", Shape::Bytes(4);
    group_leader = "task_struct", "group_leader", Shape::Bytes(8);
    comm = "task_struct", "comm", Shape::Array(16);
    /// `PF_EXITING`, `PF_KTHREAD`.
    task_flags = "task_struct", "flags", Shape::Bytes(4);
    family = "sock", "__sk_common.skc_family", Shape::Bytes(2);
    /// Absent in a kernel without IPv6, like `pinet6`, `mcast_oif` and `v6_saddr`.
    v6_daddr = "sock", "__sk_common.skc_v6_daddr", Shape::Optional(16);
    /// Big-endian.
    sport = "inet_sock", "inet_sport", Shape::Bytes(2);
    mc_index = "inet_sock", "mc_index", Shape::Bytes(4);
    pinet6 = "inet_sock", "pinet6", Shape::Optional(8);
    mcast_oif = "ipv6_pinfo", "mcast_oif", Shape::Optional(4);
    /// `CSS_ONLINE`.
    cgroup_flags = "cgroup", "self.flags", Shape::Bytes(4);
    task_cgroups = "task_struct", "cgroups", Shape::Bytes(8);
    dfl_cgroup = "css_set", "dfl_cgrp", Shape::Bytes(8);
    kernfs_name = "kernfs_node", "name", Shape::Bytes(8);
    // Renamed in v6.15.
    kernfs_parent = "kernfs_node", "parent|__parent", Shape::Bytes(8);
    start_time = "task_struct", "start_time", Shape::Bytes(8), for EXE;
    mm = "task_struct", "mm", Shape::Bytes(8), for EXE;
    exe_file = "mm_struct", "exe_file", Shape::Bytes(8), for EXE;
    file_inode = "file", "f_inode", Shape::Bytes(8), for EXE;
    file_dentry = "file", "f_path.dentry", Shape::Bytes(8), for EXE;
    file_mnt = "file", "f_path.mnt", Shape::Bytes(8), for EXE;
    inode_number = "inode", "i_ino", Shape::Bytes(8), for EXE;
    inode_generation = "inode", "i_generation", Shape::Bytes(4), for EXE;
    inode_sb = "inode", "i_sb", Shape::Bytes(8), for EXE;
    sb_device = "super_block", "s_dev", Shape::Bytes(4), for EXE;
    // Read-only under its old name since v6.17.
    dentry_name = "dentry", "d_name.name|__d_name.name", Shape::Bytes(8), for EXE;
    dentry_parent = "dentry", "d_parent", Shape::Bytes(8), for EXE;
    mnt_root = "vfsmount", "mnt_root", Shape::Bytes(8), for EXE;
    mount_mnt = "mount", "mnt", Shape::Array(8), for EXE;
    mount_parent = "mount", "mnt_parent", Shape::Bytes(8), for EXE;
    mountpoint = "mount", "mnt_mountpoint", Shape::Bytes(8), for EXE;
    /// The number of the system call.
    syscall = "pt_regs", "orig_ax|syscallno", Shape::Register(4);
    /// Until it returns, -ENOSYS on x86-64 and its first argument on arm64.
    syscall_result = "pt_regs", "ax|regs", Shape::Register(4);
    /// The first argument of the system call, where the register of the result has it too.
    syscall_argument = "pt_regs", "orig_x0", Shape::Optional(8);
    /// Big-endian.
    daddr = "sock", "__sk_common.skc_daddr", Shape::Bytes(4);
    /// Big-endian.
    saddr = "sock", "__sk_common.skc_rcv_saddr", Shape::Bytes(4);
    v6_saddr = "sock", "__sk_common.skc_v6_rcv_saddr", Shape::Optional(16);
}
