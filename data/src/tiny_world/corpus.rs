//! Texts of the tiny world without images: sentences, questions with answers, and the vocabulary.

use super::config::{ClipCaptionOdds, WorldConfig};
use super::draw::Combinations;
use super::grammar::{clip_caption, image_caption};
use super::questions::{Asker, QuestionKind, Topic, first, topics};
use super::scene::{Background, Colour, Picture, Scene};
use super::{question_words, words};
use crate::random::RandomStream;
use crate::text::QUESTION_PROMPT;
use std::collections::BTreeSet;

/// Clip captions and image captions in turn, as text for training a language model.
///
/// Sentence `i` depends on the configuration and `i` only.
#[must_use]
pub fn text_corpus(config: &WorldConfig, sentences: usize) -> Vec<String> {
    (0..sentences as u64)
        .map(|index| {
            let mut random = RandomStream::new(config.seed, "world: text", index);
            if index % 2 == 0 {
                let lengths = (config.shortest, config.longest);
                let scene = Scene::draw(&mut random, &config.scenes, Combinations::Any, lengths);
                clip_caption(&scene, &config.clip_captions, &mut random)
            } else {
                let picture = Picture::draw(&mut random, &config.scenes, Combinations::Any, None);
                image_caption(&picture, &config.image_captions, &mut random)
            }
        })
        .collect()
}

/// Every word and punctuation mark of the world: those of captions, sorted, then those that only questions,
/// their prompt and their answers contain, sorted.
#[must_use]
pub fn vocabulary() -> Vec<String> {
    let captions = caption_words();
    let questions =
        question_words::tables().into_iter().flatten().map(|(wording, _)| wording.replace("{s}", ""));
    let answers = QuestionKind::ALL.into_iter().flat_map(QuestionKind::answers).map(str::to_owned);
    let prompt = QUESTION_PROMPT.replace("{}", "").to_lowercase();
    let texts = questions.chain(answers).chain([prompt]);
    let marked = texts.map(|text| text.replace('?', " ?").replace(':', " :")).collect::<Vec<_>>().join(" ");
    let new: BTreeSet<&str> = marked.split_whitespace().filter(|word| !captions.contains(word)).collect();
    captions.iter().chain(&new).map(|word| (*word).to_owned()).collect()
}

fn caption_words() -> BTreeSet<&'static str> {
    let mut all: BTreeSet<&str> = ["a", "an", "the", "and"].into();
    for table in words::tables() {
        all.extend(table.iter().flat_map(|(phrase, _)| phrase.split_whitespace()));
    }
    all.extend([Background::Black, Background::Grey].map(words::background));
    all.retain(|word| !word.contains('{'));
    all
}

/// A caption of a clip, a question that the caption answers, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exercise {
    /// A caption that states everything about the clip that a question can ask for.
    pub sentence: String,
    /// The question.
    pub question: String,
    /// The answer, one word.
    pub answer: String,
}

/// Text-only question answering: captions with questions and answers.
///
/// A tiny language model that stays frozen learns from them what the questions mean and which answers exist,
/// which a published language model has learned from its own text.
#[must_use]
pub fn question_corpus(config: &WorldConfig, exercises: usize) -> Vec<Exercise> {
    let complete = ClipCaptionOdds {
        no_event: 0.0,
        no_direction: 0.0,
        one_of_two: 0.0,
        colour: 1.0,
        second: 1.0,
        background: 1.0,
        ..config.clip_captions.clone()
    };
    let mut asker = Asker::default();
    let exercise = |index| {
        let mut random = RandomStream::new(config.seed, "world: text with a question", index);
        let lengths = (config.shortest, config.longest);
        let scene = Scene::draw(&mut random, &config.scenes, Combinations::Any, lengths);
        let sentence = clip_caption(&scene, &complete, &mut random);
        let stated = topics(&scene).into_iter().filter(|topic| is_stated(topic, &scene, &sentence)).collect();
        let asked = asker.ask_about(stated, &scene, 1, &mut random).pop();
        asked.map(|asked| Exercise { sentence, question: asked.text, answer: asked.answer.to_owned() })
    };
    (0..exercises as u64).filter_map(exercise).collect()
}

/// Whether a caption with every optional part answers the question.
///
/// Some wordings of a colour change do not name the new colour; a caption never names background and second
/// object.
fn is_stated(topic: &Topic, scene: &Scene, sentence: &str) -> bool {
    match topic.kind {
        QuestionKind::Background => scene.second.is_none(),
        QuestionKind::ColourChange => {
            let names = Colour::ALL.map(words::colour).into_iter().find(|names| first(names) == topic.answer);
            let names = names.unwrap_or_default();
            sentence.split(' ').any(|word| names.iter().any(|(name, _)| *name == word))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse_caption;
    use super::super::question_words::{
        COLOUR, COLOUR_AFTER, COLOUR_BEFORE, DIRECTION, FIRST, GROWTH, SHAPE,
    };
    use super::super::questions::{direction, event};
    use super::super::words::Table;
    use super::*;
    use crate::text::{Tokenizer, UNKNOWN, ask};

    #[test]
    fn the_vocabulary_holds_every_word_of_the_corpus() {
        let vocabulary = vocabulary();
        assert!((200..=400).contains(&vocabulary.len()), "{} words", vocabulary.len());
        let captions = &vocabulary[..caption_words().len()];
        assert!(captions.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(vocabulary[captions.len()..].windows(2).all(|pair| pair[0] < pair[1]));
        for sentence in text_corpus(&WorldConfig::default(), 5000) {
            for word in sentence.split(' ') {
                assert!(captions.binary_search(&word.to_string()).is_ok(), "{word:?} in {sentence:?}");
            }
        }
    }

    #[test]
    fn questions_have_no_unknown_words() {
        let tokenizer = Tokenizer::word_level(&vocabulary()).unwrap();
        for (wording, _) in question_words::tables().into_iter().flatten() {
            let prompt = ask(QUESTION_PROMPT, &wording.replace("{s}", "ring"));
            assert!(!tokenizer.encode(&prompt, 100).unwrap().contains(&UNKNOWN), "{prompt}");
        }
        for answer in QuestionKind::ALL.into_iter().flat_map(QuestionKind::answers) {
            let ids = tokenizer.encode(answer, 100).unwrap();
            assert!(ids.len() == 2 && ids[0] != UNKNOWN, "{answer} is one word and the end");
        }
    }

    #[test]
    fn sentences_answer_their_questions() {
        let exercises = question_corpus(&WorldConfig::default(), 4000);
        assert_eq!(exercises.len(), 4000);
        let mut checked = [0; 5];
        for Exercise { sentence, question, answer } in &exercises {
            let parsed = parse_caption(sentence);
            let of = |wordings: Table| wordings.iter().any(|(wording, _)| wording == question);
            let mut check = |which: usize, right: bool| {
                checked[which] += 1;
                assert!(right, "{sentence}: {question} {answer}");
            };
            if of(SHAPE) {
                check(0, parsed.shape == parse_caption(answer).shape);
            } else if of(COLOUR) || of(COLOUR_BEFORE) {
                check(1, parsed.colour == parse_caption(answer).colour);
            } else if of(DIRECTION) || of(GROWTH) {
                let mut directions = parsed.events.iter().filter_map(|mention| mention.event).map(direction);
                check(2, directions.any(|direction| direction == answer));
            } else if of(FIRST) {
                check(3, event(parsed.events[0].kind) == answer);
            } else if of(COLOUR_AFTER) {
                let after = parse_caption(answer).colour.map(words::colour).unwrap_or_default();
                check(4, sentence.split(' ').any(|word| after.iter().any(|(name, _)| *name == word)));
            }
        }
        assert!(checked.iter().all(|&times| times > 50), "{checked:?}");
    }
}
