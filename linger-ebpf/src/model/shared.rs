//! Memory that other programs, other CPUs and the daemon write concurrently.

use core::{
    arch::asm,
    intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg},
    mem::MaybeUninit,
};

/// A word of a map value. It is never borrowed: a reference would promise that nothing else writes.
///
/// The pointer stays valid until the program ends. Where the kernel reuses entries (`BPF_F_NO_PREALLOC`),
/// a removed entry may hold another record by now; code that must not use such an entry checks for it.
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
    /// Adds, wrapping: `u64::MAX` subtracts one.
    ///
    /// Even a per-CPU counter has several writers: tracing programs can be preempted, and soft interrupts
    /// come in between. Hence an atomic add, one instruction. (`AtomicU64` has no `fetch_add` on this
    /// target, which lacks compare-and-swap.)
    pub(crate) fn add(&self, amount: u64) {
        // SAFETY: as promised to `new`; every writer adds atomically.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.0, amount) };
    }

    /// Compare-and-swap: stores `value` if the word is `expected`. Returns whether it was.
    pub(crate) fn replace(&self, expected: u64, value: u64) -> bool {
        let found: u64;
        // In assembly, because the compiler would keep the result of the comparison in a register and compare that:
        // three instructions more.
        // SAFETY: as promised to `new`. The compiler moves no access to memory across it.
        unsafe {
            asm!("r0 = cmpxchg_64({place} + 0, r0, {value})", place = in(reg) self.0, value = in(reg) value,
                 inlateout("r0") expected => found, options(nostack));
        }
        found == expected
    }

    /// Stores a value after everything written before, also as other CPUs see it.
    pub(crate) fn swap(&self, value: u64) {
        // SAFETY: as for `add`.
        unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(self.0, value) };
    }
}

impl Shared<u32> {
    /// Adds, wrapping, as for 64 bits.
    pub(crate) fn add(&self, amount: u32) {
        // SAFETY: as promised to `new`; every writer adds atomically.
        unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(self.0, amount) };
    }
}

/// A zero that the compiler does not know to be one: known zeros it would write in a loop over bytes.
pub(crate) fn opaque_zero() -> u64 {
    let zero;
    // SAFETY: loads a constant.
    unsafe { asm!("{zero} = 0", zero = out(reg) zero, options(pure, nomem, nostack)) };
    zero
}

/// Copies a value of whole words, word by word: the compiler would copy it bytewise.
pub(crate) fn copy_words<T: Copy>(from: Shared<T>) -> T {
    let mut to = MaybeUninit::uninit();
    *copy_words_to(&mut to, from)
}

/// [`copy_words`] to memory, and not by way of registers.
pub(crate) fn copy_words_to<T: Copy>(to: &mut MaybeUninit<T>, from: Shared<T>) -> &mut T {
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
    // SAFETY: all of it is written, with values that only the kernel side writes.
    unsafe { to.assume_init_mut() }
}

/// Writes a value of whole words, as [`copy_words`] reads it.
pub(crate) fn write_words<T: Copy>(from: &T, to: Shared<T>) {
    let words = core::ptr::from_ref(from).cast::<u64>();
    for place in 0..size_of::<T>() / size_of::<u64>() {
        // SAFETY: as for `copy_words`.
        unsafe {
            to.0.cast::<u64>()
                .add(place)
                .write_volatile(words.add(place).read());
        };
    }
    const { assert!(size_of::<T>().is_multiple_of(size_of::<u64>())) };
}

/// A [`Shared`] for a map value behind a pointer, or for a field of it.
macro_rules! shared {
    ($value:expr) => {
        // SAFETY: a map value, found by the kernel's lookup.
        unsafe { $crate::model::Shared::new($value) }
    };
    ($value:expr, $($field:tt)+) => {
        // SAFETY: a field of a map value, found by the kernel's lookup.
        unsafe { $crate::model::Shared::new(&raw mut (*$value).$($field)+) }
    };
}
pub(crate) use shared;
