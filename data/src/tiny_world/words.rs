//! The words of captions: each concept with its synonyms and their weights.
//!
//! The first synonym is the most common one, so that a model's most probable caption agrees with most
//! references. No verb belongs to two kinds of events.
//!
//! Placeholders: `{c}` a colour, `{n}` the main object, `{a}` and `{b}` the first and the second event, `{m}`
//! the second object, `{g}` the background's colour, `{bg}` the phrase about the background.

use super::scene::{Background, Colour, Event, Kind, Shape};

/// Phrases and their weights, which need not add up to 1.
pub(crate) type Table = &'static [(&'static str, f64)];

pub(crate) fn shape(shape: Shape) -> Table {
    match shape {
        Shape::Circle => &[("circle", 0.75), ("disc", 0.15), ("dot", 0.10)],
        Shape::Square => &[("square", 0.80), ("box", 0.20)],
        Shape::Triangle => &[("triangle", 0.85), ("wedge", 0.15)],
        Shape::Cross => &[("cross", 0.80), ("plus", 0.20)],
        Shape::Ring => &[("ring", 0.80), ("hoop", 0.20)],
    }
}

pub(crate) fn colour(colour: Colour) -> Table {
    match colour {
        Colour::Red => &[("red", 0.90), ("crimson", 0.06), ("scarlet", 0.03), ("ruby", 0.01)],
        Colour::Green => &[("green", 0.92), ("emerald", 0.06), ("olive", 0.02)],
        Colour::Blue => &[("blue", 0.92), ("azure", 0.05), ("navy", 0.03)],
        Colour::Yellow => &[("yellow", 0.92), ("golden", 0.06), ("lemon", 0.02)],
        Colour::Purple => &[("purple", 0.90), ("violet", 0.07), ("lilac", 0.03)],
        Colour::Cyan => &[("cyan", 0.90), ("turquoise", 0.07), ("teal", 0.03)],
        Colour::Orange => &[("orange", 0.92), ("amber", 0.06), ("tangerine", 0.02)],
        Colour::White => &[("white", 0.94), ("pale", 0.04), ("ivory", 0.02)],
    }
}

pub(crate) fn background(background: Background) -> &'static str {
    match background {
        Background::Black => "black",
        Background::Grey => "grey",
    }
}

pub(crate) const SMALL: Table =
    &[("small", 0.75), ("little", 0.16), ("tiny", 0.07), ("minute", 0.01), ("miniature", 0.01)];
pub(crate) const LARGE: Table =
    &[("large", 0.62), ("big", 0.30), ("huge", 0.06), ("giant", 0.01), ("massive", 0.01)];
pub(crate) const UPRIGHT: Table = &[("upright", 0.8), ("straight", 0.2)];
pub(crate) const TILTED: Table =
    &[("tilted", 0.70), ("slanted", 0.16), ("rotated", 0.08), ("leaning", 0.04), ("inclined", 0.02)];

/// Verbs of sideways movement; a direction follows.
pub(crate) const SIDEWAYS_VERBS: Table = &[
    ("moves", 0.60),
    ("slides", 0.18),
    ("glides", 0.10),
    ("travels", 0.06),
    ("drifts", 0.03),
    ("shifts", 0.02),
    ("passes", 0.01),
    ("crawls", 0.01),
];
pub(crate) const LEFTWARDS: Table =
    &[("to the left", 0.75), ("to the left side", 0.12), ("from right to left", 0.08), ("leftwards", 0.05)];
pub(crate) const RIGHTWARDS: Table = &[
    ("to the right", 0.75),
    ("to the right side", 0.12),
    ("from left to right", 0.08),
    ("rightwards", 0.05),
];

/// The phrases of an event. Left and right are expressed by a verb and a direction instead.
pub(crate) fn event(event: Event) -> Table {
    match event {
        Event::Left | Event::Right => &[],
        Event::Up => &[
            ("goes up", 0.60),
            ("rises", 0.18),
            ("climbs up", 0.09),
            ("floats upwards", 0.05),
            ("soars", 0.01),
            ("levitates", 0.01),
            ("ascends", 0.01),
            ("goes to the top", 0.06),
        ],
        Event::Down => &[
            ("goes down", 0.60),
            ("falls", 0.18),
            ("sinks down", 0.09),
            ("drops downwards", 0.05),
            ("descends", 0.01),
            ("tumbles down", 0.01),
            ("plunges", 0.01),
            ("goes to the bottom", 0.06),
        ],
        Event::Grow => &[
            ("grows", 0.62),
            ("gets bigger", 0.16),
            ("expands", 0.13),
            ("swells", 0.07),
            ("enlarges", 0.01),
            ("inflates", 0.01),
        ],
        Event::Shrink => &[
            ("shrinks", 0.62),
            ("gets smaller", 0.16),
            ("contracts", 0.13),
            ("dwindles", 0.07),
            ("diminishes", 0.01),
            ("deflates", 0.01),
        ],
        Event::Spin => &[
            ("spins", 0.62),
            ("rotates", 0.16),
            ("spins around", 0.10),
            ("twirls", 0.06),
            ("revolves", 0.04),
            ("whirls", 0.01),
            ("pirouettes", 0.01),
        ],
        Event::Blink => &[
            ("blinks", 0.62),
            ("flashes", 0.16),
            ("flickers", 0.11),
            ("appears and disappears", 0.09),
            ("winks", 0.01),
            ("vanishes and returns", 0.01),
        ],
        Event::Recolour => &[
            ("turns {c}", 0.62),
            ("becomes {c}", 0.18),
            ("changes colour to {c}", 0.12),
            ("changes colour", 0.07),
            ("is repainted {c}", 0.01),
        ],
        Event::Still => &[
            ("stays still", 0.62),
            ("does not move", 0.18),
            ("rests", 0.10),
            ("remains in place", 0.08),
            ("stands motionless", 0.01),
            ("stays frozen", 0.01),
        ],
    }
}

/// The phrases of a kind of event without its direction.
pub(crate) fn undirected(kind: Kind) -> Table {
    match kind {
        Kind::Horizontal => &[
            ("moves sideways", 0.70),
            ("moves horizontally", 0.15),
            ("slides sideways", 0.10),
            ("drifts sideways", 0.05),
        ],
        Kind::Vertical => {
            &[("goes up or down", 0.70), ("goes vertically", 0.20), ("changes its height", 0.10)]
        }
        Kind::Size => &[("changes size", 0.70), ("changes its size", 0.20), ("is resized", 0.10)],
        Kind::Spin | Kind::Blink | Kind::Recolour | Kind::Still => &[],
    }
}

pub(crate) const CLIP_OPENINGS: Table = &[
    ("", 0.66),
    ("in this clip", 0.11),
    ("in the video", 0.07),
    ("we see that", 0.05),
    ("the video shows how", 0.04),
    ("the camera films how", 0.02),
    ("here", 0.01),
    ("in this short film", 0.01),
    ("the animation shows how", 0.01),
    ("someone records how", 0.01),
    ("this recording shows how", 0.01),
    ("you can watch how", 0.005),
    ("this footage shows how", 0.005),
];
pub(crate) const TWO_EVENTS: Table = &[
    ("{n} {a} and then {b}", 0.56),
    ("{n} {a} then {b}", 0.14),
    ("first {n} {a} and then it {b}", 0.10),
    ("after it {a} {n} {b}", 0.08),
    ("{n} {b} after it {a}", 0.06),
    ("{n} {a} before it {b}", 0.06),
];
pub(crate) const NO_EVENT: Table = &[("there is {n} {bg}", 0.7), ("{n} is seen {bg}", 0.3)];
pub(crate) const SECOND: Table = &[
    ("while {m} waits in the corner", 0.50),
    ("next to {m}", 0.25),
    ("and {m} sits in the corner", 0.15),
    ("near {m}", 0.06),
    ("as {m} looks on", 0.04),
];
pub(crate) const BACKGROUND: Table = &[
    ("on a {g} background", 0.78),
    ("in front of a {g} wall", 0.14),
    ("against a {g} backdrop", 0.05),
    ("on {g} paper", 0.03),
];

pub(crate) const IMAGE_OPENINGS: Table = &[
    ("a photo of", 0.42),
    ("a picture of", 0.20),
    ("this picture has", 0.12),
    ("an image with", 0.10),
    ("a drawing of", 0.05),
    ("a snapshot of", 0.03),
    ("an illustration of", 0.02),
    ("a sketch of", 0.02),
    ("a painting of", 0.01),
    ("this shot contains", 0.01),
    ("a closeup of", 0.01),
    ("a view of", 0.005),
    ("a rendering of", 0.005),
    ("", 0.03),
];

/// The phrases of a position: column and row of the grid.
pub(crate) fn place(column: i8, row: i8) -> Table {
    match (column.signum(), row.signum()) {
        (0, 0) => &[("in the middle", 0.6), ("at the centre", 0.4)],
        (0, -1) => &[("at the top", 0.75), ("near the upper edge", 0.25)],
        (0, _) => &[("at the bottom", 0.75), ("near the lower edge", 0.25)],
        (-1, 0) => &[("on the left", 0.75), ("near the left edge", 0.25)],
        (_, 0) => &[("on the right", 0.75), ("near the right edge", 0.25)],
        (-1, -1) => &[("in the top left corner", 0.7), ("at the upper left", 0.3)],
        (_, -1) => &[("in the top right corner", 0.7), ("at the upper right", 0.3)],
        (-1, _) => &[("in the bottom left corner", 0.7), ("at the lower left", 0.3)],
        (_, _) => &[("in the bottom right corner", 0.7), ("at the lower right", 0.3)],
    }
}

pub(crate) const LEFT_OF: Table = &[("to the left of", 0.6), ("left of", 0.2), ("beside", 0.2)];
pub(crate) const RIGHT_OF: Table = &[("to the right of", 0.6), ("right of", 0.2), ("beside", 0.2)];
pub(crate) const ABOVE: Table = &[("above", 0.7), ("over", 0.3)];
pub(crate) const BELOW: Table = &[("below", 0.7), ("under", 0.3)];

/// Every table, for the vocabulary and the world's hash.
pub(crate) fn tables() -> Vec<Table> {
    let mut all = vec![
        SMALL,
        LARGE,
        UPRIGHT,
        TILTED,
        SIDEWAYS_VERBS,
        LEFTWARDS,
        RIGHTWARDS,
        CLIP_OPENINGS,
        TWO_EVENTS,
        NO_EVENT,
        SECOND,
        BACKGROUND,
        IMAGE_OPENINGS,
        LEFT_OF,
        RIGHT_OF,
        ABOVE,
        BELOW,
    ];
    all.extend(Shape::ALL.map(shape));
    all.extend(Colour::ALL.map(colour));
    all.extend(Kind::ALL.map(undirected));
    all.extend(Kind::ALL.iter().flat_map(|kind| kind.events()).map(|&e| event(e)));
    all.extend((-1..=1).flat_map(|column| (-1..=1).map(move |row| place(column, row))));
    all
}
