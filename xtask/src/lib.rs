//! Building, running and testing linger: the library behind `cargo xtask` and the laboratory, `linger-lab`.

#![expect(
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "only this workspace's programs call it, and they use the values"
)]

mod apt;
pub mod architecture;
mod archive;
pub mod artifacts;
mod cache;
mod debian;
pub mod fuzz;
pub mod kernels;
pub mod machine;
mod modules;
pub mod mutate;
mod notices;
mod oldest;
mod overlay;
pub mod package;
pub mod release;
pub mod reproduce;
pub mod setup;
pub mod shell;
mod sums;
pub mod systemd;
pub mod tally;
pub mod test;
pub mod vm;
