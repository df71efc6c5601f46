//! What may cross between kernel and daemon as bytes.
#![expect(
    unsafe_code,
    reason = "aya's marker for plain old data is an unsafe trait"
)]

use crate::{Close, Counters, Group, Offsets, Orphan, Parked, Slot};

// SAFETY: `repr(C)`, integers only, no padding: any bytes are a value, and no byte is undefined.
unsafe impl aya::Pod for Close {}
// SAFETY: as above.
unsafe impl aya::Pod for Counters {}
// SAFETY: as above.
unsafe impl aya::Pod for Group {}
// SAFETY: as above.
unsafe impl aya::Pod for Offsets {}
// SAFETY: as above.
unsafe impl aya::Pod for Orphan {}
// SAFETY: as above.
unsafe impl aya::Pod for Parked {}
// SAFETY: as above.
unsafe impl aya::Pod for Slot {}

const _: () = {
    assert!(size_of::<Close>() == 3 * 8 + 3 * 4 + 4 + 8);
    assert!(size_of::<Slot>() == 2 * 8 + size_of::<Close>());
    assert!(size_of::<Parked>() == size_of::<Close>() + size_of::<Group>());
    assert!(crate::MAX_CLOSES.is_power_of_two());
    assert!(size_of::<Group>() == 24);
    assert!(size_of::<Orphan>() == 2 * 8 + size_of::<Group>() + 6 * 4);
    assert!(size_of::<Offsets>().is_multiple_of(4));
};
