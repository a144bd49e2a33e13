//! Lists of clips in Parquet files.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Row as Columns;
use serde_json::Value;

use super::list::{beside, from_columns};
use super::{OnId, Place, Row};
use crate::error::{Error, Result};

const WHAT: &str = "Parquet list of clips";

/// An indexed list: the first row of each row group.
#[derive(Debug)]
pub(super) struct ParquetList {
    path: PathBuf,
    starts: Vec<usize>,
    rows: usize,
}

impl ParquetList {
    pub(super) fn open(path: &Path, on_id: OnId<'_>) -> Result<Self> {
        let reader = reader(path)?;
        let metadata = reader.metadata();
        let columns: Vec<&str> = metadata
            .file_metadata()
            .schema_descr()
            .root_schema()
            .get_fields()
            .iter()
            .map(|f| f.name())
            .collect();
        if !columns.contains(&"path") {
            let reason = format!("expected a column path, found: {}", columns.join(", "));
            return Err(Error::malformed(WHAT, path, "schema", reason));
        }
        let (mut starts, mut rows) = (Vec::new(), 0);
        for group in metadata.row_groups() {
            starts.push(rows);
            rows += usize::try_from(group.num_rows()).unwrap_or(0);
        }
        let list = Self { path: path.to_owned(), starts, rows };
        for group in 0..list.starts.len() {
            list.each_row(&reader, group, |index, columns| on_id(&list.row(index, columns).id))?;
        }
        Ok(list)
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    pub(super) fn read(&self, rows: Range<usize>) -> Result<Vec<Row>> {
        let reader = reader(&self.path)?;
        let mut read = Vec::with_capacity(rows.len());
        for (group, start) in self.starts.iter().enumerate() {
            let end = self.starts.get(group + 1).copied().unwrap_or(self.rows);
            if *start < rows.end && rows.start < end {
                self.each_row(&reader, group, |index, columns| {
                    if rows.contains(&index) {
                        read.push(self.row(index, columns));
                    }
                })?;
            }
        }
        Ok(read)
    }

    fn each_row(
        &self,
        reader: &SerializedFileReader<File>,
        group: usize,
        mut visit: impl FnMut(usize, &Columns),
    ) -> Result<()> {
        let malformed = |error: parquet::errors::ParquetError| {
            Error::malformed(WHAT, &self.path, format!("row group {group}"), error.to_string())
        };
        let rows = reader.get_row_group(group).map_err(malformed)?;
        for (place, columns) in rows.get_row_iter(None).map_err(malformed)?.enumerate() {
            visit(self.starts[group] + place, &columns.map_err(malformed)?);
        }
        Ok(())
    }

    fn row(&self, index: usize, columns: &Columns) -> Row {
        let parsed = match columns.to_json_value() {
            Value::Object(mut columns) => {
                columns.retain(|_, value| !value.is_null());
                from_columns(columns)
            }
            _ => Err("has no columns".to_owned()),
        };
        match parsed {
            Ok((id, path, extra)) => {
                let place = Ok(Place::File(beside(&self.path, &path)));
                Row { index, id: id.unwrap_or(path), place, extra }
            }
            Err(reason) => {
                let name = self.path.file_name().unwrap_or_default().to_string_lossy();
                let place = Err(format!("row {} of {name}: {reason}", index + 1));
                Row { index, id: format!("{name}:{}", index + 1), place, extra: serde_json::Map::new() }
            }
        }
    }
}

fn reader(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(Error::io("open the list", path))?;
    SerializedFileReader::new(file)
        .map_err(|error| Error::malformed(WHAT, path, "the whole file", error.to_string()))
}
