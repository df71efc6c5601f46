//! Every metric that this daemon defines.

use super::family::Family;
use super::{daemon, groups};

/// In the order of their names, in which an exposition has them.
pub(super) static FAMILIES: &[&Family] = &[
    &daemon::BUILD,
    &groups::BLOCKED,
    &groups::CLOSES,
    &groups::DISCARDED,
    &daemon::LOST_ORPHAN_BYTES,
    &daemon::LOST,
    &daemon::CAPACITY,
    &daemon::ENTRIES,
    &groups::DELIVERED_BYTES,
    &groups::ORPHAN_DURATION,
    &groups::ORPHANED_BYTES,
    &groups::ORPHANS_ACTIVE,
    &groups::ORPHANS_TOTAL,
    &daemon::ATTACHED,
    &daemon::PROBE,
    &daemon::SKIPPED,
    &groups::RESETS,
    &daemon::SCRAPE,
    &groups::UNREAD,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_in_order() {
        assert!(FAMILIES.is_sorted_by(|one, next| one.name < next.name));
    }
}
