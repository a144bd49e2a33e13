//! What crosses crates: golden parity, the command line, kill and resume, every config in smoke mode.
