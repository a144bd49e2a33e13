//! Files of predictions and references.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| metrics::fuzzing::caption_files(
    fuzz::folder(),
    input
)));
