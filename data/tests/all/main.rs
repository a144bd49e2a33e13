//! Tests of the data crate as its users meet it: files in, arrays out. They make every file they need.

mod resize;
mod video;
mod world;
