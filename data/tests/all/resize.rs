//! Compares resizing with Pillow, which BLIP's image processor uses, and with torch, which LAVIS's video
//! transform uses. `scripts/reference/resize.py` made the fixtures.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use data::preprocess::{CLIP_MEAN, CLIP_STD, Preprocess};
use data::video::{Frames, Resizing, resize};

const CASES: [(usize, usize, u32); 6] =
    [(61, 47, 24), (20, 33, 48), (128, 96, 32), (50, 50, 50), (3, 200, 16), (320, 240, 64)];

/// Slopes, edges and fine grain, as the script makes them.
fn picture(width: usize, height: usize) -> Frames {
    let mut data = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                let slope = (x * 5 + y * 3 + c * 40) % 256;
                let edge = if (x / 9 + y / 7).is_multiple_of(2) { 255 } else { 0 };
                let grain = (x * 2_654_435_761 + y * 40_503 + c * 97) % 65_536 / 256;
                data.push(((slope * 2 + edge + grain) / 4) as u8);
            }
        }
    }
    Frames { count: 1, height, width, data }
}

/// The largest difference of a resizing rule from a fixture, over all cases.
fn largest_difference(golden: &[u8], resizing: Resizing) -> u8 {
    let (mut at, mut largest) = (0, 0);
    for (width, height, size) in CASES {
        let ours = resize(&picture(width, height), size, resizing).unwrap().data;
        let theirs = &golden[at..at + ours.len()];
        at += ours.len();
        let differences: Vec<u8> = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).collect();
        let worst = differences.iter().copied().max().unwrap();
        let off = differences.iter().filter(|d| **d > 0).count() as f64 / ours.len() as f64;
        println!(
            "{width} x {height} to {size}: largest difference {worst}, {:.2} % of values differ",
            off * 100.0
        );
        largest = largest.max(worst);
    }
    assert_eq!(at, golden.len());
    largest
}

// Rounding between two passes of fixed-point arithmetic can differ by one level.
#[test]
fn resizing_equals_pillow_within_one_level() {
    let golden = include_bytes!("../fixtures/resize.bin");
    assert!(largest_difference(golden, Resizing::Blip) <= 1);
}

// Without rounding, the last bit of a sum can change a level, and a value above 255 wraps to 0. Both could
// happen where torch sums in another order.
#[test]
fn resizing_equals_lavis_within_one_level() {
    let golden = include_bytes!("../fixtures/resize_lavis.bin");
    assert!(largest_difference(golden, Resizing::Lavis) <= 1);
}

#[test]
fn normalising_undoes_itself() {
    let preprocess = Preprocess::new(16);
    let frames = preprocess.resize(&picture(40, 30)).unwrap();
    let normal = preprocess.normalize(&frames.data);
    for (place, value) in normal.iter().enumerate() {
        let (c, pixel) = (place / 256, place % 256);
        let back = (value * CLIP_STD[c] + CLIP_MEAN[c]) * 255.0;
        assert!((back - f32::from(frames.data[pixel * 3 + c])).abs() < 1e-3);
    }
}
