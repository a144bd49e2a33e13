//! Arrays of a batch on the host, uploaded to a device in the step that uses them.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use data::preprocess::Preprocess;
use half::bf16;
use model::loss::Targets;
use model::{Prompt, PromptTokens, Visual};
use serde::{Deserialize, Serialize};

/// Frames, or the output of a frozen ViT.
#[derive(Debug, Clone)]
pub enum HostVisual {
    /// Frames as bytes, one a channel; the device normalises them.
    Pixels {
        /// Row by row.
        bytes: Vec<u8>,
        /// `[b, f, 3, S, S]`
        shape: [usize; 5],
        /// Mean of each channel, for pixels in 0..1.
        mean: [f32; 3],
        /// Standard deviation of each channel, for pixels in 0..1.
        std: [f32; 3],
    },
    /// Frames that are normalised already.
    Frames {
        /// Row by row.
        values: Vec<f32>,
        /// `[b, f, 3, S, S]`
        shape: [usize; 5],
    },
    /// The ViT's output.
    Features {
        /// Row by row.
        values: Vec<f32>,
        /// `[b, f, p, d]`
        shape: [usize; 4],
    },
    /// The ViT's output as the cache on disk has it; the device widens it.
    HalfFeatures {
        /// Row by row.
        values: Vec<bf16>,
        /// `[b, f, p, d]`
        shape: [usize; 4],
    },
}

impl HostVisual {
    /// Frames of `b` clips, of the size and with the normalisation of `preprocess`.
    ///
    /// # Shapes
    /// - bytes: `[b, f, 3, S, S]`
    pub fn pixels(bytes: Vec<u8>, b: usize, preprocess: &Preprocess) -> Self {
        let size = preprocess.size as usize;
        let f = bytes.len() / (b.max(1) * 3 * size * size);
        Self::Pixels { bytes, shape: [b, f, 3, size, size], mean: preprocess.mean, std: preprocess.std }
    }

    /// Bytes of the array.
    pub fn size(&self) -> usize {
        match self {
            Self::Pixels { bytes, .. } => bytes.len(),
            Self::Frames { values, .. } | Self::Features { values, .. } => size_of_val(values.as_slice()),
            Self::HalfFeatures { values, .. } => size_of_val(values.as_slice()),
        }
    }

    /// Some rows of the batch.
    #[must_use]
    pub fn rows(&self, rows: &Range<usize>) -> Self {
        self.copied(&rows.clone().collect::<Vec<_>>())
    }

    /// The batch with neighbouring rows of equal frames joined, and the row of it that each row shows; none
    /// where no neighbours are equal, or the ViT has run already. Questions about a clip follow each other in
    /// validation and test.
    pub fn joined(&self) -> Option<(Self, Vec<usize>)> {
        let is_repeated: Vec<bool> = match self {
            Self::Pixels { bytes, shape: [b, ..], .. } => repeated(bytes, *b),
            Self::Frames { values, shape: [b, ..] } => repeated(values, *b),
            Self::Features { .. } | Self::HalfFeatures { .. } => return None,
        };
        let firsts: Vec<usize> = (0..is_repeated.len()).filter(|&row| !is_repeated[row]).collect();
        if firsts.len() == is_repeated.len() {
            return None;
        }
        let row = |row: usize| firsts.partition_point(|&first| first <= row) - 1;
        Some((self.copied(&firsts), (0..is_repeated.len()).map(row).collect()))
    }

    fn copied(&self, rows: &[usize]) -> Self {
        let b = rows.len();
        match self {
            Self::Pixels { bytes, shape: [_, f, channels, height, width], mean, std } => Self::Pixels {
                bytes: copied(bytes, f * channels * height * width, rows),
                shape: [b, *f, *channels, *height, *width],
                mean: *mean,
                std: *std,
            },
            Self::Frames { values, shape: [_, f, channels, height, width] } => Self::Frames {
                values: copied(values, f * channels * height * width, rows),
                shape: [b, *f, *channels, *height, *width],
            },
            Self::Features { values, shape: [_, f, p, d] } => {
                Self::Features { values: copied(values, f * p * d, rows), shape: [b, *f, *p, *d] }
            }
            Self::HalfFeatures { values, shape: [_, f, p, d] } => {
                Self::HalfFeatures { values: copied(values, f * p * d, rows), shape: [b, *f, *p, *d] }
            }
        }
    }

    /// Uploads the array, as a constant of any graph; bytes are normalised on the device. A device that lacks
    /// a type gets the same values in f32.
    pub fn upload(self, device: &Device) -> Visual {
        let device = device.clone().inner();
        match self {
            Self::Pixels { bytes, shape, mean, std } => {
                let bytes = if device.supports_dtype(DType::U8) {
                    let data = TensorData::new(bytes, shape);
                    Tensor::<5, Int>::from_data(data, (&device, DType::U8)).float()
                } else {
                    // WGSL has no bytes
                    let values: Vec<f32> = bytes.into_iter().map(f32::from).collect();
                    Tensor::<5>::from_data(TensorData::new(values, shape), &device)
                };
                let each = |values: [f32; 3]| {
                    Tensor::<5>::from_data(TensorData::new(values.to_vec(), [1, 1, 3, 1, 1]), &device)
                };
                // the reference's order, in f32: scale, subtract, divide
                let scaled = bytes.mul_scalar(1.0_f32 / 255.0);
                Visual::Frames((scaled - each(mean)) / each(std))
            }
            Self::Frames { values, shape } => {
                Visual::Frames(Tensor::from_data(TensorData::new(values, shape), &device))
            }
            Self::Features { values, shape } => {
                Visual::Features(Tensor::from_data(TensorData::new(values, shape), &device))
            }
            Self::HalfFeatures { values, shape } => Visual::Features(if device.supports_dtype(DType::BF16) {
                let half = Tensor::<4>::from_data(TensorData::new(values, shape), (&device, DType::BF16));
                half.cast(FloatDType::F32)
            } else {
                let values: Vec<f32> = values.into_iter().map(bf16::to_f32).collect();
                Tensor::from_data(TensorData::new(values, shape), &device)
            }),
        }
    }
}

/// Whether each of `b` rows is equal to the one before it.
fn repeated<T: PartialEq>(values: &[T], b: usize) -> Vec<bool> {
    let each = values.len() / b.max(1);
    let row = |row: usize| &values[part(&(row..row + 1), each)];
    (0..b).map(|place| place > 0 && row(place) == row(place - 1)).collect()
}

/// Rows of `each` values.
fn copied<T: Copy>(values: &[T], each: usize, rows: &[usize]) -> Vec<T> {
    rows.iter().flat_map(|&row| &values[part(&(row..row + 1), each)]).copied().collect()
}

/// Text that each row of a batch has beside its video.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostPrompts {
    /// Read by the language model, after the video.
    pub text: Option<HostTokens>,
    /// Read by the Q-Former beside its queries (InstructBLIP).
    pub instruction: Option<HostTokens>,
}

impl HostPrompts {
    /// Some rows of the batch.
    #[must_use]
    pub fn rows(&self, rows: &Range<usize>) -> Self {
        let part = |tokens: &Option<HostTokens>| tokens.as_ref().map(|tokens| tokens.rows(rows));
        Self { text: part(&self.text), instruction: part(&self.instruction) }
    }

    /// Uploads the prompts.
    pub fn upload(self, device: &Device) -> Prompt {
        let upload = |tokens: HostTokens| {
            let Targets { ids, mask } = tokens.upload(device);
            PromptTokens { ids, mask: Some(mask) }
        };
        Prompt { text: self.text.map(upload), instruction: self.instruction.map(upload), streams: None }
    }
}

/// Token sequences padded to the longest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostTokens {
    ids: Vec<i32>,
    mask: Vec<f32>,
    shape: [usize; 2],
}

impl HostTokens {
    /// Pads sequences at their end, with id 0 and mask 0.
    pub fn pad(sequences: &[Vec<u32>]) -> Self {
        Self::padded(sequences, false)
    }

    /// Pads sequences at their start, as a decoder-only language model needs its prompts.
    pub fn pad_start(sequences: &[Vec<u32>]) -> Self {
        Self::padded(sequences, true)
    }

    fn padded(sequences: &[Vec<u32>], at_start: bool) -> Self {
        let t = sequences.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let (mut ids, mut mask) = (vec![0; sequences.len() * t], vec![0.0; sequences.len() * t]);
        for (row, sequence) in sequences.iter().enumerate() {
            let start = row * t + if at_start { t - sequence.len() } else { 0 };
            for (place, &id) in (start..).zip(sequence) {
                (ids[place], mask[place]) = (id as i32, 1.0);
            }
        }
        Self { ids, mask, shape: [sequences.len(), t] }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens, without padding.
    pub fn count(&self) -> f64 {
        self.mask.iter().map(|&counts| f64::from(counts)).sum()
    }

    /// Some rows of the batch.
    #[must_use]
    pub fn rows(&self, rows: &Range<usize>) -> Self {
        let [_, t] = self.shape;
        let place = part(rows, t);
        Self {
            ids: self.ids[place.clone()].to_vec(),
            mask: self.mask[place].to_vec(),
            shape: [rows.len(), t],
        }
    }

    /// The rows of parts of a batch, one part after the other. Parts that have rows are padded to the same
    /// length.
    #[must_use]
    pub fn join(parts: &[Self]) -> Self {
        let t = parts.iter().find(|part| !part.is_empty()).map_or(1, |part| part.shape[1]);
        Self {
            ids: parts.iter().flat_map(|part| part.ids.iter().copied()).collect(),
            mask: parts.iter().flat_map(|part| part.mask.iter().copied()).collect(),
            shape: [parts.iter().map(Self::len).sum(), t],
        }
    }

    /// Uploads ids and mask.
    pub fn upload(self, device: &Device) -> Targets {
        let device = device.clone().inner();
        Targets {
            ids: Tensor::<2, Int>::from_data(TensorData::new(self.ids, self.shape), &device),
            mask: Tensor::<2>::from_data(TensorData::new(self.mask, self.shape), &device),
        }
    }
}

/// The range of some rows, of `each` values, in a flat array.
fn part(rows: &Range<usize>, each: usize) -> Range<usize> {
    rows.start * each..rows.end * each
}

/// The device of a model's parameters.
pub fn device_of<M: Module>(model: &M) -> Device {
    model.devices().into_iter().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three clips of one frame of 16 x 16 pixels that hold every byte in every channel; the second is equal
    /// to the first.
    fn clips() -> (Preprocess, Vec<u8>) {
        let preprocess = Preprocess::new(16);
        let one: Vec<u8> = (0..=255).flat_map(|byte: u8| [byte, 255 - byte, byte ^ 170]).collect();
        let other: Vec<u8> = one.iter().map(|byte| byte ^ 1).collect();
        (preprocess, [one.clone(), one, other].concat())
    }

    fn batch(preprocess: &Preprocess, pixels: &[u8]) -> HostVisual {
        let mut bytes = Vec::new();
        preprocess.channels_first(pixels, &mut bytes);
        HostVisual::pixels(bytes, 3, preprocess)
    }

    #[test]
    fn a_device_normalises_bytes_to_the_digits_of_the_host() {
        let (preprocess, pixels) = clips();
        let Visual::Frames(frames) = batch(&preprocess, &pixels).upload(&Device::flex()) else {
            panic!("frames")
        };
        assert_eq!(frames.dims(), [3, 1, 3, 16, 16]);
        let values = frames.into_data().try_to_vec::<f32>().unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&values), bits(&preprocess.normalize(&pixels)));
    }

    #[test]
    fn a_batch_of_frames_takes_one_byte_a_channel() {
        let (preprocess, pixels) = clips();
        let batch = batch(&preprocess, &pixels);
        assert_eq!(batch.size(), 3 * 3 * 16 * 16);
        assert_eq!(batch.rows(&(1..3)).size(), 2 * 3 * 16 * 16);
    }

    #[test]
    fn features_in_half_precision_take_two_bytes_and_keep_their_values() {
        let values: Vec<bf16> = (0..12).map(|i| bf16::from_f32(i as f32 * 0.37 - 2.0)).collect();
        let batch = HostVisual::HalfFeatures { values: values.clone(), shape: [3, 1, 2, 2] };
        assert_eq!((batch.size(), batch.rows(&(1..2)).size()), (24, 8));
        let Visual::Features(features) = batch.rows(&(1..3)).upload(&Device::flex()) else {
            panic!("features")
        };
        assert_eq!(features.dims(), [2, 1, 2, 2]);
        let expected: Vec<f32> = values[4..].iter().map(|value| value.to_f32()).collect();
        assert_eq!(features.into_data().try_to_vec::<f32>().unwrap(), expected);
    }

    #[test]
    fn neighbours_with_equal_frames_are_joined() {
        let (preprocess, pixels) = clips();
        let all = batch(&preprocess, &pixels);
        let (joined, rows) = all.joined().unwrap();
        assert_eq!(rows, [0, 0, 1]);
        let HostVisual::Pixels { bytes, shape, .. } = joined else { panic!("pixels") };
        let HostVisual::Pixels { bytes: last, .. } = all.rows(&(1..3)) else { panic!("pixels") };
        assert_eq!((bytes, shape), (last, [2, 1, 3, 16, 16]));
        assert!(all.rows(&(1..3)).joined().is_none(), "nothing is equal");
        assert!(all.rows(&(0..0)).joined().is_none(), "nothing is there");
    }

    #[test]
    fn sequences_are_padded_to_the_longest_and_only_their_tokens_count() {
        let tokens = HostTokens::pad(&[vec![5, 6, 1], vec![7, 1]]);
        assert_eq!(tokens.ids, [5, 6, 1, 7, 1, 0]);
        assert_eq!(tokens.mask, [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
        assert_eq!((tokens.shape, tokens.count()), ([2, 3], 5.0));
        let second = HostTokens::pad_start(&[vec![5, 6, 1], vec![7, 1]]).rows(&(1..2));
        assert_eq!((second.ids, second.mask, second.shape), (vec![0, 7, 1], vec![0.0, 1.0, 1.0], [1, 3]));
    }
}
