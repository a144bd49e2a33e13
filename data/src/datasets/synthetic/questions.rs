//! Questions about a clip with one-word answers that follow from its truth. Each is asked only while its answer is not
//! ahead of the others to its kind of question, so that always giving the most frequent one earns little.

use super::config::{ClipCaptionOdds, WorldConfig};
use super::grammar::{clip_caption, one_of};
use super::scene::{Background, Colour, Combinations, Event, Kind, Scene, Shape};
use super::words::{self, Table};
use crate::random::RandomStream;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many questions an answer may be ahead of the rarest to the same kind of question. None at all would leave most
/// questions of many answers unasked, as each would have to wait for all others.
const LEAD: usize = 3;

const YES: &str = "yes";
const NO: &str = "no";

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuestionKind {
    /// The main object's shape.
    Shape,
    /// The main object's colour, where it keeps it.
    Colour,
    /// The main object's colour at the start or at the end, where it changes.
    ColourChange,
    /// The kind of the only event; those of opposite directions are one kind.
    Event,
    /// Where the main object moves to: left, right, up or down.
    Direction,
    /// Whether the main object grows or shrinks.
    Growth,
    /// Which of two kinds of events comes first, or second.
    Order,
    /// How many objects there are.
    Count,
    /// The shape in the corner.
    Corner,
    /// Whether there is a certain shape.
    Presence,
    /// The background's colour.
    Background,
}

impl QuestionKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Shape,
        Self::Colour,
        Self::ColourChange,
        Self::Event,
        Self::Direction,
        Self::Growth,
        Self::Order,
        Self::Count,
        Self::Corner,
        Self::Presence,
        Self::Background,
    ];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shape => "shape",
            Self::Colour => "colour",
            Self::ColourChange => "colour change",
            Self::Event => "event",
            Self::Direction => "direction",
            Self::Growth => "growth",
            Self::Order => "order",
            Self::Count => "count",
            Self::Corner => "corner",
            Self::Presence => "presence",
            Self::Background => "background",
        }
    }

    /// The answers there are to questions of this kind.
    #[must_use]
    pub fn answers(self) -> Vec<&'static str> {
        let shapes = || Shape::ALL.map(shape).to_vec();
        let colours = || Colour::ALL.map(colour).to_vec();
        let events = |kinds: &[Kind]| kinds.iter().copied().map(event).collect();
        match self {
            Self::Shape | Self::Corner => shapes(),
            Self::Colour | Self::ColourChange => colours(),
            Self::Event => events(&Kind::ALL),
            Self::Direction => [Event::Left, Event::Right, Event::Up, Event::Down].map(direction).to_vec(),
            Self::Growth => [Event::Grow, Event::Shrink].map(direction).to_vec(),
            Self::Order => events(&[
                Kind::Horizontal,
                Kind::Vertical,
                Kind::Size,
                Kind::Spin,
                Kind::Blink,
                Kind::Recolour,
            ]),
            Self::Count => [false, true].map(count).to_vec(),
            Self::Presence => vec![YES, NO],
            Self::Background => [Background::Black, Background::Grey].map(words::background).to_vec(),
        }
    }
}

/// A question about a clip, with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub kind: QuestionKind,
    pub text: String,
    pub answer: &'static str,
}

/// What could be asked about a clip.
#[derive(Clone, Copy, Debug)]
struct Topic {
    kind: QuestionKind,
    wordings: Table,
    /// What stands for `{s}`.
    named: &'static str,
    answer: &'static str,
}

/// Asks about the clips of one split, and keeps the answers balanced.
#[derive(Debug, Default)]
pub(crate) struct Asker {
    asked: BTreeMap<(QuestionKind, &'static str), usize>,
}

impl Asker {
    /// At most `count` different questions about a clip, and at least one; fewer where there is less to ask, or where
    /// the answers have been given too often.
    pub(crate) fn ask(&mut self, scene: &Scene, count: usize, random: &mut RandomStream) -> Vec<Asked> {
        self.ask_of(topics(scene), scene, count, random)
    }

    /// As [`Self::ask`], of certain topics and of whether there is a shape.
    fn ask_of(
        &mut self,
        mut topics: Vec<Topic>,
        scene: &Scene,
        count: usize,
        random: &mut RandomStream,
    ) -> Vec<Asked> {
        topics.push(self.presence(scene, random));
        random.shuffle(&mut topics);
        topics.retain(|topic| self.times(topic.kind, topic.answer) <= self.rarest(topic.kind) + LEAD);
        topics.truncate(count);
        for topic in &topics {
            *self.asked.entry((topic.kind, topic.answer)).or_default() += 1;
        }
        let worded = |topic: Topic, random: &mut RandomStream| Asked {
            kind: topic.kind,
            text: one_of(topic.wordings, random).replace("{s}", topic.named),
            answer: topic.answer,
        };
        topics.into_iter().map(|topic| worded(topic, random)).collect()
    }

    /// Asks for a shape so that the answer is the one that was rarer so far.
    fn presence(&self, scene: &Scene, random: &mut RandomStream) -> Topic {
        let kind = QuestionKind::Presence;
        let yes = match self.times(kind, YES).cmp(&self.times(kind, NO)) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => random.chance(0.5),
            std::cmp::Ordering::Greater => false,
        };
        let shown = |shape: &Shape| {
            *shape == scene.main.shape || scene.second.is_some_and(|second| *shape == second.shape)
        };
        let shapes: Vec<Shape> = Shape::ALL.into_iter().filter(|shape| shown(shape) == yes).collect();
        // A scene has one or two of the five shapes, so there is always one to ask for.
        let named = random.pick(&shapes).map_or("", |&asked| shape(asked));
        Topic { kind, wordings: PRESENCE, named, answer: if yes { YES } else { NO } }
    }

    fn times(&self, kind: QuestionKind, answer: &'static str) -> usize {
        self.asked.get(&(kind, answer)).copied().unwrap_or(0)
    }

    fn rarest(&self, kind: QuestionKind) -> usize {
        kind.answers().into_iter().map(|answer| self.times(kind, answer)).min().unwrap_or(0)
    }
}

/// Everything that can be asked about a scene, but whether there is a certain shape.
fn topics(scene: &Scene) -> Vec<Topic> {
    use QuestionKind as Ask;
    let mut topics = Vec::new();
    let mut add = |kind, wordings, answer| topics.push(Topic { kind, wordings, named: "", answer });
    add(Ask::Shape, SHAPE, shape(scene.main.shape));
    match scene.to_colour {
        None => add(Ask::Colour, COLOUR, colour(scene.main.colour)),
        Some(after) => {
            add(Ask::ColourChange, COLOUR_BEFORE, colour(scene.main.colour));
            add(Ask::ColourChange, COLOUR_AFTER, colour(after));
        }
    }
    match scene.events.as_slice() {
        [only] => add(Ask::Event, EVENT, event(only.kind())),
        events => {
            for (happening, wordings) in events.iter().zip([FIRST, SECOND]) {
                add(Ask::Order, wordings, event(happening.kind()));
            }
        }
    }
    for happening in &scene.events {
        match happening.kind() {
            Kind::Horizontal | Kind::Vertical => add(Ask::Direction, DIRECTION, direction(*happening)),
            Kind::Size => add(Ask::Growth, GROWTH, direction(*happening)),
            Kind::Spin | Kind::Blink | Kind::Recolour | Kind::Still => {}
        }
    }
    add(Ask::Count, COUNT, count(scene.second.is_some()));
    if let Some(second) = scene.second {
        add(Ask::Corner, CORNER, shape(second.shape));
    }
    add(Ask::Background, BACKGROUND, words::background(scene.background));
    topics
}

fn shape(shape: Shape) -> &'static str {
    first(words::shape(shape))
}

fn colour(colour: Colour) -> &'static str {
    first(words::colour(colour))
}

fn first(table: Table) -> &'static str {
    table.first().map_or("", |(word, _)| word)
}

/// A kind of event in a word that captions use for no other kind. As there, what goes sideways moves, and what moves up
/// or down goes.
fn event(kind: Kind) -> &'static str {
    match kind {
        Kind::Horizontal => "moves",
        Kind::Vertical => "goes",
        Kind::Size => "resized",
        Kind::Spin => "spins",
        Kind::Blink => "blinks",
        Kind::Recolour => "turns",
        Kind::Still => "stays",
    }
}

/// What tells an event from its opposite; nothing where it has none.
fn direction(event: Event) -> &'static str {
    match event {
        Event::Left => "left",
        Event::Right => "right",
        Event::Up => "up",
        Event::Down => "down",
        Event::Grow => "grows",
        Event::Shrink => "shrinks",
        Event::Spin | Event::Blink | Event::Recolour | Event::Still => "",
    }
}

fn count(second: bool) -> &'static str {
    if second { "two" } else { "one" }
}

const SHAPE: Table = &[
    ("what shape is the main object?", 0.5),
    ("which shape does the main object have?", 0.3),
    ("what is the main object?", 0.2),
];
const COLOUR: Table = &[
    ("what colour is the main object?", 0.5),
    ("which colour does the main object have?", 0.3),
    ("what is the colour of the main object?", 0.2),
];
const COLOUR_BEFORE: Table = &[
    ("what colour is the main object at the start?", 0.6),
    ("which colour does the main object have before it changes?", 0.4),
];
const COLOUR_AFTER: Table = &[
    ("what colour is the main object at the end?", 0.6),
    ("which colour does the main object have after it changes?", 0.4),
];
const EVENT: Table = &[("what does the main object do?", 0.6), ("what happens to the main object?", 0.4)];
const DIRECTION: Table = &[
    ("which way does the main object move?", 0.5),
    ("in which direction does the main object move?", 0.3),
    ("where does the main object move to?", 0.2),
];
const GROWTH: Table =
    &[("does the main object grow or shrink?", 0.6), ("how does the size of the main object change?", 0.4)];
const FIRST: Table = &[("what happens first?", 0.6), ("what does the main object do first?", 0.4)];
const SECOND: Table = &[("what happens second?", 0.6), ("what does the main object do second?", 0.4)];
const COUNT: Table = &[("how many objects are there?", 0.6), ("how many objects does the video show?", 0.4)];
const CORNER: Table = &[
    ("what is in the corner?", 0.5),
    ("which shape is in the corner?", 0.3),
    ("what waits in the corner?", 0.2),
];
const PRESENCE: Table =
    &[("is there a {s}?", 0.5), ("does the video show a {s}?", 0.3), ("can you see a {s}?", 0.2)];
const BACKGROUND: Table = &[
    ("what colour is the background?", 0.5),
    ("which colour does the background have?", 0.3),
    ("what is the colour of the background?", 0.2),
];

/// Every table of this file, for the vocabulary.
pub(crate) fn wordings() -> [Table; 13] {
    [
        SHAPE,
        COLOUR,
        COLOUR_BEFORE,
        COLOUR_AFTER,
        EVENT,
        DIRECTION,
        GROWTH,
        FIRST,
        SECOND,
        COUNT,
        CORNER,
        PRESENCE,
        BACKGROUND,
    ]
}

/// A sentence about a clip, a question that it answers, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exercise {
    /// Says all of the clip that could be asked for.
    pub sentence: String,
    /// The question.
    pub question: String,
    /// One word.
    pub answer: String,
}

/// Exercises in reading: how a language model can learn what questions mean, and all the answers there are, before it sees
/// anything. A published language model knows; one that is to stay frozen has to.
#[must_use]
pub fn question_corpus(config: &WorldConfig, exercises: usize) -> Vec<Exercise> {
    let outspoken = ClipCaptionOdds {
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
        let sentence = clip_caption(&scene, &outspoken, &mut random);
        let told = topics(&scene).into_iter().filter(|topic| is_told(topic, &scene, &sentence)).collect();
        let asked = asker.ask_of(told, &scene, 1, &mut random).pop();
        asked.map(|asked| Exercise { sentence, question: asked.text, answer: asked.answer.to_owned() })
    };
    (0..exercises as u64).filter_map(exercise).collect()
}

/// Whether a sentence that leaves nothing out by choice answers the question: not all ways to say that a colour changes
/// say into which, and of background and second object only one is said.
fn is_told(topic: &Topic, scene: &Scene, sentence: &str) -> bool {
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
    use super::super::config::SceneOdds;
    use super::super::reading::read;
    use super::*;

    fn scene(index: u64) -> Scene {
        let mut random = RandomStream::new(1, "question test", index);
        Scene::draw(&mut random, &SceneOdds::default(), Combinations::Trained, (24, 36))
    }

    /// What is asked about a thousand clips.
    fn asked() -> Vec<Vec<Asked>> {
        let mut asker = Asker::default();
        let ask = |index| asker.ask(&scene(index), 5, &mut RandomStream::new(1, "asking test", index));
        (0..1000).map(ask).collect()
    }

    fn answers(scene: &Scene) -> Vec<(QuestionKind, &'static str)> {
        topics(scene).into_iter().map(|topic| (topic.kind, topic.answer)).collect()
    }

    #[test]
    fn answers_follow_from_the_scene() {
        use QuestionKind as Ask;
        let mut scene = scene(0);
        scene.main.shape = Shape::Square;
        scene.main.colour = Colour::Red;
        scene.background = Background::Grey;
        (scene.events, scene.to_colour, scene.second) = (vec![Event::Up], None, None);
        assert_eq!(
            answers(&scene),
            [
                (Ask::Shape, "square"),
                (Ask::Colour, "red"),
                (Ask::Event, "goes"),
                (Ask::Direction, "up"),
                (Ask::Count, "one"),
                (Ask::Background, "grey"),
            ]
        );
        scene.second = Some(super::super::scene::Object { shape: Shape::Ring, ..scene.main });
        (scene.events, scene.to_colour) = (vec![Event::Recolour, Event::Left], Some(Colour::Blue));
        assert_eq!(
            answers(&scene),
            [
                (Ask::Shape, "square"),
                (Ask::ColourChange, "red"),
                (Ask::ColourChange, "blue"),
                (Ask::Order, "turns"),
                (Ask::Order, "moves"),
                (Ask::Direction, "left"),
                (Ask::Count, "two"),
                (Ask::Corner, "ring"),
                (Ask::Background, "grey"),
            ]
        );
        (scene.events, scene.to_colour) = (vec![Event::Shrink], None);
        assert!(answers(&scene).contains(&(Ask::Event, "resized")));
        assert!(answers(&scene).contains(&(Ask::Growth, "shrinks")));
        let mut asker = Asker::default();
        for index in 0..100 {
            let topic = asker.presence(&scene, &mut RandomStream::new(1, "presence test", index));
            assert_eq!(topic.answer == YES, ["square", "ring"].contains(&topic.named), "{topic:?}");
            *asker.asked.entry((topic.kind, topic.answer)).or_default() += 1;
        }
    }

    #[test]
    fn a_clip_is_asked_a_handful_of_different_questions() {
        let asked = asked();
        for questions in &asked {
            assert!((1..=5).contains(&questions.len()));
            for (place, question) in questions.iter().enumerate() {
                assert!(!question.text.contains('{') && question.text.ends_with('?'), "{}", question.text);
                assert!(question.kind.answers().contains(&question.answer), "{question:?}");
                assert!(questions[..place].iter().all(|other| other.text != question.text), "{questions:?}");
            }
        }
        let full = asked.iter().filter(|questions| questions.len() >= 4).count();
        assert!(full > 900, "{full} of 1000 clips have four questions or five");
    }

    #[test]
    fn no_answer_is_ahead_of_the_others() {
        let asked: Vec<Asked> = asked().into_iter().flatten().collect();
        for kind in QuestionKind::ALL {
            let times = |answer| asked.iter().filter(|q| q.kind == kind && q.answer == answer).count();
            let counts: Vec<usize> = kind.answers().into_iter().map(times).collect();
            let (rarest, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - rarest <= LEAD + 1, "{kind:?} {counts:?}");
            assert!(counts.iter().sum::<usize>() >= 90, "{kind:?} {counts:?}");
        }
    }

    #[test]
    fn every_wording_is_used() {
        let texts: std::collections::BTreeSet<String> =
            asked().into_iter().flatten().map(|question| question.text).collect();
        for (wording, _) in wordings().into_iter().flatten() {
            assert!(texts.contains(&wording.replace("{s}", "ring")), "{wording}");
        }
    }

    #[test]
    fn sentences_answer_their_questions() {
        let exercises = question_corpus(&WorldConfig::default(), 4000);
        assert_eq!(exercises.len(), 4000);
        let mut checked = [0; 5];
        for Exercise { sentence, question, answer } in &exercises {
            let said = read(sentence);
            let of = |wordings: Table| wordings.iter().any(|(wording, _)| wording == question);
            let mut check = |which: usize, right: bool| {
                checked[which] += 1;
                assert!(right, "{sentence}: {question} {answer}");
            };
            if of(SHAPE) {
                check(0, said.shape == read(answer).shape);
            } else if of(COLOUR) || of(COLOUR_BEFORE) {
                check(1, said.colour == read(answer).colour);
            } else if of(DIRECTION) || of(GROWTH) {
                let mut directions = said.events.iter().filter_map(|mention| mention.event).map(direction);
                check(2, directions.any(|said| said == answer));
            } else if of(FIRST) {
                check(3, event(said.events[0].kind) == answer);
            } else if of(COLOUR_AFTER) {
                let after = read(answer).colour.map(words::colour).unwrap_or_default();
                check(4, sentence.split(' ').any(|word| after.iter().any(|(name, _)| *name == word)));
            }
        }
        assert!(checked.iter().all(|&times| times > 50), "{checked:?}");
    }
}
