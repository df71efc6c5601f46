//! What the daemon keeps in maps that no program reads: what the next daemon must know to go on with
//! the same counts.

use super::counts::Counters;
use super::group::Group;
use super::labels::Lost;

/// The layout of everything in the maps. A daemon goes on with the maps, and programs, of another only
/// if both have the same: raise it with every change of what an entry means, or where it is.
pub const LAYOUT: u64 = 9;

/// What the programs were loaded for: made with them, and never changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinMetadata {
    /// The [`LAYOUT`] of the daemon that loaded them; first in every version.
    pub layout: u64,
    /// The fingerprint of the object that they come from.
    pub object: u64,
    /// The version of the daemon that loaded them: bytes of its text, zeros behind them.
    pub version: [u8; 32],
    /// The index of their [`Plan`](crate::Plan) among all.
    pub plan: u32,
    /// What of a group they read, a set of [`keyed`](crate::keyed) bits.
    pub keyed: u32,
    /// How many groups have counters of their own.
    pub max_groups: u32,
    /// How many orphans have a record of their own.
    pub max_orphans: u32,
    /// 1 if they see when close(2) returns, whatever the plan.
    pub sees_returns: u32,
    /// How the kernel preempts, as the daemon numbers it: how often each is hooked.
    pub preemption: u32,
    /// 1 if it preempts programs of tracepoints as well.
    pub preempts_tracepoints: u32,
    /// 1 if the function that sets a socket's timer has its new name.
    pub new_timer: u32,
    /// How RSTs that answer a packet are seen, as the daemon numbers it.
    pub answers: u32,
    /// 1 if the release of every socket can be hooked.
    pub sees_releases: u32,
    /// The process id of the daemon that loaded them: with the next, it names what that defined in tracefs.
    pub pid: u32,
    /// The inode of the pid namespace in which that is its process id.
    pub pid_namespace: u32,
}

/// What the daemon has counted, and decided, itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// What those counted whose counters are gone, and that are shown like [`Group::SHARED`], in that
    /// order.
    pub counters: [Counters; Group::SHARED.len()],
    /// What was found lost, by [`Lost`].
    pub lost: [u64; Lost::COUNT],
    /// The group that was added last, whose counters may still be there.
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
