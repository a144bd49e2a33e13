//! The pickle inside of a file of torch.save.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| model::fuzzing::pickle(fuzz::folder(), input)));
