//! Prepared references, kept over the epochs of a training run.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::{Arc, PoisonError, RwLock};

use rustc_hash::FxHasher;

use crate::cider::PreparedReferences;

/// Maximum number of captions kept, more than the training set of any captioning data set (COCO: 566,435). A
/// caption takes about 400 bytes.
const MAX_CAPTIONS: usize = 600_000;

/// Prepared references by the references themselves.
#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_hash: HashMap<u64, Vec<Arc<Entry>>>,
    captions: usize,
}

/// One video's references, as given and prepared.
#[derive(Debug)]
pub(super) struct Entry {
    references: Vec<String>,
    pub(super) prepared: PreparedReferences,
}

/// A copy starts empty.
impl Clone for Cache {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Cache {
    /// The entry of exactly these references, made by `prepare` if there is none.
    pub(super) fn get<S: AsRef<str>>(
        &self,
        references: &[S],
        prepare: impl FnOnce() -> PreparedReferences,
    ) -> Arc<Entry> {
        self.get_within(MAX_CAPTIONS, references, prepare)
    }

    fn get_within<S: AsRef<str>>(
        &self,
        max: usize,
        references: &[S],
        prepare: impl FnOnce() -> PreparedReferences,
    ) -> Arc<Entry> {
        let hash = hash(references);
        let is_same = |entry: &&Arc<Entry>| {
            // hashes may collide
            entry.references.len() == references.len()
                && entry.references.iter().zip(references).all(|(known, asked)| known == asked.as_ref())
        };
        {
            let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = kept.by_hash.get(&hash).and_then(|entries| entries.iter().find(is_same)) {
                return Arc::clone(entry);
            }
        }
        let references: Vec<String> = references.iter().map(|caption| caption.as_ref().to_owned()).collect();
        let entry = Arc::new(Entry { prepared: prepare(), references });
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.captions + entry.references.len() > max {
            *kept = Kept::default();
        }
        kept.captions += entry.references.len();
        kept.by_hash.entry(hash).or_default().push(Arc::clone(&entry));
        entry
    }
}

fn hash<S: AsRef<str>>(references: &[S]) -> u64 {
    let mut hasher = FxHasher::default();
    for reference in references {
        hasher.write(reference.as_ref().as_bytes());
        hasher.write_u8(0xff); // separates the captions: no UTF-8 text has this byte
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cider::CiderScorer;
    use crate::frequencies::DocumentFrequencies;

    #[test]
    fn references_are_prepared_once_and_compared_exactly() {
        let scorer = CiderScorer::new(DocumentFrequencies::from_references(&[["a man"], ["a dog"]]));
        let cache = Cache::default();
        let mut prepared = 0;
        for references in [&["a man", "a dog"][..], &["a man", "a dog"], &["a man"], &["a mana", " dog"]] {
            cache.get(references, || {
                prepared += 1;
                scorer.prepare(references)
            });
        }
        assert_eq!(prepared, 3);
        // with a forced hash collision the result is still correct
        let mut kept = cache.kept.write().unwrap();
        let entries: Vec<_> = kept.by_hash.drain().flat_map(|(_, entries)| entries).collect();
        kept.by_hash.insert(hash(&["a dog"]), entries);
        drop(kept);
        let entry = cache.get(&["a dog"], || scorer.prepare(&["a dog"]));
        assert_eq!(entry.references, ["a dog"]);
    }

    #[test]
    fn it_never_keeps_more_than_its_bound() {
        let scorer = CiderScorer::new(DocumentFrequencies::from_references(&[["a man"], ["a dog"]]));
        let cache = Cache::default();
        for number in 0..50 {
            let references = [number.to_string(), "a man".to_owned()];
            cache.get_within(20, &references, || scorer.prepare(&references));
            assert!(cache.kept.read().unwrap().captions <= 20);
        }
    }
}
