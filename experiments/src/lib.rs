//! The runner: command line, typed configurations, studies and reports.
//!
//! Imports run downwards only: [`commands`] -> [`study`] -> [`pretrain`], [`plan`] -> [`tasks`], [`report`] -> [`records`] ->
//! [`config`], [`runtime`], [`text`].

pub mod commands;
pub mod config;
pub mod plan;
pub mod pretrain;
pub mod records;
pub mod report;
pub mod runtime;
pub mod study;
pub mod tasks;
pub mod text;
