//! Question answering (Table 3 of the paper): each question, put into a prompt, is an example, and its answer
//! is the target, as LAVIS and InstructBLIP train on questions. Answers are generated freely. They are right
//! when they equal the published answer after the normalisation of the VQA challenge.

use std::ops::Range;
use std::sync::Arc;

use anyhow::ensure;
use captioner::{Checkpoint, Context, HostPrompts, HostTokens, PromptIds, Shown, Videos};
use data::datasets::{Clip, Question, Split, VideoSet};
use data::random::RandomStream;
use data::text::{Tokenizer, ask, clean_question};
use data::tiny_world::{World, WorldConfig};
use model::Blip2Config;
use model::generate::GenerateConfig;
use model::lm::LanguageModelConfig;
use train::{Batch, Examples, Metrics, TrainError, Validation};

use super::answer_scorer::AnswerScorer;
use super::{Clips, Inputs, Task, TextLengths};
use crate::config::{AnswerConfig, EvaluateConfig, RunConfig};
use crate::records::{Baselines, TestClip};

/// Words of a typical question, for estimates.
const QUESTION_WORDS: usize = 10;

/// The settings of question answering.
pub(super) struct QuestionAnswering {
    config: AnswerConfig,
    evaluate: EvaluateConfig,
}

impl QuestionAnswering {
    pub(super) fn new(config: &AnswerConfig, run: &RunConfig) -> Self {
        Self { config: config.clone(), evaluate: run.evaluate.clone() }
    }

    /// The questions of a split; with a seed they draw their prompts from the templates.
    fn questions(&self, inputs: Inputs<'_>, seed: Option<u64>) -> anyhow::Result<Questions> {
        let Inputs { clips, split, videos, context } = inputs;
        let reader = Reader::new(
            self.config.clone(),
            &context.config,
            context.tokenizer.clone(),
            context.qformer_tokenizer.clone(),
        )?;
        Questions::new(videos, &clips.split(split), reader, seed)
    }
}

impl Task for QuestionAnswering {
    fn name(&self) -> &'static str {
        "question answering"
    }

    fn videos(&self, world: &World) -> data::Result<VideoSet> {
        world.questions()
    }

    /// Fewer questions are asked where answers would become too common: docs/tiny-world.md.
    fn examples_per_clip(&self, world: &WorldConfig) -> Option<usize> {
        Some(world.questions)
    }

    fn text_lengths(&self) -> TextLengths {
        let lengths = TextLengths::new(&self.config.prompt, self.config.generate.max_new_tokens);
        TextLengths { prompt: lengths.prompt + QUESTION_WORDS, ..lengths }
    }

    /// Each question has its own prompt; an answer ends with the tokenizer's end token.
    fn context(&self, checkpoint: &Checkpoint) -> anyhow::Result<Context> {
        let tokenizer = checkpoint.tokenizer.clone();
        let generate = GenerateConfig { end_tokens: vec![tokenizer.end()], ..self.config.generate.clone() };
        generate.validate()?;
        Ok(Context {
            config: checkpoint.config.clone(),
            tokenizer,
            qformer_tokenizer: checkpoint.qformer_tokenizer.clone(),
            prompt: PromptIds::default(),
            generate,
        })
    }

    fn training(&self, inputs: Inputs<'_>, seed: u64) -> anyhow::Result<Arc<dyn Examples>> {
        Ok(Arc::new(self.questions(inputs, Some(seed))?))
    }

    fn evaluation(&self, inputs: Inputs<'_>) -> anyhow::Result<Validation> {
        let (clips, split) = (inputs.clips, inputs.split);
        let questions = self.questions(inputs, None)?;
        Ok(Validation {
            split,
            ids: questions.asked.iter().map(|(_, question)| question.id.clone()).collect(),
            scorer: Some(Arc::new(AnswerScorer::new(clips.world(), &clips.split(split))?)),
            batch_size: self.evaluate.batch_size,
            examples: Arc::new(questions),
        })
    }

    fn baselines(&self, clips: &Clips) -> anyhow::Result<Baselines> {
        let scorer = |split| AnswerScorer::new(clips.world(), &clips.split(split));
        let chance = scorer(Split::Test)?.chance(&scorer(Split::Train)?)?;
        Ok(Baselines { constant_caption: String::new(), constant: Metrics::default(), chance })
    }

    fn test_clips(&self, clips: &Clips) -> Vec<TestClip> {
        let test = clips.split(Split::Test);
        test.into_iter().flat_map(|clip| TestClip::asked(clip, clips.scene(&clip.id))).collect()
    }
}

/// Tokenises the questions and answers for a model.
#[derive(Debug, Clone)]
struct Reader {
    config: AnswerConfig,
    tokenizer: Arc<Tokenizer>,
    /// The tokenizer of a Q-Former that reads an instruction, and the maximum tokens of one.
    qformer: Option<(Arc<Tokenizer>, usize)>,
    /// A decoder-only language model continues its prompt, so padding is put before the prompt.
    pads_start: bool,
}

impl Reader {
    fn new(
        config: AnswerConfig,
        model: &Blip2Config,
        tokenizer: Arc<Tokenizer>,
        qformer: Option<Arc<Tokenizer>>,
    ) -> anyhow::Result<Self> {
        config.check()?;
        let reads = &model.qformer_config;
        ensure!(
            qformer.is_some() || config.instruction.as_ref().is_none_or(String::is_empty),
            "answering.instruction is set, and the checkpoint has no Q-Former with a tokenizer that reads one"
        );
        let qformer = qformer.filter(|_| reads.reads_text);
        let qformer = qformer.map(|tokenizer| (tokenizer, reads.max_position_embeddings));
        let pads_start = !matches!(model.text_config, LanguageModelConfig::T5(_));
        Ok(Self { config, tokenizer, qformer, pads_start })
    }

    /// The questions in their prompts.
    fn prompts<'a>(
        &self,
        questions: impl Iterator<Item = (&'a str, &'a Question)> + Clone,
    ) -> data::Result<HostPrompts> {
        let prompt = |(prompt, question): (&str, &Question)| {
            let text = ask(prompt, &clean_question(&question.text));
            self.tokenizer.encode_as_published(&text, self.config.max_prompt_tokens)
        };
        let ids = questions.clone().map(prompt).collect::<data::Result<Vec<_>>>()?;
        let text = if self.pads_start { HostTokens::pad_start(&ids) } else { HostTokens::pad(&ids) };
        Ok(HostPrompts { text: Some(text), instruction: self.instructions(questions)? })
    }

    /// What the Q-Former reads beside its queries, cut at its positions as LAVIS cuts it at a maximum.
    fn instructions<'a>(
        &self,
        questions: impl Iterator<Item = (&'a str, &'a Question)>,
    ) -> data::Result<Option<HostTokens>> {
        let Some((tokenizer, max)) = &self.qformer else { return Ok(None) };
        let own = self.config.instruction.as_deref();
        if own.is_some_and(str::is_empty) {
            return Ok(None);
        }
        let instruction = |(prompt, question): (&str, &Question)| {
            let text = ask(own.unwrap_or(prompt), &clean_question(&question.text));
            tokenizer.encode_as_published(&text, (*max).min(self.config.max_prompt_tokens))
        };
        let ids = questions.map(instruction).collect::<data::Result<Vec<_>>>()?;
        Ok(Some(HostTokens::pad(&ids)))
    }

    /// The answers as targets after a prompt.
    fn targets<'a>(&self, questions: impl Iterator<Item = &'a Question>) -> data::Result<HostTokens> {
        let before = if self.tokenizer.joins_words_with_spaces() { " " } else { "" };
        let target = |question: &Question| {
            let answer = format!("{before}{}", question.answer.trim());
            self.tokenizer.encode(&answer, self.config.max_answer_tokens)
        };
        let ids = questions.map(target).collect::<data::Result<Vec<_>>>()?;
        Ok(HostTokens::pad(&ids))
    }
}

/// Questions about clips, one an example.
struct Questions {
    videos: Videos,
    /// Each with its clip, and its number among the questions about it.
    asked: Vec<(Shown, Question)>,
    reader: Reader,
    /// Of the templates that are drawn; none where every question has the same prompt.
    seed: Option<u64>,
}

impl Questions {
    /// The questions about the clips of a split, in order; `videos` are the same clips.
    fn new(videos: Videos, clips: &[&Clip], reader: Reader, seed: Option<u64>) -> anyhow::Result<Self> {
        let shown: Vec<&str> = videos.ids().iter().map(String::as_str).collect();
        let annotated: Vec<&str> = clips.iter().map(|clip| clip.id.as_str()).collect();
        ensure!(
            shown == annotated,
            "questions about {} clips and frames of {} are not of the same clips",
            annotated.len(),
            shown.len()
        );
        let of_clip = |(index, clip): (usize, &&Clip)| {
            let shown = move |example| Shown { clip: index, example };
            let questions = clip.questions.iter().enumerate();
            questions.map(|(place, question)| (shown(place), question.clone())).collect::<Vec<_>>()
        };
        let asked: Vec<(Shown, Question)> = clips.iter().enumerate().flat_map(of_clip).collect();
        ensure!(!asked.is_empty(), "nothing is asked about any of {} clips", clips.len());
        Ok(Self { videos, asked, reader, seed })
    }

    /// The prompt of an example in an epoch, before the question is in it.
    fn template(&self, epoch: usize, item: usize) -> &str {
        let AnswerConfig { prompt, templates, .. } = &self.reader.config;
        let draw = |seed| {
            let mut random = RandomStream::new(seed, &format!("epoch {epoch}: template"), item as u64);
            templates.get(random.below(templates.len()))
        };
        self.seed.and_then(draw).unwrap_or(prompt)
    }
}

impl Examples for Questions {
    fn len(&self) -> usize {
        self.asked.len()
    }

    fn batch(&self, epoch: usize, items: &[usize], own: Range<usize>) -> Result<Batch, TrainError> {
        let questions = || items.iter().map(|&item| &self.asked[item].1);
        let asked = items.iter().map(|&item| (self.template(epoch, item), &self.asked[item].1));
        let own_items = &items[own.clone()];
        // every question draws its own view, as in LAVIS
        let shown: Vec<Shown> = own_items.iter().map(|&item| self.asked[item].0).collect();
        Ok(Batch::Caption {
            visual: self.videos.visual(epoch, &shown)?,
            prompts: Some(self.reader.prompts(asked)?.rows(&own)),
            captions: Some(self.reader.targets(questions())?.rows(&own)),
            texts: own_items.iter().map(|&item| self.asked[item].1.answer.clone()).collect(),
            clips: shown.iter().map(|shown| shown.clip).collect(),
            items: own_items.to_vec(),
        })
    }

    fn name(&self, item: usize) -> String {
        let (shown, question) = &self.asked[item];
        format!("question {} about {}", question.id, self.videos.ids()[shown.clip])
    }

    /// Words of the question, which is most of a prompt.
    fn length(&self, _epoch: usize, item: usize) -> usize {
        self.asked[item].1.text.split_whitespace().count()
    }
}

#[cfg(test)]
mod tests;
