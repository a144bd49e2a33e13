//! Sentencepiece models.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| data::fuzzing::sentencepiece(fuzz::folder(), input)));
