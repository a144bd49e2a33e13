//! METEOR's compact tables.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| metrics::fuzzing::meteor_tables(
    fuzz::folder(),
    input
)));
