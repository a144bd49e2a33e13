//! Resizing against Pillow, which BLIP's image processor uses. `scripts/reference/resize.py` made the fixture.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use data::preprocess::{CLIP_MEAN, CLIP_STD, Preprocess, resize};
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

#[test]
fn resizing_equals_pillow_within_one_level() {
    let golden = include_bytes!("../fixtures/resize.bin");
    let mut at = 0;
    for (width, height, size) in CASES {
        let ours = resize(&picture(width, height), size).unwrap().data;
        let theirs = &golden[at..at + ours.len()];
        at += ours.len();
        let differences: Vec<u8> = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).collect();
        let largest = differences.iter().max().unwrap();
        let off = differences.iter().filter(|d| **d > 0).count() as f64 / ours.len() as f64;
        println!(
            "{width} x {height} to {size}: largest difference {largest}, {:.2} % of values differ",
            off * 100.0
        );
        assert!(*largest <= 1, "{width} x {height} to {size}: {largest}");
    }
    assert_eq!(at, golden.len());
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
