//! Reading kernel memory, at offsets of the running kernel.
//!
//! `M::read(sk, offset!(err))` reads `sk->sk_err` in one of two ways, by the type of `M`: [`BtfTyped`] in programs
//! whose arguments have BTF types (`fentry`, `tp_btf`), [`ProbeRead`] in all others and for pointers found on the way.
//! The offset is a placeholder in the compiled instruction, which the daemon replaces before it loads the programs.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skc_to_tcp_sock};
use linger_ebpf::{Offsets, constants};

/// One of the [`linger_ebpf::Constants`] by index, and a number added to it. The daemon replaces its placeholder in
/// the instructions, so the verifier knows its value and drops unused branches.
#[derive(Clone, Copy)]
pub(crate) struct Constant<const INDEX: usize, const PLUS: usize>;

#[expect(clippy::unused_self, reason = "its type says which one it is")]
impl<const INDEX: usize> Constant<INDEX, 0> {
    /// Its value.
    pub(crate) fn value(self) -> u32 {
        let value: u32;
        // Not `pure`: loading it again costs less than keeping it on the stack.
        // SAFETY: loads a constant.
        unsafe {
            asm!("{value} = {constant}", value = out(wreg) value, constant = const Self::IMMEDIATE,
                 options(nomem, nostack));
        }
        value
    }

    /// Whether this kernel has the field with this offset.
    pub(crate) fn is_present(self) -> bool {
        self.value() != Offsets::ABSENT
    }

    /// An offset some bytes further.
    pub(crate) fn plus<const BYTES: usize>(self) -> Constant<INDEX, BYTES> {
        Constant
    }
}

/// The [`Constant`] with this name, a field of [`linger_ebpf::Constants`].
macro_rules! constant {
    ($($name:tt)+) => {
        $crate::kernel::Constant::<
            {
                core::mem::offset_of!(linger_ebpf::Constants, $($name)+) / size_of::<u32>()
            },
            0,
        >
    };
}
pub(crate) use constant;

/// The offset of a field, by its name in [`Offsets`].
macro_rules! offset {
    ($field:ident) => {
        $crate::kernel::constant!(offsets.$field)
    };
}
pub(crate) use offset;

/// A [`Constant`] with any parameters, as they appear in instructions.
pub(crate) trait Offset {
    /// Its placeholder as the displacement of a load.
    const DISPLACEMENT: i16;
    /// Its placeholder as an immediate value.
    const IMMEDIATE: i32;
}

impl<const INDEX: usize, const PLUS: usize> Offset for Constant<INDEX, PLUS> {
    const DISPLACEMENT: i16 = constants::displacement(INDEX, PLUS);
    const IMMEDIATE: i32 = constants::immediate(INDEX, PLUS);
}

/// The address of a field of the struct at `base`.
pub(crate) fn address<O: Offset>(base: *const u8, _: O) -> *const u8 {
    let mut address = base as u64;
    // SAFETY: adds a constant.
    unsafe {
        asm!("{address} += {constant}", address = inout(reg) address, constant = const O::IMMEDIATE,
             options(pure, nomem, nostack));
    }
    address as *const u8
}

/// A number that one instruction loads.
pub(crate) trait Word: Copy {
    /// Its size in bytes.
    const SIZE: u32;

    /// Loads it from a field of the struct at `base`.
    ///
    /// # Safety
    ///
    /// The verifier knows the type of `base`.
    unsafe fn load<O: Offset>(base: *const u8, at: O) -> Self;
}

/// Implements [`Word`] by a load of this many bits.
macro_rules! word {
    ($(#[$attribute:meta])? $type:ty, $load:literal, $class:ident, $register:ty) => {
        impl Word for $type {
            const SIZE: u32 = Self::BITS / u8::BITS;

            $(#[$attribute])?
            unsafe fn load<O: Offset>(base: *const u8, _: O) -> Self {
                let value: $register;
                // SAFETY: the verifier checks the access against the type; a fault reads as zero.
                unsafe {
                    asm!($load, value = out($class) value, base = in(reg) base, at = const O::DISPLACEMENT,
                         options(readonly, nostack));
                }
                value as Self
            }
        }
    };
}

word!(
    #[expect(clippy::cast_possible_truncation, reason = "the load is as narrow")]
    u8,
    "{value} = *(u8 *)({base} + {at})",
    wreg,
    u32
);
word!(
    #[expect(clippy::cast_possible_truncation, reason = "the load is as narrow")]
    u16,
    "{value} = *(u16 *)({base} + {at})",
    wreg,
    u32
);
word!(u32, "{value} = *(u32 *)({base} + {at})", wreg, u32);
word!(u64, "{value} = *(u64 *)({base} + {at})", reg, u64);

/// A way of reading kernel memory.
pub(crate) trait Memory {
    /// Reads a field of the struct at `base`; zero if that cannot be read.
    fn read<T: Word>(base: *const u8, at: impl Offset) -> T;

    /// The head of a socket.
    fn head(sk: *const u8) -> Head<impl FnOnce() -> u16> {
        Head {
            state: Self::read(sk, offset!(state)),
            port: move || Self::read(sk, offset!(num)),
        }
    }

    /// The `tcp_sock` of a socket, null if it is not a TCP socket.
    fn tcp_sock(sk: *const u8) -> *const u8;
}

/// Fields of a `struct sock_common`.
pub(crate) struct Head<P> {
    /// A TCP state.
    pub(crate) state: u8,
    /// Returns the local port in host byte order; 0 once it is released. Not every close needs it.
    pub(crate) port: P,
}

/// Plain loads, through pointers whose BTF type the verifier knows.
pub(crate) struct BtfTyped;

impl Memory for BtfTyped {
    fn read<T: Word>(base: *const u8, at: impl Offset) -> T {
        // SAFETY: the verifier checks that.
        unsafe { T::load(base, at) }
    }

    fn tcp_sock(sk: *const u8) -> *const u8 {
        // SAFETY: takes any socket and recognizes those of TCP.
        unsafe { bpf_skc_to_tcp_sock(sk.cast_mut().cast()) }.cast()
    }
}

/// Loads a pointer from a field of a struct at a typed pointer: the verifier knows its type too.
pub(crate) fn read_pointer(base: *const u8, at: impl Offset) -> *const u8 {
    BtfTyped::read::<u64>(base, at) as *const u8
}

/// Reads checked at run time, for pointers of unknown type.
pub(crate) struct ProbeRead;

impl ProbeRead {
    /// Reads a number at an address; zero if that cannot be read.
    ///
    /// kernel: v5.5.. kernel/trace/bpf_trace.c: `bpf_probe_read_kernel` writes zeros if it fails
    pub(crate) fn read_at<T: Word>(address: *const u8) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all of a number, whatever the address.
        unsafe {
            bpf_probe_read_kernel(value.as_mut_ptr().cast(), T::SIZE, address.cast());
            value.assume_init()
        }
    }
}

impl Memory for ProbeRead {
    fn read<T: Word>(base: *const u8, at: impl Offset) -> T {
        Self::read_at(address(base, at))
    }

    #[expect(clippy::cast_possible_truncation, reason = "fields within a word")]
    fn head(sk: *const u8) -> Head<impl FnOnce() -> u16> {
        // One call of the helper: they are in the same eight bytes since v3.9.
        let word = Self::read::<u64>(sk, offset!(dport));
        let at = |offset: u32| (offset - offset!(dport).value()) * u8::BITS;
        Head {
            state: (word >> at(offset!(state).value())) as u8,
            port: move || (word >> at(offset!(num).value())) as u16,
        }
    }

    fn tcp_sock(sk: *const u8) -> *const u8 {
        // A tcp_sock begins with its sock; callers look at the protocol where they must.
        sk
    }
}
