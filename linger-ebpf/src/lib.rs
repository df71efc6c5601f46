//! What both sides of linger agree on: the keys and values of the maps, the words for what a
//! close did, and, for the daemon, the compiled programs.
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

/// Programs of the same names that only count their runs: which hooks are reached at all.
#[cfg(not(target_arch = "bpf"))]
pub static FLOOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/floor"));
