//! Batches as they lie on the host: plain arrays, uploaded in the step that uses them.

use burn::tensor::{Device, Int, Tensor, TensorData};
use model::Visual;
use model::loss::Targets;

/// One batch of any kind that the learner knows.
#[derive(Debug, Clone)]
pub enum Batch {
    /// Videos, or images as videos of one frame, each with a caption to be learned.
    Caption {
        /// What is seen.
        visual: HostVisual,
        /// What is to be said; empty in evaluation.
        captions: Option<HostTokens>,
        /// Index of each example in its split.
        items: Vec<usize>,
    },
    /// Text to text: trains the language model alone.
    Text {
        /// Read by the encoder.
        source: HostTokens,
        /// Written by the decoder.
        target: HostTokens,
        /// Index of each example.
        items: Vec<usize>,
    },
}

impl Batch {
    /// Indices of the batch's examples.
    pub fn items(&self) -> &[usize] {
        match self {
            Self::Caption { items, .. } | Self::Text { items, .. } => items,
        }
    }
}

/// Frames, or what a frozen ViT made of them.
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
    /// Puts the array on a device, as a constant of any graph.
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

/// Token sequences padded to the longest.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTokens {
    ids: Vec<i32>,
    mask: Vec<f32>,
    shape: [usize; 2],
}

impl HostTokens {
    /// Pads sequences at their end with id 0, which no mask lets count.
    pub fn pad(sequences: &[Vec<u32>]) -> Self {
        let longest = sequences.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for sequence in sequences {
            let padding = longest - sequence.len();
            ids.extend(sequence.iter().map(|&id| id as i32).chain(std::iter::repeat_n(0, padding)));
            mask.extend(std::iter::repeat_n(1.0, sequence.len()).chain(std::iter::repeat_n(0.0, padding)));
        }
        Self { ids, mask, shape: [sequences.len(), longest] }
    }

    /// Puts ids and mask on a device.
    pub fn upload(self, device: &Device) -> Targets {
        let device = device.clone().inner();
        Targets {
            ids: Tensor::<2, Int>::from_data(TensorData::new(self.ids, self.shape), &device),
            mask: Tensor::<2>::from_data(TensorData::new(self.mask, self.shape), &device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_padded_to_the_longest_and_only_their_tokens_count() {
        let tokens = HostTokens::pad(&[vec![5, 6, 1], vec![7, 1]]);
        assert_eq!(tokens.ids, [5, 6, 1, 7, 1, 0]);
        assert_eq!(tokens.mask, [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
        assert_eq!(tokens.shape, [2, 3]);
    }
}
