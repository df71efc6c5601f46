//! Any bytes of a client, to a server that is open (if the first is even) or asks for a password.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| linger_fuzz::request::check(bytes));
