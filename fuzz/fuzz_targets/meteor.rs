//! METEOR's normaliser, stemmer and aligner, with small tables.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| metrics::fuzzing::meteor_scores(
    fuzz::folder(),
    input
)));
