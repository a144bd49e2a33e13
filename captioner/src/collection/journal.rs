//! The rows of a shard that is being made: each batch is one line, so that a batch is there or not.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use data::captioned::{self, CaptionedRow, Status};
use data::files::replace;

use super::{CaptionFolder, CollectionError};

/// Rows by their numbers in the collection.
type Rows = BTreeMap<usize, CaptionedRow>;

/// A shard's journal, locked by this process until it ends.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    /// The rows that are there.
    pub rows: Rows,
}

impl Journal {
    /// Opens the journal of a shard that is not finished. With `retry_failed`, rows that failed are taken
    /// out, of a finished shard too. None where nothing is to be done.
    pub(super) fn open(
        folder: &CaptionFolder,
        shard: usize,
        retry_failed: bool,
    ) -> Result<Option<Self>, CollectionError> {
        let path = folder.journal_file(shard);
        let io = |doing| data::Error::io(doing, &path);
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(io("open the journal"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CollectionError::Busy { shard, folder: folder.path.clone() });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock the journal")(error).into()),
        }
        // another process may have finished it before this one had the lock
        let is_finished = folder.is_finished(shard)?;
        let mut rows = if is_finished {
            captioned::read(&folder.rows_file(shard))?
                .into_iter()
                .enumerate()
                .map(|(at, row)| (folder.run.rows_of(shard).start + at, row))
                .collect()
        } else {
            let (rows, length) = read(&file, &path)?;
            file.set_len(length)
                .and_then(|()| file.seek(SeekFrom::End(0)))
                .map_err(io("open the journal"))?;
            rows
        };
        let before = rows.len();
        if retry_failed {
            rows.retain(|_, row: &mut CaptionedRow| row.status != Status::Failed);
        }
        if is_finished && rows.len() == before {
            std::fs::remove_file(&path).map_err(io("remove the journal"))?;
            return Ok(None);
        }
        let mut journal = Self { file, path, rows };
        if journal.rows.len() < before {
            journal.restart()?;
            if is_finished {
                let stats = folder.stats_file(shard);
                std::fs::remove_file(&stats).map_err(data::Error::io("remove the statistic", &stats))?;
            }
        }
        Ok(Some(journal))
    }

    /// The rows of a journal that another process may write.
    pub(super) fn rows_of(path: &Path) -> Result<Rows, CollectionError> {
        let file = File::open(path).map_err(data::Error::io("open the journal", path))?;
        Ok(read(&file, path)?.0)
    }

    /// Replaces the journal's content by the rows.
    fn restart(&mut self) -> Result<(), CollectionError> {
        let kept: Vec<(usize, &CaptionedRow)> = self.rows.iter().map(|(index, row)| (*index, row)).collect();
        let line = line(&kept, &self.path)?;
        replace(&self.path, &line)?;
        let io = |doing| data::Error::io(doing, &self.path);
        self.file = File::options().append(true).open(&self.path).map_err(io("open the journal"))?;
        self.file.lock().map_err(io("lock the journal"))?;
        Ok(())
    }

    /// Appends a batch.
    pub(super) fn append(&mut self, batch: Vec<(usize, CaptionedRow)>) -> Result<(), CollectionError> {
        let rows: Vec<(usize, &CaptionedRow)> = batch.iter().map(|(index, row)| (*index, row)).collect();
        let line = line(&rows, &self.path)?;
        self.file.write_all(&line).map_err(data::Error::io("write the journal", &self.path))?;
        self.rows.extend(batch);
        Ok(())
    }

    /// Removes the journal of a finished shard.
    pub(super) fn remove(self) -> Result<(), CollectionError> {
        Ok(std::fs::remove_file(&self.path).map_err(data::Error::io("remove the journal", &self.path))?)
    }
}

fn line(rows: &[(usize, &CaptionedRow)], path: &Path) -> Result<Vec<u8>, CollectionError> {
    let line = serde_json::to_vec(rows).map_err(std::io::Error::from);
    let mut line = line.map_err(data::Error::io("write the journal", path))?;
    line.push(b'\n');
    Ok(line)
}

/// The rows of all complete lines, and their bytes. A line that is cut short is that of a full disk or of a
/// machine that lost power, and so is everything behind it.
fn read(file: &File, path: &Path) -> Result<(Rows, u64), CollectionError> {
    let (mut rows, mut length) = (Rows::new(), 0);
    let mut reader = BufReader::new(file);
    loop {
        let mut line = Vec::new();
        let read = reader.read_until(b'\n', &mut line).map_err(data::Error::io("read the journal", path))?;
        let Ok(batch) = serde_json::from_slice::<Vec<(usize, CaptionedRow)>>(&line) else { break };
        if line.last() != Some(&b'\n') {
            break;
        }
        rows.extend(batch);
        length += read as u64;
    }
    Ok((rows, length))
}
