//! What a frozen vision transformer makes of every clip, kept on disk: computed once, read in every epoch. bf16, in
//! shards that are mapped into memory, in a folder whose name is a hash of the transformer and of the preprocessing.
//!
//! This crate runs no model. Whoever does asks [`FeatureWriter::next`] which clips are wanted, and hands their
//! features over as host arrays.

use crate::error::{Error, Result};
use crate::shards::{Element, Header, Index, IndexEntry, Shard, Writer, is_finished, shard_name};
use crate::store::hex;
use half::bf16;
use half::slice::HalfFloatSliceExt;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

const KIND: &str = "features";

/// All that decides what the features are, but for the clips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureKey {
    /// A hash of the vision transformer's weights and configuration.
    pub vision: String,
    /// The preprocessing, in words or as a hash: size, resizing, mean, deviation.
    pub preprocessing: String,
    /// The frames, in words or as a hash: number, sampling, seed.
    pub frames: String,
}

impl FeatureKey {
    fn words(&self) -> String {
        format!("vision {}\npreprocessing {}\nframes {}", self.vision, self.preprocessing, self.frames)
    }

    /// The folder below `out` that holds these features.
    #[must_use]
    pub fn folder(&self, out: &Path) -> PathBuf {
        let mut key = Sha256::new();
        key.update(self.words());
        out.join(format!("{KIND}-{}", hex(key)))
    }
}

/// A clip whose features are wanted: its name, and a hash of its frames or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureItem {
    /// The clip's name.
    pub id: String,
    /// Another one means another clip.
    pub content: String,
}

/// Takes features in order and writes them a shard at a time; an interrupted run keeps its finished shards.
pub struct FeatureWriter {
    folder: PathBuf,
    key: FeatureKey,
    shape: [usize; 3],
    items: Vec<FeatureItem>,
    per_shard: usize,
    /// The item that is wanted next.
    next: usize,
    open: Option<Writer>,
    finished: Vec<IndexEntry>,
}

impl FeatureWriter {
    /// Starts, or goes on with, the features of `items`, each of shape `[f, p, d]`.
    ///
    /// # Errors
    /// An item that is there twice; a shape without numbers.
    pub fn create(
        out: &Path,
        key: FeatureKey,
        items: Vec<FeatureItem>,
        shape: [usize; 3],
        per_shard: usize,
    ) -> Result<Self> {
        let mut seen = HashSet::new();
        if let Some(twice) = items.iter().find(|item| !seen.insert(item.id.as_str())) {
            let expected = "different clips".to_owned();
            return Err(Error::Setting { key: "items", expected, got: format!("{} twice", twice.id) });
        }
        if shape.contains(&0) {
            let expected = "at least 1 on each axis".to_owned();
            return Err(Error::Setting { key: "shape", expected, got: format!("{shape:?}") });
        }
        let folder = key.folder(out);
        let per_shard = per_shard.max(1);
        let mut writer =
            Self { folder, key, shape, items, per_shard, next: 0, open: None, finished: Vec::new() };
        writer.skip_finished();
        Ok(writer)
    }

    /// The clips of the next shard that still lack features, at most `count`; `None` when all are done. Their features
    /// are to be given to [`Self::put`] in this order.
    #[must_use]
    pub fn next(&self, count: usize) -> Option<&[FeatureItem]> {
        let end = (self.next / self.per_shard + 1) * self.per_shard;
        let end = end.min(self.items.len()).min(self.next.saturating_add(count.max(1)));
        self.items.get(self.next..end).filter(|items| !items.is_empty())
    }

    /// Clips that are done, and all.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        (self.next, self.items.len())
    }

    /// Takes the features of the next clip, and rounds them to bf16.
    ///
    /// # Shapes
    /// - `features`: `[f, p, d]`
    ///
    /// # Errors
    /// Another clip than the next one; another number of features; a feature that is not finite; a disk that is full.
    pub fn put(&mut self, id: &str, features: &[f32]) -> Result<()> {
        let Some(wanted) = self.items.get(self.next) else {
            let (expected, got) = ("no more clips".to_owned(), id.to_owned());
            return Err(Error::Setting { key: "features' clip", expected, got });
        };
        if wanted.id != id {
            let (expected, got) = (wanted.id.clone(), id.to_owned());
            return Err(Error::Setting { key: "features' clip", expected, got });
        }
        let count: usize = self.shape.iter().product();
        if features.len() != count {
            let expected = format!("{:?} = {count} numbers of clip {id}", self.shape);
            return Err(Error::Setting { key: "features", expected, got: features.len().to_string() });
        }
        let mut rounded = vec![bf16::ZERO; count];
        rounded.convert_from_f32_slice(features);
        if let Some(place) = rounded.iter().position(|value| !value.is_finite()) {
            let expected = format!("finite numbers in bf16 of clip {id}");
            let got = format!("{} at {place}", features[place]);
            return Err(Error::Setting { key: "features", expected, got });
        }
        let bytes: Vec<u8> = rounded.reinterpret_cast().iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let shard = self.next / self.per_shard;
        let header = self.header(shard);
        if self.open.is_none() {
            self.open = Some(Writer::create(&self.folder.join(shard_name(KIND, shard)), &header)?);
        }
        if let Some(writer) = &self.open {
            writer.put(self.next % self.per_shard, &bytes)?;
        }
        self.next += 1;
        if self.next.is_multiple_of(self.per_shard) || self.next == self.items.len() {
            if let Some(writer) = self.open.take() {
                writer.finish()?;
            }
            self.finished.push(entry(shard, &header));
            self.skip_finished();
        }
        Ok(())
    }

    /// Writes the index, after which [`Features::open`] finds the features.
    ///
    /// # Errors
    /// There are clips without features; the index cannot be written.
    pub fn finish(self) -> Result<()> {
        if self.next < self.items.len() {
            let (expected, got) = (self.items.len().to_string(), self.next.to_string());
            return Err(Error::Setting { key: "clips with features", expected, got });
        }
        Index { kind: KIND.into(), made_from: self.key.words(), shards: self.finished }.write(&self.folder)
    }

    fn skip_finished(&mut self) {
        while self.next < self.items.len() {
            let shard = self.next / self.per_shard;
            let header = self.header(shard);
            if !is_finished(&self.folder.join(shard_name(KIND, shard)), &header) {
                return;
            }
            self.next += header.ids.len();
            self.finished.push(entry(shard, &header));
        }
    }

    fn header(&self, shard: usize) -> Header {
        let end = ((shard + 1) * self.per_shard).min(self.items.len());
        let items = &self.items[shard * self.per_shard..end];
        let mut key = Sha256::new();
        key.update(self.key.words());
        for item in items {
            key.update(format!("{} {}\n", item.id, item.content));
        }
        Header {
            kind: KIND.into(),
            key: hex(key),
            element: Element::Bf16,
            shape: self.shape.to_vec(),
            ids: items.iter().map(|item| item.id.clone()).collect(),
        }
    }
}

fn entry(shard: usize, header: &Header) -> IndexEntry {
    IndexEntry { file: shard_name(KIND, shard), key: header.key.clone(), items: header.ids.len() }
}

/// Features on disk, mapped into memory.
pub struct Features {
    shards: Vec<Shard>,
    places: HashMap<String, (usize, usize)>,
    shape: [usize; 3],
}

impl std::fmt::Debug for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [frames, patches, width] = self.shape;
        write!(f, "Features [{}, {frames}, {patches}, {width}]", self.places.len())
    }
}

impl Features {
    /// Opens the features of a key below `out`.
    ///
    /// # Errors
    /// There are none, computing them was interrupted, or a shard is broken.
    pub fn open(out: &Path, key: &FeatureKey) -> Result<Self> {
        let folder = key.folder(out);
        let shards = Index::read(&folder)?.open(&folder, KIND)?;
        let mut places = HashMap::new();
        let mut shape = [0; 3];
        for (number, shard) in shards.iter().enumerate() {
            let own = (shard.header.element, <[usize; 3]>::try_from(shard.header.shape.as_slice()));
            let (Element::Bf16, Ok(own)) = own else {
                let reason = format!("expected [f, p, d] in bf16, got {:?}", shard.header.shape);
                let path = folder.join(shard_name(KIND, number));
                return Err(Error::malformed("prepared data", &path, "shape", reason));
            };
            shape = own;
            places.extend(shard.header.ids.iter().enumerate().map(|(item, id)| (id.clone(), (number, item))));
        }
        Ok(Self { shards, places, shape })
    }

    /// Reads everything and compares the hashes.
    ///
    /// # Errors
    /// A shard whose content changed.
    pub fn verify(&self) -> Result<()> {
        self.shards.iter().try_for_each(Shard::verify)
    }

    /// Appends one clip's features to `out`.
    ///
    /// # Shapes
    /// appends `[f, p, d]`
    ///
    /// # Errors
    /// The clip has none.
    pub fn read(&self, id: &str, out: &mut Vec<f32>) -> Result<()> {
        let (shard, item) = self.places.get(id).ok_or_else(|| Error::NotFound {
            what: "features of the clip",
            path: PathBuf::from(id),
            next: "the data set changed since they were computed; compute them again".into(),
        })?;
        let bytes = self.shards[*shard].item(*item);
        out.extend(bytes.chunks_exact(2).map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f32()));
        Ok(())
    }

    /// Shape of one clip's features, `[f, p, d]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Number of clips.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> FeatureKey {
        FeatureKey { vision: "v1".into(), preprocessing: "224".into(), frames: "8 uniform".into() }
    }

    fn items(count: usize) -> Vec<FeatureItem> {
        (0..count).map(|item| FeatureItem { id: format!("clip{item}"), content: "c".into() }).collect()
    }

    fn of(id: &str) -> Vec<f32> {
        let number: f32 = id.trim_start_matches("clip").parse().unwrap();
        (0..12).map(|place| number * 0.37 - place as f32 * 1.21).collect()
    }

    /// Computes at most `most` clips' features; gives how many it computed.
    fn compute(folder: &Path, count: usize, most: usize) -> usize {
        let mut writer = FeatureWriter::create(folder, key(), items(count), [2, 2, 3], 4).unwrap();
        let mut computed = 0;
        while let Some(items) = writer.next(3).map(<[FeatureItem]>::to_vec) {
            for item in items {
                if computed == most {
                    return computed;
                }
                writer.put(&item.id, &of(&item.id)).unwrap();
                computed += 1;
            }
        }
        writer.finish().unwrap();
        computed
    }

    #[test]
    fn features_come_back_rounded_to_bf16() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(compute(folder.path(), 10, 99), 10);
        let features = Features::open(folder.path(), &key()).unwrap();
        features.verify().unwrap();
        assert_eq!((features.len(), features.shape()), (10, [2, 2, 3]));
        for item in items(10) {
            let mut read = Vec::new();
            features.read(&item.id, &mut read).unwrap();
            let expected: Vec<f32> =
                of(&item.id).iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
            assert_eq!(read, expected);
            for (read, exact) in read.iter().zip(of(&item.id)) {
                assert!((read - exact).abs() <= exact.abs() / 256.0);
            }
        }
        assert!(features.read("clip10", &mut Vec::new()).unwrap_err().to_string().contains("clip10"));
    }

    #[test]
    fn an_interrupted_run_goes_on_after_its_last_whole_shard() {
        let folder = tempfile::tempdir().unwrap();
        compute(folder.path(), 10, 6);
        assert!(Features::open(folder.path(), &key()).is_err());
        assert_eq!(compute(folder.path(), 10, 99), 6);
        assert_eq!(compute(folder.path(), 10, 99), 0);
        assert_eq!(Features::open(folder.path(), &key()).unwrap().len(), 10);
        // A longer data set computes its new clips and the shard that they share with old ones.
        assert_eq!(compute(folder.path(), 11, 99), 3);
    }

    #[test]
    fn other_weights_are_other_features() {
        let folder = tempfile::tempdir().unwrap();
        compute(folder.path(), 4, 99);
        let other = FeatureKey { vision: "v2".into(), ..key() };
        assert!(Features::open(folder.path(), &other).is_err());
    }

    #[test]
    fn wrong_features_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = FeatureWriter::create(folder.path(), key(), items(2), [1, 1, 2], 4).unwrap();
        let message = |result: Result<()>| result.unwrap_err().to_string();
        assert!(message(writer.put("clip1", &[0.0; 2])).contains("must be clip0, got clip1"));
        assert!(message(writer.put("clip0", &[0.0; 3])).contains("2 numbers of clip clip0, got 3"));
        assert!(message(writer.put("clip0", &[0.0, f32::NAN])).contains("NaN at 1"));
        assert!(message(writer.put("clip0", &[f32::MAX, 0.0])).contains("at 0"));
        writer.put("clip0", &[0.0; 2]).unwrap();
        assert!(message(writer.finish()).contains("must be 2, got 1"));
        let twice = [items(1), items(1)].concat();
        assert!(FeatureWriter::create(folder.path(), key(), twice, [1, 1, 2], 4).is_err());
    }
}
