//! The interface between the kernel side and the daemon: keys and values of the maps, values of labels and,
//! for the daemon, the compiled programs. The programs themselves begin in `main.rs`.
//!
//! Everything here is `repr(C)` and made of integers without padding, because the kernel and the
//! daemon exchange it as bytes.

#![no_std]
#![deny(unsafe_code)]

mod abi;

pub use abi::*;

/// The programs, compiled for the BPF virtual machine by `build.rs`.
#[cfg(not(target_arch = "bpf"))]
pub static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/linger-ebpf"));

/// Programs with the same names that only count their runs, to find out which hooks are reached.
#[cfg(not(target_arch = "bpf"))]
pub static FLOOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/floor"));
