//! Scores of answers: accuracy of all questions and of each group of them.

use std::collections::{BTreeMap, BTreeSet};

use data::datasets::questions::most_frequent_answers;
use data::datasets::{Clip, Question};
use data::tiny_world::World;
use metrics::vqa::{accuracy, normalize};
use serde_json::{Value, json};
use train::{Metrics, Prediction, Scorer, TrainError};

use crate::text::metrics::ACCURACY;

/// A group of questions whose accuracy is reported: its place among the groups, and its name.
type Group = (usize, &'static str);

/// The first words of questions by which papers on MSRVTT-QA and MSVD-QA report accuracy, and the name of all
/// others.
const FIRST_WORDS: [&str; 6] = ["what", "who", "how", "when", "where", "other"];

fn first_word(question: &str) -> Group {
    let first = question.split_whitespace().next().unwrap_or_default().to_lowercase();
    let at = FIRST_WORDS.iter().position(|word| *word == first).unwrap_or(FIRST_WORDS.len() - 1);
    (at, FIRST_WORDS[at])
}

/// Scores answers to the questions of a split.
#[derive(Debug, Clone)]
pub(super) struct AnswerScorer {
    /// In the order of the examples.
    asked: Vec<(Group, Question)>,
}

impl AnswerScorer {
    /// A scorer of the questions about clips, in order. Those of the tiny world are grouped by kind, others
    /// by their first word.
    pub(super) fn new(world: Option<&World>, clips: &[&Clip]) -> Result<Self, TrainError> {
        let group = |question: &Question| match world {
            None => Ok(first_word(&question.text)),
            Some(world) => match world.question_kind(&question.id) {
                Some(kind) => Ok((kind as usize, kind.name())),
                None => {
                    let (id, world) = (&question.id, world.directory().display());
                    Err(TrainError::Data(format!("there is no question {id} in the tiny world {world}")))
                }
            },
        };
        let questions = clips.iter().flat_map(|clip| &clip.questions);
        let asked = questions.map(|question| Ok((group(question)?, question.clone())));
        Ok(Self { asked: asked.collect::<Result<_, TrainError>>()? })
    }

    /// Accuracy of all questions and of each group, 0 to 1, from one answer a question, in order.
    pub(super) fn score(&self, answers: &[String]) -> Result<Metrics, TrainError> {
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
        Ok(groups.iter().fold(metrics, |metrics, (group, scores)| metrics.with(group.1, mean(scores))))
    }

    /// Accuracy without a model: the most frequent training answer of each group.
    pub(super) fn chance(&self, training: &Self) -> Result<Metrics, TrainError> {
        let given: Vec<(Group, String)> =
            training.asked.iter().map(|(group, question)| (*group, normalize(&question.answer))).collect();
        let most = most_frequent_answers(given.iter().map(|(group, answer)| (*group, answer.as_str())));
        let answer = |(group, _): &(Group, Question)| most.get(group).cloned().unwrap_or_default();
        self.score(&self.asked.iter().map(answer).collect::<Vec<_>>())
    }
}

impl Scorer for AnswerScorer {
    fn names(&self) -> Vec<String> {
        let groups: BTreeSet<Group> = self.asked.iter().map(|(group, _)| *group).collect();
        std::iter::once(ACCURACY).chain(groups.into_iter().map(|group| group.1)).map(str::to_owned).collect()
    }

    /// The list of the VQA challenge: `question_id` and `answer`.
    fn results(&self, predictions: &[Prediction], ids: &[String]) -> Vec<Value> {
        let id = |prediction: &Prediction| match ids.get(prediction.item).map(|id| (id, id.parse::<u64>())) {
            Some((id, Ok(number))) if number.to_string() == *id => json!(number),
            other => json!(other.map(|(id, _)| id)),
        };
        let result =
            |prediction: &Prediction| json!({"question_id": id(prediction), "answer": prediction.caption});
        predictions.iter().map(result).collect()
    }

    fn score_predictions(&self, predictions: &[Prediction]) -> Result<Metrics, TrainError> {
        self.score(&predictions.iter().map(|prediction| prediction.caption.clone()).collect::<Vec<_>>())
    }
}
