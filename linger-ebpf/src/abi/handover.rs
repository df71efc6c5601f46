//! State that the daemon keeps in maps for its successor, which continues the counts. No program reads it.

use super::counts::Counters;
use super::group::Group;
use super::labels::Lost;

/// Version of the layout of all maps. A daemon takes over the maps and programs of another only if both have
/// the same: raise it with every change of the meaning or position of an entry.
pub const LAYOUT: u64 = 19;

/// Metadata of the programs, written when they are loaded. Never changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinMetadata {
    /// The [`LAYOUT`] of the daemon that loaded them; the first field in every version.
    pub layout: u64,
    /// Fingerprint of their object file.
    pub object: u64,
    /// Version of the daemon that loaded them: text, padded with zeros.
    pub version: [u8; 32],
    /// Index of their [`Plan`](crate::Plan).
    pub plan: u32,
    /// Key fields in use, a set of [`key_field`](crate::key_field) bits.
    pub key_fields: u32,
    /// Maximum number of groups with counters of their own.
    pub max_groups: u32,
    /// Maximum number of orphans that are followed.
    pub max_orphans: u32,
    /// 1 if this kernel lets the plan `tracepoint` see the return of close(2), whatever the plan in use.
    pub sees_returns: u32,
    /// How the kernel preempts, as numbered by the daemon: it decides how often each event is hooked.
    pub preemption: u32,
    /// 1 if the kernel preempts tracepoint programs too.
    pub preempts_tracepoints: u32,
    /// 1 if the function that sets a socket's timer has its new name (v6.18).
    pub new_timer: u32,
    /// How RSTs that answer a packet are seen, as numbered by the daemon.
    pub answers: u32,
    /// 1 if the release of every socket can be hooked.
    pub sees_releases: u32,
    /// Process id of the daemon that loaded them: with `pid_namespace` and `started`, part of the names of its probes
    /// in tracefs.
    pub pid: u32,
    /// Inode of the pid namespace of that process id.
    pub pid_namespace: u32,
    /// When that process started, in clock ticks since boot.
    pub started: u64,
}

/// Counts and decisions of the daemon itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Counters of retired groups, added to those of [`Group::SHARED`], in that order.
    pub counters: [Counters; Group::SHARED.len()],
    /// Losses found by the daemon, by [`Lost`].
    pub lost: [u64; Lost::COUNT],
    /// The group that was added last, whose own counters may not be removed yet.
    pub last: Group,
}

impl Past {
    /// Nothing has happened.
    pub const ZERO: Self = Self {
        counters: [Counters::ZERO; Group::SHARED.len()],
        lost: [0; Lost::COUNT],
        last: Group::ZERO,
    };
}
