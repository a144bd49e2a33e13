//! Files of torch.save, zipped and legacy.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| model::fuzzing::torch(fuzz::folder(), input)));
