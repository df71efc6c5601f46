//! The programs. Each translates the arguments of its hook into one call of the model.
//!
//! The names in `hooks` are those the daemon loads by; its `probe/hooks.rs` says what each is attached to.
//!
//! Whatever is not `inline(never)` is inlined, by a flag of the build: a call costs, and a pointer whose type the
//! verifier knows does not survive all of them. What is rare is kept apart. (None is `cold`: then it would stand in a
//! section of its own, and the loader tells functions by their places within a section.)

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
