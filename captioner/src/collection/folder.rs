//! The files of a folder of captions.

use std::ops::Range;
use std::path::{Path, PathBuf};

use data::captioned::{self, CaptionedRow, RowFormat};
use data::collection::Place;
use data::files::{create_json, replace_json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::journal::Journal;
use super::{CollectionError, Counts, Job};

const RUN: &str = "run.json";

/// The version of the folder's layout.
const VERSION: u32 = 1;

/// What a folder has captions of, and how they are made. Calls with other values are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Layout of the folder.
    pub version: u32,
    /// Rows of the collection.
    pub rows: usize,
    /// Digest of the collection's ids.
    pub ids: String,
    /// Rows of a shard.
    pub rows_per_shard: usize,
    /// Format of the shards.
    pub format: RowFormat,
    /// Clips of a batch. Sums of a product are rounded differently with other numbers of rows.
    pub batch_size: usize,
    /// The checkpoint's hash, and how its weights are held.
    pub checkpoint: String,
    /// Frames, prompt and generation.
    pub settings: Value,
}

impl Run {
    pub(super) fn of(job: &Job<'_>) -> Self {
        let captioner = job.captioner;
        Self {
            version: VERSION,
            rows: job.collection.len(),
            ids: job.collection.digest().to_owned(),
            rows_per_shard: job.rows_per_shard.max(1),
            format: job.format,
            batch_size: captioner.batch_size(),
            checkpoint: job.checkpoint.clone(),
            settings: json!({
                "frames": captioner.settings().frames,
                "prompt": captioner.settings().text.prompt,
                "generate": captioner.context.generate,
            }),
        }
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.rows.div_ceil(self.rows_per_shard)
    }

    /// The rows of a shard.
    #[must_use]
    pub fn rows_of(&self, shard: usize) -> Range<usize> {
        let start = shard * self.rows_per_shard;
        start..self.rows.min(start + self.rows_per_shard)
    }

    /// The first value that differs: its name, and what it is here and there.
    fn difference(&self, other: &Self) -> Option<(String, String, String)> {
        let values = |run| serde_json::to_value(run).unwrap_or_default();
        let mut differences = Vec::new();
        compare("", &values(self), &values(other), &mut differences);
        differences.into_iter().next()
    }
}

/// Collects the leaves in which two values differ.
fn compare(name: &str, one: &Value, other: &Value, found: &mut Vec<(String, String, String)>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
            names.dedup();
            for key in names {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                let value = |of: &serde_json::Map<String, Value>| of.get(key).cloned().unwrap_or_default();
                compare(&name, &value(one), &value(other), found);
            }
        }
        _ if one != other => found.push((name.to_owned(), one.to_string(), other.to_string())),
        _ => {}
    }
}

/// What a finished shard contains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardStats {
    /// The shard's number.
    pub shard: usize,
    /// The number of its first row.
    pub first: usize,
    /// Its rows by what became of them.
    #[serde(flatten)]
    pub counts: Counts,
    /// Tokens of all captions.
    pub tokens: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Time that the last call took for it.
    pub seconds: f64,
}

/// How far a shard is.
#[derive(Debug, Clone, PartialEq)]
pub enum ShardState {
    /// It is complete.
    Finished(ShardStats),
    /// A call has begun it; rows of its journal.
    Begun(Counts),
    /// There is nothing.
    Missing,
}

/// A folder of captions.
#[derive(Debug)]
pub struct CaptionFolder {
    /// The folder.
    pub path: PathBuf,
    /// What it has captions of.
    pub run: Run,
}

impl CaptionFolder {
    /// Opens a folder, or makes it. Several processes may do so at the same time.
    pub(super) fn open_or_make(path: &Path, run: &Run) -> Result<Self, CollectionError> {
        create_json(&path.join(RUN), run)?;
        let folder = Self::open(path)?;
        match folder.run.difference(run) {
            None => Ok(folder),
            Some((key, before, now)) => {
                Err(CollectionError::OtherSettings { key, before, now, folder: path.to_owned() })
            }
        }
    }

    /// Opens a folder that `experiments caption --out` made.
    ///
    /// # Errors
    /// When it is none.
    pub fn open(path: &Path) -> Result<Self, CollectionError> {
        let run: Run = data::datasets::source::json(&path.join(RUN), "folder of captions")?;
        Ok(Self { path: path.to_owned(), run })
    }

    /// The file of a shard's rows.
    #[must_use]
    pub fn rows_file(&self, shard: usize) -> PathBuf {
        self.path.join(format!("{shard:05}.{}", self.run.format.extension()))
    }

    pub(super) fn stats_file(&self, shard: usize) -> PathBuf {
        self.path.join(format!("{shard:05}.stats.json"))
    }

    pub(super) fn journal_file(&self, shard: usize) -> PathBuf {
        self.path.join(format!("{shard:05}.journal"))
    }

    /// The statistic of a finished shard. A shard whose rows are missing or have another size is not
    /// finished.
    fn stats(&self, shard: usize) -> Result<Option<ShardStats>, CollectionError> {
        let path = self.stats_file(shard);
        if !path.exists() {
            return Ok(None);
        }
        let stats: ShardStats = data::datasets::source::json(&path, "statistic of a shard")?;
        let bytes = std::fs::metadata(self.rows_file(shard)).map_or(0, |file| file.len());
        Ok((bytes == stats.bytes).then_some(stats))
    }

    pub(super) fn is_finished(&self, shard: usize) -> Result<bool, CollectionError> {
        Ok(self.stats(shard)?.is_some())
    }

    /// How far a shard is.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn state(&self, shard: usize) -> Result<ShardState, CollectionError> {
        if let Some(stats) = self.stats(shard)? {
            return Ok(ShardState::Finished(stats));
        }
        let path = self.journal_file(shard);
        if !path.exists() {
            return Ok(ShardState::Missing);
        }
        Ok(ShardState::Begun(Counts::of(Journal::rows_of(&path)?.values())))
    }

    /// Rows that a shard lacks; with `retry_failed` those too that failed.
    pub(super) fn missing(&self, shard: usize, retry_failed: bool) -> Result<usize, CollectionError> {
        let all = self.run.rows_of(shard).len();
        Ok(match self.state(shard)? {
            ShardState::Finished(stats) => {
                if retry_failed {
                    stats.counts.failed
                } else {
                    0
                }
            }
            ShardState::Begun(counts) => all - counts.total() + if retry_failed { counts.failed } else { 0 },
            ShardState::Missing => all,
        })
    }

    /// Writes a shard's rows, then its statistic.
    pub(super) fn finish(
        &self,
        shard: usize,
        rows: &[(CaptionedRow, Option<Place>)],
        seconds: f64,
    ) -> Result<(), CollectionError> {
        let path = self.rows_file(shard);
        captioned::write(&path, self.run.format, rows)?;
        let bytes = std::fs::metadata(&path).map_err(data::Error::io("read the rows", &path))?.len();
        let stats = ShardStats {
            shard,
            first: self.run.rows_of(shard).start,
            counts: Counts::of(rows.iter().map(|(row, _)| row)),
            tokens: rows.iter().flat_map(|(row, _)| &row.tokens).map(|count| u64::from(*count)).sum(),
            bytes,
            seconds,
        };
        Ok(replace_json(&self.stats_file(shard), &stats)?)
    }
}
