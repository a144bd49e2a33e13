//! Converts YUV and grey pictures to RGB without the coarse integers of GStreamer's converter, which is up to
//! four levels away from FFmpeg's. Colours of half the size are repeated, as in FFmpeg.

use super::convert::Rgb;
use crate::error::{Error, Result};
use gstreamer as gst;
use gstreamer_video::{self as gst_video, VideoColorMatrix as Matrix, VideoColorRange as Range, prelude::*};
use std::path::Path;

/// The conversion of one format.
pub(super) struct Exact {
    model: Model,
    components: Vec<Component>,
    width: usize,
    height: usize,
}

/// How the numbers of a picture become red, green and blue.
enum Model {
    /// One number for all three.
    Grey { scale: f32 },
    /// Planes of green, blue and red, which some decoders call YUV.
    Rgb { scale: f32 },
    /// Brightness and two colours.
    Yuv(Coefficients),
}

/// Red is `luma * (y - black) + red_v * (v - middle)`, and so on.
#[derive(Clone, Copy)]
struct Coefficients {
    black: f32,
    middle: f32,
    luma: f32,
    red_v: f32,
    green_u: f32,
    green_v: f32,
    blue_u: f32,
}

/// Where a component's samples lie.
struct Component {
    plane: u32,
    /// Bytes from one sample to the next, and of the first one's place.
    step: usize,
    first: usize,
    /// Columns and rows of the picture for each sample, as powers of two.
    columns: u32,
    rows: u32,
    sample: Sample,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sample {
    Byte,
    LittleEndian,
    BigEndian,
}

impl Exact {
    /// `None` for formats that GStreamer's converter must unpack, and for RGB.
    pub(super) fn new(info: &gst_video::VideoInfo) -> Option<Self> {
        let format = info.format_info();
        let count = if format.is_gray() { 1 } else { 3 };
        let depth = *format.depth().first()?;
        let is_plain = !(format.is_complex() || format.is_tiled() || format.has_palette())
            && (format.is_gray() || format.is_yuv())
            && format.n_components() as usize >= count
            && format.depth().iter().take(count).all(|&other| other == depth)
            && format.shift().iter().take(count).all(|&shift| shift == 0)
            && (8..=16).contains(&depth);
        if !is_plain {
            return None;
        }
        let sample = match (depth > 8, format.is_le()) {
            (false, _) => Sample::Byte,
            (true, true) => Sample::LittleEndian,
            (true, false) => Sample::BigEndian,
        };
        let component = |place: usize| {
            Some(Component {
                plane: *format.plane().get(place)?,
                step: usize::try_from(*format.pixel_stride().get(place)?).ok()?,
                first: *format.poffset().get(place)? as usize,
                columns: *format.w_sub().get(place)?,
                rows: *format.h_sub().get(place)?,
                sample,
            })
        };
        let colours = info.colorimetry();
        let most = ((1u32 << depth) - 1) as f32;
        let model = if format.is_gray() {
            Model::Grey { scale: 255.0 / most }
        } else if colours.matrix() == Matrix::Rgb {
            Model::Rgb { scale: 255.0 / most }
        } else {
            Model::Yuv(Coefficients::new(colours.matrix(), colours.range(), depth)?)
        };
        let components = (0..count).map(component).collect::<Option<_>>()?;
        Some(Self { model, components, width: info.width() as usize, height: info.height() as usize })
    }

    /// A picture as RGB.
    pub(super) fn convert(
        &self,
        path: &Path,
        picture: &gst_video::VideoFrameRef<&gst::BufferRef>,
    ) -> Result<Rgb> {
        let (height, width) = (self.height, self.width);
        let mut data = vec![0; height * width * 3];
        let mut lines = vec![vec![0.0; width]; self.components.len()];
        for (row, pixels) in data.chunks_exact_mut(width * 3).enumerate() {
            for (component, line) in self.components.iter().zip(&mut lines) {
                component
                    .read(picture, row, line)
                    .ok_or_else(|| Error::video(path, "a frame is smaller than its format says"))?;
            }
            match (&self.model, lines.as_slice()) {
                (Model::Grey { scale }, [grey]) => {
                    for (pixel, grey) in pixels.chunks_exact_mut(3).zip(grey) {
                        pixel.fill(level(grey * scale));
                    }
                }
                (Model::Rgb { scale }, [green, blue, red]) => {
                    for (pixel, ((g, b), r)) in
                        pixels.chunks_exact_mut(3).zip(green.iter().zip(blue).zip(red))
                    {
                        pixel.copy_from_slice(&[r, g, b].map(|value| level(value * scale)));
                    }
                }
                (Model::Yuv(yuv), [y, u, v]) => {
                    for (pixel, ((&y, &u), &v)) in pixels.chunks_exact_mut(3).zip(y.iter().zip(u).zip(v)) {
                        pixel.copy_from_slice(&yuv.rgb(y, u, v));
                    }
                }
                _ => {
                    return Err(Error::video(
                        path,
                        "a frame has another number of components than its format",
                    ));
                }
            }
        }
        Ok(Rgb { height, width, data })
    }
}

impl Component {
    /// The samples of one row of the picture; `None` where the plane is too small.
    fn read(
        &self,
        picture: &gst_video::VideoFrameRef<&gst::BufferRef>,
        row: usize,
        line: &mut [f32],
    ) -> Option<()> {
        let stride = usize::try_from(*picture.plane_stride().get(self.plane as usize)?).ok()?;
        let bytes = picture.plane_data(self.plane).ok()?.get((row >> self.rows) * stride + self.first..)?;
        let length = if self.sample == Sample::Byte { 1 } else { 2 };
        let last = (line.len() - 1) >> self.columns;
        let bytes = bytes.get(..last * self.step + length)?;
        // The common ways of bytes side by side are separate so that the compiler can vectorise them.
        match (self.sample, self.step, self.columns) {
            (Sample::Byte, 1, 0) => {
                for (value, &byte) in line.iter_mut().zip(bytes) {
                    *value = f32::from(byte);
                }
            }
            (Sample::Byte, 1, 1) => {
                for (pair, &byte) in line.chunks_mut(2).zip(bytes) {
                    pair.fill(f32::from(byte));
                }
            }
            _ => {
                for (place, value) in line.iter_mut().enumerate() {
                    let at = (place >> self.columns) * self.step;
                    *value = match self.sample {
                        Sample::Byte => f32::from(bytes[at]),
                        Sample::LittleEndian => f32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]])),
                        Sample::BigEndian => f32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]])),
                    };
                }
            }
        }
        Some(())
    }
}

impl Coefficients {
    /// Those of a matrix and range; `None` for a matrix without coefficients.
    fn new(matrix: Matrix, range: Range, depth: u32) -> Option<Self> {
        let (red, blue): (f32, f32) = match matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Smpte240m => (0.212, 0.087),
            Matrix::Fcc => (0.30, 0.11),
            Matrix::Bt2020 => (0.2627, 0.0593),
            _ => return None,
        };
        let green = 1.0 - red - blue;
        let unit = (1u32 << (depth - 8)) as f32;
        let most = ((1u32 << depth) - 1) as f32;
        let (black, luma, chroma) = match range {
            Range::Range0_255 => (0.0, 255.0 / most, 255.0 / most),
            _ => (16.0 * unit, 255.0 / (219.0 * unit), 255.0 / (224.0 * unit)),
        };
        let (red_v, blue_u) = (2.0 * (1.0 - red) * chroma, 2.0 * (1.0 - blue) * chroma);
        Some(Self {
            black,
            middle: 128.0 * unit,
            luma,
            red_v,
            green_u: -blue_u * blue / green,
            green_v: -red_v * red / green,
            blue_u,
        })
    }

    #[inline]
    fn rgb(&self, y: f32, u: f32, v: f32) -> [u8; 3] {
        let (y, u, v) = (self.luma * (y - self.black), u - self.middle, v - self.middle);
        [y + self.red_v * v, y + self.green_u * u + self.green_v * v, y + self.blue_u * u].map(level)
    }
}

/// The nearest of the levels 0 to 255.
#[inline]
fn level(value: f32) -> u8 {
    (value + 0.5) as u8 // saturates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgb(matrix: Matrix, range: Range, depth: u32, yuv: [f32; 3]) -> [u8; 3] {
        let [y, u, v] = yuv;
        Coefficients::new(matrix, range, depth).unwrap().rgb(y, u, v)
    }

    #[test]
    fn black_white_and_colours_are_those_of_the_standards() {
        let limited = Range::Range16_235;
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Smpte240m, Matrix::Fcc, Matrix::Bt2020] {
            assert_eq!(rgb(matrix, limited, 8, [16.0, 128.0, 128.0]), [0; 3]);
            assert_eq!(rgb(matrix, limited, 8, [235.0, 128.0, 128.0]), [255; 3]);
            assert_eq!(rgb(matrix, limited, 10, [940.0, 512.0, 512.0]), [255; 3]);
            assert_eq!(rgb(matrix, Range::Range0_255, 12, [4095.0, 2048.0, 2048.0]), [255; 3]);
        }
        assert_eq!(rgb(Matrix::Bt709, limited, 8, [135.0, 170.0, 81.0]), [54, 155, 227]);
        assert_eq!(rgb(Matrix::Bt601, limited, 8, [81.0, 90.0, 240.0]), [254, 0, 0]);
        assert_eq!(rgb(Matrix::Bt601, Range::Range0_255, 8, [76.0, 85.0, 255.0]), [254, 0, 0]);
    }

    /// A picture of 4 x 2 pixels of one colour in any format.
    fn converted(format: &str, colorimetry: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        gst::init().unwrap();
        let caps: gst::Caps = format!(
            "video/x-raw, format={format}, width=4, height=2, framerate=1/1, colorimetry={colorimetry}"
        )
        .parse()
        .unwrap();
        let info = super::super::colour::interpret(&caps).unwrap();
        let mut content = vec![0; info.size()];
        for (place, byte) in content.iter_mut().enumerate() {
            *byte = bytes[place % bytes.len()];
        }
        let buffer = gst::Buffer::from_slice(content);
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &info).unwrap();
        Some(Exact::new(&info)?.convert(Path::new("test"), &frame).unwrap().data)
    }

    #[test]
    fn grey_of_every_depth_has_three_equal_channels() {
        assert_eq!(converted("GRAY8", "2:0:0:0", &[100]).unwrap(), [100; 24]);
        assert_eq!(converted("GRAY16_LE", "2:0:0:0", &[0, 100]).unwrap(), [100; 24]);
        assert_eq!(converted("GRAY16_BE", "2:0:0:0", &[100, 0]).unwrap(), [100; 24]);
    }

    #[test]
    fn every_layout_of_yuv_is_read() {
        for format in ["I420", "YV12", "Y42B", "Y444", "Y41B", "YUV9", "NV12", "YUY2", "UYVY", "A420"] {
            assert_eq!(converted(format, "2:4:0:0", &[128]).unwrap(), [130; 24], "{format}");
        }
        for format in ["I420_10LE", "I422_10LE", "Y444_10LE", "A444_10LE"] {
            assert_eq!(converted(format, "2:4:0:0", &[0, 2]).unwrap(), [130; 24], "{format}");
        }
        for format in ["I420_12LE", "Y444_12LE"] {
            assert_eq!(converted(format, "2:4:0:0", &[0, 8]).unwrap(), [130; 24], "{format}");
        }
        assert_eq!(converted("Y444_16LE", "2:4:0:0", &[0, 128]).unwrap(), [130; 24]);
        assert!(converted("v210", "2:4:0:0", &[0]).is_none() && converted("RGB", "sRGB", &[0]).is_none());
    }

    #[test]
    fn planes_of_rgb_are_green_blue_and_red() {
        gst::init().unwrap();
        let caps: gst::Caps =
            "video/x-raw, format=Y444, width=4, height=1, framerate=1/1, colorimetry=sRGB".parse().unwrap();
        let info = super::super::colour::interpret(&caps).unwrap();
        let buffer = gst::Buffer::from_slice([[2u8; 4], [3; 4], [1; 4]].concat());
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &info).unwrap();
        let rgb = Exact::new(&info).unwrap().convert(Path::new("test"), &frame).unwrap();
        assert_eq!(rgb.data[..3], [1, 2, 3]);
    }
}
