//! Questions about a clip with one-word answers that follow from its scene.
//!
//! The answers of each kind of question are balanced: the most frequent one scores little above chance.

use super::grammar::one_of;
use super::question_words::{
    BACKGROUND, COLOUR, COLOUR_AFTER, COLOUR_BEFORE, CORNER, COUNT, DIRECTION, EVENT, FIRST, GROWTH,
    PRESENCE, SECOND, SHAPE,
};
use super::scene::{Background, Colour, Event, Kind, Scene, Shape};
use super::words::{self, Table};
use crate::random::RandomStream;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most by which the count of an answer may exceed that of the kind's rarest answer.
///
/// With 0, a question with many possible answers would be asked only after every other answer had its turn.
const LEAD: usize = 3;

const YES: &str = "yes";
const NO: &str = "no";

/// The subject of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuestionKind {
    /// The main object's shape.
    Shape,
    /// The main object's colour, where it does not change.
    Colour,
    /// The main object's colour at the start or at the end, where it changes.
    ColourChange,
    /// The kind of the only event; opposite directions are one kind.
    Event,
    /// The direction in which the main object moves: left, right, up or down.
    Direction,
    /// Whether the main object grows or shrinks.
    Growth,
    /// The kind of the first or of the second of two events.
    Order,
    /// The number of objects.
    Count,
    /// The shape in the corner.
    Corner,
    /// Whether a certain shape is in the clip.
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

    /// Every answer to questions of this kind.
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

/// A question about a clip before its wording is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topic {
    pub(super) kind: QuestionKind,
    wordings: Table,
    /// The word that replaces `{s}`.
    named: &'static str,
    pub(super) answer: &'static str,
}

/// Draws the questions about the clips of one split, with balanced answers.
#[derive(Debug, Default)]
pub(crate) struct Asker {
    asked: BTreeMap<(QuestionKind, &'static str), usize>,
}

impl Asker {
    /// At least one and at most `count` different questions about a clip; fewer where the scene has fewer
    /// topics or the answers are already too frequent.
    pub(crate) fn ask(&mut self, scene: &Scene, count: usize, random: &mut RandomStream) -> Vec<Asked> {
        self.ask_about(topics(scene), scene, count, random)
    }

    /// As [`Self::ask`], about the given topics and the presence of a shape.
    pub(super) fn ask_about(
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

    /// Asks for a shape whose answer is the rarer one so far.
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
        // A scene has one or two of the five shapes, so neither list is empty.
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

/// Every topic of a scene except the presence of a shape.
pub(super) fn topics(scene: &Scene) -> Vec<Topic> {
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

/// The most common word of a table.
pub(super) fn first(table: Table) -> &'static str {
    table.first().map_or("", |(word, _)| word)
}

/// The verb that answers a question about a kind of event. Captions use each verb for this kind only: an
/// object "moves" sideways and "goes" up or down.
pub(super) fn event(kind: Kind) -> &'static str {
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

/// The word that distinguishes an event from its opposite; empty where it has none.
pub(super) fn direction(event: Event) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::super::config::SceneOdds;
    use super::super::draw::Combinations;
    use super::super::question_words;
    use super::*;

    fn scene(index: u64) -> Scene {
        let mut random = RandomStream::new(1, "question test", index);
        Scene::draw(&mut random, &SceneOdds::default(), Combinations::Trained, (24, 36))
    }

    /// The questions about a thousand clips.
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
        for (wording, _) in question_words::tables().into_iter().flatten() {
            assert!(texts.contains(&wording.replace("{s}", "ring")), "{wording}");
        }
    }
}
