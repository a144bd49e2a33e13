use super::*;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use std::io::Write;
use std::sync::Arc;
use tempfile::TempDir;

fn file(folder: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path
}

fn open(inputs: &[PathBuf]) -> Collection {
    Collection::open(inputs).unwrap()
}

fn rows(collection: &Collection) -> Vec<Row> {
    collection.read(0..collection.len()).unwrap()
}

fn ids(collection: &Collection) -> Vec<String> {
    rows(collection).into_iter().map(|row| row.id).collect()
}

fn refused(content: &[u8], name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    Collection::open(&[file(&folder, name, content)]).unwrap_err().to_string()
}

#[test]
fn lines_are_paths_beside_the_list_whatever_ends_them() {
    let folder = tempfile::tempdir().unwrap();
    let list = file(&folder, "sub/list.txt", b"\xef\xbb\xbfa.mp4\r\n\n  b c.mp4 \n/abs/\xff.mp4\n/abs/d.mp4");
    let rows = rows(&open(&[list]));
    let path = |row: &Row| match &row.place {
        Ok(Place::File(path)) => path.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(rows.len(), 4);
    assert_eq!((rows[0].id.as_str(), path(&rows[0])), ("a.mp4", folder.path().join("sub/a.mp4")));
    assert_eq!(path(&rows[1]), folder.path().join("sub/b c.mp4"));
    assert_eq!(path(&rows[3]), Path::new("/abs/d.mp4"));
    assert_eq!(rows[2].id, "list.txt:4");
    let reason = rows[2].place.clone().unwrap_err();
    assert!(reason.contains("line 4 of list.txt") && reason.contains("UTF-8"), "{reason}");
}

#[test]
fn columns_of_a_table_are_kept_and_a_row_with_another_number_of_fields_is_malformed() {
    let folder = tempfile::tempdir().unwrap();
    let text = b"id,path,note\n7,a.mp4,\"two\nlines, and a comma\"\n,b.mp4,\nx,c.mp4\n8,,none\n9,e.mp4,x\n";
    let rows = rows(&open(&[file(&folder, "list.csv", text)]));
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["7", "b.mp4", "list.csv:5", "list.csv:6", "9"]);
    assert_eq!(rows[0].extra["note"], "two\nlines, and a comma");
    assert!(rows[2].place.clone().unwrap_err().contains("has 2 fields, the header has 3"));
    assert!(rows[3].place.clone().unwrap_err().contains("expected a text as path"));
    let tabs = open(&[file(&folder, "list.tsv", b"path\tn\na.mp4\t1\n")]);
    assert_eq!(self::rows(&tabs)[0].extra["n"], "1");
}

#[test]
fn json_lines_have_ids_of_text_or_number() {
    let folder = tempfile::tempdir().unwrap();
    let text = b"{\"path\":\"a.mp4\",\"id\":3,\"url\":\"u\"}\n[1]\n{\"path\":\"b.mp4\"}\n{\"id\":1}\n{\n";
    let rows = rows(&open(&[file(&folder, "list.jsonl", text)]));
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["3", "list.jsonl:2", "b.mp4", "list.jsonl:4", "list.jsonl:5"]);
    assert_eq!(rows[0].extra["url"], "u");
    assert!(rows[3].place.clone().unwrap_err().contains("has no path"));
    assert!(rows[4].place.clone().unwrap_err().contains("is not JSON"));
}

fn parquet(path: &Path, groups: &[&[(&str, i64)]]) {
    let schema = "message list { required binary path (STRING); required int64 id; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer =
        SerializedFileWriter::new(std::fs::File::create(path).unwrap(), schema, properties).unwrap();
    for group in groups {
        let mut columns = writer.next_row_group().unwrap();
        let paths: Vec<ByteArray> = group.iter().map(|(path, _)| ByteArray::from(*path)).collect();
        let mut column = columns.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&paths, None, None).unwrap();
        column.close().unwrap();
        let ids: Vec<i64> = group.iter().map(|(_, id)| *id).collect();
        let mut column = columns.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        columns.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn a_parquet_list_is_read_across_its_row_groups() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.parquet");
    parquet(&path, &[&[("a.mp4", 1), ("b.mp4", 2)], &[("", 3)], &[("d.mp4", 4), ("e.mp4", 5)]]);
    let collection = open(&[path]);
    assert_eq!(ids(&collection), ["1", "2", "list.parquet:3", "4", "5"]);
    let middle = collection.read(1..4).unwrap();
    assert_eq!(middle.iter().map(|row| row.index).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(middle[2].place, Ok(Place::File(folder.path().join("d.mp4"))));
}

#[cfg(unix)]
#[test]
fn a_folder_is_searched_in_order_and_a_loop_of_links_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b/2.MP4", "b/1.webm", "a.gif", "notes.txt", "b/deep/er/still/down/3.mkv"] {
        file(&folder, name, b"x");
    }
    std::os::unix::fs::symlink(folder.path(), folder.path().join("b/loop")).unwrap();
    let collection = open(&[folder.path().to_owned()]);
    assert_eq!(ids(&collection), ["a.gif", "b/1.webm", "b/2.MP4", "b/deep/er/still/down/3.mkv"]);
    assert_eq!(collection.problems.len(), 1);
    assert!(collection.problems[0].contains("b/loop"), "{:?}", collection.problems);
    let two = open(&[folder.path().join("b/deep"), folder.path().join("a.gif")]);
    assert!(ids(&two)[0].ends_with("b/deep/er/still/down/3.mkv"), "other inputs may have the same names");
}

fn tar(path: &Path, members: &[(&str, &[u8])]) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.finish().unwrap();
}

#[test]
fn a_shards_clips_are_found_by_their_keys_with_what_is_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.tar");
    let json: &[u8] = b"{\"url\":\"u\"}";
    tar(
        &path,
        &[
            ("1.txt", b" a dog "),
            ("1.mp4", b"video"),
            ("._1.mp4", b"mac"),
            ("1.json", json),
            ("d/2.webm", b"w"),
        ],
    );
    let collection = open(std::slice::from_ref(&path));
    let rows = rows(&collection);
    assert_eq!(ids(&collection), ["1", "d/2"]);
    assert_eq!((&rows[0].extra["url"], &rows[0].extra["txt"]), (&Value::from("u"), &Value::from("a dog")));
    let Ok(Place::Member { offset, length, .. }) = rows[0].place else { panic!("{:?}", rows[0]) };
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(&bytes[offset as usize..(offset + length) as usize], b"video");
    std::fs::write(&path, &bytes[..bytes.len() - 1536]).unwrap();
    let cut = open(&[path]);
    assert!(cut.len() == 1 || !cut.problems.is_empty(), "{cut:?}");
}

#[test]
fn the_second_clip_of_an_id_is_a_duplicate_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let one = file(&folder, "one.txt", b"a.mp4\nb.mp4\na.mp4\n");
    let two = file(&folder, "two.jsonl", b"{\"path\":\"c.mp4\",\"id\":\"b.mp4\"}\n{\"path\":\"d.mp4\"}\n");
    let collection = open(&[one, two]);
    assert_eq!((collection.len(), collection.duplicates()), (5, 2));
    let found: Vec<Option<usize>> = (0..5).map(|row| collection.duplicate_of(row)).collect();
    assert_eq!(found, [None, None, Some(0), Some(1), None]);
}

#[test]
fn duplicates_are_found_far_apart() {
    let mut ids = Ids::default();
    let number = |at: usize| at % (Ids::PART * 2 + 5);
    (0..Ids::PART * 2 + 8).for_each(|at| ids.push(&number(at).to_string()));
    let (_, twice) = ids.finish();
    assert_eq!(twice, ["0", "1", "2"].map(hash).into());
}

#[test]
fn what_is_no_list_is_refused_with_what_was_expected() {
    assert!(refused(b"name,id\nx,1\n", "list.csv").contains("expected a column path"));
    assert!(refused(b"path,path\nx,1\n", "list.csv").contains("the column path twice"));
    assert!(refused(b"\xff\xfea\0", "list.txt").contains("save it as UTF-8"));
    assert!(refused(b"PAR1", "list.parquet").contains("list.parquet"));
    assert!(refused(b"\x1f\x8b\x08", "x.tar").contains("gunzip"));
    let missing = Collection::open(&[PathBuf::from("/nowhere/x")]).unwrap_err().to_string();
    assert!(missing.contains("/nowhere/x") && missing.contains(".parquet"), "{missing}");
}

#[test]
fn a_digest_is_that_of_the_ids_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let digest = |text: &[u8]| open(&[file(&folder, "list.txt", text)]).digest().to_owned();
    assert_eq!(digest(b"a\nb\n"), digest(b"\na\r\nb"));
    assert_ne!(digest(b"a\nb\n"), digest(b"b\na\n"));
    assert_ne!(digest(b"a\nb\n"), digest(b"a\nb\nc\n"));
}

#[test]
fn a_list_that_became_shorter_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "list.txt", b"a\nb\nc\n");
    let collection = open(std::slice::from_ref(&path));
    std::fs::write(&path, b"a\n").unwrap();
    assert!(collection.read(0..3).unwrap_err().to_string().contains("fewer than the 3 rows"));
}

proptest! {
    /// Whatever a list contains, parts of it are parts of the whole.
    #[test]
    fn any_part_of_any_list_is_that_part_of_the_whole(
        lines in prop::collection::vec("[a-z\",{}\u{e9} ]{0,6}", 1..700),
        kind in 0usize..3,
        part in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (name, head) = [("l.txt", ""), ("l.csv", "path,id\n"), ("l.jsonl", "")][kind];
        let path = folder.path().join(name);
        let mut list = std::fs::File::create(&path).unwrap();
        write!(list, "{head}{}", lines.join("\n")).unwrap();
        let collection = open(&[path]);
        let all = rows(&collection);
        prop_assert_eq!(all.len(), collection.len());
        if !all.is_empty() {
            let (a, b) = (part.0.index(all.len()), part.1.index(all.len()));
            let (start, end) = (a.min(b), a.max(b) + 1);
            prop_assert_eq!(collection.read(start..end).unwrap(), all[start..end].to_vec());
        }
    }
}
