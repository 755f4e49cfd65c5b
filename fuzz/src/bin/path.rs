//! Fuzz target: the law of `path` in `oci/tests/laws`.
#![no_main]

#[path = "../../../oci/tests/laws/mod.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|input: &[u8]| laws::path(input));
