//! What may cross between kernel and daemon as bytes.
#![expect(
    unsafe_code,
    reason = "aya's marker for plain old data is an unsafe trait"
)]

use crate::{Close, Counters, Group, Offsets};

// SAFETY: `repr(C)`, integers only, no padding: any bytes are a value, and no byte is undefined.
unsafe impl aya::Pod for Close {}
// SAFETY: as above.
unsafe impl aya::Pod for Counters {}
// SAFETY: as above.
unsafe impl aya::Pod for Group {}
// SAFETY: as above.
unsafe impl aya::Pod for Offsets {}

const _: () = {
    assert!(size_of::<Close>() == 3 * 8 + 3 * 4 + 4 + size_of::<Group>());
    assert!(size_of::<Group>() == 24);
    assert!(size_of::<Offsets>().is_multiple_of(4));
};
