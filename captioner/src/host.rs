//! Arrays of a batch on the host, uploaded to a device in the step that uses them.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use model::loss::Targets;
use model::{Prompt, PromptTokens, Visual};

/// Frames, or the output of a frozen ViT.
#[derive(Debug, Clone)]
pub enum HostVisual {
    /// Normalised frames.
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
}

impl HostVisual {
    /// Some rows of the batch.
    #[must_use]
    pub fn rows(&self, rows: &Range<usize>) -> Self {
        match self {
            Self::Frames { values, shape: [_, f, channels, height, width] } => {
                let values = values[part(rows, f * channels * height * width)].to_vec();
                Self::Frames { values, shape: [rows.len(), *f, *channels, *height, *width] }
            }
            Self::Features { values, shape: [_, f, p, d] } => Self::Features {
                values: values[part(rows, f * p * d)].to_vec(),
                shape: [rows.len(), *f, *p, *d],
            },
        }
    }

    /// Uploads the array, as a constant of any graph.
    pub fn upload(self, device: &Device) -> Visual {
        let device = device.clone().inner();
        match self {
            Self::Frames { values, shape } => {
                Visual::Frames(Tensor::from_data(TensorData::new(values, shape), &device))
            }
            Self::Features { values, shape } => {
                Visual::Features(Tensor::from_data(TensorData::new(values, shape), &device))
            }
        }
    }
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
#[derive(Debug, Clone, PartialEq)]
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
