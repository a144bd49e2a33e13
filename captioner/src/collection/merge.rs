//! The state of a folder of captions, and all its rows in one file.

use std::path::Path;

use data::captioned::{self, RowFormat, Writer};

use super::{CaptionFolder, CollectionError, Counts, ShardState};

/// How far a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Rows of the collection.
    pub rows: usize,
    /// Rows that are there, those of journals included.
    pub counts: Counts,
    /// All shards.
    pub shards: usize,
    /// Those that are finished.
    pub finished: usize,
    /// Those that have a journal only.
    pub begun: usize,
}

/// How far a folder is.
///
/// # Errors
/// When a file cannot be read.
pub fn summary(folder: &CaptionFolder) -> Result<Summary, CollectionError> {
    let mut summary = Summary { rows: folder.run.rows, shards: folder.run.shards(), ..Summary::default() };
    for shard in 0..summary.shards {
        match folder.state(shard)? {
            ShardState::Finished(stats) => {
                summary.finished += 1;
                summary.counts += stats.counts;
            }
            ShardState::Begun(counts) => {
                summary.begun += 1;
                summary.counts += counts;
            }
            ShardState::Missing => {}
        }
    }
    Ok(summary)
}

/// Writes the rows of all shards in one file, JSON lines or Parquet, shard by shard.
///
/// # Errors
/// When a shard is not finished, or a file cannot be read or written.
pub fn merge(folder: &CaptionFolder, out: &Path) -> Result<Counts, CollectionError> {
    let shards = folder.run.shards();
    let mut missing = Vec::new();
    for shard in 0..shards {
        if !folder.is_finished(shard)? {
            missing.push(shard);
        }
    }
    if let Some(&first) = missing.first() {
        let folder = folder.path.clone();
        return Err(CollectionError::Unfinished { missing: missing.len(), shards, first, folder });
    }
    let format = match RowFormat::of(out) {
        Some(format @ (RowFormat::Jsonl | RowFormat::Parquet)) => format,
        _ => {
            let reason = "expected the ending .jsonl or .parquet";
            return Err(data::Error::malformed("merged captions", out, "name", reason).into());
        }
    };
    let read = |shard| captioned::read(&folder.rows_file(shard));
    let mut columns = Vec::new();
    if format == RowFormat::Parquet {
        for shard in 0..shards {
            captioned::other_columns(&read(shard)?, &mut columns);
        }
    }
    let mut writer = Writer::new(out, format, columns)?;
    let mut counts = Counts::default();
    for shard in 0..shards {
        let rows = read(shard)?;
        counts += Counts::of(&rows);
        writer.write(&rows)?;
    }
    writer.finish()?;
    Ok(counts)
}
