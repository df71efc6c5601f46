//! Fuzzes the web configuration: it is accepted, or refused in one line.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| linger_fuzz::web_config::check(text));
