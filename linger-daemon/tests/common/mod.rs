//! What several tests with a running daemon share.

pub(crate) mod check;
pub(crate) mod expected;
pub(crate) mod summary;
