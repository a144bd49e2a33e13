//! Scores of answers: accuracy of all questions and of each group of them.

use std::collections::{BTreeMap, BTreeSet};

use data::datasets::questions::most_frequent_answers;
use data::datasets::{Clip, Question};
use data::tiny_world::{QuestionKind, World};
use metrics::vqa::{accuracy, normalize};
use serde_json::{Value, json};
use train::{Metrics, Prediction, Scorer, TrainError};

use crate::text::metrics::ACCURACY;

/// A group of questions whose accuracy is reported.
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

/// The first words of questions by which papers on MSRVTT-QA and MSVD-QA report accuracy.
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
            None => Ok(Group::Word(FirstWord::of(&question.text))),
            Some(world) => world.question_kind(&question.id).map(Group::Kind).ok_or_else(|| {
                let (id, world) = (&question.id, world.directory().display());
                TrainError::Data(format!("there is no question {id} in the tiny world {world}"))
            }),
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
        Ok(groups.iter().fold(metrics, |metrics, (group, scores)| metrics.with(group.name(), mean(scores))))
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
        std::iter::once(ACCURACY).chain(groups.into_iter().map(Group::name)).map(str::to_owned).collect()
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
