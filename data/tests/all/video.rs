//! Decoding files of several codecs and containers, which the tests encode themselves, and refusing bad ones.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use data::sampling::Sampling;
use data::video::{FrameRequest, Resizing, decode, encode, resize};
use gstreamer as gst;
use std::path::{Path, PathBuf};

/// Recipes in the words of `gst-launch-1.0`, by file extension.
pub(crate) const RECIPES: [(&str, &str); 10] = [
    ("webm", encode::WEBM_VP8),
    ("webm", "vp9enc deadline=1 cpu-used=8 threads=1 ! webmmux"),
    ("avi", "jpegenc quality=95 ! avimux"),
    ("avi", "avenc_mpeg4 bitrate=2000000 ! avimux"),
    ("mp4", "avenc_mpeg4 bitrate=2000000 ! mp4mux"),
    ("mkv", "avenc_ffv1 ! matroskamux"),
    ("ogv", "theoraenc quality=60 ! oggmux"),
    ("mp4", "x264enc threads=1 bframes=2 key-int-max=7 bitrate=4000 ! h264parse ! mp4mux"),
    ("ts", "x264enc threads=1 bitrate=4000 ! h264parse ! mpegtsmux"),
    ("flv", "x264enc threads=1 bframes=2 bitrate=4000 ! h264parse ! flvmux"),
];

/// Frames of each file.
const COUNT: usize = 15;

/// Frames that identify themselves: frame i is a uniform grey, 16 i + 12, with a white corner that marks the
/// top left.
fn numbered(count: usize, width: usize, height: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|index| {
            let mut frame = vec![(16 * index + 12) as u8; width * height * 3];
            for y in 0..height / 4 {
                frame[y * width * 3..][..width / 4 * 3].fill(255);
            }
            frame
        })
        .collect()
}

/// Which frame a decoded one is, from its lower right quarter.
fn number(frame: &[u8], width: usize, height: usize) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for y in height / 2..height {
        for value in &frame[(y * width + width / 2) * 3..(y + 1) * width * 3] {
            sum += f64::from(*value);
            count += 1.0;
        }
    }
    (sum / count - 12.0) / 16.0
}

/// Whether the encoder and muxer of a recipe are installed; prints those that are not.
pub(crate) fn installed(recipe: &str) -> bool {
    gst::init().unwrap();
    recipe.split('!').filter_map(|part| part.split_whitespace().next()).all(|name| {
        let is_installed = gst::ElementFactory::find(name).is_some();
        if !is_installed {
            println!("skipped: no {name}");
        }
        is_installed
    })
}

pub(crate) fn written(
    folder: &Path,
    name: &str,
    extension: &str,
    recipe: &str,
    size: (usize, usize),
) -> PathBuf {
    let path = folder.join(format!("{name}.{extension}"));
    let (width, height) = size;
    encode::write(&path, (width as u32, height as u32), 25, &numbered(COUNT, width, height), recipe).unwrap();
    path
}

#[test]
fn the_chosen_frames_come_from_every_codec() {
    let folder = tempfile::tempdir().unwrap();
    for (index, (extension, recipe)) in RECIPES.into_iter().enumerate() {
        if !installed(recipe) {
            continue;
        }
        for (width, height) in [(96, 64), (98, 66)] {
            let path =
                written(folder.path(), &format!("{index}-{width}"), extension, recipe, (width, height));
            for frames in [1, 8, COUNT, 22] {
                let request = FrameRequest { size: None, ..FrameRequest::uniform(frames, 32) };
                let decoded = decode(&path, &request).unwrap();
                assert_eq!(
                    (decoded.count, decoded.height, decoded.width),
                    (frames, height, width),
                    "{recipe}"
                );
                let expected = Sampling::Uniform.indices(COUNT, frames, 0);
                for (frame, expected) in decoded.iter().zip(expected) {
                    let seen = number(frame, width, height);
                    assert!((seen - expected as f64).abs() < 0.45, "{recipe}: {seen} instead of {expected}");
                    // JPEG's encoder takes memory next to the picture into its last blocks
                    let is_jpeg = recipe.contains("jpeg");
                    let (first, last) = (frame[0], frame[frame.len() - 1]);
                    assert!(first > 225 && (is_jpeg || last < 250), "{recipe}: upside down, {first} {last}");
                }
            }
        }
    }
}

#[test]
fn frames_are_resized_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "clip", "webm", encode::WEBM_VP8, (96, 64));
    let decoded = decode(&path, &FrameRequest::uniform(4, 32)).unwrap();
    assert_eq!(
        (decoded.count, decoded.height, decoded.width, decoded.data.len()),
        (4, 32, 32, 4 * 32 * 32 * 3)
    );
}

/// Slopes of red and green, and a blue that changes from frame to frame.
fn slopes(count: usize, width: usize, height: usize) -> Vec<Vec<u8>> {
    let pixel = |index: usize, x: usize, y: usize| [x * 255 / width, y * 255 / height, 100 + 5 * index];
    let places = || (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    (0..count)
        .map(|index| places().flat_map(|(x, y)| pixel(index, x, y)).map(|value| value as u8).collect())
        .collect()
}

// Resizing planes before they become RGB and resizing RGB differ by rounding (brightness, two colours, and
// RGB: two levels) and, at the border, by how colours of half the size reach over it.
#[test]
fn squares_made_of_planes_are_those_made_of_rgb() {
    let folder = tempfile::tempdir().unwrap();
    for (index, (extension, recipe)) in RECIPES.into_iter().enumerate() {
        if !installed(recipe) {
            continue;
        }
        let path = folder.path().join(format!("{index}.{extension}"));
        encode::write(&path, (162, 90), 25, &slopes(5, 162, 90), recipe).unwrap();
        let own = FrameRequest { size: None, ..FrameRequest::uniform(5, 32) };
        let of_rgb = resize(&decode(&path, &own).unwrap(), 32, Resizing::Blip).unwrap();
        let of_planes = decode(&path, &FrameRequest::uniform(5, 32)).unwrap();
        let differences: Vec<u8> =
            of_rgb.data.iter().zip(&of_planes.data).map(|(a, b)| a.abs_diff(*b)).collect();
        let mean = differences.iter().map(|&d| f64::from(d)).sum::<f64>() / differences.len() as f64;
        println!("{recipe}: mean {mean:.2}, largest {}", differences.iter().max().unwrap());
        assert!(mean < 1.5 && differences.iter().all(|&d| d <= 12), "{recipe}: mean {mean}");
    }
}

#[test]
fn odd_sizes_are_read_row_by_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "odd", "avi", "jpegenc quality=95 ! avimux", (97, 65));
    let request = FrameRequest { size: None, ..FrameRequest::uniform(COUNT, 32) };
    let decoded = decode(&path, &request).unwrap();
    assert_eq!((decoded.height, decoded.width), (65, 97));
    for (index, frame) in decoded.iter().enumerate() {
        assert!((number(frame, 97, 65) - index as f64).abs() < 0.45);
    }
}

#[test]
fn the_same_frames_give_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let one = written(folder.path(), "one", "webm", encode::WEBM_VP8, (64, 64));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let two = written(folder.path(), "two", "webm", encode::WEBM_VP8, (64, 64));
    assert!(std::fs::read(one).unwrap() == std::fs::read(two).unwrap());
}

#[test]
fn rotation_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = "jpegenc quality=95 ! qtmux";
    if !installed(recipe) {
        return;
    }
    let path = written(folder.path(), "turned", "mov", recipe, (96, 64));
    // A phone writes the turn into the matrix of the track's header.
    let mut bytes = std::fs::read(&path).unwrap();
    let header = bytes.windows(4).position(|name| name == b"tkhd").unwrap();
    let matrix: [i32; 9] = [0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30];
    for (place, value) in matrix.into_iter().enumerate() {
        bytes[header + 44 + 4 * place..][..4].copy_from_slice(&value.to_be_bytes());
    }
    std::fs::write(&path, bytes).unwrap();
    let request = FrameRequest { size: None, ..FrameRequest::uniform(2, 32) };
    let decoded = decode(&path, &request).unwrap();
    assert_eq!((decoded.height, decoded.width), (96, 64));
    // Turned clockwise, the white corner goes from the upper left to the upper right.
    let first = decoded.iter().next().unwrap();
    assert!(first[0] < 60 && first[63 * 3] > 225);
}

#[test]
fn gifs_and_images_are_clips_too() {
    let folder = tempfile::tempdir().unwrap();
    let gif = folder.path().join("a.gif");
    let mut encoder = image::codecs::gif::GifEncoder::new(std::fs::File::create(&gif).unwrap());
    for frame in numbered(12, 40, 24) {
        let rgb = image::RgbImage::from_raw(40, 24, frame).unwrap();
        let rgba = image::DynamicImage::ImageRgb8(rgb).into_rgba8();
        encoder.encode_frame(image::Frame::new(rgba)).unwrap();
    }
    drop(encoder);
    let request = FrameRequest { size: None, ..FrameRequest::uniform(4, 32) };
    let decoded = decode(&gif, &request).unwrap();
    let seen: Vec<f64> = decoded.iter().map(|frame| number(frame, 40, 24).round()).collect();
    assert_eq!(seen, [0.0, 3.0, 6.0, 9.0]);

    let png = folder.path().join("a.png");
    image::RgbImage::from_pixel(5, 3, image::Rgb([9, 8, 7])).save(&png).unwrap();
    let decoded = decode(&png, &request).unwrap();
    assert_eq!((decoded.count, decoded.height, decoded.width), (4, 3, 5));
    assert_eq!(decoded.data[..3], [9, 8, 7]);
}

#[test]
fn an_animated_png_is_a_clip() {
    let pixels = |grey: u8| {
        let mut file = std::io::Cursor::new(Vec::new());
        let image = image::GrayImage::from_pixel(4, 2, image::Luma([grey]));
        image.write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    };
    let chunk = |kind: &[u8; 4], body: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(body);
        [&(body.len() as u32).to_be_bytes(), kind.as_slice(), body, &crc.sum().to_be_bytes()].concat()
    };
    // Of an image as written, the signature and the first chunk, and the body of its pixels' chunk.
    let begin = |file: &[u8]| file[..33].to_vec();
    let body = |file: &[u8]| {
        let at = file.windows(4).position(|name| name == b"IDAT").unwrap();
        let length = u32::from_be_bytes(file[at - 4..at].try_into().unwrap()) as usize;
        file[at + 4..at + 4 + length].to_vec()
    };
    let control = |number: u32| {
        let mut fields: Vec<u8> = [number, 4, 2, 0, 0].into_iter().flat_map(u32::to_be_bytes).collect();
        fields.extend_from_slice(&[0, 1, 0, 5, 0, 0]); // a fifth of a second; the frame replaces what is there
        chunk(b"fcTL", &fields)
    };
    let (first, second) = (pixels(10), pixels(200));
    let numbered_body = [2u32.to_be_bytes().to_vec(), body(&second)].concat();
    let file = [
        begin(&first),
        chunk(b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]),
        control(0),
        chunk(b"IDAT", &body(&first)),
        control(1),
        chunk(b"fdAT", &numbered_body),
        chunk(b"IEND", &[]),
    ]
    .concat();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    std::fs::write(&path, file).unwrap();
    let request = FrameRequest { size: None, ..FrameRequest::uniform(2, 32) };
    let decoded = decode(&path, &request).unwrap();
    assert_eq!(decoded.iter().map(|frame| frame[0]).collect::<Vec<u8>>(), [10, 200]);
    let probe = data::probe::probe(&path);
    assert_eq!((probe.codec.as_deref(), probe.frames, probe.duration_s), (Some("apng"), 2, Some(0.4)));
}

/// Two frames of which the second covers the right half alone. The one that is laid over what is there may be
/// 1 darker than libwebp's: the `image` crate blends opaque pixels too.
#[test]
fn an_animated_webp_is_a_clip() {
    let chunk = |kind: &[u8; 4], body: &[u8]| {
        let padding = vec![0; body.len() % 2];
        [kind.as_slice(), &(body.len() as u32).to_le_bytes(), body, &padding].concat()
    };
    let three = |number: u32| number.to_le_bytes()[..3].to_vec();
    let frame = |x: u32, width: u32, grey: u8, milliseconds: u32, replaces: u8| {
        let mut file = Vec::new();
        let pixels = vec![grey; (width * 2 * 3) as usize];
        let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut file);
        encoder.encode(&pixels, width, 2, image::ExtendedColorType::Rgb8).unwrap();
        let fields = [x / 2, 0, width - 1, 1, milliseconds].map(three).concat();
        // after "RIFF", the length and "WEBP" comes the only chunk of a still image
        chunk(b"ANMF", &[fields, vec![replaces << 1], file[12..].to_vec()].concat())
    };
    let canvas = [vec![2, 0, 0, 0], three(3), three(1)].concat();
    let chunks =
        [chunk(b"VP8X", &canvas), chunk(b"ANIM", &[0; 6]), frame(0, 4, 10, 200, 1), frame(2, 2, 200, 300, 0)];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.webp");
    std::fs::write(&path, chunk(b"RIFF", &[b"WEBP".to_vec(), chunks.concat()].concat())).unwrap();
    let request = FrameRequest { size: None, ..FrameRequest::uniform(2, 32) };
    let decoded = decode(&path, &request).unwrap();
    let left_and_right: Vec<[u8; 2]> = decoded.iter().map(|frame| [frame[0], frame[9]]).collect();
    assert_eq!(left_and_right[0], [10, 10]);
    assert!(left_and_right[1][0] == 10 && left_and_right[1][1].abs_diff(200) <= 1, "{left_and_right:?}");
    let probe = data::probe::probe(&path);
    assert_eq!((probe.codec.as_deref(), probe.frames, probe.duration_s), (Some("webp"), 2, Some(0.5)));
}

#[test]
fn bad_files_are_errors_that_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let message = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = decode(&path, &FrameRequest::uniform(4, 32)).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        error
    };
    assert!(message("empty.mp4", b"").contains("empty"));
    assert!(message("text.mp4", b"this is not a video at all, but some text that goes on").contains("text"));
    assert!(!message("noise.webm", &[0x5A; 5000]).is_empty());
    let missing = decode(&folder.path().join("none.mp4"), &FrameRequest::uniform(4, 32)).unwrap_err();
    assert!(missing.to_string().contains("no video there"));
    assert!(decode(folder.path(), &FrameRequest::uniform(4, 32)).is_err());
    assert!(decode(&folder.path().join("none.mp4"), &FrameRequest::uniform(0, 32)).is_err());

    let sound = folder.path().join("sound.wav");
    let mut wav =
        b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\x08\0\0"
            .to_vec();
    wav.resize(44 + 2048, 0);
    std::fs::write(&sound, wav).unwrap();
    let error = decode(&sound, &FrameRequest::uniform(4, 32)).unwrap_err().to_string();
    assert!(error.contains("no video stream"), "{error}");
}

#[test]
fn files_cut_short_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    for (index, (extension, recipe)) in RECIPES.into_iter().enumerate() {
        // Streams without a header of their length can be cut anywhere and are still whole.
        if matches!(extension, "ogv" | "ts" | "flv") || !installed(recipe) {
            continue;
        }
        let path = written(folder.path(), &index.to_string(), extension, recipe, (96, 64));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() * 2 / 3]).unwrap();
        let error = decode(&path, &FrameRequest::uniform(4, 32)).unwrap_err().to_string();
        assert!(error.contains("cut short") || error.contains("no index"), "{recipe}: {error}");
    }
}

#[test]
fn a_frame_of_another_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.webm");
    let error = encode::write(&path, (8, 8), 25, &[vec![0; 10]], encode::WEBM_VP8).unwrap_err().to_string();
    assert!(error.contains("8 x 8 x 3 = 192"), "{error}");
    let error =
        encode::write(&path, (8, 8), 25, &[vec![0; 192]], "nosuchenc ! webmmux").unwrap_err().to_string();
    assert!(error.contains("nosuchenc"), "{error}");
}

#[test]
fn a_transparent_pixel_of_a_gif_is_white_as_in_ffmpeg() {
    let folder = tempfile::tempdir().unwrap();
    let gif = folder.path().join("a.gif");
    let mut encoder = image::codecs::gif::GifEncoder::new(std::fs::File::create(&gif).unwrap());
    for _ in 0..2 {
        let mut picture = image::RgbaImage::from_pixel(4, 2, image::Rgba([200, 0, 0, 255]));
        picture.put_pixel(0, 0, image::Rgba([9, 9, 9, 0]));
        encoder.encode_frame(image::Frame::new(picture)).unwrap();
    }
    drop(encoder);
    let request = FrameRequest { size: None, ..FrameRequest::uniform(2, 32) };
    let decoded = decode(&gif, &request).unwrap();
    assert_eq!(decoded.data[..3], [255, 255, 255]);
    assert!(decoded.data[3] > 190 && decoded.data[4] < 10);
}
