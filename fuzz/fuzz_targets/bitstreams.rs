//! Headers of H.264, VP8 and VP9 frames.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| data::fuzzing::bitstreams(input)));
