//! Heads of MP4, Matroska, AVI and image files.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| data::fuzzing::containers(fuzz::folder(), input)));
