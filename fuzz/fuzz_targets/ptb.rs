//! The tokenizer of the Penn Treebank.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| metrics::fuzzing::ptb(input)));
