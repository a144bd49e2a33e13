//! Batches as they lie on the host: plain arrays, uploaded in the step that uses them.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use model::loss::Targets;
use model::{Prompt, PromptTokens, Visual};

/// One batch of any kind that the learner knows.
#[derive(Debug, Clone)]
pub enum Batch {
    /// Videos, or images as videos of one frame, each with a caption (or an answer) to be learned.
    Caption {
        /// What is seen.
        visual: HostVisual,
        /// What is read beside it, where every row has its own: a question, the first words of a caption. Absent where
        /// the task's prompt is the same for all.
        prompts: Option<HostPrompts>,
        /// What is to be said; absent in evaluation.
        captions: Option<HostTokens>,
        /// What is to be said, as published. Empty where nothing needs it.
        texts: Vec<String>,
        /// The clip of each row, by its place in the split, whose captions a reward may look up. Empty where nothing
        /// needs it.
        clips: Vec<usize>,
        /// Index of each example in its split.
        items: Vec<usize>,
    },
    /// Images and the texts that belong to them, for BLIP-2's first stage of pretraining.
    Pairs {
        /// What is seen.
        visual: HostVisual,
        /// BERT's tokens, the class token first.
        texts: HostTokens,
        /// Index of each pair.
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
            Self::Caption { items, .. } | Self::Pairs { items, .. } | Self::Text { items, .. } => items,
        }
    }

    /// Splits the batch into at most `parts` batches of nearly equal size, in order.
    pub fn split(self, parts: usize) -> Vec<Self> {
        let all = self.items().len();
        let parts = parts.clamp(1, all.max(1));
        let bounds = (0..parts).map(|part| part * all / parts..(part + 1) * all / parts);
        match self {
            Self::Caption { visual, prompts, captions, texts, clips, items } => bounds
                .map(|rows| Self::Caption {
                    visual: visual.rows(&rows),
                    prompts: prompts.as_ref().map(|prompts| prompts.rows(&rows)),
                    captions: captions.as_ref().map(|captions| captions.rows(&rows)),
                    texts: texts.get(rows.clone()).unwrap_or_default().to_vec(),
                    clips: clips.get(rows.clone()).unwrap_or_default().to_vec(),
                    items: items[rows].to_vec(),
                })
                .collect(),
            Self::Pairs { visual, texts, items } => bounds
                .map(|rows| Self::Pairs {
                    visual: visual.rows(&rows),
                    texts: texts.rows(&rows),
                    items: items[rows].to_vec(),
                })
                .collect(),
            Self::Text { source, target, items } => bounds
                .map(|rows| Self::Text {
                    source: source.rows(&rows),
                    target: target.rows(&rows),
                    items: items[rows].to_vec(),
                })
                .collect(),
        }
    }

    /// Number of tokens whose prediction counts in the loss.
    pub fn target_tokens(&self) -> f64 {
        match self {
            Self::Caption { captions, .. } => captions.as_ref().map_or(0.0, HostTokens::count),
            Self::Pairs { texts, .. } => texts.count(),
            Self::Text { target, .. } => target.count(),
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
    fn rows(&self, rows: &Range<usize>) -> Self {
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

/// What each row reads beside what it sees.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostPrompts {
    /// Read by the language model, behind the video.
    pub text: Option<HostTokens>,
    /// Read by the Q-Former beside its queries (InstructBLIP).
    pub instruction: Option<HostTokens>,
}

impl HostPrompts {
    fn rows(&self, rows: &Range<usize>) -> Self {
        let part = |tokens: &Option<HostTokens>| tokens.as_ref().map(|tokens| tokens.rows(rows));
        Self { text: part(&self.text), instruction: part(&self.instruction) }
    }

    /// Puts the prompts on a device.
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
    /// Pads sequences at their end with id 0, which no mask lets count.
    pub fn pad(sequences: &[Vec<u32>]) -> Self {
        Self::padded(sequences, false)
    }

    /// Pads sequences at their start, as a decoder-only language model needs its prompts.
    pub fn pad_start(sequences: &[Vec<u32>]) -> Self {
        Self::padded(sequences, true)
    }

    fn padded(sequences: &[Vec<u32>], at_start: bool) -> Self {
        let longest = sequences.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for sequence in sequences {
            let padding = longest - sequence.len();
            let (before, behind) = if at_start { (padding, 0) } else { (0, padding) };
            let zeros = |count| std::iter::repeat_n(0, count);
            ids.extend(zeros(before).chain(sequence.iter().map(|&id| id as i32)).chain(zeros(behind)));
            let each = |value, count| std::iter::repeat_n(value, count);
            mask.extend(each(0.0, before).chain(each(1.0, sequence.len())).chain(each(0.0, behind)));
        }
        Self { ids, mask, shape: [sequences.len(), longest] }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn rows(&self, rows: &Range<usize>) -> Self {
        let [_, t] = self.shape;
        let place = part(rows, t);
        Self {
            ids: self.ids[place.clone()].to_vec(),
            mask: self.mask[place].to_vec(),
            shape: [rows.len(), t],
        }
    }

    fn count(&self) -> f64 {
        self.mask.iter().map(|&counts| f64::from(counts)).sum()
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

/// Where rows of so many values lie in a flat array.
fn part(rows: &Range<usize>, each: usize) -> Range<usize> {
    rows.start * each..rows.end * each
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

    #[test]
    fn the_parts_of_a_batch_are_its_rows_in_order() {
        let batch = Batch::Caption {
            visual: HostVisual::Features { values: (0..10).map(|i| i as f32).collect(), shape: [5, 1, 2, 1] },
            prompts: Some(HostPrompts {
                text: Some(HostTokens::pad_start(&[vec![1], vec![2, 2], vec![3], vec![4], vec![5]])),
                instruction: None,
            }),
            captions: Some(HostTokens::pad(&[vec![1], vec![2, 2], vec![3], vec![4], vec![5]])),
            texts: Vec::new(),
            clips: vec![4, 3, 2, 1, 0],
            items: vec![10, 11, 12, 13, 14],
        };
        assert_eq!(batch.target_tokens(), 6.0);
        let parts = batch.clone().split(2);
        assert_eq!(
            parts.iter().map(|part| part.items().to_vec()).collect::<Vec<_>>(),
            [vec![10, 11], vec![12, 13, 14]]
        );
        assert_eq!(parts.iter().map(Batch::target_tokens).sum::<f64>(), 6.0);
        let Batch::Caption { visual: HostVisual::Features { values, shape }, captions, prompts, .. } =
            &parts[1]
        else {
            panic!("features stay features");
        };
        assert_eq!((values.as_slice(), shape), ([4.0, 5.0, 6.0, 7.0, 8.0, 9.0].as_slice(), &[3, 1, 2, 1]));
        assert_eq!(captions.as_ref().unwrap().ids, [3, 0, 4, 0, 5, 0]);
        assert_eq!(prompts.as_ref().unwrap().text.as_ref().unwrap().ids, [0, 3, 0, 4, 0, 5]);
        assert_eq!(batch.split(9).len(), 5, "no empty part");
    }
}
