//! What several tests with a running daemon share.

pub(crate) mod check;
pub(crate) mod http;
pub(crate) mod scrape;
pub(crate) mod summary;
