//! The runner: command line, typed configurations, studies and reports. Its library is what the program and
//! the tests of this repository use; the pipeline for other programs is the crate `captioner`.
//!
//! Imports run downwards only: `commands` -> `study` -> `pretrain`, `plan` -> `tasks`, `report` -> `records`
//! -> `config`, [`runtime`], `text`.

pub mod commands;
mod config;
mod plan;
mod pretrain;
pub mod program;
mod records;
mod report;
pub mod runtime;
mod study;
mod tasks;
mod text;
