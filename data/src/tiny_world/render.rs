//! Renders scenes with anti-aliased edges, from the signed distance to the outline.

use super::scene::{Background, Colour, Event, Object, Picture, Scene, Shape};
use crate::random::RandomStream;

/// Position and appearance of the main object in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) radius: f64,
    pub(crate) tilt: f64,
    pub(crate) rgb: [f64; 3],
    pub(crate) visible: bool,
}

impl State {
    fn of(object: &Object) -> Self {
        let Object { x, y, radius, tilt, colour, .. } = *object;
        Self { x, y, radius, tilt, rgb: rgb(colour), visible: true }
    }
}

/// The main object in frame `frame` of `frames`.
///
/// Opposite events (left and right, up and down, grow and shrink, both directions of a spin and of a change
/// of colour) show the same frames in opposite order: a model without frame order cannot distinguish them.
pub(crate) fn state(scene: &Scene, frame: usize, frames: usize) -> State {
    let object = &scene.main;
    let mut at = State::of(object);
    let last = frames.saturating_sub(1).max(1) as f64;
    let count = scene.events.len() as f64;
    for (place, event) in scene.events.iter().enumerate() {
        // Each event takes an equal share of the time. `signed` goes from -1 to 1 and is exactly odd around
        // the middle, so that opposite movements have bit-identical positions.
        let signed = ((2.0 * frame as f64 - last) * count / last + (count - 1.0) - 2.0 * place as f64)
            .clamp(-1.0, 1.0);
        let done = (signed + 1.0) / 2.0;
        let now = (frame as f64 * count / last).min(count - 0.5).floor() as usize == place;
        match event {
            Event::Right => at.x = scene.span * signed,
            Event::Left => at.x = -scene.span * signed,
            Event::Down => at.y = scene.span * signed,
            Event::Up => at.y = -scene.span * signed,
            Event::Grow => at.radius = between(scene.smallest, scene.largest, done),
            Event::Shrink => at.radius = between(scene.smallest, scene.largest, (1.0 - signed) / 2.0),
            Event::Spin => at.tilt = object.tilt + scene.turn * done,
            Event::Blink => {
                // Two cycles in a clip, one in half a clip; invisible for half of each cycle.
                let cycles = if scene.events.len() == 1 { 2.0 } else { 1.0 };
                at.visible &= !(now && (done * cycles + scene.phase).fract() < 0.5);
            }
            Event::Recolour => {
                let share = ((done - 0.35) / 0.3).clamp(0.0, 1.0);
                let (from, to) = (rgb(object.colour), rgb(scene.to_colour.unwrap_or(object.colour)));
                at.rgb = std::array::from_fn(|c| between(from[c], to[c], share));
            }
            Event::Still => {}
        }
    }
    at
}

/// Every frame of a clip.
///
/// # Shapes
/// returns `frames` pictures of `[size, size, 3]` bytes
pub(crate) fn clip(scene: &Scene, size: u32, noise: f64, random: &mut RandomStream) -> Vec<Vec<u8>> {
    let mut background = canvas(scene.background, size);
    if let Some(second) = &scene.second {
        paint(&mut background, size, second.shape, &State::of(second));
    }
    (0..scene.frames)
        .map(|frame| {
            let mut pixels = background.clone();
            let at = state(scene, frame, scene.frames);
            if at.visible {
                paint(&mut pixels, size, scene.main.shape, &at);
            }
            to_bytes(&pixels, noise, random)
        })
        .collect()
}

/// An image's bytes, `[size, size, 3]`.
pub(crate) fn picture(picture: &Picture, size: u32, noise: f64, random: &mut RandomStream) -> Vec<u8> {
    let mut pixels = canvas(picture.background, size);
    for object in &picture.objects {
        paint(&mut pixels, size, object.shape, &State::of(object));
    }
    to_bytes(&pixels, noise, random)
}

fn between(from: f64, to: f64, share: f64) -> f64 {
    from * (1.0 - share) + to * share
}

fn rgb(colour: Colour) -> [f64; 3] {
    let bytes: [u8; 3] = match colour {
        Colour::Red => [235, 45, 45],
        Colour::Green => [40, 200, 60],
        Colour::Blue => [60, 90, 250],
        Colour::Yellow => [240, 225, 50],
        Colour::Purple => [170, 60, 205],
        Colour::Cyan => [60, 220, 220],
        Colour::Orange => [245, 140, 30],
        Colour::White => [245, 245, 245],
    };
    bytes.map(|byte| f64::from(byte) / 255.0)
}

fn canvas(background: Background, size: u32) -> Vec<f64> {
    // Every colour of an object is clearly brighter than both.
    let level = match background {
        Background::Black => 0.02,
        Background::Grey => 0.14,
    };
    vec![level; size as usize * size as usize * 3]
}

/// Draws a shape over the pixels.
fn paint(pixels: &mut [f64], size: u32, shape: Shape, at: &State) {
    let State { x, y, radius, tilt, rgb, .. } = *at;
    let half = f64::from(size) / 2.0;
    let place = |i: usize| (i as f64 + 0.5) / half - 1.0;
    let (sin, cos) = tilt.to_radians().sin_cos();
    let side = size as usize;
    for (row, line) in pixels.chunks_exact_mut(side * 3).enumerate() {
        let dy = place(row) - y;
        for (column, pixel) in line.chunks_exact_mut(3).enumerate() {
            let dx = place(column) - x;
            let distance = distance(shape, dx * cos + dy * sin, dy * cos - dx * sin, radius) * half;
            let share = (0.5 - distance).clamp(0.0, 1.0);
            if share > 0.0 {
                for (value, colour) in pixel.iter_mut().zip(rgb) {
                    *value = between(*value, colour, share);
                }
            }
        }
    }
}

/// Signed distance to the outline, negative inside.
///
/// At corners it is the larger of the distances to the sides, which keeps corners sharp.
fn distance(shape: Shape, x: f64, y: f64, radius: f64) -> f64 {
    let (ax, ay) = (x.abs(), y.abs());
    match shape {
        Shape::Circle => x.hypot(y) - radius * 0.92,
        Shape::Square => ax.max(ay) - radius * 0.82,
        Shape::Triangle => {
            let inner = 0.56 * radius; // radius of the inscribed circle; the corners are at twice that
            (y - inner).max(ax * 0.866_025_4 - y * 0.5 - inner)
        }
        Shape::Cross => {
            let arm = 0.30 * radius;
            (ax - radius).max(ay - arm).min((ax - arm).max(ay - radius))
        }
        Shape::Ring => (x.hypot(y) - 0.72 * radius).abs() - 0.24 * radius,
    }
}

/// Adds noise and rounds. The sum of four random bytes approximates a normal distribution and takes one draw.
fn to_bytes(pixels: &[f64], noise: f64, random: &mut RandomStream) -> Vec<u8> {
    const DEVIATION: f64 = 147.8; // standard deviation of the sum of four bytes, 256 * sqrt(4 / 12)
    pixels
        .iter()
        .map(|value| {
            let sum: u32 = random.bits().to_le_bytes().iter().map(|&byte| u32::from(byte)).sum();
            let noisy = value + noise * (f64::from(sum) - 510.0) / DEVIATION;
            (noisy.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::config::SceneOdds;
    use super::super::draw::Combinations;
    use super::*;

    fn with_events(index: u64, events: &[Event]) -> Scene {
        let mut random = RandomStream::new(3, "render test", index);
        let mut scene = Scene::draw(&mut random, &SceneOdds::default(), Combinations::Trained, (24, 36));
        scene.events = events.to_vec();
        scene.second = None;
        scene.to_colour = Some(Colour::White);
        scene
    }

    fn frames(scene: &Scene) -> Vec<Vec<u8>> {
        clip(scene, 64, 0.0, &mut RandomStream::new(0, "no noise", 0))
    }

    fn close(a: &[u8], b: &[u8]) -> bool {
        a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 1)
    }

    #[test]
    fn opposite_events_are_time_reversals() {
        for index in 0..10 {
            for (one, other) in
                [(Event::Left, Event::Right), (Event::Up, Event::Down), (Event::Grow, Event::Shrink)]
            {
                let forwards = frames(&with_events(index, &[one]));
                let backwards = frames(&with_events(index, &[other]));
                let n = forwards.len();
                assert!((0..n).all(|f| close(&forwards[f], &backwards[n - 1 - f])), "{one:?} {other:?}");
                assert!(!close(&forwards[0], &forwards[n - 1]), "{one:?} is not seen");
            }
        }
    }

    #[test]
    fn a_colour_change_reverses_to_the_opposite_one() {
        let forwards = with_events(0, &[Event::Recolour]);
        let mut backwards = forwards.clone();
        backwards.main.colour = Colour::White;
        backwards.to_colour = Some(forwards.main.colour);
        let (a, b) = (frames(&forwards), frames(&backwards));
        let n = a.len();
        assert!((0..n).all(|f| close(&a[f], &b[n - 1 - f])));
    }

    #[test]
    fn two_events_follow_each_other() {
        let scene = with_events(1, &[Event::Right, Event::Grow]);
        let n = scene.frames;
        let middle = state(&scene, n / 2 + 1, n);
        assert!((middle.x - scene.span).abs() < 1e-9, "the movement is over");
        assert!(
            (state(&scene, n / 2 - 1, n).radius - scene.smallest).abs() < 1e-9,
            "the growing has not begun"
        );
        assert!((state(&scene, n - 1, n).radius - scene.largest).abs() < 1e-9);
    }

    #[test]
    fn a_blinking_object_is_invisible_about_half_of_the_time() {
        for index in 0..10 {
            let scene = with_events(index, &[Event::Blink]);
            let away = (0..scene.frames).filter(|&f| !state(&scene, f, scene.frames).visible).count();
            let share = away as f64 / scene.frames as f64;
            assert!((0.35..0.65).contains(&share), "{share}");
        }
    }

    #[test]
    fn nothing_happens_in_a_still_clip() {
        let frames = frames(&with_events(2, &[Event::Still]));
        assert!(frames.iter().all(|frame| frame == &frames[0]));
    }

    #[test]
    fn noise_has_the_asked_for_deviation() {
        let picture = Picture { objects: vec![], background: Background::Grey };
        let bytes = super::picture(&picture, 128, 0.02, &mut RandomStream::new(0, "noise", 0));
        let n = bytes.len() as f64;
        let mean = bytes.iter().map(|&b| f64::from(b)).sum::<f64>() / n;
        let deviation = (bytes.iter().map(|&b| (f64::from(b) - mean).powi(2)).sum::<f64>() / n).sqrt();
        assert!((mean - 0.14 * 255.0).abs() < 0.2, "{mean}");
        assert!((deviation - 0.02 * 255.0).abs() < 0.1, "{deviation}");
    }
}
