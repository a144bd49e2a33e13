//! What is there and what happens: objects, events, clips and pictures, and how they are drawn at random.
//!
//! Coordinates: the centre is (0, 0), x goes right, y goes DOWN, and the frame's edge is at 1.

use super::config::SceneOdds;
use super::render::{self, State};
use crate::random::RandomStream;
use serde::{Deserialize, Serialize};

/// An object's outline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names say it
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Cross,
    Ring,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 5] = [Self::Circle, Self::Square, Self::Triangle, Self::Cross, Self::Ring];

    /// Whether a turn of this shape can be seen.
    #[must_use]
    pub fn tilts(self) -> bool {
        matches!(self, Self::Square | Self::Triangle | Self::Cross)
    }
}

/// An object's colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
    Purple,
    Cyan,
    Orange,
    White,
}

impl Colour {
    /// Every colour.
    pub const ALL: [Self; 8] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Purple,
        Self::Cyan,
        Self::Orange,
        Self::White,
    ];
}

/// What is behind the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Background {
    Black,
    Grey,
}

/// What happens to the main object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Event {
    Left,
    Right,
    Up,
    Down,
    Grow,
    Shrink,
    Spin,
    Blink,
    Recolour,
    Still,
}

/// Events that show the same frames, in one order or the other: what a model that is blind to frame order can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Kind {
    Horizontal,
    Vertical,
    Size,
    Spin,
    Blink,
    Recolour,
    Still,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Horizontal, Self::Vertical, Self::Size, Self::Spin, Self::Blink, Self::Recolour, Self::Still];
    const MOVES: [Self; 2] = [Self::Horizontal, Self::Vertical];
    const OTHERS: [Self; 4] = [Self::Size, Self::Spin, Self::Blink, Self::Recolour];

    /// The events of this kind; two where they are each other's time reversal.
    #[must_use]
    pub fn events(self) -> &'static [Event] {
        match self {
            Self::Horizontal => &[Event::Left, Event::Right],
            Self::Vertical => &[Event::Up, Event::Down],
            Self::Size => &[Event::Grow, Event::Shrink],
            Self::Spin => &[Event::Spin],
            Self::Blink => &[Event::Blink],
            Self::Recolour => &[Event::Recolour],
            Self::Still => &[Event::Still],
        }
    }
}

impl Event {
    /// The kind this event belongs to.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Left | Self::Right => Kind::Horizontal,
            Self::Up | Self::Down => Kind::Vertical,
            Self::Grow | Self::Shrink => Kind::Size,
            Self::Spin => Kind::Spin,
            Self::Blink => Kind::Blink,
            Self::Recolour => Kind::Recolour,
            Self::Still => Kind::Still,
        }
    }

    /// Whether an opposite event exists.
    #[must_use]
    pub fn directed(self) -> bool {
        self.kind().events().len() > 1
    }
}

/// A thing in a scene.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its outline.
    pub shape: Shape,
    /// Its colour; the first one, where it changes.
    pub colour: Colour,
    /// Large or small.
    pub large: bool,
    /// Column of the 3 x 3 grid: -1 left, 0 middle, 1 right.
    pub column: i8,
    /// Row of the grid: -1 top, 0 middle, 1 bottom.
    pub row: i8,
    /// Centre, rightwards.
    pub x: f64,
    /// Centre, downwards.
    pub y: f64,
    /// Radius.
    pub radius: f64,
    /// Tilt in degrees, clockwise; 0 is upright.
    pub tilt: f64,
}

/// A clip's content: everything a renderer or a judge needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// The object that things happen to.
    pub main: Object,
    /// A small object that rests in a corner.
    pub second: Option<Object>,
    /// What is behind them.
    pub background: Background,
    /// What happens, in order; one or two events.
    pub events: Vec<Event>,
    /// The colour after a recolouring.
    pub to_colour: Option<Colour>,
    /// Length in frames.
    pub frames: usize,
    /// Degrees of a spin.
    pub turn: f64,
    /// Where in its cycle a blinking starts, 0..1.
    pub phase: f64,
    /// Radius at the small end of growing and shrinking.
    pub smallest: f64,
    /// Radius at the large end.
    pub largest: f64,
    /// How far from the centre a movement starts and ends.
    pub span: f64,
}

/// An image's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// One or two objects.
    pub objects: Vec<Object>,
    /// What is behind them.
    pub background: Background,
}

/// Which combinations a split may draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combinations {
    /// All there are: what images and sentences for pretraining show.
    Any,
    /// Those of the training clips: no held-out colour-shape pair, no held-out event pair.
    Trained,
    /// Trained colour-shape pairs, any event pair.
    TrainedColours,
    /// Held-out colour-shape pairs, any event pair.
    HeldOutColours,
}

impl Combinations {
    /// Whether held-out pairs may stand beside trained ones.
    fn mixes(self) -> bool {
        matches!(self, Self::Any | Self::HeldOutColours)
    }

    fn allows(self, colour: Colour, shape: Shape) -> bool {
        self == Self::Any || held_out(colour, shape) == (self == Self::HeldOutColours)
    }
}

/// A quarter of the colour-shape pairs, none of which training shows: two of each shape, one or two of each colour. A
/// table that held out more of one colour would let a model guess the shape from the colour.
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

/// Two of the eight pairs of movement and other event, in both orders, which training does not show.
#[must_use]
pub fn held_out_events(movement: Kind, other: Kind) -> bool {
    matches!((movement, other), (Kind::Horizontal, Kind::Spin) | (Kind::Vertical, Kind::Recolour))
}

const SMALL: f64 = 0.34;
const LARGE: f64 = 0.50;
const CORNER: f64 = 0.72;
const CORNER_RADIUS: f64 = 0.22;
const JITTER: f64 = 0.03;

impl Scene {
    /// Draws a clip's content.
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
            // Either of the two comes first, or the first colour would tell which pairs are held out.
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

    /// A small object in a corner that the main object never reaches, of another colour and another shape.
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

    /// Whether what one says of the clip depends on its frames' order: whether the same frames backwards show something
    /// else. Two events do, as one of them is first.
    #[must_use]
    pub fn depends_on_order(&self) -> bool {
        self.events.len() > 1 || self.events.iter().any(|&event| event.directed() || event == Event::Recolour)
    }

    /// What two clips must not share for one to be no copy of the other: everything one could say about them.
    #[must_use]
    pub fn key(&self) -> String {
        let of = |o: &Object| {
            format!("{:?} {:?} {} {} {} {}", o.shape, o.colour, o.large, o.column, o.row, o.tilt != 0.0)
        };
        format!(
            "{} | {:?} | {:?} {:?} {:?}",
            of(&self.main),
            self.second.as_ref().map(of),
            self.background,
            self.events,
            self.to_colour
        )
    }
}

impl Picture {
    /// Draws an image's content, with the number of objects given or drawn.
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
            // Both are drawn anew, because beside an object at the centre there is no room for another.
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

/// The main object's colour and shape and the kinds of its events. Kinds stay uniform: where something spins, the
/// shape is drawn among those whose turn can be seen.
fn main_and_kinds(
    random: &mut RandomStream,
    odds: &SceneOdds,
    allowed: Combinations,
) -> (Colour, Shape, Vec<Kind>) {
    loop {
        let (colour, mut shape) = colour_and_shape(random, allowed);
        let kinds = if random.chance(odds.two_events) {
            let (movement, other) = (choose(random, &Kind::MOVES), choose(random, &Kind::OTHERS));
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

/// One of a list that is known not to be empty.
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
    fn a_quarter_of_the_pairs_is_held_out_and_spread() {
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
