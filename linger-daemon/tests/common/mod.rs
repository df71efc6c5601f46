//! Code shared by several tests with a running daemon.

pub(crate) mod check;
pub(crate) mod expected;
pub(crate) mod summary;
