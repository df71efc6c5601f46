//! The ABI of the kernel side and the daemon: keys and values of the maps, labels, bounds.
//!
//! Begin with `labels` (outcomes, causes, fates), `counts` (the counters of a group) and `records` (a close in flight,
//! an orphan). [`LAYOUT`] is the version of it all.

/// Makes a fieldless enum whose discriminants index an array, with the label value of each.
macro_rules! labels {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $label:literal,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every value, in the order of its index.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// Number of values: the length of an array indexed by this enum.
            pub const COUNT: usize = Self::ALL.len();

            /// The value of the metrics' label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The index of this value in arrays.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub mod constants;
mod counts;
mod event;
mod group;
mod handover;
mod labels;
mod offsets;
#[cfg(not(target_arch = "bpf"))]
pub mod pod;
mod records;

pub use constants::Constants;
pub use counts::{
    BLOCKED_BOUNDS_NS, BUCKETS, Counters, LIVED_BOUNDS_NS, Note, Orphans, QueueBytes, TimeHistogram,
};
pub use event::{
    COSTLY_NS, DAEMON, Event, FRAMES, Filter, MAX_WATCHED, WATCHERS, Watch, delivery, event_kind,
    filter_flag,
};
pub use group::{
    Exe, GROUP_ROWS, GROUP_SLOTS, Group, GroupSlot, PATH_NAMES, Path, PortBits, SHARED_GROUPS,
    Settings, clear_after_end, key_field, rule, verdict,
};
pub use handover::{LAYOUT, Past, PinMetadata};
pub use labels::{
    Cause, Fate, Lost, Outcome, PROGRAM_COUNT, PROGRAMS, Plan, WAITED, program_index,
};
pub use offsets::Offsets;
#[cfg(not(target_arch = "bpf"))]
pub use offsets::{Field, Shape};
pub use records::{
    ANSWER_NS, CLOSER_PLACES, Close, Closer, ExitingProcess, ORPHAN_SLOT_ENTRIES, ORPHAN_SLOTS,
    Orphan, OrphanSlot, ParkedClose, Slot, UNDECIDED, UNDECIDED_PLACES, UndecidedOrphan, Waits,
    flag, orphan_stage, reset_cause, stage,
};

/// Default number of groups with counters of their own.
pub const MAX_GROUPS: u32 = 4096;

/// Maximum number of cgroups that are left out.
pub const MAX_LEFT_OUT: u32 = 16_384;

/// Maximum number of process names that are allowed or denied.
pub const MAX_COMMS: u32 = 1024;

/// Minimum number of threads that can be inside close at the same time; a power of two, as [`Slot::index`]
/// requires.
pub const MAX_CLOSES: u32 = 16_384;

/// Default number of orphans that are followed.
pub const MAX_ORPHANS: u32 = 65_536;

/// Number of [hints](hint); a power of two.
pub const HINTS: u32 = 16_384;

/// The hint of a socket's address: the index of a counter of the records under all addresses with that hint. If it is
/// 0, as it nearly always is, no map needs to be searched. The hint follows from the lower half of the address, which
/// the verifier lets programs copy from a typed pointer as a number.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "see above")]
pub const fn hint(sk: u64) -> u32 {
    // Fibonacci hashing, as in `Slot::index`.
    (sk as u32).wrapping_mul(0x9e37_79b1) >> (u32::BITS - HINTS.ilog2())
}
