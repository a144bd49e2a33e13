use super::*;
use crate::{Options, Settings};
use data::captioned;
use model::generate::Sample;
use std::collections::HashSet;
use tempfile::TempDir;

/// A small picture of one colour, as a BMP file.
fn picture(colour: u8) -> Vec<u8> {
    const SIDE: u32 = 16;
    let mut bytes = b"BM".to_vec();
    for number in [54 + SIDE * SIDE * 3, 0, 54, 40, SIDE, SIDE, 1 | 24 << 16, 0, SIDE * SIDE * 3, 0, 0, 0, 0]
    {
        bytes.extend(number.to_le_bytes());
    }
    for at in 0..SIDE * SIDE {
        bytes.extend([colour, (at % 256) as u8, colour.wrapping_mul(7)]);
    }
    bytes
}

struct Desk {
    folder: TempDir,
    captioner: Captioner,
}

impl Desk {
    /// Twenty-two rows: pictures, one file that is none, one that is missing, a duplicate, a malformed row.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut list = String::new();
        for at in 0..18u8 {
            std::fs::write(folder.path().join(format!("{at}.bmp")), picture(at * 14)).unwrap();
            list += &format!("{{\"path\":\"{at}.bmp\",\"id\":{at},\"url\":\"u{at}\"}}\n");
        }
        std::fs::write(folder.path().join("broken.bmp"), b"BM and nothing else").unwrap();
        list += "{\"path\":\"broken.bmp\"}\n{\"path\":\"missing.bmp\"}\n{\"path\":\"3.bmp\",\"id\":3}\n[]\n";
        std::fs::write(folder.path().join("list.jsonl"), list).unwrap();
        Self { folder, captioner: captioner(4, None) }
    }

    fn collection(&self) -> Collection {
        Collection::open(&[self.folder.path().join("list.jsonl")]).unwrap()
    }

    fn run(&self, out: &str, change: impl FnOnce(&mut Job<'_>)) -> Result<Progress, CollectionError> {
        let (collection, folder) = (self.collection(), self.folder.path().join(out));
        let mut job = Job {
            captioner: &self.captioner,
            collection: &collection,
            folder: &folder,
            checkpoint: "tiny".to_owned(),
            format: RowFormat::Jsonl,
            rows_per_shard: 8,
            share: Share::ALL,
            retry_failed: false,
            limit: None,
        };
        change(&mut job);
        job.run(|_| {})
    }

    fn folder(&self, out: &str) -> CaptionFolder {
        CaptionFolder::open(&self.folder.path().join(out)).unwrap()
    }

    /// All rows, without the column that differs between runs.
    fn rows(&self, out: &str) -> Vec<CaptionedRow> {
        let folder = self.folder(out);
        let rows =
            (0..folder.run.shards()).flat_map(|shard| captioned::read(&folder.rows_file(shard)).unwrap());
        rows.map(|row| CaptionedRow { seconds: 0.0, ..row }).collect()
    }

    fn names(&self, out: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join(out)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn captioner(batch_size: usize, sample: Option<Sample>) -> Captioner {
    let checkpoint = concat!(env!("CARGO_MANIFEST_DIR"), "/../experiments/checkpoints/tiny");
    let mut settings = Settings::default();
    settings.frames.count = 1;
    settings.generate.max_new_tokens = 6;
    settings.generate.num_beams = 2;
    let captions = if sample.is_some() { 3 } else { 1 };
    let options = Options { settings: Some(settings), batch_size, sample, captions, ..Options::default() };
    Captioner::open(checkpoint, options).unwrap()
}

#[test]
fn every_row_is_there_once_with_captions_or_the_reason() {
    let desk = Desk::new();
    let made = desk.run("out", |_| {}).unwrap();
    assert_eq!(made.done, Counts { ok: 18, failed: 2, duplicate: 1, malformed: 1 });
    assert_eq!(made.total, 22);
    let rows = desk.rows("out");
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!((ids.len(), ids[0], ids[17], ids[18], ids[20]), (22, "0", "17", "broken.bmp", "3"));
    let first = &rows[0];
    assert!(!first.captions[0].is_empty() && first.scores[0] < 0.0 && first.tokens[0] >= 1, "{first:?}");
    assert_eq!((first.frames, first.sha256.as_ref().unwrap().len()), (1, 16));
    assert_eq!(first.extra["url"], "u0");
    let reason = |at: usize| rows[at].error.clone().unwrap();
    assert!(reason(19).contains("missing.bmp") && reason(20).contains("row 3"), "{rows:?}");
    assert!(reason(21).contains("line 22 of list.jsonl"));
    assert_eq!(
        desk.names("out"),
        [
            "00000.jsonl",
            "00000.stats.json",
            "00001.jsonl",
            "00001.stats.json",
            "00002.jsonl",
            "00002.stats.json",
            "run.json"
        ]
    );
    let again = desk.run("out", |_| {}).unwrap();
    assert_eq!((again.total, again.done.total()), (0, 0), "nothing is left to do");
}

#[test]
fn any_split_and_any_stop_give_the_same_rows() {
    let desk = Desk::new();
    desk.run("whole", |_| {}).unwrap();
    for index in [2, 0, 1] {
        desk.run("split", |job| job.share = Share { index, count: 3 }).unwrap();
    }
    assert_eq!(desk.rows("split"), desk.rows("whole"));
    for calls in 1..=6 {
        let made = desk.run("limited", |job| job.limit = Some(4)).unwrap();
        assert!(made.done.total() <= 4, "{made:?}");
        let state = summary(&desk.folder("limited")).unwrap();
        assert_eq!(state.counts.total(), (calls * 4).min(22));
    }
    assert_eq!(desk.rows("limited"), desk.rows("whole"));
}

#[test]
fn samples_depend_on_the_clip_and_not_on_its_place() {
    let desk = Desk { captioner: captioner(4, Some(Sample { seed: 5, ..Sample::default() })), ..Desk::new() };
    desk.run("whole", |_| {}).unwrap();
    let whole = desk.rows("whole");
    let list = std::fs::read_to_string(desk.folder.path().join("list.jsonl")).unwrap();
    let reversed: Vec<&str> = list.lines().take(18).collect::<Vec<_>>().into_iter().rev().collect();
    std::fs::write(desk.folder.path().join("list.jsonl"), reversed.join("\n")).unwrap();
    desk.run("reversed", |_| {}).unwrap();
    let mut rows = desk.rows("reversed");
    rows.reverse();
    let captions = |rows: &[CaptionedRow]| rows.iter().map(|row| row.captions.clone()).collect::<Vec<_>>();
    assert_eq!(captions(&rows), captions(&whole[..18]));
    assert!(whole[..18].iter().flat_map(|row| &row.captions).collect::<HashSet<_>>().len() > 3, "they vary");
}

#[test]
fn a_batch_that_was_cut_short_is_made_again() {
    let desk = Desk::new();
    desk.run("whole", |_| {}).unwrap();
    desk.run("out", |job| job.limit = Some(8)).unwrap();
    // a shard's statistic is written last: without it, the shard is not finished
    std::fs::remove_file(desk.folder.path().join("out/00000.stats.json")).unwrap();
    desk.run("out", |job| job.limit = Some(4)).unwrap();
    let journal = desk.folder.path().join("out/00000.journal");
    let whole = std::fs::read(&journal).unwrap();
    for length in [whole.len() - 1, whole.len() / 2, 1, 0] {
        std::fs::write(&journal, &whole[..length]).unwrap();
        assert_eq!(desk.folder("out").state(0).unwrap(), ShardState::Begun(Counts::default()));
        desk.run("out", |job| job.limit = Some(4)).unwrap();
    }
    desk.run("out", |_| {}).unwrap();
    assert_eq!(desk.rows("out"), desk.rows("whole"));
    assert!(!journal.exists());
}

#[test]
fn rows_that_are_damaged_are_made_again() {
    let desk = Desk::new();
    desk.run("out", |_| {}).unwrap();
    let whole = desk.rows("out");
    std::fs::write(desk.folder.path().join("out/00001.jsonl"), b"").unwrap();
    let made = desk.run("out", |_| {}).unwrap();
    assert_eq!(made.done.total(), 8);
    assert_eq!(desk.rows("out"), whole);
}

#[test]
fn only_what_failed_is_tried_again() {
    for format in [RowFormat::Jsonl, RowFormat::Parquet, RowFormat::Webdataset] {
        let desk = Desk::new();
        let run = |retry| desk.run("out", |job| (job.format, job.retry_failed) = (format, retry)).unwrap();
        run(false);
        std::fs::write(desk.folder.path().join("missing.bmp"), picture(200)).unwrap();
        assert_eq!(run(false).total, 0, "not unless it is asked for");
        let made = run(true);
        assert_eq!(made.done, Counts { ok: 1, failed: 1, ..Counts::default() }, "{format:?}");
        let state = summary(&desk.folder("out")).unwrap();
        assert_eq!(state.counts, Counts { ok: 19, failed: 1, duplicate: 1, malformed: 1 });
        assert_eq!(desk.rows("out").len(), 22);
        assert_eq!(run(true).done, Counts { failed: 1, ..Counts::default() });
    }
}

#[test]
fn other_settings_inputs_and_processes_are_refused() {
    let mut desk = Desk::new();
    desk.run("out", |job| job.limit = Some(4)).unwrap();
    let refused = |desk: &Desk, change: fn(&mut Job<'_>)| desk.run("out", change).unwrap_err().to_string();
    assert!(refused(&desk, |job| job.rows_per_shard = 9).contains("rows_per_shard was 8 and is 9"));
    assert!(refused(&desk, |job| job.checkpoint = "other".to_owned()).contains("checkpoint was"));
    let lock = std::fs::File::open(desk.folder.path().join("out/00000.journal")).unwrap();
    lock.lock().unwrap();
    assert!(refused(&desk, |_| {}).contains("another process is at shard 0"));
    drop(lock);
    desk.captioner = captioner(5, None);
    assert!(refused(&desk, |_| {}).contains("batch_size was 4 and is 5"));
    desk.captioner = captioner(4, Some(Sample::default()));
    assert!(refused(&desk, |_| {}).contains("settings.generate."));
    desk.captioner = captioner(4, None);
    std::fs::write(desk.folder.path().join("list.jsonl"), "{\"path\":\"0.bmp\"}").unwrap();
    assert!(refused(&desk, |_| {}).contains("rows was 22 and is 1"));
}

#[test]
fn merged_rows_are_those_of_all_shards_and_an_unfinished_folder_is_refused() {
    let desk = Desk::new();
    let merge = |name: &str| merge(&desk.folder("out"), &desk.folder.path().join(name));
    desk.run("out", |job| job.limit = Some(4)).unwrap();
    let unfinished = merge("all.jsonl").unwrap_err().to_string();
    assert!(unfinished.contains("3 of 3 shards are not finished"), "{unfinished}");
    desk.run("out", |_| {}).unwrap();
    for name in ["all.jsonl", "all.parquet"] {
        assert_eq!(merge(name).unwrap().total(), 22);
        let rows = captioned::read(&desk.folder.path().join(name)).unwrap();
        let rows: Vec<_> = rows.into_iter().map(|row| CaptionedRow { seconds: 0.0, ..row }).collect();
        assert_eq!(rows, desk.rows("out"), "{name}");
    }
    assert!(merge("all.tar").unwrap_err().to_string().contains(".jsonl or .parquet"));
}

#[test]
fn a_member_of_a_shard_has_the_captions_of_its_file() {
    let desk = Desk::new();
    desk.run("out", |job| job.format = RowFormat::Webdataset).unwrap();
    let shard = desk.folder.path().join("out/00000.tar");
    let inputs = Collection::open(&[shard]).unwrap();
    assert_eq!(inputs.len(), 8);
    desk.run("again", |job| job.collection = Box::leak(Box::new(inputs))).unwrap();
    let (before, after) = (desk.rows("out"), desk.rows("again"));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.captions, &before.sha256), (&after.captions, &after.sha256));
        assert_eq!(after.extra["txt"], before.captions[0].as_str());
        assert!(after.path.contains("00000.tar/"), "{}", after.path);
    }
}
