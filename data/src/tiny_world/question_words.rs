//! Wordings of each kind of question, with their weights. `{s}` is the shape that a question names.

use super::words::Table;

pub(super) const SHAPE: Table = &[
    ("what shape is the main object?", 0.5),
    ("which shape does the main object have?", 0.3),
    ("what is the main object?", 0.2),
];
pub(super) const COLOUR: Table = &[
    ("what colour is the main object?", 0.5),
    ("which colour does the main object have?", 0.3),
    ("what is the colour of the main object?", 0.2),
];
pub(super) const COLOUR_BEFORE: Table = &[
    ("what colour is the main object at the start?", 0.6),
    ("which colour does the main object have before it changes?", 0.4),
];
pub(super) const COLOUR_AFTER: Table = &[
    ("what colour is the main object at the end?", 0.6),
    ("which colour does the main object have after it changes?", 0.4),
];
pub(super) const EVENT: Table =
    &[("what does the main object do?", 0.6), ("what happens to the main object?", 0.4)];
pub(super) const DIRECTION: Table = &[
    ("which way does the main object move?", 0.5),
    ("in which direction does the main object move?", 0.3),
    ("where does the main object move to?", 0.2),
];
pub(super) const GROWTH: Table =
    &[("does the main object grow or shrink?", 0.6), ("how does the size of the main object change?", 0.4)];
pub(super) const FIRST: Table = &[("what happens first?", 0.6), ("what does the main object do first?", 0.4)];
pub(super) const SECOND: Table =
    &[("what happens second?", 0.6), ("what does the main object do second?", 0.4)];
pub(super) const COUNT: Table =
    &[("how many objects are there?", 0.6), ("how many objects does the video show?", 0.4)];
pub(super) const CORNER: Table = &[
    ("what is in the corner?", 0.5),
    ("which shape is in the corner?", 0.3),
    ("what waits in the corner?", 0.2),
];
pub(super) const PRESENCE: Table =
    &[("is there a {s}?", 0.5), ("does the video show a {s}?", 0.3), ("can you see a {s}?", 0.2)];
pub(super) const BACKGROUND: Table = &[
    ("what colour is the background?", 0.5),
    ("which colour does the background have?", 0.3),
    ("what is the colour of the background?", 0.2),
];

/// Every table of this file, for the vocabulary and the world's hash.
pub(super) fn tables() -> [Table; 13] {
    [
        SHAPE,
        COLOUR,
        COLOUR_BEFORE,
        COLOUR_AFTER,
        EVENT,
        DIRECTION,
        GROWTH,
        FIRST,
        SECOND,
        COUNT,
        CORNER,
        PRESENCE,
        BACKGROUND,
    ]
}
