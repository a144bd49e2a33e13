//! Sentences about scenes: synonyms by their weights, optional parts, several orders.

use super::config::{ClipCaptionOdds, ImageCaptionOdds, WorldConfig};
use super::questions::{QuestionKind, wordings};
use super::scene::{Background, Colour, Combinations, Event, Object, Picture, Scene};
use super::words::{self, Table};
use crate::error::{Error, Result};
use crate::random::RandomStream;
use crate::text::QUESTION_PROMPT;
use std::collections::BTreeSet;

/// Different captions of one clip.
///
/// # Errors
/// [`Error::Setting`] where the odds allow too few different sentences.
pub(crate) fn clip_captions(
    scene: &Scene,
    odds: &ClipCaptionOdds,
    count: usize,
    random: &mut RandomStream,
) -> Result<Vec<String>> {
    let mut captions = Vec::with_capacity(count);
    for _ in 0..100 * count {
        let caption = clip_caption(scene, odds, random);
        if !captions.contains(&caption) {
            captions.push(caption);
            if captions.len() == count {
                return Ok(captions);
            }
        }
    }
    Err(Error::Setting {
        key: "captions",
        expected: format!("at most the {} different sentences that these odds give", captions.len()),
        got: count.to_string(),
    })
}

/// One sentence about a clip.
pub(crate) fn clip_caption(scene: &Scene, odds: &ClipCaptionOdds, random: &mut RandomStream) -> String {
    let changes_size = scene.events.iter().any(|event| matches!(event, Event::Grow | Event::Shrink));
    let article = if random.chance(odds.indefinite) { "a" } else { "the" };
    let sized = !changes_size && random.chance(odds.size);
    let coloured = random.chance(odds.colour);
    let noun = noun(&scene.main, sized, coloured, random);
    let behind = background(scene.background, random);
    if random.chance(odds.no_event) {
        let noun = format!("a {noun}");
        return polish(&one_of(words::NO_EVENT, random).replace("{n}", &noun).replace("{bg}", &behind));
    }
    let noun = format!("{article} {noun}");
    let body = match scene.events.as_slice() {
        [first, second] if !random.chance(odds.one_of_two) => {
            let first = verb(*first, scene.to_colour, odds, random);
            let second = verb(*second, scene.to_colour, odds, random);
            one_of(words::TWO_EVENTS, random)
                .replace("{n}", &noun)
                .replace("{a}", &first)
                .replace("{b}", &second)
        }
        events => {
            let event = events.get(random.below(events.len())).copied().unwrap_or(Event::Still);
            format!("{noun} {}", verb(event, scene.to_colour, odds, random))
        }
    };
    let opening = one_of(words::CLIP_OPENINGS, random);
    let closing = match &scene.second {
        Some(second) if random.chance(odds.second) => one_of(words::SECOND, random)
            .replace("{m}", &format!("a {}", self::noun(second, false, true, random))),
        _ if random.chance(odds.background) => behind,
        _ => String::new(),
    };
    polish(&format!("{opening} {body} {closing}"))
}

/// One sentence about an image.
pub(crate) fn image_caption(picture: &Picture, odds: &ImageCaptionOdds, random: &mut RandomStream) -> String {
    let behind = background(picture.background, random);
    let opening = one_of(words::IMAGE_OPENINGS, random);
    let body = match picture.objects.as_slice() {
        [one, other] => {
            let (a, b) = if random.chance(0.5) { (other, one) } else { (one, other) };
            let first = image_noun(a, false, odds, random);
            let second = image_noun(b, false, odds, random);
            if random.chance(odds.relation) {
                format!("{first} {} {second}", one_of(relation(a, b), random))
            } else {
                let place = |object, random: &mut RandomStream| place(object, odds, random);
                let (at_a, at_b) = (place(a, random), place(b, random));
                format!("{first} {at_a} and {second} {at_b}")
            }
        }
        objects => objects
            .first()
            .map(|object| {
                format!("{} {}", image_noun(object, true, odds, random), place(object, odds, random))
            })
            .unwrap_or_default(),
    };
    let closing = if random.chance(odds.background) { behind } else { String::new() };
    polish(&format!("{opening} {body} {closing}"))
}

/// Sentences of both grammars in turn: what a language model can read before it sees anything.
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

/// Every word and mark of the world: those of captions, sorted, then those that only questions, their prompt and their
/// answers have, sorted.
#[must_use]
pub fn vocabulary() -> Vec<String> {
    let said = caption_words();
    let asked = wordings().into_iter().flatten().map(|(wording, _)| wording.replace("{s}", ""));
    let answers = QuestionKind::ALL.into_iter().flat_map(QuestionKind::answers).map(str::to_owned);
    let prompt = QUESTION_PROMPT.replace("{}", "").to_lowercase();
    let texts = asked.chain(answers).chain([prompt]);
    let marked = texts.map(|text| text.replace('?', " ?").replace(':', " :")).collect::<Vec<_>>().join(" ");
    let new: BTreeSet<&str> = marked.split_whitespace().filter(|word| !said.contains(word)).collect();
    said.iter().chain(&new).map(|word| (*word).to_owned()).collect()
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

/// A phrase of a table, drawn by weight.
pub(crate) fn one_of(table: Table, random: &mut RandomStream) -> &'static str {
    table.get(random.weighted(table.iter().map(|(_, weight)| *weight))).map_or("", |(phrase, _)| phrase)
}

fn noun(object: &Object, sized: bool, coloured: bool, random: &mut RandomStream) -> String {
    let size = if !sized {
        ""
    } else if object.large {
        one_of(words::LARGE, random)
    } else {
        one_of(words::SMALL, random)
    };
    let colour = if coloured { one_of(words::colour(object.colour), random) } else { "" };
    format!("{size} {colour} {}", one_of(words::shape(object.shape), random))
}

fn image_noun(object: &Object, sizeable: bool, odds: &ImageCaptionOdds, random: &mut RandomStream) -> String {
    let size = match (sizeable && random.chance(odds.size), object.large) {
        (false, _) => "",
        (true, true) => one_of(words::LARGE, random),
        (true, false) => one_of(words::SMALL, random),
    };
    let tilt = match (object.shape.tilts(), object.tilt != 0.0) {
        (true, true) if random.chance(odds.tilted) => one_of(words::TILTED, random),
        (true, false) if random.chance(odds.upright) => one_of(words::UPRIGHT, random),
        _ => "",
    };
    let colour = if random.chance(odds.colour) { one_of(words::colour(object.colour), random) } else { "" };
    format!("a {size} {tilt} {colour} {}", one_of(words::shape(object.shape), random))
}

fn verb(
    event: Event,
    to_colour: Option<Colour>,
    odds: &ClipCaptionOdds,
    random: &mut RandomStream,
) -> String {
    if event.directed() && random.chance(odds.no_direction) {
        return one_of(words::undirected(event.kind()), random).to_string();
    }
    match event {
        Event::Left | Event::Right => {
            let direction = if event == Event::Left { words::LEFTWARDS } else { words::RIGHTWARDS };
            format!("{} {}", one_of(words::SIDEWAYS_VERBS, random), one_of(direction, random))
        }
        Event::Recolour => {
            let colour = to_colour.map_or("", |colour| one_of(words::colour(colour), random));
            one_of(words::event(event), random).replace("{c}", colour)
        }
        _ => one_of(words::event(event), random).to_string(),
    }
}

fn background(background: Background, random: &mut RandomStream) -> String {
    one_of(words::BACKGROUND, random).replace("{g}", words::background(background))
}

fn place(object: &Object, odds: &ImageCaptionOdds, random: &mut RandomStream) -> &'static str {
    if random.chance(odds.place) { one_of(words::place(object.column, object.row), random) } else { "" }
}

/// Where `a` is, seen from `b`: the larger of the two distances decides.
fn relation(a: &Object, b: &Object) -> Table {
    let (dx, dy) = (a.x - b.x, a.y - b.y);
    match (dx.abs() > dy.abs(), dx < 0.0, dy < 0.0) {
        (true, true, _) => words::LEFT_OF,
        (true, false, _) => words::RIGHT_OF,
        (false, _, true) => words::ABOVE,
        (false, _, false) => words::BELOW,
    }
}

/// Single spaces, and "an" before a vowel.
fn polish(sentence: &str) -> String {
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let mut out = String::with_capacity(sentence.len() + 4);
    for (place, &word) in words.iter().enumerate() {
        let vowel = words.get(place + 1).is_some_and(|next| next.starts_with(['a', 'e', 'i', 'o', 'u']));
        if place > 0 {
            out.push(' ');
        }
        out.push_str(match word {
            "a" | "an" => {
                if vowel {
                    "an"
                } else {
                    "a"
                }
            }
            word => word,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Tokenizer, UNKNOWN, ask};

    #[test]
    fn the_vocabulary_holds_every_word_that_is_said() {
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
        for (wording, _) in wordings().into_iter().flatten() {
            let prompt = ask(QUESTION_PROMPT, &wording.replace("{s}", "ring"));
            assert!(!tokenizer.encode(&prompt, 100).unwrap().contains(&UNKNOWN), "{prompt}");
        }
        for answer in QuestionKind::ALL.into_iter().flat_map(QuestionKind::answers) {
            let ids = tokenizer.encode(answer, 100).unwrap();
            assert!(ids.len() == 2 && ids[0] != UNKNOWN, "{answer} is one word and the end");
        }
    }

    #[test]
    fn a_clip_has_twenty_different_captions() {
        let config = WorldConfig::default();
        for index in 0..300 {
            let mut random = RandomStream::new(5, "grammar test", index);
            let scene = Scene::draw(&mut random, &config.scenes, Combinations::Trained, (24, 36));
            let captions = clip_captions(&scene, &config.clip_captions, 20, &mut random).unwrap();
            assert_eq!(captions.iter().collect::<BTreeSet<_>>().len(), 20);
            assert!(captions.iter().all(|caption| !caption.contains('{') && !caption.contains("  ")));
        }
    }

    #[test]
    fn articles_agree_with_what_follows() {
        assert_eq!(polish(" a  orange circle and an red box"), "an orange circle and a red box");
    }
}
