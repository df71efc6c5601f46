//! Any file of settings: it is refused, or what it comes to, written down, is read again as the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| linger_fuzz::config::check(text));
