//! Compares parsed captions with the scenes they describe, attribute by attribute.

use super::parse::ParsedCaption;
use super::scene::{Colour, Event, Kind, Picture, Scene, Shape};
use super::world::World;
use crate::datasets::Split;
use std::collections::BTreeMap;

/// Which attributes of a caption agree with the scene. An attribute that the caption does not state is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The main object's shape is right.
    pub shape: bool,
    /// The main object's colour is right; where it changes, either colour is.
    pub colour: bool,
    /// The kinds of the events are right: all of them and no others.
    pub event_kind: bool,
    /// The directions are right; `None` where the clip has none or the caption states none.
    pub direction: Option<bool>,
    /// Two events are in the right order; `None` unless the clip has two and the caption states them.
    pub order: Option<bool>,
}

/// The score of a constant prediction, the most frequent value, by attribute, 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChanceLevels {
    /// Shape.
    pub shape: f64,
    /// Colour.
    pub colour: f64,
    /// Set of event kinds.
    pub event_kind: f64,
    /// Direction, the most frequent one of each kind, among clips that have one.
    pub direction: f64,
    /// Order, among clips with two events.
    pub order: f64,
}

/// Compares a caption with the scene of its clip.
#[must_use]
pub fn assess(caption: &ParsedCaption, scene: &Scene) -> Assessment {
    let stated: Vec<Kind> = caption.events.iter().map(|mention| mention.kind).collect();
    let shown: Vec<Kind> = scene.events.iter().map(|event| event.kind()).collect();
    let event_kind = sorted(&stated) == sorted(&shown);
    let directions: Vec<bool> = caption
        .events
        .iter()
        .filter_map(|mention| {
            let event = mention.event.filter(|event| event.directed())?;
            scene.events.iter().find(|shown| shown.kind() == mention.kind).map(|shown| *shown == event)
        })
        .collect();
    Assessment {
        shape: caption.shape == Some(scene.main.shape),
        colour: caption.colour.is_some_and(|colour| has_colour(scene, colour)),
        event_kind,
        direction: (!directions.is_empty()).then(|| directions.iter().all(|&right| right)),
        order: (event_kind && shown.len() == 2).then(|| stated == shown),
    }
}

/// Compares a caption with its image: whether shape and colour of the object that it names first are right.
/// Any object of the image may be the first.
#[must_use]
pub fn assess_picture(caption: &ParsedCaption, picture: &Picture) -> (bool, bool) {
    let named = picture.objects.iter().find(|object| Some(object.shape) == caption.shape);
    let colour = named.or(picture.objects.first()).map(|object| object.colour);
    (named.is_some(), caption.colour.is_some() && caption.colour == colour)
}

/// The chance levels of a split.
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

#[cfg(test)]
mod tests {
    use super::super::config::{ClipCaptionOdds, ImageCaptionOdds, SceneOdds};
    use super::super::draw::Combinations;
    use super::super::grammar;
    use super::super::parse::parse_caption;
    use super::*;
    use crate::random::RandomStream;
    use proptest::prelude::*;

    proptest! {
        /// Every stated attribute is parsed, and no omitted attribute is invented.
        #[test]
        fn captions_of_the_grammar_agree_with_their_scene(index in 0u64..1_000_000) {
            let mut random = RandomStream::new(11, "reading test", index);
            let scene = Scene::draw(&mut random, &SceneOdds::default(), Combinations::Trained, (24, 36));
            let caption = grammar::clip_caption(&scene, &ClipCaptionOdds::default(), &mut random);
            let parsed = parse_caption(&caption);
            let assessed = assess(&parsed, &scene);
            prop_assert!(assessed.shape, "{caption}");
            prop_assert!(parsed.colour.is_none() || assessed.colour, "{caption}");
            prop_assert_ne!(assessed.direction, Some(false), "{}", caption);
            prop_assert_ne!(assessed.order, Some(false), "{}", caption);
            let every = ClipCaptionOdds { no_event: 0.0, one_of_two: 0.0, no_direction: 0.0, colour: 1.0, ..Default::default() };
            let caption = grammar::clip_caption(&scene, &every, &mut random);
            let assessed = assess(&parse_caption(&caption), &scene);
            prop_assert!(assessed.shape && assessed.colour && assessed.event_kind, "{caption} {assessed:?}");
            prop_assert_eq!(assessed.direction, scene.events.iter().any(|e| e.directed()).then_some(true), "{}", caption);
            prop_assert_eq!(assessed.order, (scene.events.len() == 2).then_some(true), "{}", caption);
        }

        #[test]
        fn image_captions_of_the_grammar_agree_with_their_picture(index in 0u64..1_000_000) {
            let mut random = RandomStream::new(12, "reading test", index);
            let picture = Picture::draw(&mut random, &SceneOdds::default(), Combinations::Trained, None);
            let odds = ImageCaptionOdds { colour: 1.0, ..Default::default() };
            let caption = grammar::image_caption(&picture, &odds, &mut random);
            prop_assert_eq!(assess_picture(&parse_caption(&caption), &picture), (true, true), "{}", caption);
            prop_assert!(parse_caption(&caption).events.is_empty(), "{}", caption);
        }
    }
}
