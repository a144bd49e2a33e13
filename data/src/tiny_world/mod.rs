//! The tiny world: a synthetic data set of short clips with one or two simple objects and known scenes.
//!
//! A model that trains on a laptop can learn to describe it, and parsed captions show whether the model sees
//! the clip or only produces plausible sentences. The world is stored in the formats of MSR-VTT, MSRVTT-QA
//! and webdataset, and read by the same code as real data sets. Modules in the order of making a world:
//! [`config`], [`scene`], [`draw`], `render`, `words` and `grammar` (captions), `questions`, `corpus` (text
//! without images), `write` and `world` (files), `parse` and `assess` (predictions).

mod assess;
pub mod config;
mod corpus;
pub mod draw;
mod grammar;
mod parse;
mod question_words;
mod questions;
mod render;
pub mod scene;
mod words;
mod world;
mod write;

pub use assess::{Assessment, ChanceLevels, assess, assess_picture, chance_levels};
pub use config::WorldConfig;
pub use corpus::{Exercise, question_corpus, text_corpus, vocabulary};
pub use parse::{Mention, ParsedCaption, parse_caption};
pub use questions::QuestionKind;
pub use world::{ClipTruth, PictureTruth, World};
pub use write::synthesize;
