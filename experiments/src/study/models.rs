//! The pretrained models of a study: each distinct checkpoint is evaluated once on the test split, and its
//! scores are kept in the summary under the hash of its files, so that `--resume` does not evaluate it again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use captioner::{Checkpoint, weights_hash};
use data::datasets::Split;
use data::text::clean_caption;

use super::run::evaluate;
use crate::config::{RunConfig, find_checkpoint, open_checkpoint};
use crate::records::{ModelSummary, Summary};
use crate::runtime::Session;
use crate::tasks::{self, Clips};

/// Evaluates the pretrained models of a study.
pub(super) struct Models<'a> {
    session: &'a Session,
    /// The folder of the study.
    folder: &'a Path,
    /// The summary of an earlier session.
    earlier: Option<Summary>,
    /// Hashes of checkpoints, by their folder.
    hashes: HashMap<PathBuf, String>,
}

impl<'a> Models<'a> {
    pub(super) fn new(session: &'a Session, folder: &'a Path, earlier: Option<Summary>) -> Self {
        Self { session, folder, earlier, hashes: HashMap::new() }
    }

    /// The hash of a checkpoint's files, computed once in a process.
    pub(super) fn weights_hash(&mut self, checkpoint: &Path) -> anyhow::Result<String> {
        if let Some(hash) = self.hashes.get(checkpoint) {
            return Ok(hash.clone());
        }
        let hash = weights_hash(&find_checkpoint(checkpoint)?)?;
        self.hashes.insert(checkpoint.to_owned(), hash.clone());
        Ok(hash)
    }

    /// The earlier summary, where it is of the same data.
    pub(super) fn earlier(&self, data_hash: Option<&String>) -> Option<&Summary> {
        self.earlier.as_ref().filter(|earlier| earlier.world.as_ref() == data_hash)
    }

    /// Takes the model of a variant from the earlier summary; returns whether it has one. The checkpoint,
    /// which may have to be pretrained again, is not opened.
    pub(super) fn keep(&self, variant: &str, summary: &mut Summary) -> bool {
        let earlier = self.earlier(summary.world.as_ref());
        let is_of = |model: &&ModelSummary| model.variants.iter().any(|name| name == variant);
        let known = earlier.and_then(|earlier| earlier.models.iter().find(is_of)).cloned();
        known.map(|model| enter(variant, model, summary)).is_some()
    }

    /// Adds a variant to the entry of its model in the summary. A model without an entry is evaluated, unless
    /// the earlier summary has it.
    pub(super) fn add(
        &mut self,
        variant: &str,
        config: &RunConfig,
        clips: &Clips,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        let hash = self.weights_hash(&config.checkpoint);
        let hash = self.session.agree(hash)?;
        let earlier = self.earlier(summary.world.as_ref()).map_or(&[][..], |earlier| &earlier.models);
        let known = summary.models.iter().chain(earlier).find(|model| model.weights_hash == hash);
        let model = match known.cloned() {
            Some(model) => model,
            None => self.evaluate(config, clips, hash)?,
        };
        enter(variant, model, summary);
        Ok(())
    }

    /// Evaluates a checkpoint with all processes.
    fn evaluate(
        &self,
        config: &RunConfig,
        clips: &Clips,
        weights_hash: String,
    ) -> anyhow::Result<ModelSummary> {
        let session = self.session;
        let open = || {
            let directory = find_checkpoint(&config.checkpoint)?;
            let checkpoint = open_checkpoint(&directory, config, config.model.dropout, &session.device)?;
            if session.is_first() {
                report_unknown_words(&checkpoint, clips)?;
            }
            let context = tasks::of(config).context(&checkpoint)?;
            Ok((checkpoint, context))
        };
        let (checkpoint, context) = session.agree(open())?;
        let predictions = self.folder.join(format!("predictions/pretrained-{weights_hash}.json"));
        let (model, predictions) = (&checkpoint.model, Some(predictions.as_path()));
        let test = evaluate(config, clips, Split::Test, model, &context, predictions, session)?;
        Ok(ModelSummary {
            weights_hash,
            checkpoint: config.checkpoint.display().to_string(),
            parameters: model::parameters::count(&checkpoint.model, |_| true),
            variants: Vec::new(),
            test,
        })
    }
}

/// Enters a variant under its model.
fn enter(variant: &str, model: ModelSummary, summary: &mut Summary) {
    let entry = summary.models.iter_mut().find(|known| known.weights_hash == model.weights_hash);
    match entry {
        Some(known) if known.variants.iter().any(|name| name == variant) => {}
        Some(known) => known.variants.push(variant.to_owned()),
        None => summary.models.push(ModelSummary { variants: vec![variant.to_owned()], ..model }),
    }
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
