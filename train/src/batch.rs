//! Batches of examples, on the host.

use std::ops::Range;

use captioner::{HostPrompts, HostTokens, HostVisual};

/// A batch of any kind of example.
#[derive(Debug, Clone)]
pub enum Batch {
    /// Videos, or images as videos of one frame, each with a target caption or answer.
    Caption {
        /// Frames or features.
        visual: HostVisual,
        /// Prompts of each row: a question, the first words of a caption. `None` where all rows have the
        /// context's.
        prompts: Option<HostPrompts>,
        /// Target tokens; `None` in evaluation.
        captions: Option<HostTokens>,
        /// Target texts as published. Empty where nothing needs them.
        texts: Vec<String>,
        /// Index of each row's clip in the split, for rewards. Empty where nothing needs it.
        clips: Vec<usize>,
        /// Index of each example in its split.
        items: Vec<usize>,
    },
    /// Image-text pairs, for the first stage of pretraining.
    Pairs {
        /// Frames or features.
        visual: HostVisual,
        /// Tokens for the Q-Former, the class token first.
        texts: HostTokens,
        /// Index of each pair.
        items: Vec<usize>,
    },
    /// Text to text, for the language model alone.
    Text {
        /// Read by the encoder.
        source: HostTokens,
        /// Target of the decoder.
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
    pub fn into_parts(self, parts: usize) -> Vec<Self> {
        let all = self.items().len();
        let parts = parts.clamp(1, all.max(1));
        (0..parts).map(|part| self.rows(part * all / parts..(part + 1) * all / parts)).collect()
    }

    fn rows(&self, rows: Range<usize>) -> Self {
        match self {
            Self::Caption { visual, prompts, captions, texts, clips, items } => Self::Caption {
                visual: visual.rows(&rows),
                prompts: prompts.as_ref().map(|prompts| prompts.rows(&rows)),
                captions: captions.as_ref().map(|captions| captions.rows(&rows)),
                texts: texts.get(rows.clone()).unwrap_or_default().to_vec(),
                clips: clips.get(rows.clone()).unwrap_or_default().to_vec(),
                items: items[rows].to_vec(),
            },
            Self::Pairs { visual, texts, items } => Self::Pairs {
                visual: visual.rows(&rows),
                texts: texts.rows(&rows),
                items: items[rows].to_vec(),
            },
            Self::Text { source, target, items } => Self::Text {
                source: source.rows(&rows),
                target: target.rows(&rows),
                items: items[rows].to_vec(),
            },
        }
    }

    /// Number of target tokens, without padding.
    pub fn target_tokens(&self) -> f64 {
        match self {
            Self::Caption { captions, .. } => captions.as_ref().map_or(0.0, HostTokens::count),
            Self::Pairs { texts, .. } => texts.count(),
            Self::Text { target, .. } => target.count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let parts = batch.clone().into_parts(2);
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
        assert_eq!(
            captions.as_ref().unwrap(),
            &HostTokens::pad(&[vec![1], vec![2, 2], vec![3], vec![4], vec![5]]).rows(&(2..5))
        );
        let second = HostTokens::pad_start(&[vec![1], vec![2, 2], vec![3], vec![4], vec![5]]).rows(&(2..5));
        assert_eq!(prompts.as_ref().unwrap().text.as_ref().unwrap(), &second);
        assert_eq!(batch.into_parts(9).len(), 5, "no empty part");
    }
}
