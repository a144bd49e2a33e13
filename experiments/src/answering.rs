//! Answering questions about videos (Table 3 of the paper). Each question, put into a prompt, is an example of its own,
//! whose answer the language model learns to write: instruction tuning as LAVIS and InstructBLIP do it. Answers are
//! written freely and count when they equal the published one after the VQA challenge's normalisation.

use std::collections::BTreeMap;
use std::sync::Arc;

use data::datasets::questions::most_frequent_answers;
use data::datasets::synthetic::{QuestionKind, World};
use data::datasets::{Clip, Question, Split};
use data::text::{Family, QUESTION_PROMPT, Tokenizer, ask, clean_question};
use metrics::vqa::{accuracy, normalize};
use model::Blip2Config;
use model::generate::GenerateConfig;
use model::lm::LanguageModelConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use train::dashboard::Metrics;
use train::{Batch, Examples, HostPrompts, HostTokens, Prediction, Scorer, TrainError, Validation};

use crate::examples::{Videos, share};

/// Name of the share of right answers among the figures. Choose the best model by it: `train.select = "accuracy"`.
pub const ACCURACY: &str = "accuracy";

/// How questions are asked and answered; by default as LAVIS evaluates InstructBLIP on MSRVTT-QA.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerConfig {
    /// What the language model reads behind the video; the question stands at its `{}`.
    pub prompt: String,
    /// Most tokens of a prompt. A longer one is cut, its end first.
    pub max_prompt_tokens: usize,
    /// Most tokens of an answer that is learned.
    pub max_answer_tokens: usize,
    /// How answers are written. What ends one is the tokenizer's to say.
    pub generate: GenerateConfig,
}

impl Default for AnswerConfig {
    fn default() -> Self {
        Self {
            prompt: QUESTION_PROMPT.to_owned(),
            max_prompt_tokens: 128,
            max_answer_tokens: 32,
            generate: GenerateConfig {
                num_beams: 5,
                max_new_tokens: 10,
                length_penalty: -1.0,
                ..GenerateConfig::default()
            },
        }
    }
}

impl AnswerConfig {
    /// Refuses a prompt that has no place for the question, or several.
    ///
    /// # Errors
    /// With the prompt.
    pub fn check(&self) -> Result<(), TrainError> {
        match self.prompt.matches("{}").count() {
            1 => Ok(()),
            places => Err(TrainError::Data(format!(
                "the prompt {:?} has {places} places for the question; put one {{}} into it",
                self.prompt
            ))),
        }
    }

    /// How answers are written with a tokenizer: what a captioner's context takes.
    pub fn generate(&self, tokenizer: &Tokenizer) -> GenerateConfig {
        GenerateConfig { end_tokens: vec![tokenizer.end()], ..self.generate.clone() }
    }
}

/// Turns questions and answers into what one model reads and writes.
#[derive(Debug, Clone)]
pub struct Reader {
    config: AnswerConfig,
    tokenizer: Arc<Tokenizer>,
    /// A decoder-only language model writes on where its prompt ends, so padding has to stand before that.
    pads_start: bool,
    qformer: Option<Arc<Tokenizer>>,
}

impl Reader {
    /// For a model and its language model's tokenizer.
    ///
    /// # Errors
    /// As [`AnswerConfig::check`].
    pub fn new(
        config: AnswerConfig,
        model: &Blip2Config,
        tokenizer: Arc<Tokenizer>,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let pads_start = !matches!(model.text_config, LanguageModelConfig::T5(_));
        Ok(Self { config, tokenizer, pads_start, qformer: None })
    }

    /// Lets the Q-Former read the prompt too, as InstructBLIP's does. Its tokenizer is BERT's; a model whose Q-Former
    /// cannot read text refuses such a batch.
    #[must_use]
    pub fn with_instruction(self, qformer: Arc<Tokenizer>) -> Self {
        Self { qformer: Some(qformer), ..self }
    }

    /// The questions in their prompts.
    ///
    /// # Errors
    /// When a tokenizer fails on one.
    pub fn prompts<'a>(
        &self,
        questions: impl Iterator<Item = &'a Question>,
    ) -> Result<HostPrompts, TrainError> {
        let prompts: Vec<String> =
            questions.map(|question| ask(&self.config.prompt, &clean_question(&question.text))).collect();
        let tokens = |tokenizer: &Tokenizer| {
            let most = self.config.max_prompt_tokens;
            let ids = prompts.iter().map(|prompt| tokenizer.encode_as_published(prompt, most));
            ids.collect::<data::Result<Vec<_>>>()
        };
        let text = tokens(&self.tokenizer)?;
        let text = if self.pads_start { HostTokens::pad_start(&text) } else { HostTokens::pad(&text) };
        let instruction = self.qformer.as_deref().map(tokens).transpose()?;
        Ok(HostPrompts { text: Some(text), instruction: instruction.as_deref().map(HostTokens::pad) })
    }

    /// The answers as the language model is to write them behind a prompt.
    ///
    /// # Errors
    /// When the tokenizer fails on one.
    pub fn targets<'a>(
        &self,
        questions: impl Iterator<Item = &'a Question>,
    ) -> Result<HostTokens, TrainError> {
        // OPT's text begins before the prompt, and its words know the space before them
        let before = if self.tokenizer.family() == Family::Opt { " " } else { "" };
        let target = |question: &Question| {
            let answer = format!("{before}{}", question.answer.trim());
            self.tokenizer.encode(&answer, self.config.max_answer_tokens)
        };
        let ids = questions.map(target).collect::<data::Result<Vec<_>>>();
        Ok(HostTokens::pad(&ids?))
    }
}

/// Questions about clips, one an example.
pub struct Questions {
    videos: Videos,
    /// Each with the place of its clip.
    asked: Vec<(usize, Question)>,
    reader: Reader,
}

/// The questions about the clips of a split, in order, as examples to learn from or to be measured on. `videos` shows the
/// same clips, as frames or as a frozen ViT's features.
///
/// # Errors
/// When the videos are of other clips, or nothing is asked about any of them.
pub fn examples(videos: Videos, clips: &[&Clip], reader: Reader) -> Result<Questions, TrainError> {
    let shown: Vec<&str> = videos.ids().iter().map(String::as_str).collect();
    let annotated: Vec<&str> = clips.iter().map(|clip| clip.id.as_str()).collect();
    if shown != annotated {
        let (shown, annotated) = (shown.len(), annotated.len());
        let reason =
            format!("questions about {annotated} clips and frames of {shown} are not of the same clips");
        return Err(TrainError::Data(reason));
    }
    let asked = asked(clips).map(|(clip, question)| (clip, question.clone())).collect::<Vec<_>>();
    if asked.is_empty() {
        return Err(TrainError::Data(format!("nothing is asked about any of {} clips", clips.len())));
    }
    Ok(Questions { videos, asked, reader })
}

/// Every question with the place of its clip.
fn asked<'a>(clips: &'a [&'a Clip]) -> impl Iterator<Item = (usize, &'a Question)> {
    clips
        .iter()
        .enumerate()
        .flat_map(|(place, clip)| clip.questions.iter().map(move |question| (place, question)))
}

impl Questions {
    /// The questions as a split that a model is measured on.
    pub fn validation(self, split: Split, judge: Arc<dyn Scorer>, batch_size: usize) -> Validation {
        let ids = self.asked.iter().map(|(_, question)| question.id.clone()).collect();
        Validation { split, ids, examples: share(self), scorer: Some(judge), batch_size }
    }
}

impl Examples for Questions {
    fn len(&self) -> usize {
        self.asked.len()
    }

    fn batch(&self, epoch: usize, items: &[usize]) -> Result<Batch, TrainError> {
        let questions = || items.iter().map(|&item| &self.asked[item].1);
        let clips: Vec<usize> = items.iter().map(|&item| self.asked[item].0).collect();
        Ok(Batch::Caption {
            visual: self.videos.visual(epoch, &clips)?,
            prompts: Some(self.reader.prompts(questions())?),
            captions: Some(self.reader.targets(questions())?),
            texts: questions().map(|question| question.answer.clone()).collect(),
            clips,
            items: items.to_vec(),
        })
    }

    fn name(&self, item: usize) -> String {
        let (clip, question) = &self.asked[item];
        format!("question {} about {}", question.id, self.videos.ids()[*clip])
    }

    /// In words of the question, as most of a prompt is.
    fn length(&self, _epoch: usize, item: usize) -> usize {
        self.asked[item].1.text.split_whitespace().count()
    }
}

/// What accuracy is reported apart for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Kind(QuestionKind),
    Word(FirstWord),
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Self::Kind(kind) => kind.name(),
            Self::Word(word) => word.name(),
        }
    }
}

/// A question's first word, of those that papers on MSRVTT-QA and MSVD-QA tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum FirstWord {
    What,
    Who,
    How,
    When,
    Where,
    Other,
}

impl FirstWord {
    const ASKING: [Self; 5] = [Self::What, Self::Who, Self::How, Self::When, Self::Where];

    fn of(question: &str) -> Self {
        let first = question.split_whitespace().next().unwrap_or_default().to_lowercase();
        Self::ASKING.into_iter().find(|word| word.name() == first).unwrap_or(Self::Other)
    }

    fn name(self) -> &'static str {
        match self {
            Self::What => "what",
            Self::Who => "who",
            Self::How => "how",
            Self::When => "when",
            Self::Where => "where",
            Self::Other => "other",
        }
    }
}

/// A split's questions, ready to score answers to them.
#[derive(Debug, Clone)]
pub struct AnswerScorer {
    /// In the order of the examples.
    asked: Vec<(Group, Question)>,
}

/// Scores answers to the questions about clips, which are those of the [`examples`]. Questions about the tiny world are told
/// apart by what they ask about, others by their first word.
///
/// # Errors
/// When a question is not one of that world.
pub fn judge(world: Option<&World>, clips: &[&Clip]) -> Result<AnswerScorer, TrainError> {
    let group = |question: &Question| match world {
        None => Ok(Group::Word(FirstWord::of(&question.text))),
        Some(world) => world.question_kind(&question.id).map(Group::Kind).ok_or_else(|| {
            let (id, world) = (&question.id, world.directory().display());
            TrainError::Data(format!("there is no question {id} in the tiny world {world}"))
        }),
    };
    let asked = asked(clips).map(|(_, question)| Ok((group(question)?, question.clone())));
    Ok(AnswerScorer { asked: asked.collect::<Result<_, TrainError>>()? })
}

impl AnswerScorer {
    /// Accuracy in all and of each group of questions, 0..1, of one answer a question, in order.
    ///
    /// # Errors
    /// When there are more or fewer answers than questions.
    pub fn score(&self, answers: &[String]) -> Result<Metrics, TrainError> {
        if answers.len() != self.asked.len() {
            let (answers, questions) = (answers.len(), self.asked.len());
            return Err(TrainError::Data(format!("{answers} answers to {questions} questions")));
        }
        let mut groups: BTreeMap<Group, Vec<f64>> = BTreeMap::new();
        for ((group, question), answer) in self.asked.iter().zip(answers) {
            groups.entry(*group).or_default().push(accuracy(answer, &[&question.answer]));
        }
        let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len().max(1) as f64;
        let all: Vec<f64> = groups.values().flatten().copied().collect();
        let metrics = Metrics::one(ACCURACY, mean(&all));
        Ok(groups.iter().fold(metrics, |metrics, (group, scores)| metrics.with(group.name(), mean(scores))))
    }

    /// How well one does without looking: always the most frequent answer that training gives to such a question.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn chance(&self, training: &Self) -> Result<Metrics, TrainError> {
        let given: Vec<(Group, String)> =
            training.asked.iter().map(|(group, question)| (*group, normalize(&question.answer))).collect();
        let most = most_frequent_answers(given.iter().map(|(group, answer)| (*group, answer.as_str())));
        let answer = |(group, _): &(Group, Question)| most.get(group).cloned().unwrap_or_default();
        self.score(&self.asked.iter().map(answer).collect::<Vec<_>>())
    }
}

impl Scorer for AnswerScorer {
    fn names(&self) -> Vec<String> {
        let groups: std::collections::BTreeSet<Group> = self.asked.iter().map(|(group, _)| *group).collect();
        std::iter::once(ACCURACY).chain(groups.into_iter().map(Group::name)).map(str::to_owned).collect()
    }

    /// The list that the VQA challenge takes: `question_id` and `answer`.
    fn results(&self, written: &[Prediction], ids: &[String]) -> Vec<Value> {
        let id = |written: &Prediction| match ids.get(written.item).map(|id| (id, id.parse::<u64>())) {
            Some((id, Ok(number))) if number.to_string() == *id => json!(number),
            other => json!(other.map(|(id, _)| id)),
        };
        let result = |written| json!({"question_id": id(written), "answer": written.caption});
        written.iter().map(result).collect()
    }

    fn score_predictions(&self, written: &[Prediction]) -> Result<Metrics, TrainError> {
        self.score(&written.iter().map(|written| written.caption.clone()).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests;
