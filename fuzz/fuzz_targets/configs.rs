//! JSON files of a checkpoint's folder: configurations, adapters, indices.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| model::fuzzing::configs(fuzz::folder(), input)));
