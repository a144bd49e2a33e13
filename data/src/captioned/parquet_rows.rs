//! Rows as Parquet, by columns: lists have one level of repetition, and other columns of the input are texts.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::{Map, Value};

use super::{CaptionedRow, WHAT};
use crate::error::{Error, Result};

type Written = std::result::Result<(), ParquetError>;

/// Columns as Parquet's schema names them, with the lists of captions.
const SCHEMA: &str = "
  required binary id (STRING);
  required binary path (STRING);
  required group captions (LIST) { repeated group list { required binary element (STRING); } }
  required group scores (LIST) { repeated group list { required float element; } }
  required group log_probabilities (LIST) { repeated group list { required float element; } }
  required group tokens (LIST) { repeated group list { required int32 element; } }
  required int32 frames;
  required double seconds;
  required binary status (STRING);
  optional binary error (STRING);
  optional binary sha256 (STRING);";

/// A file that is being written.
pub(super) struct ParquetRows<W: Write + Send> {
    file: SerializedFileWriter<W>,
    columns: Vec<String>,
}

impl<W: Write + Send> ParquetRows<W> {
    /// A file without rows, with these columns beside those of every row.
    pub(super) fn new(writer: W, columns: Vec<String>) -> std::result::Result<Self, ParquetError> {
        // the parser of schemas reads plain names only
        let extra: String =
            (0..columns.len()).map(|at| format!("optional binary extra_{at} (STRING); ")).collect();
        let schema = parse_message_type(&format!("message captions {{ {SCHEMA} {extra} }}"))?;
        let schema = renamed(&schema, &columns)?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
        let file = SerializedFileWriter::new(writer, Arc::new(schema), Arc::new(properties.build()))?;
        Ok(Self { file, columns })
    }

    /// Writes rows as one row group.
    pub(super) fn write(&mut self, rows: &[&CaptionedRow]) -> Written {
        let mut group = self.file.next_row_group()?;
        texts(&mut group, rows.iter().map(|row| row.id.as_str()))?;
        texts(&mut group, rows.iter().map(|row| row.path.as_str()))?;
        list(&mut group, rows, |row| {
            row.captions.iter().map(|text| ByteArray::from(text.as_str())).collect()
        })?;
        list(&mut group, rows, |row| row.scores.clone())?;
        list(&mut group, rows, |row| row.log_probabilities.clone())?;
        list(&mut group, rows, |row| row.tokens.iter().map(|count| *count as i32).collect())?;
        values(&mut group, &rows.iter().map(|row| row.frames as i32).collect::<Vec<_>>(), None)?;
        values(&mut group, &rows.iter().map(|row| row.seconds).collect::<Vec<_>>(), None)?;
        texts(&mut group, rows.iter().map(|row| row.status.name()))?;
        optional_texts(&mut group, rows.iter().map(|row| row.error.clone()))?;
        optional_texts(&mut group, rows.iter().map(|row| row.sha256.clone()))?;
        for name in &self.columns {
            optional_texts(&mut group, rows.iter().map(|row| row.extra.get(name).and_then(text)))?;
        }
        group.close()?;
        Ok(())
    }

    /// Ends the file.
    pub(super) fn finish(self) -> std::result::Result<W, ParquetError> {
        self.file.into_inner()
    }
}

/// The schema with the names of the other columns.
fn renamed(
    schema: &parquet::schema::types::Type,
    names: &[String],
) -> std::result::Result<parquet::schema::types::Type, ParquetError> {
    use parquet::schema::types::Type;
    let own = schema.get_fields().len() - names.len();
    let fields = schema.get_fields().iter().enumerate().map(|(at, field)| match at.checked_sub(own) {
        None => Ok(field.clone()),
        Some(extra) => {
            let column = Type::primitive_type_builder(&names[extra], field.get_physical_type())
                .with_repetition(parquet::basic::Repetition::OPTIONAL)
                .with_logical_type(Some(parquet::basic::LogicalType::String));
            column.build().map(Arc::new)
        }
    });
    let fields = fields.collect::<std::result::Result<Vec<_>, _>>()?;
    Type::group_type_builder("captions").with_fields(fields).build()
}

/// A value as a text: a text itself, anything else as JSON.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// A type of column: the values that Parquet's writer of that type takes.
trait Column: Sized {
    fn write(writer: &mut ColumnWriter<'_>, values: &[Self], levels: [Option<&[i16]>; 2]) -> Written;
}

fn other_type() -> ParquetError {
    ParquetError::General("a column of another type".to_owned())
}

impl Column for ByteArray {
    fn write(
        writer: &mut ColumnWriter<'_>,
        values: &[Self],
        [definition, repetition]: [Option<&[i16]>; 2],
    ) -> Written {
        let ColumnWriter::ByteArrayColumnWriter(writer) = writer else { return Err(other_type()) };
        writer.write_batch(values, definition, repetition).map(drop)
    }
}

impl Column for f32 {
    fn write(
        writer: &mut ColumnWriter<'_>,
        values: &[Self],
        [definition, repetition]: [Option<&[i16]>; 2],
    ) -> Written {
        let ColumnWriter::FloatColumnWriter(writer) = writer else { return Err(other_type()) };
        writer.write_batch(values, definition, repetition).map(drop)
    }
}

impl Column for f64 {
    fn write(
        writer: &mut ColumnWriter<'_>,
        values: &[Self],
        [definition, repetition]: [Option<&[i16]>; 2],
    ) -> Written {
        let ColumnWriter::DoubleColumnWriter(writer) = writer else { return Err(other_type()) };
        writer.write_batch(values, definition, repetition).map(drop)
    }
}

impl Column for i32 {
    fn write(
        writer: &mut ColumnWriter<'_>,
        values: &[Self],
        [definition, repetition]: [Option<&[i16]>; 2],
    ) -> Written {
        let ColumnWriter::Int32ColumnWriter(writer) = writer else { return Err(other_type()) };
        writer.write_batch(values, definition, repetition).map(drop)
    }
}

fn column<T: Column, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T],
    levels: [Option<&[i16]>; 2],
) -> Written {
    let mut column = group.next_column()?.ok_or_else(other_type)?;
    T::write(column.untyped(), values, levels)?;
    column.close()
}

/// The next column: a value for each row, or for those that `definition` marks by 1.
fn values<T: Column, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T],
    definition: Option<&[i16]>,
) -> Written {
    column(group, values, [definition, None])
}

fn texts<'a, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    texts: impl Iterator<Item = &'a str>,
) -> Written {
    values(group, &texts.map(ByteArray::from).collect::<Vec<_>>(), None)
}

fn optional_texts<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    texts: impl Iterator<Item = Option<String>>,
) -> Written {
    let texts: Vec<Option<String>> = texts.collect();
    let definition: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
    let present: Vec<ByteArray> = texts.iter().flatten().map(|text| ByteArray::from(text.as_str())).collect();
    values(group, &present, Some(&definition))
}

/// The next column: a list for each row. An empty list has definition 0; the first value of a row has
/// repetition 0.
fn list<T: Column, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[&CaptionedRow],
    of: impl Fn(&CaptionedRow) -> Vec<T>,
) -> Written {
    let (mut all, mut definition, mut repetition) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let values = of(row);
        if values.is_empty() {
            definition.push(0);
            repetition.push(0);
        }
        for (at, value) in values.into_iter().enumerate() {
            definition.push(1);
            repetition.push(i16::from(at > 0));
            all.push(value);
        }
    }
    column(group, &all, [Some(&definition), Some(&repetition)])
}

/// Reads all rows.
pub(super) fn read(path: &Path) -> Result<Vec<CaptionedRow>> {
    let malformed = |reason: String| Error::malformed(WHAT, path, "Parquet", reason);
    let next = "give a file that `experiments caption --out` wrote";
    let file = File::open(path).map_err(Error::open("read the rows", path, WHAT, next))?;
    let reader = SerializedFileReader::new(file).map_err(|error| malformed(error.to_string()))?;
    let mut rows = Vec::new();
    for columns in reader.get_row_iter(None).map_err(|error| malformed(error.to_string()))? {
        let columns = columns.map_err(|error| malformed(error.to_string()))?;
        let row = match columns.to_json_value() {
            Value::Object(columns) => serde_json::from_value(Value::Object(present(columns))),
            other => serde_json::from_value(other),
        };
        rows.push(row.map_err(|error| malformed(format!("row {}: {error}", rows.len() + 1)))?);
    }
    Ok(rows)
}

/// The columns that a row has.
fn present(columns: Map<String, Value>) -> Map<String, Value> {
    columns.into_iter().filter(|(_, value)| !value.is_null()).collect()
}
