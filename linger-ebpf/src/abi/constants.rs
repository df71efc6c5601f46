//! Constants that the daemon knows before it loads the programs. Each has a placeholder in the compiled programs, which
//! the daemon replaces: reading one takes no load, and reading a field of the kernel is one instruction.

use super::offsets::Offsets;

/// The constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constants {
    /// Offsets of the running kernel.
    pub offsets: Offsets,
    /// Key fields in use, a set of [`key_field`](super::key_field) bits.
    pub key_fields: u32,
    /// Number of the system call whose return ends the release of a socket; [`Constants::NO_SYSCALL`] if there is none.
    pub close_syscall: u32,
    /// How programs make up for others that this kernel may skip: [`Constants::NO_COPIES`], [`Constants::COPIES`],
    /// [`Constants::COPIES_OF_ENDS`] or [`Constants::EARLY_ENDS`].
    pub copies: u32,
    /// 1 if the kernel leaves bytes of earlier names behind the end of a process name, else 0.
    pub leaves_old_names: u32,
}

impl Constants {
    /// Stands for no system call.
    pub const NO_SYSCALL: u32 = u32::MAX;

    /// Every close and RST is seen by one program.
    pub const NO_COPIES: u32 = 0;

    /// Copies of programs may see the same decision of a close, or the same RST.
    pub const COPIES: u32 = 1;

    /// Copies of programs may see the same end of a close too.
    pub const COPIES_OF_ENDS: u32 = 2;

    /// As [`Constants::COPIES`]; and the hooks before the end of a socket end closes and orphans already, because the one
    /// at its end may be skipped.
    pub const EARLY_ENDS: u32 = 3;

    /// Number of constants.
    pub const COUNT: usize = size_of::<Self>() / size_of::<u32>();

    /// All constants, by index.
    #[cfg(not(target_arch = "bpf"))]
    #[must_use]
    pub fn words(&self) -> [u32; Self::COUNT] {
        let mut words = [0; Self::COUNT];
        let own = [
            self.key_fields,
            self.close_syscall,
            self.copies,
            self.leaves_old_names,
        ];
        let (offsets, others) = words.split_at_mut(Self::COUNT - own.len());
        offsets.copy_from_slice(&self.offsets.words());
        others.copy_from_slice(&own);
        words
    }
}

/// One more than the most that can be added to a constant.
const STEP: usize = 16;

/// The first displacement that is a placeholder: no field is that far from the beginning of its struct.
const FIRST: usize = 0x7000;

/// The upper half of an immediate value that is a placeholder.
const MARK: i32 = 0x4c47;

const _: () = assert!(FIRST + Constants::COUNT * STEP <= i16::MAX as usize);

/// The placeholder of the constant with this index, and `plus`, as the displacement of a load.
///
/// # Panics
///
/// If there is no such constant, or `plus` is 16 or more. It is called when the programs are compiled.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "asserted above"
)]
pub const fn displacement(index: usize, plus: usize) -> i16 {
    assert!(index < Constants::COUNT && plus < STEP);
    (FIRST + index * STEP + plus) as i16
}

/// The same placeholder as an immediate value.
///
/// # Panics
///
/// As [`displacement`].
#[must_use]
pub const fn immediate(index: usize, plus: usize) -> i32 {
    MARK << 16 | displacement(index, plus) as i32
}

/// The index and the bytes that a displacement stands for.
#[cfg(not(target_arch = "bpf"))]
#[must_use]
pub fn of_displacement(displacement: i16) -> Option<(usize, u32)> {
    let place = usize::try_from(displacement).ok()?.checked_sub(FIRST)?;
    let plus = u32::try_from(place % STEP).ok()?;
    (place / STEP < Constants::COUNT).then_some((place / STEP, plus))
}

/// The index and the bytes that an immediate value stands for.
#[cfg(not(target_arch = "bpf"))]
#[must_use]
pub fn of_immediate(immediate: i32) -> Option<(usize, u32)> {
    let displacement = i16::try_from(immediate.wrapping_sub(MARK << 16)).ok()?;
    of_displacement(displacement)
}
