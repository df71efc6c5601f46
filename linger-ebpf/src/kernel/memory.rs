//! Reading kernel memory, through offsets resolved at load.
//!
//! The daemon writes the running kernel's offsets into [`OFFSETS`], which is read-only to the
//! programs, so that the verifier knows them as constants.

use core::ptr;

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated::bpf_skc_to_tcp_sock};
use linger_ebpf::Offsets;

#[unsafe(export_name = "LINGER_OFFSETS")]
pub(crate) static OFFSETS: Offsets = Offsets::ZERO;

/// An offset of this kernel.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: reads a static; volatile because the value is replaced at load.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::OFFSETS.$field) }
    };
}
pub(crate) use offset;

/// How kernel memory is read.
pub(crate) trait Memory {
    /// Reads `T` at `base + offset`; zero where there is nothing to read.
    fn read<T: Copy + Default>(base: *const u8, offset: u32) -> T;

    /// The head of a socket.
    fn head(sk: *const u8) -> Head {
        Head {
            state: Self::read(sk, offset!(state)),
            port: Self::read(sk, offset!(num)),
        }
    }

    /// The `tcp_sock` of a socket, null if it is not a TCP socket.
    fn tcp_sock(sk: *const u8) -> *const u8;
}

/// Fields of a `struct sock_common`.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    /// A TCP state.
    pub(crate) state: u8,
    /// The local port in host byte order; 0 once it is released.
    pub(crate) port: u16,
}

/// Plain loads, through pointers whose BTF type the verifier knows.
pub(crate) struct BtfTyped;

impl Memory for BtfTyped {
    fn read<T: Copy + Default>(base: *const u8, offset: u32) -> T {
        // SAFETY: the verifier checks the access against the type; a fault reads as zero.
        unsafe { ptr::read_volatile(base.add(offset as usize).cast()) }
    }

    fn tcp_sock(sk: *const u8) -> *const u8 {
        // SAFETY: takes any socket and recognizes those of TCP.
        unsafe { bpf_skc_to_tcp_sock(sk.cast_mut().cast()) }.cast()
    }
}

/// Loads a pointer through a typed pointer: the verifier knows its type too.
pub(crate) fn read_pointer(base: *const u8, offset: u32) -> *const u8 {
    // SAFETY: as for `BtfTyped::read`.
    unsafe { ptr::read_volatile(base.add(offset as usize).cast()) }
}

/// Reads checked at run time, for pointers of unknown type.
pub(crate) struct ProbeRead;

impl Memory for ProbeRead {
    fn read<T: Copy + Default>(base: *const u8, offset: u32) -> T {
        // SAFETY: a bad address makes the helper fail.
        unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast()) }
            .unwrap_or_default()
    }

    #[expect(clippy::cast_possible_truncation, reason = "fields within a word")]
    fn head(sk: *const u8) -> Head {
        // One call of the helper: they are in the same eight bytes since v3.9.
        let word = Self::read::<u64>(sk, offset!(dport));
        let at = |offset: u32| (offset - offset!(dport)) * u8::BITS;
        Head {
            state: (word >> at(offset!(state))) as u8,
            port: (word >> at(offset!(num))) as u16,
        }
    }

    fn tcp_sock(sk: *const u8) -> *const u8 {
        // A tcp_sock begins with its sock; callers look at the protocol where they must.
        sk
    }
}
