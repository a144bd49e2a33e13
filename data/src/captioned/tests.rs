use super::*;
use serde_json::json;
use std::collections::HashSet;

fn rows(folder: &Path) -> Vec<(CaptionedRow, Option<Place>)> {
    let clip = folder.join("a b.MP4");
    std::fs::write(&clip, b"video").unwrap();
    let extra =
        json!({ "url": "u", "n": 3, "captions": ["old"], "a.b c": true }).as_object().unwrap().clone();
    let shown = clip.to_string_lossy().into_owned();
    let mut done = CaptionedRow::new("a".into(), shown, extra, Status::Ok);
    done.captions = vec!["a dog \"runs\"\n".into(), "é".into()];
    (done.scores, done.log_probabilities) = (vec![-0.25, -1.5], vec![-1.0, -3.000_000_2]);
    (done.tokens, done.frames, done.seconds) = (vec![4, 2], 8, 0.125);
    done.sha256 = Some("0123456789abcdef".into());
    let mut failed = CaptionedRow::new("b".into(), "b.mp4".into(), Map::new(), Status::Failed);
    failed.error = Some("cannot decode".into());
    vec![(done, Some(Place::File(clip))), (failed, None)]
}

/// Parquet has other columns as texts.
fn as_texts(mut row: CaptionedRow) -> CaptionedRow {
    for value in row.extra.values_mut() {
        if !value.is_string() {
            *value = Value::String(value.to_string());
        }
    }
    row
}

#[test]
fn every_format_gives_back_the_rows_that_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(folder.path());
    let plain: Vec<CaptionedRow> = rows.iter().map(|(row, _)| row.clone()).collect();
    assert_eq!(plain[0].extra["input.captions"], json!(["old"]));
    for format in [RowFormat::Jsonl, RowFormat::Parquet, RowFormat::Webdataset] {
        let path = folder.path().join(format!("out/00000.{}", format.extension()));
        write(&path, format, &rows).unwrap();
        let expected = match format {
            RowFormat::Parquet => plain.iter().cloned().map(as_texts).collect(),
            _ => plain.clone(),
        };
        assert_eq!(read(&path).unwrap(), expected, "{format:?}");
        write(&path, format, &[]).unwrap();
        assert_eq!(read(&path).unwrap(), [], "{format:?}");
    }
}

#[test]
fn a_shard_has_the_clips_with_their_captions_for_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00007.tar");
    write(&path, RowFormat::Webdataset, &rows(folder.path())).unwrap();
    let mut archive = tar::Archive::new(File::open(&path).unwrap());
    let names: Vec<String> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names, ["0000700000.mp4", "0000700000.txt", "0000700000.json", "0000700001.json"]);
}

#[test]
fn damaged_files_are_errors_that_name_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let message = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        read(&path).unwrap_err().to_string()
    };
    assert!(message("a.jsonl", b"{\"id\": 1}\n").contains("line 1"));
    assert!(message("a.parquet", b"PAR1").contains("a.parquet"));
    assert!(message("a.csv", b"").contains(".jsonl, .parquet or .tar"));
    let gone = Place::File(folder.path().join("gone.mp4"));
    let mut gone_rows = rows(folder.path());
    gone_rows[0].1 = Some(gone);
    let error = write(&folder.path().join("x.tar"), RowFormat::Webdataset, &gone_rows).unwrap_err();
    assert!(error.to_string().contains("gone.mp4"), "{error}");
    assert!(!folder.path().join("x.tar").exists(), "no partial file");
}

#[test]
fn columns_are_those_of_a_row() {
    let row = serde_json::to_value(CaptionedRow::new(String::new(), String::new(), Map::new(), Status::Ok));
    let names: HashSet<String> = row.unwrap().as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, CaptionedRow::COLUMNS.map(str::to_owned).into());
    for status in Status::ALL {
        assert_eq!(serde_json::to_value(status).unwrap(), status.name());
    }
}
