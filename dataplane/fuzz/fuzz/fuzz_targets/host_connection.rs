#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::host_connection(data));
