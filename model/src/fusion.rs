//! Fusing the frames of a video into one sequence (the paper, section 3.3 and Fig. 3a).

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Where and how frames are fused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fusion {
    /// All tokens of all frames, with CLS, concatenated before the Q-Former. The paper's choice.
    #[default]
    Concat,
    /// The mean over frames, token by token, before the Q-Former. The paper's alternative.
    Average,
    /// The Q-Former runs on each frame and its outputs are concatenated (InstructBLIP on video).
    ConcatQueries,
    /// The Q-Former runs on each frame and its outputs are averaged (the authors' Vicuna evaluation).
    AverageQueries,
}

impl Fusion {
    /// Fuses frames before the Q-Former, or folds them into the batch if they are fused after it.
    ///
    /// # Shapes
    /// - features: `[b, f, p, d]`
    /// - output: `[b, f·p, d]`, `[b, p, d]` or `[b·f, p, d]`
    pub fn before(self, features: Tensor<4>) -> Tensor<3> {
        let [b, f, p, d] = features.dims();
        match self {
            Self::Concat => features.reshape([b, f * p, d]),
            Self::Average => features.mean_dim(1).reshape([b, p, d]),
            Self::ConcatQueries | Self::AverageQueries => features.reshape([b * f, p, d]),
        }
    }

    /// Fuses the Q-Former's outputs of single frames; the identity if frames were fused before.
    ///
    /// # Shapes
    /// - queries: `[b, q, d]` or `[b·f, q, d]`
    /// - output: `[b, q, d]` or `[b, f·q, d]`
    pub fn after(self, queries: Tensor<3>, frames: usize) -> Tensor<3> {
        let [rows, q, d] = queries.dims();
        match self {
            Self::Concat | Self::Average => queries,
            Self::ConcatQueries => queries.reshape([rows / frames, frames * q, d]),
            Self::AverageQueries => {
                queries.reshape([rows / frames, frames, q, d]).mean_dim(1).reshape([rows / frames, q, d])
            }
        }
    }
}

/// The temporal embedding, which marks the frame of each token. Without it the order of the frames has no
/// effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Temporal {
    /// None, as in the paper.
    #[default]
    None,
    /// A learned vector per frame, initially zero.
    Learned,
    /// The fixed sinusoids of the first transformer times a learned factor per channel, initially zero.
    Sinusoidal,
}

impl Temporal {
    /// Makes the embedding for up to `frames` frames of width `d`; nothing for [`Temporal::None`].
    pub fn init(self, frames: usize, d: usize, device: &Device) -> Option<TemporalEmbedding> {
        let (rows, sinusoids) = match self {
            Self::None => return None,
            Self::Learned => (frames, None),
            Self::Sinusoidal => (1, Some(sinusoids(frames, d))),
        };
        Some(TemporalEmbedding { weight: Initializer::Zeros.init([rows, d], device), sinusoids })
    }
}

/// A vector for every frame, added to its tokens. Initially zero, so that a pretrained model is unchanged.
#[derive(Module, Debug)]
pub struct TemporalEmbedding {
    weight: Param<Tensor<2>>,
    #[module(skip)]
    sinusoids: Option<TensorData>,
}

impl TemporalEmbedding {
    /// Adds each frame's vector.
    ///
    /// # Shapes
    /// - features and output: `[b, f, p, d]`
    pub fn forward(&self, features: Tensor<4>) -> Tensor<4> {
        let [_, f, _, d] = features.dims();
        let weight = self.weight.val();
        let frames = match &self.sinusoids {
            None => weight.slice([0..f, 0..d]),
            Some(sinusoids) => {
                Tensor::<2>::from_data(sinusoids.clone(), &features.device().inner()).slice([0..f, 0..d])
                    * weight
            }
        };
        features + frames.reshape([1, f, 1, d])
    }
}

fn sinusoids(frames: usize, d: usize) -> TensorData {
    let mut values = vec![0.0f32; frames * d];
    for (frame, row) in values.chunks_mut(d).enumerate() {
        for (channel, value) in row.iter_mut().enumerate() {
            let angle = frame as f64 / 10_000f64.powf((channel - channel % 2) as f64 / d as f64);
            *value = if channel % 2 == 0 { angle.sin() } else { angle.cos() } as f32;
        }
    }
    TensorData::new(values, [frames, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Tolerance;

    fn features() -> Tensor<4> {
        Tensor::<1, burn::tensor::Int>::arange(0..48, &Device::flex()).float().reshape([2, 3, 4, 2])
    }

    #[test]
    fn concat_keeps_every_token_in_frame_order() {
        let fused = Fusion::Concat.before(features());
        assert_eq!(fused.dims(), [2, 12, 2]);
        assert_eq!(fused.into_data(), features().reshape([2, 12, 2]).into_data());
    }

    #[test]
    fn average_is_the_mean_over_frames_of_each_token() {
        let fused = Fusion::Average.before(features());
        assert_eq!(fused.dims(), [2, 4, 2]);
        // frames of the first clip differ by 8 a step, so the mean is the middle frame
        let middle = features().slice([0..2, 1..2]).reshape([2, 4, 2]);
        fused.into_data().assert_approx_eq::<f32>(&middle.into_data(), Tolerance::absolute(1e-6));
    }

    #[test]
    fn queries_of_single_frames_are_joined_clip_by_clip() {
        let folded = Fusion::ConcatQueries.before(features());
        assert_eq!(folded.dims(), [6, 4, 2]);
        assert_eq!(Fusion::ConcatQueries.after(folded.clone(), 3).dims(), [2, 12, 2]);
        assert_eq!(Fusion::AverageQueries.after(folded, 3).dims(), [2, 4, 2]);
    }

    #[test]
    fn a_fresh_temporal_embedding_changes_nothing() {
        for temporal in [Temporal::Learned, Temporal::Sinusoidal] {
            let embedding = temporal.init(8, 2, &Device::flex()).unwrap();
            assert_eq!(embedding.forward(features()).into_data(), features().into_data());
        }
        assert!(Temporal::None.init(8, 2, &Device::flex()).is_none());
    }
}
