//! Reads a caption back: which shape, which colour, what happens and in which order, by the grammar's own synonyms.
//! A score such as CIDEr can be earned by sounding right; this tells whether a model sees.

use super::World;
use super::scene::{Colour, Event, Kind, Picture, Scene, Shape};
use super::words;
use crate::datasets::Split;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What a caption says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The main object's shape: the first one named.
    pub shape: Option<Shape>,
    /// The main object's colour.
    pub colour: Option<Colour>,
    /// What happens, in the order of time.
    pub events: Vec<Mention>,
}

/// One event a caption speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Its kind.
    pub kind: Kind,
    /// The event itself, where the caption says enough: "moves sideways" leaves it open.
    pub event: Option<Event>,
}

/// A caption against the truth. What is not said is not right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The main object's shape is right.
    pub shape: bool,
    /// The main object's colour is right; of a recolouring either colour, as the object has both.
    pub colour: bool,
    /// The kinds of the events are right, all of them and no others.
    pub event_kind: bool,
    /// The directions are right; `None` where the clip has none or the caption says none.
    pub direction: Option<bool>,
    /// Two events are in the right order; `None` where the clip has one or the caption does not say just these two.
    pub order: Option<bool>,
}

/// The score of always giving the most frequent answer, by attribute, 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChanceLevels {
    /// Of the shape.
    pub shape: f64,
    /// Of the colour.
    pub colour: f64,
    /// Of the set of event kinds.
    pub event_kind: f64,
    /// Of the direction, the most frequent one of each kind, among clips that have one.
    pub direction: f64,
    /// Of the order, among clips with two events.
    pub order: f64,
}

/// Reads a caption, the grammar's or a model's.
#[must_use]
pub fn read(caption: &str) -> Reading {
    let caption = caption.to_lowercase();
    let tokens: Vec<&str> =
        caption.split(|c: char| !c.is_alphanumeric()).filter(|token| !token.is_empty()).collect();
    let noun = tokens.iter().position(|token| shape_of(token).is_some());
    Reading {
        shape: noun.and_then(|at| shape_of(tokens[at])),
        colour: main_colour(&tokens, noun),
        events: events(&tokens),
    }
}

/// Compares a caption with its clip.
#[must_use]
pub fn judge(reading: &Reading, scene: &Scene) -> Judgement {
    let said: Vec<Kind> = reading.events.iter().map(|mention| mention.kind).collect();
    let shown: Vec<Kind> = scene.events.iter().map(|event| event.kind()).collect();
    let event_kind = sorted(&said) == sorted(&shown);
    let directions: Vec<bool> = reading
        .events
        .iter()
        .filter_map(|mention| {
            let event = mention.event.filter(|event| event.directed())?;
            scene.events.iter().find(|shown| shown.kind() == mention.kind).map(|shown| *shown == event)
        })
        .collect();
    Judgement {
        shape: reading.shape == Some(scene.main.shape),
        colour: reading.colour.is_some_and(|colour| has_colour(scene, colour)),
        event_kind,
        direction: (!directions.is_empty()).then(|| directions.iter().all(|&right| right)),
        order: (event_kind && shown.len() == 2).then(|| said == shown),
    }
}

/// Compares a caption with its image: shape and colour of the object it names first, which may be either of two.
#[must_use]
pub fn judge_picture(reading: &Reading, picture: &Picture) -> (bool, bool) {
    let named = picture.objects.iter().find(|object| Some(object.shape) == reading.shape);
    let colour = named.or(picture.objects.first()).map(|object| object.colour);
    (named.is_some(), reading.colour.is_some() && reading.colour == colour)
}

/// How well one does on a split without looking.
#[must_use]
pub fn chance_levels(world: &World, split: Split) -> ChanceLevels {
    let scenes: Vec<&Scene> = world.truths(split).map(|truth| &truth.scene).collect();
    let best = |rights: &mut dyn Iterator<Item = usize>, of: usize| {
        rights.max().unwrap_or(0) as f64 / of.max(1) as f64
    };
    let shapes = Shape::ALL.map(|shape| scenes.iter().filter(|scene| scene.main.shape == shape).count());
    let colours = Colour::ALL.map(|colour| scenes.iter().filter(|scene| has_colour(scene, colour)).count());
    let mut kinds: BTreeMap<Vec<Kind>, usize> = BTreeMap::new();
    let mut directions: BTreeMap<Kind, BTreeMap<Event, usize>> = BTreeMap::new();
    let mut orders: BTreeMap<bool, usize> = BTreeMap::new();
    for scene in &scenes {
        let shown: Vec<Kind> = scene.events.iter().map(|event| event.kind()).collect();
        *kinds.entry(sorted(&shown)).or_default() += 1;
        for event in scene.events.iter().filter(|event| event.directed()) {
            *directions.entry(event.kind()).or_default().entry(*event).or_default() += 1;
        }
        if let [first, _] = shown.as_slice() {
            *orders.entry(matches!(first, Kind::Horizontal | Kind::Vertical)).or_default() += 1;
        }
    }
    let directed: usize = directions.values().flat_map(BTreeMap::values).sum();
    let best_directed: usize = directions.values().filter_map(|counts| counts.values().max()).sum();
    ChanceLevels {
        shape: best(&mut shapes.into_iter(), scenes.len()),
        colour: best(&mut colours.into_iter(), scenes.len()),
        event_kind: best(&mut kinds.into_values(), scenes.len()),
        direction: best_directed as f64 / directed.max(1) as f64,
        order: best(&mut orders.values().copied(), orders.values().sum()),
    }
}

fn has_colour(scene: &Scene, colour: Colour) -> bool {
    scene.main.colour == colour || scene.to_colour == Some(colour)
}

fn sorted(kinds: &[Kind]) -> Vec<Kind> {
    let mut kinds = kinds.to_vec();
    kinds.sort_unstable();
    kinds
}

fn shape_of(token: &str) -> Option<Shape> {
    Shape::ALL.into_iter().find(|&shape| words::shape(shape).iter().any(|(word, _)| *word == token))
}

fn colour_of(token: &str) -> Option<Colour> {
    Colour::ALL.into_iter().find(|&colour| words::colour(colour).iter().any(|(word, _)| *word == token))
}

/// The colour that stands before the main shape, or, where no shape is named, the first that nothing turns into.
fn main_colour(tokens: &[&str], noun: Option<usize>) -> Option<Colour> {
    match noun {
        Some(at) => tokens[..at]
            .iter()
            .rev()
            .take_while(|token| !matches!(**token, "a" | "an" | "the" | "it"))
            .find_map(|token| colour_of(token)),
        None => tokens.iter().enumerate().find_map(|(place, token)| {
            let before = place.checked_sub(1).map_or("", |before| tokens[before]);
            colour_of(token).filter(|_| !matches!(before, "turns" | "becomes" | "to"))
        }),
    }
}

/// The events in the order of time.
fn events(tokens: &[&str]) -> Vec<Mention> {
    let mut found: Vec<(usize, Mention)> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let phrase = phrases().iter().find(|phrase| phrase.starts(&tokens[at..]));
        if let Some(phrase) = phrase {
            if found.iter().all(|(_, mention)| mention.kind != phrase.mention.kind) {
                found.push((at, phrase.mention));
            }
            at += phrase.tokens.len();
        } else {
            at += 1;
        }
    }
    // "B after it A": what stands second came first. "After it A, B" has its "after" before both.
    if let [(first, _), (second, _)] = found.as_slice()
        && tokens[*first..*second].contains(&"after")
    {
        found.reverse();
    }
    found.into_iter().map(|(_, mention)| mention).collect()
}

/// A way to say an event.
struct Phrase {
    tokens: Vec<String>,
    mention: Mention,
}

impl Phrase {
    fn starts(&self, tokens: &[&str]) -> bool {
        tokens.len() >= self.tokens.len()
            && self.tokens.iter().zip(tokens).all(|(ours, theirs)| {
                if ours == "{c}" { colour_of(theirs).is_some() } else { ours == theirs }
            })
    }
}

/// Every way to say an event, the longest first; at the end the verbs that only one kind has, so that an unheard
/// combination of a model's still counts as the kind it speaks of.
fn phrases() -> &'static [Phrase] {
    static PHRASES: OnceLock<Vec<Phrase>> = OnceLock::new();
    PHRASES.get_or_init(|| {
        let mut phrases = Vec::new();
        let mut add = |text: String, kind: Kind, event: Option<Event>| {
            let tokens = text.split_whitespace().map(str::to_string).collect();
            phrases.push(Phrase { tokens, mention: Mention { kind, event } });
        };
        for kind in Kind::ALL {
            for (text, _) in words::undirected(kind) {
                add((*text).to_string(), kind, None);
            }
            for &event in kind.events() {
                for (text, _) in words::event(event) {
                    add((*text).to_string(), kind, Some(event));
                }
            }
        }
        for (verb, _) in words::SIDEWAYS_VERBS {
            for (event, directions) in [(Event::Left, words::LEFTWARDS), (Event::Right, words::RIGHTWARDS)] {
                for (direction, _) in directions {
                    add(format!("{verb} {direction}"), Kind::Horizontal, Some(event));
                }
            }
        }
        let mut verbs: BTreeMap<&str, Vec<Kind>> = BTreeMap::new();
        for phrase in &phrases {
            if let Some(verb) = phrase.tokens.first().filter(|verb| *verb != "is") {
                let kinds = verbs.entry(verb).or_default();
                if !kinds.contains(&phrase.mention.kind) {
                    kinds.push(phrase.mention.kind);
                }
            }
        }
        let alone = verbs.into_iter().filter_map(|(verb, kinds)| match kinds.as_slice() {
            [kind] => {
                let event = match kind.events() {
                    [only] => Some(*only),
                    _ => None,
                };
                Some(Phrase { tokens: vec![verb.to_string()], mention: Mention { kind: *kind, event } })
            }
            _ => None,
        });
        let alone: Vec<Phrase> = alone.collect();
        phrases.sort_by_key(|phrase| std::cmp::Reverse(phrase.tokens.len()));
        phrases.extend(alone);
        phrases
    })
}

#[cfg(test)]
mod tests {
    use super::super::config::{ClipCaptionOdds, ImageCaptionOdds, SceneOdds};
    use super::super::grammar;
    use super::super::scene::Combinations;
    use super::*;
    use crate::random::RandomStream;
    use proptest::prelude::*;

    fn kinds(caption: &str) -> Vec<Kind> {
        read(caption).events.iter().map(|mention| mention.kind).collect()
    }

    #[test]
    fn what_a_caption_says_is_read() {
        let reading =
            read("In this clip, the large crimson box slides from right to left next to a tiny blue dot.");
        assert_eq!(reading.shape, Some(Shape::Square));
        assert_eq!(reading.colour, Some(Colour::Red));
        assert_eq!(reading.events, [Mention { kind: Kind::Horizontal, event: Some(Event::Left) }]);
        assert_eq!(read("the square turns red").colour, None);
        assert_eq!(read("the square is seen on a black background").events, []);
        assert_eq!(read(""), Reading::default());
    }

    #[test]
    fn the_order_of_time_is_read() {
        use Kind::{Blink, Recolour, Vertical};
        assert_eq!(kinds("the ring blinks and then goes up"), [Blink, Vertical]);
        assert_eq!(kinds("after it blinks the ring goes up"), [Blink, Vertical]);
        assert_eq!(kinds("the ring goes up after it blinks"), [Blink, Vertical]);
        assert_eq!(kinds("the ring changes colour to red before it goes up or down"), [Recolour, Vertical]);
    }

    #[test]
    fn verbs_stand_for_their_kind_when_the_rest_is_new() {
        assert_eq!(kinds("the circle moves somewhere"), [Kind::Horizontal]);
        assert_eq!(kinds("the circle does not do anything"), [Kind::Still]);
        assert_eq!(kinds("the circle changes"), []);
    }

    #[test]
    fn no_verb_is_shared_between_kinds() {
        let alone: Vec<&Phrase> = phrases().iter().filter(|phrase| phrase.tokens.len() == 1).collect();
        for phrase in phrases() {
            for other in alone.iter().filter(|other| other.tokens[0] == phrase.tokens[0]) {
                assert_eq!(other.mention.kind, phrase.mention.kind, "{:?}", phrase.tokens);
            }
        }
    }

    proptest! {
        /// Everything the grammar states is recovered, and what it leaves out is not invented.
        #[test]
        fn captions_read_back_as_their_truth(index in 0u64..1_000_000) {
            let mut random = RandomStream::new(11, "reading test", index);
            let scene = Scene::draw(&mut random, &SceneOdds::default(), Combinations::Trained, (24, 36));
            let caption = grammar::clip_caption(&scene, &ClipCaptionOdds::default(), &mut random);
            let (reading, judged) = (read(&caption), judge(&read(&caption), &scene));
            prop_assert!(judged.shape, "{caption}");
            prop_assert!(reading.colour.is_none() || judged.colour, "{caption}");
            prop_assert_ne!(judged.direction, Some(false), "{}", caption);
            prop_assert_ne!(judged.order, Some(false), "{}", caption);
            let every = ClipCaptionOdds { no_event: 0.0, one_of_two: 0.0, no_direction: 0.0, colour: 1.0, ..Default::default() };
            let caption = grammar::clip_caption(&scene, &every, &mut random);
            let judged = judge(&read(&caption), &scene);
            prop_assert!(judged.shape && judged.colour && judged.event_kind, "{caption} {judged:?}");
            prop_assert_eq!(judged.direction, scene.events.iter().any(|e| e.directed()).then_some(true), "{}", caption);
            prop_assert_eq!(judged.order, (scene.events.len() == 2).then_some(true), "{}", caption);
        }

        #[test]
        fn image_captions_read_back_as_their_truth(index in 0u64..1_000_000) {
            let mut random = RandomStream::new(12, "reading test", index);
            let picture = Picture::draw(&mut random, &SceneOdds::default(), Combinations::Trained, None);
            let odds = ImageCaptionOdds { colour: 1.0, ..Default::default() };
            let caption = grammar::image_caption(&picture, &odds, &mut random);
            prop_assert_eq!(judge_picture(&read(&caption), &picture), (true, true), "{}", caption);
            prop_assert!(read(&caption).events.is_empty(), "{}", caption);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,200}") {
            let _ = read(&text);
        }
    }
}
