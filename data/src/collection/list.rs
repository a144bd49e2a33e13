//! Lists of clips in text: a path a line, CSV and TSV with a header, or JSON lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use csv::ByteRecord;
use serde_json::{Map, Value};

use super::{OnId, Place, Row};
use crate::error::{Error, Result};

const WHAT: &str = "list of clips";

/// Rows from one remembered place to the next.
const STRIDE: usize = 256;

/// The columns that have a meaning.
const PATH: &str = "path";
const ID: &str = "id";

/// An indexed list.
#[derive(Debug)]
pub(super) struct List {
    path: PathBuf,
    format: Format,
    /// Where each [`STRIDE`]-th row begins: the byte and the line.
    places: Vec<(u64, u64)>,
    rows: usize,
}

#[derive(Debug, Clone)]
enum Format {
    /// A path a line.
    Lines,
    /// A JSON object a line.
    JsonLines,
    Csv {
        delimiter: u8,
        header: Vec<String>,
    },
}

impl List {
    /// Indexes a list. Malformed rows count.
    pub(super) fn open(path: &Path, on_id: OnId<'_>) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let format = match extension.to_ascii_lowercase().as_str() {
            "csv" => csv_format(path, b',')?,
            "tsv" => csv_format(path, b'\t')?,
            "txt" => Format::Lines,
            _ => Format::JsonLines,
        };
        let list = Self { path: path.to_owned(), format, places: Vec::new(), rows: 0 };
        let (mut places, mut rows) = (Vec::new(), 0);
        let mut records = Records::start(&list, None)?;
        while let Some(record) = records.next()? {
            if rows % STRIDE == 0 {
                places.push((record.offset, record.line));
            }
            match (&list.format, text(&record.fields[0])) {
                (Format::Lines, Ok(path)) => on_id(path),
                _ => on_id(&list.row(rows, &record).id),
            }
            rows += 1;
        }
        Ok(Self { places, rows, ..list })
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    pub(super) fn read(&self, rows: Range<usize>) -> Result<Vec<Row>> {
        let first = rows.start / STRIDE;
        let mut records = Records::start(self, self.places.get(first).copied())?;
        let mut read = Vec::with_capacity(rows.len());
        for index in first * STRIDE..rows.end {
            let Some(record) = records.next()? else {
                let reason = format!("has fewer than the {} rows that it had; start again", self.rows);
                return Err(Error::malformed(WHAT, &self.path, "end", reason));
            };
            if index >= rows.start {
                read.push(self.row(index, &record));
            }
        }
        Ok(read)
    }

    /// A row; one that is malformed has the name and line of the list as its id.
    fn row(&self, index: usize, record: &Record) -> Row {
        let parsed = match &self.format {
            Format::Lines => text(&record.fields[0]).map(|path| (None, path.to_owned(), Map::new())),
            Format::JsonLines => json_row(&record.fields[0]),
            Format::Csv { header, .. } => csv_row(header, &record.fields),
        };
        match parsed {
            Ok((id, path, extra)) => {
                let place = Ok(Place::File(beside(&self.path, &path)));
                Row { index, id: id.unwrap_or(path), place, extra }
            }
            Err(reason) => {
                let name = self.path.file_name().unwrap_or_default().to_string_lossy();
                let place = Err(format!("line {} of {name}: {reason}", record.line));
                Row { index, id: format!("{name}:{}", record.line), place, extra: Map::new() }
            }
        }
    }
}

/// A path of a list, which is relative to the list's folder.
pub(super) fn beside(list: &Path, path: &str) -> PathBuf {
    list.parent().unwrap_or(Path::new("")).join(path)
}

/// Id, path and other columns.
pub(super) type Parsed = std::result::Result<(Option<String>, String, Map<String, Value>), String>;

fn text(bytes: &[u8]) -> std::result::Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "is not UTF-8; save the list as UTF-8".to_owned())
}

fn json_row(line: &[u8]) -> Parsed {
    match serde_json::from_slice(line) {
        Ok(Value::Object(columns)) => from_columns(columns),
        Ok(_) => Err("expected a JSON object with a path".to_owned()),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

/// Takes the id, a text or a number, and the path out of a row's columns.
pub(super) fn from_columns(mut columns: Map<String, Value>) -> Parsed {
    let path = match columns.shift_remove(PATH) {
        Some(Value::String(path)) if !path.is_empty() => path,
        Some(other) => return Err(format!("expected a text as path, got {other}")),
        None => return Err("has no path".to_owned()),
    };
    let id = match columns.shift_remove(ID) {
        Some(Value::String(id)) if !id.is_empty() => Some(id),
        Some(Value::Number(id)) => Some(id.to_string()),
        None | Some(Value::Null) => None,
        Some(other) => return Err(format!("expected a text or a number as id, got {other}")),
    };
    Ok((id, path, columns))
}

fn csv_row(header: &[String], fields: &[Vec<u8>]) -> Parsed {
    if fields.len() != header.len() {
        return Err(format!("has {} fields, the header has {}", fields.len(), header.len()));
    }
    let mut columns = Map::new();
    for (name, field) in header.iter().zip(fields) {
        let value = text(field)?;
        // an empty field is an absent one
        if name != ID || !value.is_empty() {
            columns.insert(name.clone(), Value::String(value.to_owned()));
        }
    }
    from_columns(columns)
}

fn csv_format(path: &Path, delimiter: u8) -> Result<Format> {
    let mut reader = reader_at(path, 0)?;
    let mut header = ByteRecord::new();
    let malformed = |reason: String| Error::malformed(WHAT, path, "header", reason);
    csv_reader(delimiter, &mut reader)
        .read_byte_record(&mut header)
        .map_err(|error| malformed(error.to_string()))?;
    let names = header.iter().map(|name| text(name).map(|name| name.trim().to_owned()));
    let names: Vec<String> = names.collect::<std::result::Result<_, _>>().map_err(malformed)?;
    if !names.iter().any(|name| name == PATH) {
        return Err(malformed(format!(
            "expected a column {PATH}, and {ID} if clips have names of their own, found: {}",
            names.join(", ")
        )));
    }
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(malformed(format!("has the column {} twice", twice.1)));
    }
    Ok(Format::Csv { delimiter, header: names })
}

fn csv_reader<R: Read>(delimiter: u8, reader: R) -> csv::Reader<R> {
    csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).has_headers(false).from_reader(reader)
}

/// A reader from a byte on; from the start without a byte-order mark of UTF-8.
fn reader_at(path: &Path, offset: u64) -> Result<BufReader<File>> {
    let mut file = File::open(path).map_err(Error::io("open the list", path))?;
    let mut start = offset;
    if offset == 0 {
        let mut head = Vec::new();
        file.by_ref().take(4).read_to_end(&mut head).map_err(Error::io("read the list", path))?;
        if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") || head.starts_with(b"\0\0\xfe\xff")
        {
            let reason = "is in UTF-16 or UTF-32; save it as UTF-8";
            return Err(Error::malformed(WHAT, path, "the whole file", reason));
        }
        start = if head.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    }
    file.seek(SeekFrom::Start(start)).map_err(Error::io("read the list", path))?;
    Ok(BufReader::with_capacity(1 << 18, file))
}

/// A row as bytes: the line, or the fields of a CSV record.
struct Record {
    offset: u64,
    /// From 1.
    line: u64,
    fields: Vec<Vec<u8>>,
}

/// The rows of a list from one place on.
struct Records<'a> {
    list: &'a List,
    /// Where the reader was opened.
    offset: u64,
    line: u64,
    reader: Reader,
}

enum Reader {
    Lines(BufReader<File>),
    Csv(Box<csv::Reader<BufReader<File>>>),
}

impl<'a> Records<'a> {
    /// From the first row on, or from a remembered place.
    fn start(list: &'a List, place: Option<(u64, u64)>) -> Result<Self> {
        let (offset, line) = place.unwrap_or((0, 1));
        let mut reader = reader_at(&list.path, offset)?;
        let offset = reader.stream_position().map_err(Error::io("read the list", &list.path))?;
        let mut records = match &list.format {
            Format::Lines | Format::JsonLines => {
                return Ok(Self { list, offset, line, reader: Reader::Lines(reader) });
            }
            Format::Csv { delimiter, .. } => {
                let reader = Reader::Csv(Box::new(csv_reader(*delimiter, reader)));
                Self { list, offset, line, reader }
            }
        };
        if place.is_none() {
            records.next()?; // the header
        }
        Ok(records)
    }

    /// The next row; blank lines are none.
    fn next(&mut self) -> Result<Option<Record>> {
        let fail = Error::io("read the list", &self.list.path);
        match &mut self.reader {
            Reader::Lines(reader) => loop {
                let (offset, line, mut bytes) = (self.offset, self.line, Vec::new());
                let read = match reader.read_until(b'\n', &mut bytes) {
                    Ok(0) => return Ok(None),
                    Ok(read) => read,
                    Err(error) => return Err(fail(error)),
                };
                self.offset += read as u64;
                self.line += 1;
                let trimmed = bytes.trim_ascii();
                if !trimmed.is_empty() {
                    return Ok(Some(Record { offset, line, fields: vec![trimmed.to_vec()] }));
                }
            },
            Reader::Csv(reader) => {
                let mut record = ByteRecord::new();
                match reader.read_byte_record(&mut record) {
                    Ok(false) => return Ok(None),
                    Ok(true) => {}
                    Err(error) => {
                        return Err(Error::malformed(WHAT, &self.list.path, "CSV", error.to_string()));
                    }
                }
                let (byte, line) = record.position().map_or((0, 1), |place| (place.byte(), place.line()));
                let fields = record.iter().map(<[u8]>::to_vec).collect();
                Ok(Some(Record { offset: self.offset + byte, line: self.line + line - 1, fields }))
            }
        }
    }
}
