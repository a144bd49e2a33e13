//! Every typed setting, and how TOML files and the command line become one: a profile (size) and a study
//! (what varies) are TOML files; the settings of a variant and of `--set` are merged over the profile, and
//! the merged table is given its type once. Nothing here opens data or weights.

mod answering;
mod checkpoint;
mod dataset;
mod evaluation;
mod faults;
mod layers;
mod pretrain;
mod published;
mod recipe;
mod renamed;
mod run;
#[cfg(test)]
mod sources;
mod study;
mod suggest;

pub(crate) use answering::AnswerConfig;
pub(crate) use checkpoint::{find_checkpoint, image_size, open_checkpoint, open_checkpoint_in, sizes};
pub(crate) use dataset::{DatasetConfig, SKIP_LIST};
pub(crate) use evaluation::Evaluated;
pub(crate) use layers::{flatten, merge_sets};
pub(crate) use pretrain::{FirstStageConfig, PairsConfig, PretrainConfig, SentencesConfig};
pub(crate) use published::Published;
pub(crate) use run::{EvaluateConfig, FrozenType, PretrainingChoice, Recipe, RunConfig, ScstStage};
pub(crate) use study::{
    Ablation, Resolved, Variant, ablations, choices, find_ablation, profiles, resolve_all, resolve_plain,
    single, study_sets,
};
