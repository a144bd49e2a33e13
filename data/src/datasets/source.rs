//! Reads annotation files as downloaded: plain, gzipped or in a zip archive; JSON, JSON lines, CSV and text
//! lines, in UTF-8 or UTF-16 with or without a byte-order mark. Every error names its line or entry.

use crate::encoding::{unmarked, without_marks};
use crate::error::{Error, Result};
use crate::stand_in::stand_in;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::path::Path;

/// Maximum unpacked size of an annotation file. The largest published one has 0.4 GiB; an archive that
/// unpacks to more than this is a mistake or an attack.
const MAX_BYTES: u64 = 4 << 30;

/// A file's content, unpacked if it is gzipped or zipped. Of a zip archive, the only member with the
/// extension `.json`, `.jsonl`, `.csv`, `.tsv` or `.txt` is read; of several, the only `.json`. Byte-order
/// marks are removed, and UTF-16 with one is converted to UTF-8.
///
/// # Errors
/// No such file; a Git LFS pointer or a web page in its place; a broken archive; an archive without exactly
/// one such member; text in UTF-32.
pub fn bytes(path: &Path, what: &'static str) -> Result<Vec<u8>> {
    let next = "give the path of the annotations as downloaded";
    let raw = std::fs::read(path).map_err(Error::open("read the annotations", path, what, next))?;
    let bytes = match raw.get(..4) {
        Some([0x1f, 0x8b, ..]) => {
            let gzip = flate2::read::MultiGzDecoder::new(raw.as_slice());
            limited(gzip, path, what, "gzip stream")?
        }
        Some(b"PK\x03\x04") => member(&raw, path, what)?,
        _ => raw,
    };
    let whole = |reason: &str| Error::malformed(what, path, "the whole file", reason);
    match stand_in(&bytes) {
        Some(reason) => Err(whole(reason)),
        None => unmarked(bytes).map_err(|reason| whole(&reason)),
    }
}

fn limited(reader: impl Read, path: &Path, what: &'static str, place: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::malformed(what, path, place, error.to_string()))?;
    if bytes.len() as u64 > MAX_BYTES {
        let reason = format!("unpacks to more than {} GiB", MAX_BYTES >> 30);
        return Err(Error::malformed(what, path, place, reason));
    }
    Ok(bytes)
}

fn member(raw: &[u8], path: &Path, what: &'static str) -> Result<Vec<u8>> {
    let broken = |reason: String| Error::malformed(what, path, "zip archive", reason);
    let mut archive =
        zip::ZipArchive::new(std::io::Cursor::new(raw)).map_err(|error| broken(error.to_string()))?;
    let name = member_name(&archive).map_err(broken)?;
    let file = archive.by_name(&name).map_err(|error| broken(format!("{name}: {error}")))?;
    limited(file, path, what, &format!("zip member {name}"))
}

fn member_name(archive: &zip::ZipArchive<std::io::Cursor<&[u8]>>) -> std::result::Result<String, String> {
    const KINDS: [&str; 5] = [".json", ".jsonl", ".csv", ".tsv", ".txt"];
    // Ignored are names that are not UTF-8, and the files that macOS adds to its archives.
    let names: Vec<_> = archive.file_names().filter_map(std::result::Result::ok).collect();
    let own: Vec<&str> = names.iter().map(AsRef::as_ref).filter(|name: &&str| !is_macs(name)).collect();
    let ending = |kinds: &[&str]| -> Vec<&str> {
        own.iter().copied().filter(|name| kinds.iter().any(|kind| name.ends_with(kind))).collect()
    };
    match (ending(&KINDS).as_slice(), ending(&[".json"]).as_slice()) {
        ([only], _) | (_, [only]) => Ok((*only).to_owned()),
        (all, _) => Err(format!(
            "expected one .json file, or one of {}, found {}; unpack it and give the file that is meant",
            KINDS.join(", "),
            if all.is_empty() { "none".to_owned() } else { all.join(", ") }
        )),
    }
}

/// Whether a member of an archive, or a file, is one that macOS adds beside the user's own: `__MACOSX/`,
/// `._name` and `.DS_Store`.
pub(crate) fn is_macs(name: &str) -> bool {
    let mut parts = name.split('/');
    parts.any(|part| part == "__MACOSX" || part == ".DS_Store" || part.starts_with("._"))
}

/// The name of the member that [`bytes`] reads from a zip archive; `None` for other files.
pub(crate) fn zipped_name(path: &Path) -> Option<String> {
    let mut magic = [0; 4];
    let mut file = std::fs::File::open(path).ok()?;
    file.read_exact(&mut magic).ok()?;
    if &magic != b"PK\x03\x04" {
        return None;
    }
    let raw = std::fs::read(path).ok()?;
    let archive = zip::ZipArchive::new(std::io::Cursor::new(raw.as_slice())).ok()?;
    let name = member_name(&archive).ok()?;
    name.rsplit('/').next().map(str::to_owned)
}

/// A whole file as one JSON value.
///
/// # Errors
/// As [`bytes`]; invalid JSON or another shape, with line and column.
pub fn json<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T> {
    parse(&bytes(path, what)?, path, what)
}

/// Parses JSON; errors have line and column.
pub(crate) fn parse<'b, T: Deserialize<'b>>(bytes: &'b [u8], path: &Path, what: &'static str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Error::malformed(what, path, place, error.to_string())
    })
}

/// Whether a file starts like a JSON array or object.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| b"[{".contains(byte))
}

/// Several JSON values: the items of an array, or one value per line.
///
/// # Errors
/// As [`json`].
pub fn json_records<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<Vec<T>> {
    let text = bytes(path, what)?;
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return parse(&text, path, what);
    }
    let mut records = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = without_marks(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let record = serde_json::from_slice(line).map_err(|error| {
            let place = format!("line {}, column {}", index + 1, error.column());
            Error::malformed(what, path, place, error.to_string())
        })?;
        records.push(record);
    }
    Ok(records)
}

/// A file's lines with their numbers, from 1, without line ends and empty lines.
///
/// # Errors
/// As [`bytes`]; a line that is not UTF-8.
pub fn lines(path: &Path, what: &'static str) -> Result<Vec<(usize, String)>> {
    let bytes = bytes(path, what)?;
    let mut lines = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = std::str::from_utf8(without_marks(line)).map_err(|error| {
            Error::malformed(what, path, format!("line {}", index + 1), error.to_string())
        })?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        if !line.trim().is_empty() {
            lines.push((index + 1, line.to_owned()));
        }
    }
    Ok(lines)
}

/// A table with named columns.
#[derive(Debug)]
pub struct Table {
    what: &'static str,
    path: std::path::PathBuf,
    header: Vec<String>,
    rows: Vec<(u64, csv::ByteRecord)>,
}

/// Reads CSV or TSV with a header line; a tab in the header makes it TSV. Quoted fields may span lines.
///
/// # Errors
/// As [`bytes`]; a row whose number of fields differs from the header's, with its line.
pub fn table(path: &Path, what: &'static str) -> Result<Table> {
    table_of(&bytes(path, what)?, path, what)
}

pub(crate) fn table_of(text: &[u8], path: &Path, what: &'static str) -> Result<Table> {
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let delimiter = if first.contains(&b'\t') { b'\t' } else { b',' };
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).quoting(delimiter == b',').from_reader(text);
    let broken = |error: &csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        Error::malformed(what, path, format!("line {line}"), error.to_string())
    };
    let header = reader.byte_headers().map_err(|error| broken(&error))?;
    let header = header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
    let mut rows = Vec::new();
    for record in reader.byte_records() {
        let record = record.map_err(|error| broken(&error))?;
        rows.push((record.position().map_or(0, csv::Position::line), record));
    }
    Ok(Table { what, path: path.to_path_buf(), header, rows })
}

impl Table {
    /// The first of these columns that exists; case is ignored.
    #[must_use]
    pub fn find(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|name| self.header.iter().position(|own| own.eq_ignore_ascii_case(name)))
    }

    /// As [`Self::find`], for a required column.
    ///
    /// # Errors
    /// The table has none of them; the message lists its columns.
    pub fn column(&self, names: &[&str]) -> Result<usize> {
        self.find(names).ok_or_else(|| {
            let reason = format!("expected a column {}, got {}", names.join(" or "), self.header.join(", "));
            Error::malformed(self.what, &self.path, "header", reason)
        })
    }

    /// The rows, with their line numbers.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|(line, record)| Row { table: self, line: *line, record })
    }
}

/// A row of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    table: &'a Table,
    line: u64,
    record: &'a csv::ByteRecord,
}

impl<'a> Row<'a> {
    /// The text of a field; empty where the row has no such field.
    ///
    /// # Errors
    /// The field is not UTF-8.
    pub fn text(&self, column: usize) -> Result<&'a str> {
        std::str::from_utf8(self.record.get(column).unwrap_or_default())
            .map_err(|error| self.fault(error.to_string()))
    }

    /// The bytes of a field, in any encoding.
    #[must_use]
    pub fn bytes(&self, column: usize) -> &'a [u8] {
        self.record.get(column).unwrap_or_default()
    }

    /// An error in this row, with its line.
    #[must_use]
    pub fn fault(&self, reason: impl Into<String>) -> Error {
        Error::malformed(self.table.what, &self.table.path, format!("line {}", self.line), reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::testing::file;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    fn zipped(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in members {
            archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    #[test]
    fn plain_gzipped_and_zipped_files_read_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let archive = zipped(&[
            ("readme.txt", b"hello"),
            ("__MACOSX/a.json", b"?"),
            ("in/._a.json", b"?"),
            ("in/a.json", b"[1, 2]"),
        ]);
        for (name, bytes) in [("a", b"[1, 2]".to_vec()), ("b", gzipped(b"[1, 2]")), ("c", archive)] {
            let path = file(&folder, name, &bytes);
            assert_eq!(json::<Vec<u8>>(&path, "numbers").unwrap(), [1, 2]);
        }
        assert_eq!(zipped_name(&folder.path().join("c")).unwrap(), "a.json");
        assert_eq!(zipped_name(&folder.path().join("a")), None);
    }

    #[test]
    fn byte_order_marks_are_read_in_every_form() {
        let folder = tempfile::tempdir().unwrap();
        let utf_16 = |text: &str| -> Vec<u8> {
            std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
        };
        let utf_8 = |text: &str| format!("\u{feff}{text}").into_bytes();
        for marked in [utf_8, utf_16] as [fn(&str) -> Vec<u8>; 2] {
            let put = |text: &str| file(&folder, "a", marked(text));
            assert!(is_json(&bytes(&put(r#"{"é": 1}"#), "numbers").unwrap()));
            assert_eq!(json::<serde_json::Value>(&put(r#"{"é": 1}"#), "numbers").unwrap()["é"], 1);
            assert_eq!(json_records::<u8>(&put("[1, 2]"), "numbers").unwrap(), [1, 2]);
            assert_eq!(json_records::<u8>(&put("1\n\u{feff}2\n"), "numbers").unwrap(), [1, 2]);
            assert_eq!(lines(&put("é\n\u{feff}b"), "lines").unwrap(), [(1, "é".into()), (2, "b".into())]);
            for text in ["id,text\n1,é\n", "id\ttext\n1\té\n", "\"id\",text\n1,é\n"] {
                let table = table(&put(text), "texts").unwrap();
                assert_eq!(
                    (table.column(&["id"]).unwrap(), table.rows().next().unwrap().text(1).unwrap()),
                    (0, "é")
                );
            }
            assert_eq!(json::<u8>(&file(&folder, "b", gzipped(&marked("7"))), "numbers").unwrap(), 7);
            assert_eq!(
                json::<u8>(&file(&folder, "c", zipped(&[("a.json", &marked("7"))])), "numbers").unwrap(),
                7
            );
        }
        let wide = file(&folder, "wide", b"\xff\xfe\0\0[\0\0\0");
        assert!(bytes(&wide, "numbers").unwrap_err().to_string().contains("UTF-32"));
    }

    #[test]
    fn pointers_and_web_pages_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let message =
            |bytes: &[u8]| super::bytes(&file(&folder, "a", bytes), "numbers").unwrap_err().to_string();
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        assert!(message(pointer).contains("Git LFS pointer"));
        assert!(message(b"<!doctype html><html>").contains("HTML page"));
        assert!(message(&gzipped(b"<html>")).contains("HTML page"));
    }

    #[test]
    fn an_archive_without_one_clear_member_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let two = file(&folder, "two.zip", zipped(&[("a.json", b"1"), ("b.json", b"2")]));
        let message = bytes(&two, "numbers").unwrap_err().to_string();
        assert!(message.contains("a.json, b.json") && message.contains("two.zip"), "{message}");
        let none = file(&folder, "none.zip", zipped(&[("a.mp4", b"1")]));
        assert!(bytes(&none, "numbers").unwrap_err().to_string().contains("found none"));
    }

    #[test]
    fn records_come_from_arrays_and_lines() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["\u{feff}[1,2,3]", " [1,\n2,3]\n", "1\n\n2\r\n3"] {
            assert_eq!(
                json_records::<u8>(&file(&folder, "a", text.as_bytes()), "numbers").unwrap(),
                [1, 2, 3]
            );
        }
        let message = json_records::<u8>(&file(&folder, "a", b"1\n2\nx"), "numbers").unwrap_err().to_string();
        assert!(message.contains("numbers, line 3, column 1"), "{message}");
    }

    #[test]
    fn tables_know_their_columns_and_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "a.csv", b"\xef\xbb\xbfID,Text\n1,\"two\nlines, here\"\n2,\xff\n");
        let table = table(&path, "texts").unwrap();
        let (id, text) = (table.column(&["id"]).unwrap(), table.column(&["caption", "text"]).unwrap());
        let rows: Vec<Row<'_>> = table.rows().collect();
        assert_eq!(rows[0].text(text).unwrap(), "two\nlines, here");
        assert_eq!(rows[1].text(id).unwrap(), "2");
        assert!(rows[1].text(text).unwrap_err().to_string().contains("line 4"));
        assert!(table.column(&["split"]).unwrap_err().to_string().contains("got ID, Text"));
        let uneven = file(&folder, "b.csv", b"a,b\n1,2\n3\n");
        assert!(super::table(&uneven, "texts").unwrap_err().to_string().contains("line 3"));
        let tabs = file(&folder, "c.tsv", b"a\tb\n\"x\t5\n");
        let tabs = super::table(&tabs, "texts").unwrap();
        assert_eq!(tabs.rows().next().unwrap().text(0).unwrap(), "\"x");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0usize..4) {
            let folder = tempfile::tempdir().unwrap();
            let mut bytes = bytes;
            match kind {
                0 => bytes.splice(0..0, *b"PK\x03\x04").for_each(drop),
                1 => bytes.splice(0..0, [0x1f, 0x8b, 8]).for_each(drop),
                _ => {}
            }
            let path = file(&folder, "a", &bytes);
            let _ = json::<serde_json::Value>(&path, "x");
            let _ = json_records::<serde_json::Value>(&path, "x");
            let _ = lines(&path, "x");
            let _ = table(&path, "x");
        }

        #[test]
        fn mutated_archives_are_read_without_a_panic(at in any::<prop::sample::Index>(), byte: u8) {
            let folder = tempfile::tempdir().unwrap();
            for mut bytes in [gzipped(b"[1, 2, 3]"), zipped(&[("a.json", b"[1, 2, 3]")])] {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                let _ = json::<serde_json::Value>(&file(&folder, "a", &bytes), "x");
            }
        }
    }
}
