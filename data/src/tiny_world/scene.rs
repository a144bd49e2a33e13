//! The content of clips and images: objects, events, backgrounds.
//!
//! Coordinates: the centre of the frame is (0, 0), x points right, y points DOWN, the edge is at 1.

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

    /// Whether a rotation of this shape is visible.
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

/// The background of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Background {
    Black,
    Grey,
}

/// An event of the main object.
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

/// A kind of event. The events of a kind show the same frames, forwards or backwards, so that a model without
/// frame order can recognise the kind but not the direction.
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

    /// The events of this kind: one, or two that are each other's time reversal.
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

/// An object of a scene.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its outline.
    pub shape: Shape,
    /// Its colour; the initial one where it changes.
    pub colour: Colour,
    /// Whether it is large, not small.
    pub large: bool,
    /// Column of the 3 x 3 grid: -1 left, 0 middle, 1 right.
    pub column: i8,
    /// Row of the grid: -1 top, 0 middle, 1 bottom.
    pub row: i8,
    /// x coordinate of the centre.
    pub x: f64,
    /// y coordinate of the centre.
    pub y: f64,
    /// Radius.
    pub radius: f64,
    /// Tilt in degrees, clockwise; 0 is upright.
    pub tilt: f64,
}

/// The content of a clip: everything that rendering, captions and their assessment need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// The object that the events happen to.
    pub main: Object,
    /// A small object that stays in a corner.
    pub second: Option<Object>,
    /// The background.
    pub background: Background,
    /// One or two events, in order.
    pub events: Vec<Event>,
    /// The colour after a change of colour.
    pub to_colour: Option<Colour>,
    /// Length in frames.
    pub frames: usize,
    /// Rotation of a spin, in degrees.
    pub turn: f64,
    /// Phase at which blinking starts, 0..1 of a cycle.
    pub phase: f64,
    /// Smallest radius of growing and shrinking.
    pub smallest: f64,
    /// Largest radius of growing and shrinking.
    pub largest: f64,
    /// Distance from the centre at which a movement starts and ends.
    pub span: f64,
}

/// The content of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// One or two objects.
    pub objects: Vec<Object>,
    /// The background.
    pub background: Background,
}

impl Scene {
    /// Whether a caption depends on the order of the frames: the clip played backwards shows something else.
    /// Two events always depend on it, because one of them is first.
    #[must_use]
    pub fn depends_on_order(&self) -> bool {
        self.events.len() > 1 || self.events.iter().any(|&event| event.directed() || event == Event::Recolour)
    }

    /// Everything that a caption can state, as text: clips with equal keys are duplicates.
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
