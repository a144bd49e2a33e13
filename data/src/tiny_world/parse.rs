//! Parses captions of the tiny world: shape, colour and events in the order of time.

use super::scene::{Colour, Event, Kind, Shape};
use super::words;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// The attributes that a caption states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedCaption {
    /// The main object's shape: the first one named.
    pub shape: Option<Shape>,
    /// The main object's colour.
    pub colour: Option<Colour>,
    /// The events, in the order of time.
    pub events: Vec<Mention>,
}

/// An event that a caption mentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Its kind.
    pub kind: Kind,
    /// The event itself; `None` where the caption omits the direction, as in "moves sideways".
    pub event: Option<Event>,
}

/// Parses a caption of the grammar or of a model.
#[must_use]
pub fn parse_caption(caption: &str) -> ParsedCaption {
    let caption = caption.to_lowercase();
    let tokens: Vec<&str> =
        caption.split(|c: char| !c.is_alphanumeric()).filter(|token| !token.is_empty()).collect();
    let noun = tokens.iter().position(|token| shape_of(token).is_some());
    ParsedCaption {
        shape: noun.and_then(|at| shape_of(tokens[at])),
        colour: main_colour(&tokens, noun),
        events: events(&tokens),
    }
}

fn shape_of(token: &str) -> Option<Shape> {
    Shape::ALL.into_iter().find(|&shape| words::shape(shape).iter().any(|(word, _)| *word == token))
}

fn colour_of(token: &str) -> Option<Colour> {
    Colour::ALL.into_iter().find(|&colour| words::colour(colour).iter().any(|(word, _)| *word == token))
}

/// The colour before the main shape; without a shape, the first colour that is not the result of a change.
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
    // "B after it A": the second phrase happened first. "After it A, B" has its "after" before both.
    if let [(first, _), (second, _)] = found.as_slice()
        && tokens[*first..*second].contains(&"after")
    {
        found.reverse();
    }
    found.into_iter().map(|(_, mention)| mention).collect()
}

/// A phrase for an event.
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

/// Every phrase for an event, the longest first, then the verbs that belong to one kind only: a model's new
/// combination of words still counts as the kind of its verb.
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
        let mut verbs: BTreeMap<&str, BTreeSet<Kind>> = BTreeMap::new();
        for phrase in &phrases {
            if let Some(verb) = phrase.tokens.first().filter(|verb| *verb != "is") {
                verbs.entry(verb).or_default().insert(phrase.mention.kind);
            }
        }
        let one_kind = verbs.into_iter().filter(|(_, kinds)| kinds.len() == 1);
        let alone = one_kind.flat_map(|(verb, kinds)| kinds.into_iter().map(move |kind| (verb, kind)));
        let alone = alone.map(|(verb, kind)| {
            let event = kind.events().first().copied().filter(|event| !event.directed());
            Phrase { tokens: vec![verb.to_string()], mention: Mention { kind, event } }
        });
        let alone: Vec<Phrase> = alone.collect();
        phrases.sort_by_key(|phrase| std::cmp::Reverse(phrase.tokens.len()));
        phrases.extend(alone);
        phrases
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(caption: &str) -> Vec<Kind> {
        parse_caption(caption).events.iter().map(|mention| mention.kind).collect()
    }

    #[test]
    fn attributes_of_a_caption_are_parsed() {
        let parsed = parse_caption(
            "In this clip, the large crimson box slides from right to left next to a tiny blue dot.",
        );
        assert_eq!(parsed.shape, Some(Shape::Square));
        assert_eq!(parsed.colour, Some(Colour::Red));
        assert_eq!(parsed.events, [Mention { kind: Kind::Horizontal, event: Some(Event::Left) }]);
        assert_eq!(parse_caption("the square turns red").colour, None);
        assert_eq!(parse_caption("the square is seen on a black background").events, []);
        assert_eq!(parse_caption(""), ParsedCaption::default());
    }

    #[test]
    fn the_order_of_time_is_parsed() {
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
        #[test]
        fn any_text_is_parsed_without_a_panic(text in ".{0,200}") {
            let _ = parse_caption(&text);
        }
    }
}
