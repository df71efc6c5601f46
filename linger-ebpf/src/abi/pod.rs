//! Types that may cross between kernel and daemon as bytes.
#![expect(
    unsafe_code,
    reason = "aya's marker for plain old data is an unsafe trait"
)]

use core::slice;

use super::counts::{BUCKETS, Counters, Note, Orphans, QueueBytes, TimeHistogram};
use super::event::{Event, FRAMES, Filter, WATCHERS, Watch};
use super::group::{Exe, Group, GroupSlot, Path, PortBits, Settings};
use super::handover::{Past, PinMetadata};
use super::labels::{Cause, Fate, Lost, Outcome};
use super::records::{
    Close, Closer, ExitingProcess, Orphan, OrphanSlot, ParkedClose, Slot, UndecidedOrphan, Waits,
};

/// Implements `Pod` for `repr(C)` types made of integers without padding, and checks their sizes.
macro_rules! pod {
    ($($name:ident = $size:expr;)+) => {
        // SAFETY: `repr(C)`, integers only, no padding: any bytes are a value, and no byte is
        // undefined.
        $(unsafe impl aya::Pod for $name {})+

        const _: () = {
            $(assert!(size_of::<$name>() == $size);)+
        };
    };
}

pod! {
    Group = 8 + 2 * 8 + 8 + 4 + 2 + 2;
    GroupSlot = 8 + size_of::<Group>();
    QueueBytes = 2 * 8;
    Close = 3 * 8 + 4 * 4 + 4 + 2 * 2;
    Slot = 2 * 8 + size_of::<Close>();
    ParkedClose = size_of::<Close>() + size_of::<Group>();
    Orphan = 3 * 8 + size_of::<Group>() + 6 * 4;
    OrphanSlot = 8 + size_of::<Orphan>();
    Waits = 2 * 8;
    UndecidedOrphan = 2 * 8 + size_of::<Orphan>();
    ExitingProcess = 2 * 8 + 2 * 4;
    Settings = 1;
    PortBits = 3 * 8;
    Exe = 2 * 8;
    Path = 8 + 16 * 128;
    TimeHistogram = (1 + BUCKETS) * 8;
    Orphans = Fate::COUNT * 3 * 8 + size_of::<TimeHistogram>() + 3 * 8;
    Closer = 8;
    Counters = (Outcome::COUNT + 2 * Outcome::DISCARD_INDICES) * 8 + 2 * size_of::<TimeHistogram>()
        + Cause::COUNT * 8 + 8 + size_of::<Orphans>() + 8;
    Note = 8 + size_of::<Counters>() + size_of::<Group>();
    Past = Group::SHARED.len() * size_of::<Counters>() + Lost::COUNT * 8 + size_of::<Group>();
    PinMetadata = 2 * 8 + 32 + 12 * 4 + 8;
    Watch = 2 * 8 + 2 * WATCHERS as usize * 8;
    Filter = 5 * 8 + 4 * 4;
    Event = 9 * 8 + 2 * 4 * 4 + 8 * 4 + 2 * 2 + 4 + 8 + FRAMES as usize * 8;
}

/// Returns the words of a value that is made of whole words.
#[must_use]
pub fn words<T: aya::Pod>(value: &T) -> &[u64] {
    const { assert!(is_whole_words::<T>()) };
    // SAFETY: as many bytes, aligned, none of them undefined; `value` stays borrowed.
    unsafe {
        slice::from_raw_parts(
            (&raw const *value).cast(),
            size_of::<T>() / size_of::<u64>(),
        )
    }
}

/// Like [`words`], to write them.
#[must_use]
pub fn words_mut<T: aya::Pod>(value: &mut T) -> &mut [u64] {
    const { assert!(is_whole_words::<T>()) };
    // SAFETY: as in `words`, and any bytes are a value.
    unsafe {
        slice::from_raw_parts_mut((&raw mut *value).cast(), size_of::<T>() / size_of::<u64>())
    }
}

const fn is_whole_words<T>() -> bool {
    align_of::<T>() == align_of::<u64>() && size_of::<T>().is_multiple_of(size_of::<u64>())
}

const _: () = {
    assert!(super::MAX_CLOSES.is_power_of_two());
};
