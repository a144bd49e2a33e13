//! Draws the content of clips and images at random: which objects there are and what happens.

use super::config::SceneOdds;
use super::render::{self, State};
use super::scene::{Background, Colour, Event, Kind, Object, Picture, Scene, Shape};
use crate::random::RandomStream;

/// The combinations that a split may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combinations {
    /// All combinations, for pretraining images and text.
    Any,
    /// Those of the training clips: no held-out colour-shape pair and no held-out event pair.
    Trained,
    /// Colour-shape pairs of training, any event pair.
    TrainedColours,
    /// Held-out colour-shape pairs, any event pair.
    HeldOutColours,
}

impl Combinations {
    /// Whether held-out and training pairs may occur in one scene.
    fn mixes(self) -> bool {
        matches!(self, Self::Any | Self::HeldOutColours)
    }

    fn allows(self, colour: Colour, shape: Shape) -> bool {
        self == Self::Any || held_out(colour, shape) == (self == Self::HeldOutColours)
    }
}

/// Whether a colour-shape pair is held out of the training clips.
///
/// A quarter of the pairs is: two of each shape, one or two of each colour. With more of one colour, a model
/// could guess the shape from the colour.
#[must_use]
pub fn held_out(colour: Colour, shape: Shape) -> bool {
    matches!(
        (colour, shape),
        (Colour::Red | Colour::Cyan, Shape::Circle)
            | (Colour::Yellow | Colour::White, Shape::Square)
            | (Colour::Green | Colour::Orange, Shape::Triangle)
            | (Colour::Green | Colour::Purple, Shape::Cross)
            | (Colour::Blue | Colour::White, Shape::Ring)
    )
}

/// Whether a pair of a movement and another event, in either order is held out of training: two of eight are.
fn held_out_events(movement: Kind, other: Kind) -> bool {
    matches!((movement, other), (Kind::Horizontal, Kind::Spin) | (Kind::Vertical, Kind::Recolour))
}

const MOVES: [Kind; 2] = [Kind::Horizontal, Kind::Vertical];
const OTHERS: [Kind; 4] = [Kind::Size, Kind::Spin, Kind::Blink, Kind::Recolour];

const SMALL: f64 = 0.34;
const LARGE: f64 = 0.50;
const CORNER: f64 = 0.72;
const CORNER_RADIUS: f64 = 0.22;
const JITTER: f64 = 0.03;

impl Scene {
    /// Draws the content of a clip of `lengths.0..=lengths.1` frames.
    #[must_use]
    pub fn draw(
        random: &mut RandomStream,
        odds: &SceneOdds,
        allowed: Combinations,
        lengths: (usize, usize),
    ) -> Self {
        let (mut colour, shape, kinds) = main_and_kinds(random, odds, allowed);
        let events: Vec<Event> = kinds.iter().map(|kind| choose(random, kind.events())).collect();
        let mut to_colour = None;
        if kinds.contains(&Kind::Recolour) {
            let other = other_colour(random, colour, |c| allowed.mixes() || !held_out(c, shape));
            // Either colour comes first: otherwise the first colour would reveal which pairs are held out.
            let swap = random.chance(0.5);
            to_colour = Some(if swap { colour } else { other });
            colour = if swap { other } else { colour };
        }
        let mut main = object(random, odds, colour, shape);
        main.tilt = tilt(random, shape, odds.tilted);
        let mut scene = Self {
            main,
            second: None,
            background: choose(random, &[Background::Black, Background::Grey]),
            events,
            to_colour,
            frames: lengths.0 + random.below(lengths.1 - lengths.0 + 1),
            turn: either_sign(random, 60.0, 90.0),
            phase: random.unit(),
            smallest: random.between(0.20, 0.24),
            largest: random.between(0.52, 0.58),
            span: random.between(0.52, 0.60),
        };
        if random.chance(odds.second_object) {
            scene.second = scene.draw_second(random, allowed);
        }
        scene
    }

    /// A small object of another colour and another shape, in a corner that the main object never reaches.
    fn draw_second(&self, random: &mut RandomStream, allowed: Combinations) -> Option<Object> {
        let path: Vec<State> = (0..17).map(|i| render::state(self, i, 17)).collect();
        let clear = |x: f64, y: f64| {
            path.iter().all(|at| (at.x - x).hypot(at.y - y) - at.radius > CORNER_RADIUS * 0.8)
        };
        let corners: Vec<(i8, i8)> = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
            .into_iter()
            .filter(|&(column, row)| clear(CORNER * f64::from(column), CORNER * f64::from(row)))
            .collect();
        let &(column, row) = random.pick(&corners)?;
        let main = self.main;
        let choices: Vec<(Colour, Shape)> = Colour::ALL
            .into_iter()
            .flat_map(|colour| Shape::ALL.map(|shape| (colour, shape)))
            .filter(|&(c, s)| c != main.colour && Some(c) != self.to_colour && s != main.shape)
            .filter(|&(c, s)| allowed.mixes() || !held_out(c, s))
            .collect();
        let &(colour, shape) = random.pick(&choices)?;
        Some(Object {
            shape,
            colour,
            large: false,
            column,
            row,
            x: CORNER * f64::from(column),
            y: CORNER * f64::from(row),
            radius: CORNER_RADIUS,
            tilt: 0.0,
        })
    }
}

impl Picture {
    /// Draws the content of an image with this number of objects; `None` draws the number too.
    #[must_use]
    pub fn draw(
        random: &mut RandomStream,
        odds: &SceneOdds,
        allowed: Combinations,
        objects: Option<usize>,
    ) -> Self {
        let two = objects.map_or_else(|| random.chance(odds.two_in_image), |n| n > 1);
        let mut objects = loop {
            let mut first = drawn_object(random, odds, allowed);
            if !two {
                break vec![first];
            }
            let mut second = drawn_object(random, odds, allowed);
            let apart = (first.column - second.column).abs().max((first.row - second.row).abs()) > 1;
            // Both are drawn again, because an object at the centre leaves no room for another one.
            if apart && first.colour != second.colour && first.shape != second.shape {
                for object in [&mut first, &mut second] {
                    (object.large, object.radius) = (false, SMALL);
                }
                break vec![first, second];
            }
        };
        for object in &mut objects {
            object.radius *= random.between(0.92, 1.08);
            object.tilt = tilt(random, object.shape, odds.tilted_in_image);
        }
        Self { objects, background: choose(random, &[Background::Black, Background::Grey]) }
    }
}

/// The main object's colour and shape, and the kinds of its events.
///
/// Kinds stay uniform: for a spin, the shape is drawn among those whose rotation is visible.
fn main_and_kinds(
    random: &mut RandomStream,
    odds: &SceneOdds,
    allowed: Combinations,
) -> (Colour, Shape, Vec<Kind>) {
    loop {
        let (colour, mut shape) = colour_and_shape(random, allowed);
        let kinds = if random.chance(odds.two_events) {
            let (movement, other) = (choose(random, &MOVES), choose(random, &OTHERS));
            if allowed == Combinations::Trained && held_out_events(movement, other) {
                continue;
            }
            if random.chance(0.5) { vec![movement, other] } else { vec![other, movement] }
        } else {
            vec![choose(random, &Kind::ALL)]
        };
        if kinds.contains(&Kind::Spin) && !shape.tilts() {
            let visible: Vec<Shape> =
                Shape::ALL.into_iter().filter(|&s| s.tilts() && allowed.allows(colour, s)).collect();
            match random.pick(&visible) {
                Some(&visible) => shape = visible,
                None => continue,
            }
        }
        return (colour, shape, kinds);
    }
}

fn colour_and_shape(random: &mut RandomStream, allowed: Combinations) -> (Colour, Shape) {
    loop {
        let (colour, shape) = (choose(random, &Colour::ALL), choose(random, &Shape::ALL));
        if allowed.allows(colour, shape) {
            return (colour, shape);
        }
    }
}

fn other_colour(random: &mut RandomStream, colour: Colour, allowed: impl Fn(Colour) -> bool) -> Colour {
    loop {
        let other = choose(random, &Colour::ALL);
        if other != colour && allowed(other) {
            return other;
        }
    }
}

fn drawn_object(random: &mut RandomStream, odds: &SceneOdds, allowed: Combinations) -> Object {
    let (colour, shape) = colour_and_shape(random, allowed);
    object(random, odds, colour, shape)
}

fn object(random: &mut RandomStream, odds: &SceneOdds, colour: Colour, shape: Shape) -> Object {
    let large = random.chance(odds.large);
    let (column, row) = (choose(random, &[-1, 0, 1]), choose(random, &[-1, 0, 1]));
    Object {
        shape,
        colour,
        large,
        column,
        row,
        x: 0.5 * f64::from(column) + random.between(-JITTER, JITTER),
        y: 0.5 * f64::from(row) + random.between(-JITTER, JITTER),
        radius: if large { LARGE } else { SMALL },
        tilt: 0.0,
    }
}

fn tilt(random: &mut RandomStream, shape: Shape, probability: f64) -> f64 {
    if shape.tilts() && random.chance(probability) { either_sign(random, 30.0, 60.0) } else { 0.0 }
}

fn either_sign(random: &mut RandomStream, low: f64, high: f64) -> f64 {
    let value = random.between(low, high);
    if random.chance(0.5) { value } else { -value }
}

/// One item of a list that is not empty.
fn choose<T: Copy>(random: &mut RandomStream, items: &[T]) -> T {
    items[random.below(items.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenes(allowed: Combinations) -> Vec<Scene> {
        (0..3000)
            .map(|index| {
                let mut random = RandomStream::new(1, "scene test", index);
                Scene::draw(&mut random, &SceneOdds::default(), allowed, (24, 36))
            })
            .collect()
    }

    fn share(scenes: &[Scene], is: impl Fn(&Scene) -> bool) -> f64 {
        scenes.iter().filter(|scene| is(scene)).count() as f64 / scenes.len() as f64
    }

    #[test]
    fn a_quarter_of_the_pairs_is_held_out_evenly() {
        let held = |colour| Shape::ALL.into_iter().filter(|&shape| held_out(colour, shape)).count();
        assert_eq!(Colour::ALL.into_iter().map(held).sum::<usize>(), 10);
        assert!(Colour::ALL.into_iter().all(|colour| (1..=2).contains(&held(colour))));
        for shape in Shape::ALL {
            assert_eq!(Colour::ALL.into_iter().filter(|&colour| held_out(colour, shape)).count(), 2);
        }
    }

    #[test]
    fn training_never_shows_what_is_held_out() {
        for scene in scenes(Combinations::Trained) {
            for colour in std::iter::once(scene.main.colour).chain(scene.to_colour) {
                assert!(!held_out(colour, scene.main.shape));
            }
            assert!(scene.second.is_none_or(|second| !held_out(second.colour, second.shape)));
            if let [first, then] = scene.events.as_slice() {
                let (a, b) = (first.kind(), then.kind());
                assert!(!held_out_events(a, b) && !held_out_events(b, a));
            }
        }
        for scene in scenes(Combinations::HeldOutColours) {
            let mut colours = std::iter::once(scene.main.colour).chain(scene.to_colour);
            assert!(colours.any(|colour| held_out(colour, scene.main.shape)));
        }
    }

    #[test]
    fn every_distribution_is_the_same_played_backwards() {
        let all = scenes(Combinations::TrainedColours);
        for (one, other) in
            [(Event::Left, Event::Right), (Event::Up, Event::Down), (Event::Grow, Event::Shrink)]
        {
            let single = |event| share(&all, |scene| scene.events == [event]);
            assert!((single(one) - single(other)).abs() < 0.02, "{one:?} {other:?}");
            let in_two =
                |event| share(&all, |scene| scene.events.len() == 2 && scene.events.contains(&event));
            assert!((in_two(one) - in_two(other)).abs() < 0.02, "{one:?} {other:?}");
        }
        let moves = |event: &Event| matches!(event.kind(), Kind::Horizontal | Kind::Vertical);
        let first = share(&all, |scene| scene.events.len() == 2 && moves(&scene.events[0]));
        let last = share(&all, |scene| scene.events.len() == 2 && moves(&scene.events[1]));
        assert!((first - last).abs() < 0.02);
        // Of a recolouring's two colours each is as likely to come first.
        let rank = |scene: &Scene| scene.to_colour.map(|to| (scene.main.colour as i32 - to as i32).signum());
        let up = share(&all, |scene| rank(scene) == Some(1));
        let down = share(&all, |scene| rank(scene) == Some(-1));
        assert!((up - down).abs() < 0.02);
    }

    #[test]
    fn a_second_object_is_apart_from_the_main_one() {
        let all = scenes(Combinations::Trained);
        assert!((0.25..0.37).contains(&share(&all, |scene| scene.second.is_some())));
        for scene in &all {
            let Some(second) = scene.second else { continue };
            assert!(second.shape != scene.main.shape && second.colour != scene.main.colour);
            assert_ne!(Some(second.colour), scene.to_colour);
        }
    }

    #[test]
    fn what_looks_the_same_backwards_does_not_depend_on_the_order() {
        let mut random = RandomStream::new(0, "order", 0);
        let mut scene = Scene::draw(&mut random, &SceneOdds::default(), Combinations::Trained, (24, 36));
        let mut depends = |events: &[Event]| {
            scene.events = events.to_vec();
            scene.depends_on_order()
        };
        for event in [Event::Left, Event::Down, Event::Grow, Event::Recolour] {
            assert!(depends(&[event]), "{event:?}");
        }
        for event in [Event::Spin, Event::Blink, Event::Still] {
            assert!(!depends(&[event]), "{event:?}");
            assert!(depends(&[event, Event::Blink]), "{event:?} comes first");
        }
    }

    #[test]
    fn kinds_of_single_events_are_equally_likely() {
        let all = scenes(Combinations::Trained);
        for kind in Kind::ALL {
            let share = share(&all, |scene| scene.events.len() == 1 && scene.events[0].kind() == kind);
            assert!((0.08..0.12).contains(&share), "{kind:?} {share}");
        }
    }

    #[test]
    fn two_objects_of_a_picture_do_not_touch() {
        for index in 0..1000 {
            let mut random = RandomStream::new(1, "picture test", index);
            let picture = Picture::draw(&mut random, &SceneOdds::default(), Combinations::Trained, Some(2));
            let [a, b] = picture.objects.as_slice() else { panic!("two objects") };
            assert!((a.x - b.x).hypot(a.y - b.y) > a.radius + b.radius);
            assert!(!held_out(a.colour, a.shape) && !held_out(b.colour, b.shape));
        }
    }
}
