//! Rows of captioned clips, as `experiments caption --out` writes them and training reads them: JSON lines,
//! Parquet, or webdataset shards.

mod parquet_rows;
mod webdataset;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use crate::collection::Place;
use crate::error::{Error, Result};
use crate::files::{persist, temporary_file};
use parquet_rows::ParquetRows;

const WHAT: &str = "file of captioned clips";

/// What became of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has captions.
    Ok,
    /// It could not be decoded.
    Failed,
    /// An earlier row has its id, and has been captioned.
    Duplicate,
    /// The row of the list names no clip.
    Malformed,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::Duplicate, Self::Malformed];

    /// Its name in a row.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Duplicate => "duplicate",
            Self::Malformed => "malformed",
        }
    }
}

/// A clip with its captions, or why it has none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaptionedRow {
    /// The clip's name in its collection.
    pub id: String,
    /// Its file, or its archive and member.
    pub path: String,
    /// Its captions, best first.
    pub captions: Vec<String>,
    /// Of each caption, the score that sorts them.
    pub scores: Vec<f32>,
    /// Of each caption, the sum of its tokens' log-probabilities.
    pub log_probabilities: Vec<f32>,
    /// Of each caption, its tokens, the end included.
    pub tokens: Vec<u32>,
    /// Frames that the model read.
    pub frames: u32,
    /// Time for decoding, and the clip's part of its batch's time: the only column that differs between two
    /// runs.
    pub seconds: f64,
    /// What became of it.
    pub status: Status,
    /// Why there is no caption.
    pub error: Option<String>,
    /// The first 16 hexadecimal digits of the SHA-256 of the clip's file.
    pub sha256: Option<String>,
    /// Other columns of the input.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl CaptionedRow {
    /// The names of the columns that every row has.
    pub const COLUMNS: [&str; 11] = [
        "id",
        "path",
        "captions",
        "scores",
        "log_probabilities",
        "tokens",
        "frames",
        "seconds",
        "status",
        "error",
        "sha256",
    ];

    /// A row of a clip without captions. Columns of the input that have the name of a column of ours are
    /// kept as `input.NAME`.
    #[must_use]
    pub fn new(id: String, path: String, extra: Map<String, Value>, status: Status) -> Self {
        let name = |name: String| {
            if Self::COLUMNS.contains(&name.as_str()) { format!("input.{name}") } else { name }
        };
        Self {
            id,
            path,
            captions: Vec::new(),
            scores: Vec::new(),
            log_probabilities: Vec::new(),
            tokens: Vec::new(),
            frames: 0,
            seconds: 0.0,
            status,
            error: None,
            sha256: None,
            extra: extra.into_iter().map(|(key, value)| (name(key), value)).collect(),
        }
    }
}

/// The format of a file of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowFormat {
    /// One JSON object a line.
    Jsonl,
    /// Parquet; other columns of the input are texts.
    Parquet,
    /// A tar archive that trains other programs: each clip's file, with its first caption in `.txt` and its
    /// row in `.json`. Clips without captions have their `.json` only.
    Webdataset,
}

impl RowFormat {
    /// The format of a file, by its extension.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "jsonl" => Some(Self::Jsonl),
            "parquet" => Some(Self::Parquet),
            "tar" => Some(Self::Webdataset),
            _ => None,
        }
    }

    /// The extension of its files.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
            Self::Webdataset => "tar",
        }
    }
}

/// Writes rows with the places of their clips under a temporary name, syncs the file and renames it.
///
/// # Errors
/// A file that cannot be written; a clip's file that cannot be read, for [`RowFormat::Webdataset`].
pub fn write(path: &Path, format: RowFormat, rows: &[(CaptionedRow, Option<Place>)]) -> Result<()> {
    let rows_alone = || rows.iter().map(|(row, _)| row);
    if format == RowFormat::Webdataset {
        let file = temporary_file(path)?;
        let mut writer = BufWriter::new(file);
        webdataset::write(&mut writer, path, rows)?;
        return finish(writer, path);
    }
    let mut columns = Vec::new();
    other_columns(rows_alone(), &mut columns);
    let mut writer = Writer::new(path, format, columns)?;
    writer.write(rows_alone())?;
    writer.finish()
}

fn finish(writer: BufWriter<NamedTempFile>, path: &Path) -> Result<()> {
    let file = writer.into_inner().map_err(|error| Error::io("write the rows", path)(error.into_error()))?;
    persist(file, path)
}

/// Adds the names of the other columns of rows that are not among `columns` yet.
pub fn other_columns<'a>(rows: impl IntoIterator<Item = &'a CaptionedRow>, columns: &mut Vec<String>) {
    for name in rows.into_iter().flat_map(|row| row.extra.keys()) {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
}

/// A file of rows, JSON lines or Parquet, that is written in parts. It has its name when it is finished.
pub struct Writer {
    path: PathBuf,
    rows: Rows,
}

enum Rows {
    Lines(BufWriter<NamedTempFile>),
    Parquet(Box<ParquetRows<BufWriter<NamedTempFile>>>),
}

impl Writer {
    /// Makes a temporary file. Parquet needs the names of the other columns of all rows; JSON lines do not.
    ///
    /// # Errors
    /// A folder that cannot be written; [`RowFormat::Webdataset`], which needs the clips' files.
    pub fn new(path: &Path, format: RowFormat, columns: Vec<String>) -> Result<Self> {
        let file = BufWriter::new(temporary_file(path)?);
        let rows = match format {
            RowFormat::Jsonl => Rows::Lines(file),
            RowFormat::Parquet => {
                let rows = ParquetRows::new(file, columns).map_err(|error| parquet_error(path, error))?;
                Rows::Parquet(Box::new(rows))
            }
            RowFormat::Webdataset => {
                let reason = "a webdataset shard cannot be written in parts";
                return Err(Error::malformed(WHAT, path, "format", reason));
            }
        };
        Ok(Self { path: path.to_owned(), rows })
    }

    /// Appends rows; in Parquet as a row group.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write<'a>(&mut self, rows: impl IntoIterator<Item = &'a CaptionedRow>) -> Result<()> {
        match &mut self.rows {
            Rows::Lines(file) => {
                for row in rows {
                    write_line(file, row).map_err(Error::io("write the rows", &self.path))?;
                }
                Ok(())
            }
            Rows::Parquet(file) => {
                let rows: Vec<&CaptionedRow> = rows.into_iter().collect();
                file.write(&rows).map_err(|error| parquet_error(&self.path, error))
            }
        }
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(self) -> Result<()> {
        let file = match self.rows {
            Rows::Lines(file) => file,
            Rows::Parquet(file) => file.finish().map_err(|error| parquet_error(&self.path, error))?,
        };
        finish(file, &self.path)
    }
}

fn parquet_error(path: &Path, error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => Error::io("write the rows", path)(std::io::Error::other(source)),
        other => Error::malformed(WHAT, path, "Parquet", other.to_string()),
    }
}

fn write_line(writer: &mut impl Write, row: &CaptionedRow) -> std::io::Result<()> {
    serde_json::to_writer(&mut *writer, row)?;
    writer.write_all(b"\n")
}

/// Reads all rows of a file, in order.
///
/// # Errors
/// A file that is missing, of another format, or damaged.
pub fn read(path: &Path) -> Result<Vec<CaptionedRow>> {
    match RowFormat::of(path) {
        Some(RowFormat::Jsonl) => read_lines(path),
        Some(RowFormat::Parquet) => parquet_rows::read(path),
        Some(RowFormat::Webdataset) => webdataset::read(path),
        None => Err(Error::malformed(WHAT, path, "name", "expected the ending .jsonl, .parquet or .tar")),
    }
}

fn read_lines(path: &Path) -> Result<Vec<CaptionedRow>> {
    let next = "give a file that `experiments caption --out` wrote";
    let file = File::open(path).map_err(Error::open("read the rows", path, WHAT, next))?;
    let mut rows = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(Error::io("read the rows", path))?;
        let row = serde_json::from_str(&line);
        let place = || format!("line {}", number + 1);
        rows.push(row.map_err(|error| Error::malformed(WHAT, path, place(), error.to_string()))?);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests;
