//! The language models that read the projected queries.

pub mod t5;
