//! Fuzzes the configuration file: it is refused, or its effective settings, written to a file, parse to the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| linger_fuzz::config::check(text));
