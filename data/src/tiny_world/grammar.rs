//! Captions of scenes: weighted synonyms, optional parts and several word orders.

use super::config::{ClipCaptionOdds, ImageCaptionOdds};
use super::scene::{Background, Colour, Event, Object, Picture, Scene};
use super::words::{self, Table};
use crate::error::{Error, Result};
use crate::random::RandomStream;

/// `count` different captions of one clip.
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
    let expected = format!("at most the {} different sentences that these odds give", captions.len());
    Err(Error::setting("captions", expected, count))
}

/// One caption of a clip.
pub(crate) fn clip_caption(scene: &Scene, odds: &ClipCaptionOdds, random: &mut RandomStream) -> String {
    let changes_size = scene.events.iter().any(|event| matches!(event, Event::Grow | Event::Shrink));
    let article = if random.chance(odds.indefinite) { "a" } else { "the" };
    let sized = !changes_size && random.chance(odds.size);
    let coloured = random.chance(odds.colour);
    let noun = noun(&scene.main, sized, coloured, random);
    let background_phrase = background(scene.background, random);
    if random.chance(odds.no_event) {
        let noun = format!("a {noun}");
        return polish(
            &one_of(words::NO_EVENT, random).replace("{n}", &noun).replace("{bg}", &background_phrase),
        );
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
        _ if random.chance(odds.background) => background_phrase,
        _ => String::new(),
    };
    polish(&format!("{opening} {body} {closing}"))
}

/// One caption of an image.
pub(crate) fn image_caption(picture: &Picture, odds: &ImageCaptionOdds, random: &mut RandomStream) -> String {
    let background_phrase = background(picture.background, random);
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
    let closing = if random.chance(odds.background) { background_phrase } else { String::new() };
    polish(&format!("{opening} {body} {closing}"))
}

/// A phrase of a table, drawn by weight.
pub(crate) fn one_of(table: Table, random: &mut RandomStream) -> &'static str {
    table.get(random.weighted(table.iter().map(|(_, weight)| *weight))).map_or("", |(phrase, _)| phrase)
}

fn noun(object: &Object, sized: bool, coloured: bool, random: &mut RandomStream) -> String {
    let size = size(object, sized, random);
    let colour = if coloured { one_of(words::colour(object.colour), random) } else { "" };
    format!("{size} {colour} {}", one_of(words::shape(object.shape), random))
}

fn size(object: &Object, is_stated: bool, random: &mut RandomStream) -> &'static str {
    let sizes = if object.large { words::LARGE } else { words::SMALL };
    if is_stated { one_of(sizes, random) } else { "" }
}

fn image_noun(object: &Object, sizeable: bool, odds: &ImageCaptionOdds, random: &mut RandomStream) -> String {
    let is_stated = sizeable && random.chance(odds.size);
    let size = size(object, is_stated, random);
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

/// Where `a` is relative to `b`, along the axis of the larger distance.
fn relation(a: &Object, b: &Object) -> Table {
    let (dx, dy) = (a.x - b.x, a.y - b.y);
    match (dx.abs() > dy.abs(), dx < 0.0, dy < 0.0) {
        (true, true, _) => words::LEFT_OF,
        (true, false, _) => words::RIGHT_OF,
        (false, _, true) => words::ABOVE,
        (false, _, false) => words::BELOW,
    }
}

/// Puts single spaces between words, and "an" before a vowel.
fn polish(sentence: &str) -> String {
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let is_vowel = |next: &&str| next.starts_with(['a', 'e', 'i', 'o', 'u']);
    let polished = words.iter().enumerate().map(|(place, &word)| match word {
        "a" | "an" if words.get(place + 1).is_some_and(is_vowel) => "an",
        "a" | "an" => "a",
        word => word,
    });
    polished.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::config::WorldConfig;
    use super::super::draw::Combinations;
    use super::*;
    use std::collections::BTreeSet;

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
