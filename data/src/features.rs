//! The features of a frozen vision transformer, computed once: bf16, in shards that are mapped into memory.
//!
//! This crate runs no model: the caller computes the features of the clips that the cache lacks.

use crate::cache::{Contents, Shards};
use crate::error::{Error, Result};
use crate::preprocess::Preprocess;
use crate::progress::OnProgress;
use crate::video::FrameRequest;
use half::bf16;
use half::slice::HalfFloatSliceExt;
use serde::Serialize;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use crate::cache::Item as FeatureItem;

/// Everything that determines the features except the clips.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FeatureKey {
    /// A digest of the vision transformer's weights and configuration.
    pub vision: String,
    /// Resizing and normalisation.
    pub preprocess: Preprocess,
    /// The choice of frames.
    pub request: FrameRequest,
}

/// Features on disk, mapped into memory.
#[derive(Debug)]
pub struct Features {
    shards: Shards,
    shape: [usize; 3],
}

impl Features {
    /// Opens the features of `items` in `folder`. Those that are missing are computed first, at most
    /// `batch_size` items at a time; an interrupted run continues after its last complete shard.
    ///
    /// The content of an item is a digest of its frames. Data sets, splits and keys can share a folder.
    ///
    /// # Shapes
    /// - `shape`: `[f, p, d]` of one item
    /// - `compute`: receives the items' numbers and returns `[b, f, p, d]` for these `b` items
    ///
    /// # Errors
    /// Those of `compute`; an empty shape; a wrong number of features; a feature that is not finite in bf16;
    /// a folder that cannot be written.
    pub fn open_or_compute<E: From<Error>>(
        folder: &Path,
        key: &FeatureKey,
        items: Vec<FeatureItem>,
        shape: [usize; 3],
        batch_size: usize,
        on_progress: OnProgress<'_>,
        mut compute: impl FnMut(Range<usize>) -> std::result::Result<Vec<f32>, E>,
    ) -> std::result::Result<Self, E> {
        if shape.contains(&0) {
            return Err(Error::setting("shape", "at least 1 on each axis", format!("{shape:?}")).into());
        }
        let each: usize = shape.iter().product();
        let ids: Vec<String> = items.iter().map(|item| item.id.clone()).collect();
        let contents = Contents::new("features", 2 * each, &(shape, key), items)?;
        let shards = contents.open(folder, "computing features", on_progress, |writer, range, counter| {
            for start in range.clone().step_by(batch_size.max(1)) {
                let batch = start..range.end.min(start + batch_size.max(1));
                let features = compute(batch.clone())?;
                if features.len() != each * batch.len() {
                    let expected = format!("{} x {shape:?} = {} numbers", batch.len(), each * batch.len());
                    return Err(Error::setting("features", expected, features.len()).into());
                }
                for (item, features) in batch.clone().zip(features.chunks_exact(each)) {
                    writer.put(item - range.start, &rounded(&ids[item], features)?)?;
                }
                counter.add(batch.len());
            }
            Ok::<(), E>(())
        })?;
        Ok(Self { shards, shape })
    }

    /// Appends the features of an item, by its number, to `out`, in the type of the cache.
    ///
    /// # Shapes
    /// appends `[f, p, d]`
    ///
    /// # Errors
    /// There is no such item.
    pub fn read(&self, item: usize, out: &mut Vec<bf16>) -> Result<()> {
        let bytes = self.shards.item(item);
        if bytes.is_empty() {
            return Err(Error::NotFound {
                what: "features of the clip",
                path: PathBuf::from(item.to_string()),
                next: "the data set changed since they were computed; compute them again".into(),
            });
        }
        out.extend(bytes.chunks_exact(2).map(|pair| bf16::from_le_bytes([pair[0], pair[1]])));
        Ok(())
    }

    /// Shape of one item's features, `[f, p, d]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }
}

/// Features as little-endian bf16.
fn rounded(id: &str, features: &[f32]) -> Result<Vec<u8>> {
    let mut rounded = vec![bf16::ZERO; features.len()];
    rounded.convert_from_f32_slice(features);
    if let Some(place) = rounded.iter().position(|value| !value.is_finite()) {
        let expected = format!("finite numbers in bf16 of clip {id}");
        return Err(Error::setting("features", expected, format!("{} at {place}", features[place])));
    }
    Ok(rounded.reinterpret_cast().iter().flat_map(|bits| bits.to_le_bytes()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::Resizing;

    fn key() -> FeatureKey {
        FeatureKey {
            vision: "v1".into(),
            preprocess: Preprocess::new(224),
            request: FrameRequest::uniform(8, 224),
        }
    }

    fn items(count: usize) -> Vec<FeatureItem> {
        (0..count).map(|item| FeatureItem { id: format!("clip{item}"), content: "c".into() }).collect()
    }

    fn features_of(item: usize) -> Vec<f32> {
        (0..12).map(|place| item as f32 * 0.37 - place as f32 * 1.21).collect()
    }

    /// Opens the features of `count` clips; returns them and how many were computed.
    fn open(folder: &Path, key: &FeatureKey, count: usize) -> (Features, usize) {
        let mut computed = 0;
        let features = Features::open_or_compute(folder, key, items(count), [2, 2, 3], 3, &|_| {}, |batch| {
            assert!(batch.len() <= 3);
            computed += batch.len();
            Ok::<_, Error>(batch.flat_map(features_of).collect())
        });
        (features.unwrap(), computed)
    }

    #[test]
    fn features_are_rounded_to_bf16_and_computed_once() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(open(folder.path(), &key(), 10).1, 10);
        let (features, computed) = open(folder.path(), &key(), 10);
        assert_eq!((computed, features.shape()), (0, [2, 2, 3]));
        for item in 0..10 {
            let mut read = Vec::new();
            features.read(item, &mut read).unwrap();
            let expected: Vec<bf16> = features_of(item).into_iter().map(bf16::from_f32).collect();
            assert_eq!(read, expected);
            for (read, exact) in read.iter().zip(features_of(item)) {
                assert!((read.to_f32() - exact).abs() <= exact.abs() / 256.0);
            }
        }
        assert!(features.read(10, &mut Vec::new()).unwrap_err().to_string().contains("10"));
    }

    #[test]
    fn other_weights_and_another_resizing_are_other_features() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), &key(), 4);
        assert_eq!(open(folder.path(), &FeatureKey { vision: "v2".into(), ..key() }, 4).1, 4);
        let request = FrameRequest { resizing: Resizing::Lavis, ..key().request };
        assert_eq!(open(folder.path(), &FeatureKey { request, ..key() }, 4).1, 4);
        assert_eq!(open(folder.path(), &key(), 4).1, 0);
    }

    #[test]
    fn wrong_features_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let message = |shape, features: &[f32]| {
            let compute = |_| Ok::<_, Error>(features.to_vec());
            let opened =
                Features::open_or_compute(folder.path(), &key(), items(1), shape, 4, &|_| {}, compute);
            opened.unwrap_err().to_string()
        };
        assert!(message([1, 1, 2], &[0.0; 3]).contains("2 numbers, got 3"));
        assert!(message([1, 1, 2], &[0.0, f32::NAN]).contains("NaN at 1"));
        assert!(message([1, 1, 2], &[f32::MAX, 0.0]).contains("of clip clip0, got"));
        assert!(message([1, 0, 2], &[]).contains("at least 1 on each axis"));
        let interrupted = |_| Err(Error::video(Path::new("x"), "interrupted"));
        let opened =
            Features::open_or_compute(folder.path(), &key(), items(2), [1, 1, 2], 1, &|_| {}, interrupted);
        assert!(opened.unwrap_err().to_string().contains("interrupted"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no partial shard is left");
    }
}
