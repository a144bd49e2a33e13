//! Tests of the data crate as its users meet it: files in, arrays out. They make every file they need.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod kinds;
mod mutated;
mod prepared;
mod published;
mod resize;
mod shared;
mod tokenizers;
mod video;
mod world;
