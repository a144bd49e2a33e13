//! Captions of collections: any number of clips, written in shards that a later call completes.
//!
//! A folder of captions has `run.json`, which says of what and how it is made, and for each shard its rows
//! (`00000.jsonl`) and a statistic (`00000.stats.json`), which is written last and marks the shard as
//! finished. A shard that is being made has a journal (`00000.journal`), to which each batch is appended: a
//! process that is killed loses the batch that it was at. A shard's rows depend on their place in the
//! collection only, so that any number of processes makes the same files.

mod batch;
mod folder;
mod journal;
mod merge;

use std::path::{Path, PathBuf};
use std::time::Instant;

use data::captioned::{CaptionedRow, RowFormat, Status};
use data::collection::Collection;
use serde::{Deserialize, Serialize};

use crate::{Captioner, CaptionerError};
pub use folder::{CaptionFolder, Run, ShardState, ShardStats};
use journal::Journal;
pub use merge::{merge, summary};

/// Why a collection could not be captioned, or its captions not be read.
#[derive(Debug, thiserror::Error)]
pub enum CollectionError {
    /// The folder has captions of something else, or made otherwise.
    #[error(
        "the folder has captions with other settings: {key} was {before} and is {now} now; use another folder, or the \
         same settings: {}", folder.display()
    )]
    OtherSettings {
        /// The setting.
        key: String,
        /// Its value in the folder.
        before: String,
        /// Its value in this call.
        now: String,
        /// The folder.
        folder: PathBuf,
    },
    /// Another process is at a shard.
    #[error(
        "another process is at shard {shard}; give each process its own share with --shards and --shard: {}",
        folder.display()
    )]
    Busy {
        /// The shard's number.
        shard: usize,
        /// The folder.
        folder: PathBuf,
    },
    /// Shards are missing.
    #[error(
        "{missing} of {shards} shards are not finished, the first is {first}; `experiments caption` with the same \
         arguments completes them: {}", folder.display()
    )]
    Unfinished {
        /// How many.
        missing: usize,
        /// Of how many.
        shards: usize,
        /// The first one's number.
        first: usize,
        /// The folder.
        folder: PathBuf,
    },
    /// Files cannot be read or written.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// The model failed.
    #[error(transparent)]
    Captioner(#[from] CaptionerError),
}

/// What one process does of a collection: the shards whose numbers are `index` modulo `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub index: usize,
    /// At least 1.
    pub count: usize,
}

impl Share {
    /// Everything.
    pub const ALL: Self = Self { index: 0, count: 1 };
}

/// Rows by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// With captions.
    pub ok: usize,
    /// That could not be decoded.
    pub failed: usize,
    /// Whose id an earlier row has.
    pub duplicate: usize,
    /// That name no clip.
    pub malformed: usize,
}

impl Counts {
    /// Counts rows.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a CaptionedRow>) -> Self {
        let mut counts = Self::default();
        rows.into_iter().for_each(|row| counts.count(row.status));
        counts
    }

    fn count(&mut self, status: Status) {
        *match status {
            Status::Ok => &mut self.ok,
            Status::Failed => &mut self.failed,
            Status::Duplicate => &mut self.duplicate,
            Status::Malformed => &mut self.malformed,
        } += 1;
    }

    /// All rows.
    #[must_use]
    pub fn total(&self) -> usize {
        self.ok + self.failed + self.duplicate + self.malformed
    }

    /// Rows without captions that should have some.
    #[must_use]
    pub fn without_captions(&self) -> usize {
        self.failed + self.malformed
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.duplicate += other.duplicate;
        self.malformed += other.malformed;
    }
}

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Rows that this call has made.
    pub done: Counts,
    /// Rows that this call has to make; those that were there before are none of them.
    pub total: usize,
}

/// What a call does.
#[derive(Debug)]
pub struct Job<'a> {
    /// The model and its settings.
    pub captioner: &'a Captioner,
    /// The clips.
    pub collection: &'a Collection,
    /// Where the captions are written.
    pub folder: &'a Path,
    /// The hash of the checkpoint's files, and how its weights are held.
    pub checkpoint: String,
    /// The format of the shards.
    pub format: RowFormat,
    /// Rows of a shard.
    pub rows_per_shard: usize,
    /// The shards of this process.
    pub share: Share,
    /// Whether clips that failed before are tried again.
    pub retry_failed: bool,
    /// The most rows that this call makes, rounded up to whole batches.
    pub limit: Option<usize>,
}

impl Job<'_> {
    /// Makes the shards of this process that are missing. Returns how many rows this call made.
    ///
    /// # Errors
    /// When the folder has captions of something else, a file cannot be written, or the model fails. What is
    /// finished stays, and the same call completes it.
    pub fn run(&self, mut on_progress: impl FnMut(Progress)) -> Result<Progress, CollectionError> {
        let run = Run::of(self);
        let folder = CaptionFolder::open_or_make(self.folder, &run)?;
        let shards: Vec<usize> =
            (self.share.index..folder.run.shards()).step_by(self.share.count.max(1)).collect();
        let mut pending = Vec::new();
        let mut progress = Progress::default();
        for shard in shards {
            let missing = folder.missing(shard, self.retry_failed)?;
            progress.total += missing;
            if missing > 0 || !folder.is_finished(shard)? {
                pending.push(shard);
            }
        }
        if let Some(limit) = self.limit {
            progress.total = progress.total.min(limit);
        }
        on_progress(progress);
        for shard in pending {
            if self.limit.is_some_and(|limit| progress.done.total() >= limit) {
                break;
            }
            self.shard(&folder, shard, &mut progress, &mut on_progress)?;
        }
        Ok(progress)
    }

    /// Makes what a shard lacks.
    fn shard(
        &self,
        folder: &CaptionFolder,
        shard: usize,
        progress: &mut Progress,
        on_progress: &mut impl FnMut(Progress),
    ) -> Result<(), CollectionError> {
        let started = Instant::now();
        let Some(mut journal) = Journal::open(folder, shard, self.retry_failed)? else { return Ok(()) };
        let range = folder.run.rows_of(shard);
        let rows = self.collection.read(range.clone())?;
        let batch_size = folder.run.batch_size;
        let mut batches: Vec<Vec<data::collection::Row>> = Vec::new();
        for batch in rows.chunks(batch_size) {
            let missing: Vec<_> =
                batch.iter().filter(|row| !journal.rows.contains_key(&row.index)).cloned().collect();
            if !missing.is_empty() {
                batches.push(missing);
            }
        }
        if let Some(limit) = self.limit {
            let mut left = limit.saturating_sub(progress.done.total());
            batches.retain(|batch| {
                let is_within = left > 0;
                left = left.saturating_sub(batch.len());
                is_within
            });
        }
        batch::caption(self.captioner, self.collection, batches, |made| {
            progress.done += Counts::of(made.iter().map(|(_, row)| row));
            journal.append(made)?;
            on_progress(*progress);
            Ok(())
        })?;
        if journal.rows.len() == range.len() {
            let places = rows.into_iter().map(|row| row.place.ok());
            let rows: Vec<_> = journal.rows.values().cloned().zip(places).collect();
            folder.finish(shard, &rows, started.elapsed().as_secs_f64())?;
            journal.remove()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
