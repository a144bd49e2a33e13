//! The pretrained models of a study: each distinct checkpoint is evaluated once on the test split, and its
//! scores are kept in the summary under the hash of its files, so that `--resume` does not evaluate it again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use captioner::{Checkpoint, weights_hash};
use data::datasets::Split;
use data::text::clean_caption;

use super::run::Evaluation;
use crate::config::{RunConfig, find_checkpoint, open_checkpoint};
use crate::records::{ModelSummary, Summary};
use crate::runtime::Session;
use crate::tasks::{self, Clips};

/// Hashes of checkpoints, by their folder.
#[derive(Default)]
pub(super) struct Models(HashMap<PathBuf, String>);

impl Models {
    /// The hash of a checkpoint's files, computed once in a process.
    pub(super) fn weights_hash(&mut self, checkpoint: &Path) -> anyhow::Result<String> {
        if let Some(hash) = self.0.get(checkpoint) {
            return Ok(hash.clone());
        }
        let hash = weights_hash(&find_checkpoint(checkpoint)?)?;
        self.0.insert(checkpoint.to_owned(), hash.clone());
        Ok(hash)
    }

    /// Adds a variant to the entry of its model in the summary. A model without an entry is taken from an
    /// earlier summary or evaluated.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn add(
        &mut self,
        variant: &str,
        config: &RunConfig,
        clips: &Clips,
        session: &Session,
        folder: &Path,
        earlier: Option<&Summary>,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        let weights_hash = self.weights_hash(&config.checkpoint)?;
        if let Some(model) = summary.models.iter_mut().find(|model| model.weights_hash == weights_hash) {
            if !model.variants.iter().any(|name| name == variant) {
                model.variants.push(variant.to_owned());
            }
            return Ok(());
        }
        let known = earlier.filter(|earlier| earlier.world == summary.world);
        let known =
            known.and_then(|known| known.models.iter().find(|model| model.weights_hash == weights_hash));
        let model = match known {
            Some(model) => ModelSummary { variants: vec![variant.to_owned()], ..model.clone() },
            None => evaluate(variant, config, clips, session, folder, weights_hash)?,
        };
        summary.models.push(model);
        Ok(())
    }
}

fn evaluate(
    variant: &str,
    config: &RunConfig,
    clips: &Clips,
    session: &Session,
    folder: &Path,
    weights_hash: String,
) -> anyhow::Result<ModelSummary> {
    let directory = find_checkpoint(&config.checkpoint)?;
    let checkpoint = open_checkpoint(&directory, config, config.model.dropout, &session.device)?;
    report_unknown_words(&checkpoint, clips)?;
    let parameters = model::parameters::count(&checkpoint.model, |_| true);
    let task = tasks::of(config);
    let context = task.context(&checkpoint)?;
    let predictions = folder.join(format!("predictions/pretrained-{weights_hash}.json"));
    let test = Evaluation { task: &*task, config, clips };
    let test = test.of(Split::Test, &checkpoint.model, &context, Some(&predictions))?;
    Ok(ModelSummary {
        weights_hash,
        checkpoint: config.checkpoint.display().to_string(),
        parameters,
        variants: vec![variant.to_owned()],
        test,
    })
}

/// Prints which words of the training captions are not in the checkpoint's vocabulary.
fn report_unknown_words(checkpoint: &Checkpoint, clips: &Clips) -> anyhow::Result<()> {
    let captions = || {
        let captions = clips.split(Split::Train).into_iter().flat_map(|clip| &clip.captions);
        captions.map(|caption| clean_caption(caption))
    };
    let unknown = checkpoint.tokenizer.unknown_words(captions())?;
    if unknown.is_empty() {
        return Ok(());
    }
    let all: usize = captions().map(|caption| caption.split_whitespace().count()).sum();
    let count: usize = unknown.iter().map(|(_, count)| count).sum();
    let first: Vec<&str> = unknown.iter().take(5).map(|(word, _)| word.as_str()).collect();
    eprintln!(
        "not in the checkpoint's vocabulary: {count} of the {all} words of the training captions ({} different ones, such as {}). \
         The model reads and generates them as one unknown word; `experiments pretrain` makes a model with the words of your \
         captions (docs/pretraining.md).",
        unknown.len(),
        first.join(", ")
    );
    Ok(())
}
