//! Resizing against Pillow, which BLIP's image processor uses, and against torch, which LAVIS's video
//! transform uses. `scripts/reference/resize.py` made the fixtures.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use data::preprocess::{CLIP_MEAN, CLIP_STD, Preprocess, Resizing, resize};
use data::video::Frames;

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

/// The largest difference of a way of resizing from a fixture, over all cases.
fn largest_difference(golden: &[u8], ours: impl Fn(&Frames, u32) -> Frames) -> u8 {
    let (mut at, mut largest) = (0, 0);
    for (width, height, size) in CASES {
        let ours = ours(&picture(width, height), size).data;
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

// One level is what rounding between two passes of fixed-point arithmetic can differ by.
#[test]
fn resizing_equals_pillow_within_one_level() {
    let golden = include_bytes!("../fixtures/resize.bin");
    assert!(largest_difference(golden, |frames, size| resize(frames, size).unwrap()) <= 1);
}

// Cutting off a fraction turns the last bit of a sum into a level; what overshoots wraps from 255 to 0, so
// that one level there is 255. Both happen where torch adds up in another order.
#[test]
fn resizing_equals_lavis_within_one_level() {
    let golden = include_bytes!("../fixtures/resize_lavis.bin");
    let preprocess = |size| Preprocess { size, resizing: Resizing::Lavis, ..Preprocess::default() };
    assert!(largest_difference(golden, |frames, size| preprocess(size).resize(frames).unwrap()) <= 1);
}

#[test]
fn normalising_undoes_itself() {
    let preprocess = Preprocess::new(16);
    let frames = resize(&picture(40, 30), 16).unwrap();
    let normal = preprocess.normalize(&frames.data);
    for (place, value) in normal.iter().enumerate() {
        let (c, pixel) = (place / 256, place % 256);
        let back = (value * CLIP_STD[c] + CLIP_MEAN[c]) * 255.0;
        assert!((back - f32::from(frames.data[pixel * 3 + c])).abs() < 1e-3);
    }
}
