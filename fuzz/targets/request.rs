//! Fuzzes the server with any bytes from a client. It is open if the first byte is even, else it asks for a password.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| linger_fuzz::request::check(bytes));
