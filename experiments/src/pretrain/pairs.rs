//! The image-text pairs of a pretraining: those of the tiny world, or of a user's shards or table; all of
//! them or the first part.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use captioner::{Videos, hex};
use data::datasets::Split;
use data::datasets::pairs::{self, PairSet};
use data::frames::FrameStore;
use data::preprocess::Resizing;
use data::text::clean_caption;
use data::tiny_world::{World, WorldConfig};
use sha2::{Digest, Sha256};

use crate::config::PairsConfig;
use crate::runtime::{ProgressBars, open_world};

/// One in this many of a user's pairs is held out by default.
const HELD_OUT_SHARE: usize = 20;

/// Training and evaluation pairs.
pub(super) struct Pairs {
    pub(super) train: PairSet,
    pub(super) held_out: PairSet,
    /// The tiny world, where they are of it.
    pub(super) world: Option<World>,
    /// Hash of the pairs in their order.
    pub(super) hash: String,
    /// Captions of a user's training pairs, also of those that are not used: training text of the language
    /// model.
    pub(super) sentences: Vec<String>,
    is_whole: bool,
}

impl Pairs {
    /// Opens the pairs; the tiny world is made where it is needed and does not exist.
    pub(super) fn open(config: &PairsConfig, world: &WorldConfig, cache: &Path) -> anyhow::Result<Self> {
        let (mut train, held_out, hash, world) = if config.is_own() {
            let (train, held_out) = hold_out(own(config)?, config.held_out)?;
            let hash = hash([&train, &held_out]);
            (train, held_out, hash, None)
        } else {
            ensure!(config.images.is_none(), "pairs.images names a folder, but there is no pairs.table");
            ensure!(
                config.held_out.is_none(),
                "pairs.held_out is for pairs of your own; the tiny world's are fixed"
            );
            let world = open_world(world, cache)?;
            let hash = world.hash().to_owned();
            (world.pairs(Split::Train)?, world.pairs(Split::Validate)?, hash, Some(world))
        };
        let all = train.pairs.len();
        let sentences = if config.is_own() { captions(&train) } else { Vec::new() };
        let chosen = config.chosen(all)?;
        train.pairs.truncate(chosen);
        Ok(Self { train, held_out, world, hash, sentences, is_whole: chosen == all })
    }

    /// Decodes the images of the pairs.
    pub(super) fn images(&self, split: Split, size: usize, cache: &Path) -> anyhow::Result<Videos> {
        let (pairs, is_whole) = match split {
            Split::Train => (&self.train, self.is_whole),
            Split::Validate | Split::Test => (&self.held_out, self.world.is_some()),
        };
        let bars = ProgressBars::default();
        // a cached file is named after whole shards and does not fit a part of them
        let folder = is_whole.then(|| cache.join("frames"));
        let show = |progress| bars.update(progress);
        let frames = FrameStore::of_pairs(pairs, size as u32, Resizing::default(), folder.as_deref(), &show)?;
        Ok(Videos::in_memory(frames))
    }

    /// Words of the user's captions that are not known.
    pub(super) fn new_words(&self, known: &[String]) -> Vec<String> {
        let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
        let captions = self.sentences.iter();
        let words: BTreeSet<&str> = captions.flat_map(|caption| words(caption)).collect();
        words.into_iter().filter(|word| !known.contains(word)).map(str::to_owned).collect()
    }
}

/// The target captions of pairs, in order.
pub(super) fn captions(pairs: &PairSet) -> Vec<String> {
    pairs.pairs.iter().map(|pair| clean_caption(&pair.caption)).collect()
}

fn own(config: &PairsConfig) -> anyhow::Result<PairSet> {
    let set = match (&config.shards, &config.table) {
        (Some(_), Some(_)) => bail!("pairs.shards and pairs.table are both given; give one of them"),
        (Some(shards), None) => {
            ensure!(config.images.is_none(), "pairs.images names a folder, but there is no pairs.table");
            pairs::load(&find_shards(shards)?)?
        }
        (None, Some(table)) => {
            let beside = || table.parent().unwrap_or(Path::new("")).to_owned();
            pairs::load_table(table, &config.images.clone().unwrap_or_else(beside))?
        }
        (None, None) => bail!("neither pairs.shards nor pairs.table is given"),
    };
    ensure!(
        !set.pairs.is_empty(),
        "the shards hold no image-text pair; put files as 0.jpg and 0.txt into them"
    );
    Ok(set)
}

/// The shards of `folder/start*.tar`, plain or gzipped, or one file.
fn find_shards(pattern: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name.split_once('*') {
        None => Ok(vec![pattern.to_owned()]),
        Some((start, ".tar" | ".tar.gz" | ".tgz")) => {
            let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty());
            Ok(pairs::shards(folder.unwrap_or(Path::new(".")), start)?)
        }
        Some(_) => bail!(
            "pairs.shards is {}, expected FOLDER/START*.tar, FOLDER/START*.tar.gz or one tar file",
            pattern.display()
        ),
    }
}

/// Holds the last pairs out. The pairs of one image stay together.
fn hold_out(mut set: PairSet, held_out: Option<usize>) -> anyhow::Result<(PairSet, PairSet)> {
    let all = set.pairs.len();
    let wanted = held_out.unwrap_or_else(|| all.div_ceil(HELD_OUT_SHARE).max(2));
    let mut first = all.saturating_sub(wanted);
    while first > 0 && first < all && set.pairs[first - 1].id == set.pairs[first].id {
        first -= 1;
    }
    ensure!(
        wanted >= 2 && first >= 2,
        "there are {all} pairs, of which {} would be held out; both parts need at least 2 (pairs.held_out)",
        all - first
    );
    let mut held_out = set.clone();
    held_out.pairs.drain(..first);
    set.pairs.truncate(first);
    Ok((set, held_out))
}

fn hash(sets: [&PairSet; 2]) -> String {
    let mut digest = Sha256::new();
    for set in sets {
        for pair in &set.pairs {
            digest.update(format!("{}\n{}\n", pair.id, pair.caption));
        }
        digest.update([0]);
    }
    hex(&digest.finalize())
}

/// Words and punctuation as the tokenizer of whole words splits them.
fn words(caption: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    caption.split_whitespace().flat_map(move |chunk| {
        let mut rest = chunk;
        std::iter::from_fn(move || {
            let first = is_word(rest.chars().next()?);
            let (part, after) = rest.split_at(rest.find(|c: char| is_word(c) != first).unwrap_or(rest.len()));
            rest = after;
            Some(part)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: &[&str]) -> (tempfile::TempDir, PairsConfig) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        (folder, PairsConfig { table: Some(path), ..PairsConfig::default() })
    }

    fn message(config: &PairsConfig) -> String {
        let opened = Pairs::open(config, &WorldConfig::default(), Path::new("nowhere"));
        format!("{:#}", opened.err().unwrap())
    }

    fn many(count: usize) -> (tempfile::TempDir, PairsConfig) {
        let lines: Vec<String> = (0..count)
            .map(|i| format!("{{\"image\": \"{}.png\", \"caption\": \"A Cat, {i}\"}}", i / 2))
            .collect();
        table(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_pairs_are_held_out_and_an_images_pairs_stay_together() {
        let (_folder, config) = many(40);
        let open = |config: &PairsConfig| {
            Pairs::open(config, &WorldConfig::default(), Path::new("nowhere")).unwrap()
        };
        let pairs = open(&config);
        assert_eq!((pairs.train.pairs.len(), pairs.held_out.pairs.len()), (38, 2));
        let pairs = open(&PairsConfig { held_out: Some(5), ..config.clone() });
        assert_eq!((pairs.train.pairs.len(), pairs.held_out.pairs.len()), (34, 6));
        let part = open(&PairsConfig { share: Some(0.25), ..config.clone() });
        assert_eq!(part.train.pairs[..], pairs.train.pairs[..10], "the first of them");
        assert_eq!(part.held_out.pairs.len(), 2, "measured on the same whatever is learned from");
        assert_eq!(part.sentences.len(), 38, "a language model reads as much as with all pairs");
        assert_eq!(open(&PairsConfig { count: Some(3), ..config }).train.pairs.len(), 3);
        assert_eq!(part.new_words(&["cat".to_owned()])[..3], [",", "0", "1"]);
    }

    #[test]
    fn pairs_that_cannot_be_learned_from_are_refused_with_the_key() {
        let (_folder, config) = many(40);
        let with = |change: &dyn Fn(&mut PairsConfig)| {
            let mut config = config.clone();
            change(&mut config);
            message(&config)
        };
        assert!(with(&|config| config.share = Some(0.0)).contains("pairs.share is 0"));
        assert!(with(&|config| config.share = Some(1.5)).contains("pairs.share is 1.5"));
        assert!(with(&|config| config.share = Some(f64::NAN)).contains("pairs.share is NaN"));
        assert!(with(&|config| config.share = Some(0.01)).contains("0 of 38 pairs"));
        assert!(with(&|config| config.count = Some(0)).contains("pairs.count is 0"));
        assert!(with(&|config| config.count = Some(39)).contains("there are 38 pairs"));
        assert!(with(&|config| config.held_out = Some(40)).contains("pairs.held_out"));
        assert!(with(&|config| config.shards = Some("a.tar".into())).contains("both given"));
        assert!(with(&|config| (config.share, config.count) = (Some(0.5), Some(2))).contains("twice"));
        let (_folder, none) = table(&[]);
        assert!(message(&none).contains("pairs.jsonl"), "{}", message(&none));
        let silent = "{\"image\": \"a.png\"}";
        let (_folder, silent) = table(&[silent, silent]);
        assert!(message(&silent).contains("caption"), "{}", message(&silent));
        let gone = PairsConfig { shards: Some("no/such/*.tar".into()), ..PairsConfig::default() };
        assert!(message(&gone).contains("no/such"));
        let odd = PairsConfig { shards: Some("no/*.zip".into()), ..PairsConfig::default() };
        assert!(message(&odd).contains("START*.tar"));
    }

    #[test]
    fn words_are_split_as_the_tokenizer_splits_them() {
        assert_eq!(
            words("a well-known  dog,it's 3?!").collect::<Vec<_>>(),
            ["a", "well", "-", "known", "dog", ",", "it", "'", "s", "3", "?!"]
        );
        assert_eq!(words("").count(), 0);
    }
}
