//! Where the kernel keeps what the programs read.

/// Where the running kernel keeps what the programs read: byte offsets from its BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `struct sock`: `skc_state`, u8.
    pub state: u32,
    /// `struct sock`: `skc_flags`, unsigned long (`sk_flags`).
    pub flags: u32,
    /// `struct sock`: `skc_dport`, be16.
    pub dport: u32,
    /// `struct sock`: `sk_shutdown`, u8.
    pub shutdown: u32,
    /// `struct sock`: `sk_lock.owned`, int.
    pub owned: u32,
    /// `struct sock`: `sk_err`, int.
    pub err: u32,
    /// `struct sock`: `sk_socket`, pointer.
    pub socket: u32,
    /// `struct sock`: the byte that holds the bit `sk_kern_sock`.
    pub of_kernel: u32,
    /// The bit in that byte.
    pub of_kernel_mask: u32,
    /// `struct sock`: `sk_receive_queue.qlen`, u32.
    pub receive_qlen: u32,
    /// `struct sock`: `sk_lingertime`, unsigned long, jiffies.
    pub lingertime: u32,
    /// `struct sock`: `sk_cgrp_data.cgroup`, pointer.
    pub cgroup: u32,
    /// `struct cgroup`: `kn`, pointer.
    pub cgroup_kn: u32,
    /// `struct kernfs_node`: `id`, u64.
    pub kernfs_id: u32,
    /// `struct tcp_sock`: `write_seq`, u32.
    pub write_seq: u32,
    /// `struct tcp_sock`: `snd_nxt`, u32.
    pub snd_nxt: u32,
    /// `struct tcp_sock`: `snd_una`, u32.
    pub snd_una: u32,
    /// `struct tcp_sock`: `rcv_nxt`, u32.
    pub rcv_nxt: u32,
    /// `struct tcp_sock`: `copied_seq`, u32.
    pub copied_seq: u32,
    /// `struct tcp_sock`: `packets_out`, u32.
    pub packets_out: u32,
    /// `struct tcp_sock`: `linger2`, int.
    pub linger2: u32,
    /// `struct tcp_sock`: the byte that holds the bit `repair`.
    pub repair: u32,
    /// The bit in that byte.
    pub repair_mask: u32,
    /// `struct tcp_sock`: `is_mptcp`, bool; [`Offsets::ABSENT`] where the kernel has no MPTCP.
    pub is_mptcp: u32,
    /// `struct sock`: `skc_net`, pointer (`sk_net`).
    pub net: u32,
    /// `struct net`: the count of those who use it, int; 0 when it is being removed.
    pub net_users: u32,
    /// `struct sk_buff`: `head`, pointer.
    pub skb_head: u32,
    /// `struct sk_buff`: `transport_header`, u16, from `head`.
    pub transport_header: u32,
    /// `struct task_struct`: `group_leader`, pointer.
    pub group_leader: u32,
    /// `struct task_struct`: `comm`, 16 bytes.
    pub comm: u32,
    /// `struct task_struct`: `flags`, unsigned int (`PF_EXITING`).
    pub task_flags: u32,
    /// `struct sock`: `skc_family`, u16.
    pub family: u32,
    /// `struct sock`: `skc_v6_daddr`, 16 bytes; [`Offsets::ABSENT`] in a kernel without IPv6.
    pub v6_daddr: u32,
    /// `struct inet_sock`: `inet_sport`, be16.
    pub sport: u32,
    /// `struct inet_sock`: `mc_index`, int.
    pub mc_index: u32,
    /// `struct inet_sock`: `pinet6`, pointer; absent as `v6_daddr`.
    pub pinet6: u32,
    /// `struct ipv6_pinfo`: `mcast_oif`, int; absent as `v6_daddr`.
    pub mcast_oif: u32,
    /// `struct cgroup`: `self.flags`, unsigned int (`CSS_ONLINE`).
    pub cgroup_flags: u32,
    /// `struct task_struct`: `cgroups`, pointer.
    pub task_cgroups: u32,
    /// `struct css_set`: `dfl_cgrp`, pointer.
    pub dfl_cgroup: u32,
    /// `struct kernfs_node`: `name`, pointer.
    pub kernfs_name: u32,
    /// `struct kernfs_node`: its parent, pointer.
    pub kernfs_parent: u32,
    /// `struct task_struct`: `start_time`, u64.
    pub start_time: u32,
    /// `struct task_struct`: `mm`, pointer.
    pub mm: u32,
    /// `struct mm_struct`: `exe_file`, pointer.
    pub exe_file: u32,
    /// `struct file`: `f_inode`, pointer.
    pub file_inode: u32,
    /// `struct file`: `f_path.dentry`, pointer.
    pub file_dentry: u32,
    /// `struct file`: `f_path.mnt`, pointer.
    pub file_mnt: u32,
    /// `struct inode`: `i_ino`, unsigned long.
    pub inode_number: u32,
    /// `struct inode`: `i_generation`, u32.
    pub inode_generation: u32,
    /// `struct inode`: `i_sb`, pointer.
    pub inode_sb: u32,
    /// `struct super_block`: `s_dev`, u32.
    pub sb_device: u32,
    /// `struct dentry`: `d_name.name`, pointer.
    pub dentry_name: u32,
    /// `struct dentry`: `d_parent`, pointer.
    pub dentry_parent: u32,
    /// `struct vfsmount`: `mnt_root`, pointer.
    pub mnt_root: u32,
    /// `struct mount`: `mnt`, the `struct vfsmount` in it.
    pub mount_mnt: u32,
    /// `struct mount`: `mnt_parent`, pointer.
    pub mount_parent: u32,
    /// `struct mount`: `mnt_mountpoint`, pointer.
    pub mountpoint: u32,
    /// `struct pt_regs`: the number of the system call, whose low half is read.
    pub syscall: u32,
    /// `struct pt_regs`: its result, -ENOSYS until it returns, whose low half is read.
    pub syscall_result: u32,
    /// `struct sock`: `skc_daddr`, be32.
    pub daddr: u32,
    /// `struct sock`: `skc_rcv_saddr`, be32.
    pub saddr: u32,
    /// `struct sock`: `skc_v6_rcv_saddr`, 16 bytes; absent as `v6_daddr`.
    pub v6_saddr: u32,
}

impl Offsets {
    /// The offset of a field that this kernel does not have.
    pub const ABSENT: u32 = u32::MAX;
    /// Nothing resolved yet.
    pub const ZERO: Self = Self {
        state: 0,
        flags: 0,
        dport: 0,
        shutdown: 0,
        owned: 0,
        err: 0,
        socket: 0,
        of_kernel: 0,
        of_kernel_mask: 0,
        receive_qlen: 0,
        lingertime: 0,
        cgroup: 0,
        cgroup_kn: 0,
        kernfs_id: 0,
        write_seq: 0,
        snd_nxt: 0,
        snd_una: 0,
        rcv_nxt: 0,
        copied_seq: 0,
        packets_out: 0,
        linger2: 0,
        repair: 0,
        repair_mask: 0,
        is_mptcp: 0,
        net: 0,
        net_users: 0,
        skb_head: 0,
        transport_header: 0,
        group_leader: 0,
        comm: 0,
        task_flags: 0,
        family: 0,
        v6_daddr: 0,
        sport: 0,
        mc_index: 0,
        pinet6: 0,
        mcast_oif: 0,
        cgroup_flags: 0,
        task_cgroups: 0,
        dfl_cgroup: 0,
        kernfs_name: 0,
        kernfs_parent: 0,
        start_time: 0,
        mm: 0,
        exe_file: 0,
        file_inode: 0,
        file_dentry: 0,
        file_mnt: 0,
        inode_number: 0,
        inode_generation: 0,
        inode_sb: 0,
        sb_device: 0,
        dentry_name: 0,
        dentry_parent: 0,
        mnt_root: 0,
        mount_mnt: 0,
        mount_parent: 0,
        mountpoint: 0,
        syscall: 0,
        syscall_result: 0,
        daddr: 0,
        saddr: 0,
        v6_saddr: 0,
    };
}
