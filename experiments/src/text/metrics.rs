//! Names of the metrics that this crate computes, as result files, tables and plots have them.

pub(crate) use train::metrics::{BLEU_4, CIDER};

/// BLEU-1 to BLEU-3.
pub(crate) const SHORTER_BLEUS: [&str; 3] = ["BLEU-1", "BLEU-2", "BLEU-3"];
/// METEOR; absent where its tables are not installed.
pub(crate) const METEOR: &str = "METEOR";
/// ROUGE-L.
pub(crate) const ROUGE_L: &str = "ROUGE-L";
/// Share of right answers. `train.select = "accuracy"` selects the best epoch by it.
pub(crate) const ACCURACY: &str = "accuracy";
/// CIDEr of the clips whose captions depend on the order of the frames.
pub(crate) const ORDERED_CIDER: &str = "CIDEr, order";
/// CIDEr of the clips that look the same backwards.
pub(crate) const UNORDERED_CIDER: &str = "CIDEr, no order";
/// Share of captions that name the right shape.
pub(crate) const SHAPE: &str = "shape";
/// Share of captions that name the right colour.
pub(crate) const COLOUR: &str = "colour";
/// Share of captions that name exactly the right kinds of events.
pub(crate) const EVENT: &str = "event";
/// Share with the right direction, among captions that state one.
pub(crate) const DIRECTION: &str = "direction";
/// Share with the right order, among captions that state both of two events.
pub(crate) const ORDER: &str = "order";
/// Number of different captions.
pub(crate) const DISTINCT: &str = "different";

/// The metric that stands for a run where one number is shown: CIDEr, or accuracy of answers.
pub(crate) fn headline<'a>(mut metrics: impl Iterator<Item = (&'a str, f64)>) -> Option<(&'static str, f64)> {
    metrics.find_map(|(name, value)| {
        [CIDER, ACCURACY].into_iter().find(|known| *known == name).map(|known| (known, value))
    })
}
