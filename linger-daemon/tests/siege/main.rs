//! While many clients do their worst, a good client gets its scrapes, and memory stays small.
//!
//! The server is a separate process, so that its memory is not mixed with that of the clients. In all sieges but that of
//! slow readers, all come from one address, so the server cannot tell them apart by that.

mod attacks;
mod besieged;
#[path = "../web/fixture.rs"]
#[expect(dead_code, reason = "shared with the tests of the endpoints")]
mod fixture;
#[path = "../web/large.rs"]
#[expect(dead_code, reason = "shared with the tests of the endpoints")]
mod large;
#[path = "../web/secure.rs"]
#[expect(dead_code, reason = "shared with the tests of the endpoints")]
mod secure;
#[path = "../web/server.rs"]
#[expect(dead_code, reason = "shared with the tests of the endpoints")]
mod server;
