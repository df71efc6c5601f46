//! Memory that other programs, other CPUs and the daemon write at the same time.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
    mem::MaybeUninit,
};

/// A word of a map value. No reference to it is ever made: those promise that no one else writes.
///
/// What the kernel hands out stays memory of that map until the program ends. Where it gives entries out anew
/// (`BPF_F_NO_PREALLOC`), one that was removed meanwhile may be another's by now: what may not be read or
/// written then says so.
pub(crate) struct Shared<T>(*mut T);

impl<T: Copy> Shared<T> {
    /// # Safety
    ///
    /// The word is aligned, and of a map value.
    pub(crate) const unsafe fn new(word: *mut T) -> Self {
        Self(word)
    }

    pub(crate) fn get(&self) -> T {
        // SAFETY: as promised to `new`; volatile because others write to it.
        unsafe { self.0.read_volatile() }
    }

    pub(crate) fn set(&self, value: T) {
        // SAFETY: as for `get`.
        unsafe { self.0.write_volatile(value) }
    }
}

impl Shared<u64> {
    /// Adds; the largest number takes one away.
    ///
    /// A counter of one CPU still has several writers: tracing programs can be preempted, and soft
    /// interrupts come in between. Hence an atomic add, one instruction. (`AtomicU64` has no
    /// `fetch_add` on this target, which lacks compare-and-swap.)
    pub(crate) fn add(&self, amount: u64) {
        // SAFETY: as promised to `new`; every writer adds atomically.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.0, amount) };
    }

    /// Puts a value where `expected` stands; whether it stood there.
    pub(crate) fn replace(&self, expected: u64, value: u64) -> bool {
        // SAFETY: as for `add`.
        let (_, replaced) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.0, expected, value,
            )
        };
        replaced
    }
}

impl Shared<u32> {
    /// As for 64 bits.
    pub(crate) fn add(&self, amount: u32) {
        // SAFETY: as promised to `new`; every writer adds atomically.
        unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(self.0, amount) };
    }
}

/// A zero that the compiler does not know: it writes what it knows to be zeros by a loop over bytes.
pub(crate) fn zero() -> u32 {
    let mut zero = 0;
    // SAFETY: a local.
    unsafe { (&raw mut zero).read_volatile() }
}

/// Copies what consists of whole words, word by word: all at once, it would be by bytes.
pub(crate) fn copy<T: Copy>(from: Shared<T>) -> T {
    let mut to = MaybeUninit::<T>::uninit();
    let words = to.as_mut_ptr().cast::<u64>();
    for place in 0..size_of::<T>() / size_of::<u64>() {
        // SAFETY: as promised to `Shared::new`, and within both.
        unsafe {
            words
                .add(place)
                .write(from.0.cast::<u64>().add(place).read_volatile());
        };
    }
    const { assert!(size_of::<T>().is_multiple_of(size_of::<u64>())) };
    // SAFETY: all of it is written, with what the kernel's side alone writes there.
    unsafe { to.assume_init() }
}

/// Writes what consists of whole words, as [`copy`] reads it.
pub(crate) fn paste<T: Copy>(from: &T, to: Shared<T>) {
    let words = core::ptr::from_ref(from).cast::<u64>();
    for place in 0..size_of::<T>() / size_of::<u64>() {
        // SAFETY: as for `copy`.
        unsafe {
            to.0.cast::<u64>()
                .add(place)
                .write_volatile(words.add(place).read());
        };
    }
    const { assert!(size_of::<T>().is_multiple_of(size_of::<u64>())) };
}

/// A map value to which there is a pointer, or a field of it.
macro_rules! shared {
    ($value:expr) => {
        // SAFETY: a map value, where the kernel's look-up found it.
        unsafe { $crate::model::Shared::new($value) }
    };
    ($value:expr, $($field:tt)+) => {
        // SAFETY: a field of a map value, where the kernel's look-up found it.
        unsafe { $crate::model::Shared::new(&raw mut (*$value).$($field)+) }
    };
}
pub(crate) use shared;
