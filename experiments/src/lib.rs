//! The one runner: command line, typed configurations, ablations, reports.

pub mod ablation;
pub mod caption;
pub mod cli;
pub mod clips;
pub mod commands;
pub mod config;
pub mod datasets;
pub mod device;
pub mod examples;
pub mod frames;
pub mod import;
pub mod judge;
pub mod plots;
pub mod pretrain;
pub mod pretrained;
pub mod provenance;
pub mod report;
pub mod run;
pub mod score;
pub mod table;
pub mod verify;
pub mod world;
