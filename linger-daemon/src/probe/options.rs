//! Options for loading the programs.

use flate2::Crc;
use linger_ebpf::{
    GROUP_SLOTS, LAYOUT, MAX_GROUPS, MAX_ORPHANS, OBJECT, ORPHAN_SLOT_ENTRIES, ORPHAN_SLOTS,
    PinMetadata, Plan, SHARED_GROUPS,
};

use super::owner::Owner;
use super::traits::KernelTraits;
use crate::attribution::Dimension;
use crate::version::VERSION;

/// Options with which the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Key fields in use, a set of [`linger_ebpf::key_field`] bits.
    pub key_fields: u32,
    /// Maximum number of groups with counters of their own.
    pub max_groups: u32,
    /// Maximum number of orphans that are followed.
    pub max_orphans: u32,
}

impl LoadOptions {
    /// The number of rows of counters, with those of the shared groups, and of entries of the map of groups whose slot is
    /// taken.
    pub(super) fn group_entries(self) -> (u32, u32) {
        entries(self.max_groups, GROUP_SLOTS, SHARED_GROUPS)
    }

    /// The number of entries of the array of slots for orphans, and of the map of those whose slot is taken.
    pub(super) fn orphan_entries(self) -> (u32, u32) {
        entries(
            self.max_orphans,
            ORPHAN_SLOTS,
            ORPHAN_SLOT_ENTRIES - ORPHAN_SLOTS,
        )
    }

    /// The metadata to pin with programs that outlive this daemon.
    pub(super) fn metadata(self, plan: Plan, traits: KernelTraits) -> PinMetadata {
        let mut version = [0; 32];
        for (to, from) in version.iter_mut().zip(VERSION.bytes()) {
            *to = from;
        }
        let owner = Owner::here();
        PinMetadata {
            layout: LAYOUT,
            object: fingerprint(),
            version,
            plan: plan as u32,
            key_fields: self.key_fields,
            max_groups: self.max_groups,
            max_orphans: self.max_orphans,
            sees_returns: traits.sees_returns.into(),
            preemption: traits.preemption as u32,
            preempts_tracepoints: traits.preempts_tracepoints.into(),
            new_timer: traits.new_timer.into(),
            answers: traits.answers as u32,
            sees_releases: traits.sees_releases.into(),
            pid: owner.pid,
            pid_namespace: owner.namespace,
            started: owner.started,
        }
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            key_fields: Dimension::key_fields(Dimension::DEFAULT),
            max_groups: MAX_GROUPS,
            max_orphans: MAX_ORPHANS,
        }
    }
}

/// The number of entries of an array of slots, behind the `reserved` ones, and of the map of those whose slot is taken, for
/// `max` in all. There are no slots unless so many fit that all slots would be taken before the map is full.
fn entries(max: u32, slots: u32, reserved: u32) -> (u32, u32) {
    const ENTRIES_PER_SLOT: u32 = 16;
    if max < ENTRIES_PER_SLOT * slots {
        (reserved, max)
    } else {
        (reserved + slots, max - slots)
    }
}

/// A checksum of the object, which identifies the programs of a build.
pub(super) fn fingerprint() -> u64 {
    let mut crc = Crc::new();
    crc.update(OBJECT);
    crc.sum().into()
}
