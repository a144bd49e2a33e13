//! tokenizer.json, vocab.json with merges.txt, and vocab.txt.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| data::fuzzing::tokenizers(fuzz::folder(), input)));
