//! ONNX models.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run(|| model::fuzzing::onnx(fuzz::folder(), input)));
