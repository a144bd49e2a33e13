//! Still images and animations.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| data::fuzzing::images(fuzz::folder(), input)));
