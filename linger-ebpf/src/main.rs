//! The programs. To follow one close from its beginning to its counters, read `hooks/fentry.rs`, then
//! `model/function_plans.rs` and `model/close.rs`.
//!
//! - `hooks`: the programs, in a file for each plan. Each translates the arguments of its hook into one call of the
//!   model.
//! - `model`: what a close, its RST and its orphan go through, and where they are counted.
//! - `kernel`: structures of the kernel, read at offsets that the daemon finds in its BTF.
//!
//! What programs and daemon exchange is in the library (`lib.rs`). The daemon loads programs by their names in `hooks`;
//! its `probe/hooks.rs` says what each is attached to.
//!
//! A build flag inlines every function that is not `inline(never)`: a call costs, and typed pointers do not
//! survive every call. Rarely executed code is kept out of line. (But not `cold`, which would put it into another
//! section, and the loader identifies functions by their offsets within a section.)

#![no_std]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand contexts over by value"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value, keys and values would be copied to the stack once more, where they may not fit"
)]
#![expect(
    clippy::doc_markdown,
    reason = "above each hook stands the kernel's prototype as it is"
)]
#![expect(
    internal_features,
    reason = "atomic_xadd has no stable name on this target"
)]
#![feature(asm_experimental_arch)]
#![feature(core_intrinsics)]
#![no_main]

mod bare;
mod hooks;
mod kernel;
mod model;
