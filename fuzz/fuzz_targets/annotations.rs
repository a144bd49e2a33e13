//! Annotation files of every data set, and lists beside them.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| data::fuzzing::annotations(fuzz::folder(), input)));
