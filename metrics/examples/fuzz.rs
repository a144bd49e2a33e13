//! Throws broken input at the tokeniser, at METEOR and at the readers of predictions and references.
//!
//! `cargo run -p metrics --example fuzz -- SECONDS [tokenizer|meteor|readers|all] [SEED]`
//!
//! Inputs are made from the golden captions and small files of every kind by flipping, cutting, splicing,
//! repeating and inserting. A panic, a result that breaks a promise, an input that takes more than two
//! seconds of processor time or a process that grows past its bound stops the run with the input in
//! `target/fuzz`; a crash leaves it there, too. The same seed gives the same inputs.

#![allow(clippy::unwrap_used)] // what fails here is a finding, or the machine's

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::files::{join, read_predictions, read_references};
use metrics::meteor::{MeteorTables, meteor};
use metrics::ptb::{tokenize_all, tokenize_raw};
use metrics::{Corpus, Error, Options, Video, score, vqa};

/// Longer than this for a few kilobytes is a hang.
const SLOW: Duration = Duration::from_secs(2);

/// No input here is longer, so none can ask for much memory.
const LONGEST: usize = 3000;

/// The process may not grow past this (bytes): tables and caches are some 100 MB of it.
const MOST_MEMORY: u64 = 1 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Tokenizer,
    Meteor,
    Readers,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: fuzz SECONDS [tokenizer|meteor|readers|all] [SEED]";
    let seconds: u64 = arguments.first().and_then(|text| text.parse().ok()).expect(usage);
    let targets = match arguments.get(1).map(String::as_str) {
        None | Some("all") => vec![Target::Tokenizer, Target::Meteor, Target::Readers],
        Some("tokenizer") => vec![Target::Tokenizer],
        Some("meteor") => vec![Target::Meteor],
        Some("readers") => vec![Target::Readers],
        Some(_) => panic!("{usage}"),
    };
    let seed: u64 = arguments.get(2).map_or(1, |text| text.parse().expect(usage));

    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let directory = root.join("target/fuzz").join(format!("seed-{seed}"));
    std::fs::create_dir_all(&directory).unwrap();
    let tables = MeteorTables::find(&[root.join("cache/meteor")]).ok();
    if tables.is_none() {
        eprintln!("no METEOR tables: that target is left out (`make meteor-data` fetches them)");
    }
    // One thread, so that an input's time is its own.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();

    let mut fuzzer = Fuzzer { random: Random(seed), captions: captions(), directory, tables };
    std::thread::spawn(stop_at_a_hang);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut runs = [0_u64; 3];
    let mut slowest = [Duration::ZERO; 3];
    while Instant::now() < end {
        for &target in &targets {
            let spent = fuzzer.step(target);
            runs[target as usize] += 1;
            DONE.fetch_add(1, Ordering::Relaxed);
            slowest[target as usize] = slowest[target as usize].max(spent);
        }
        if runs[targets[0] as usize].is_multiple_of(1000) {
            check_memory();
        }
    }
    check_memory();
    for target in targets {
        let place = target as usize;
        println!(
            "{target:?}: {} inputs without a finding, the slowest took {:?}",
            runs[place], slowest[place]
        );
    }
}

/// Inputs done so far, by which the watch sees that one never ends.
static DONE: AtomicU64 = AtomicU64::new(0);

fn stop_at_a_hang() {
    loop {
        let before = DONE.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(60));
        if DONE.load(Ordering::Relaxed) == before {
            println!("no end after a minute; the newest file in target/fuzz is the input");
            std::process::exit(1);
        }
    }
}

struct Fuzzer {
    random: Random,
    captions: Vec<String>,
    directory: PathBuf,
    tables: Option<MeteorTables>,
}

impl Fuzzer {
    /// One input; the processor time it took.
    fn step(&mut self, target: Target) -> Duration {
        let input = match target {
            Target::Tokenizer | Target::Meteor => {
                let count = 1 + self.random.below(6);
                let lines: Vec<Vec<u8>> = (0..count).map(|_| self.caption()).collect();
                lines.join(&b'\n')
            }
            Target::Readers => self.file(),
        };
        // Written first: should the process die of it, the input is there.
        let path = self.directory.join(format!("{target:?}"));
        std::fs::write(&path, &input).unwrap();

        let begin = processor_time();
        let result = catch_unwind(AssertUnwindSafe(|| match target {
            Target::Tokenizer => tokenizer(&input),
            Target::Meteor => self.tables.as_ref().map_or(Ok(()), |tables| meteor_scores(tables, &input)),
            Target::Readers => readers(&path, input.first().copied().unwrap_or_default()),
        }));
        let spent = processor_time() - begin;
        let broken = match result {
            Ok(Ok(())) if spent > SLOW => format!("it took {spent:?}"),
            Ok(Ok(())) => return spent,
            Ok(Err(broken)) => broken,
            Err(_) => "a panic".to_owned(),
        };
        println!("{target:?}: {broken}; the input is in {}", path.display());
        std::process::exit(1);
    }

    /// A caption of the goldens, broken in a few places.
    fn caption(&mut self) -> Vec<u8> {
        let mut bytes = self.random.pick(&self.captions).clone().into_bytes();
        for _ in 0..self.random.below(6) {
            self.break_once(&mut bytes, &WORDS);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    /// A file of one of the known kinds, broken in a few places; sometimes packed, sometimes broken as
    /// packed.
    fn file(&mut self) -> Vec<u8> {
        let mut bytes = self.random.pick(&FILES).as_bytes().to_vec();
        for _ in 0..self.random.below(8) {
            self.break_once(&mut bytes, &PIECES);
        }
        bytes.truncate(LONGEST);
        if self.random.below(8) == 0 {
            use std::io::Write;
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(&bytes).unwrap();
            bytes = packer.finish().unwrap();
        } else if self.random.below(8) == 0 {
            use std::io::Write;
            let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            archive.start_file("a.json", zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(&bytes).unwrap();
            bytes = archive.finish().unwrap().into_inner();
        } else {
            return bytes;
        }
        for _ in 0..self.random.below(3) {
            self.break_once(&mut bytes, &PIECES);
        }
        bytes
    }

    fn break_once(&mut self, bytes: &mut Vec<u8>, pieces: &[&str]) {
        let random = &mut self.random;
        let place = random.below(bytes.len() + 1);
        let end = (place + random.below(30)).min(bytes.len());
        let piece: Vec<u8> = match random.below(10) {
            0 if place < bytes.len() => {
                bytes[place] ^= 1 << random.below(8);
                return;
            }
            1 => {
                bytes.drain(place..end);
                return;
            }
            2 => {
                bytes.truncate(place);
                return;
            }
            3 => bytes[place..end].to_vec(),
            4 => bytes[place..end].repeat(random.below(60)),
            5 => random.pick(pieces).repeat(random.below(200)).into_bytes(),
            6 => {
                let code = [0x80, 0x800, 0x3000, 0x1_0000, 0x11_0000][random.below(5)];
                let code = random.below(code) as u32;
                char::from_u32(code).unwrap_or('\u{fffd}').to_string().into_bytes()
            }
            7 => self.random.pick(&self.captions).clone().into_bytes(),
            _ => random.pick(pieces).as_bytes().to_vec(),
        };
        bytes.splice(place..place, piece);
    }
}

/// Every caption keeps its place; a line end is refused by name; nothing is in upper case.
fn tokenizer(input: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(input);
    let captions: Vec<&str> = text.split('\n').collect();
    let tokens = match tokenize_all(&captions) {
        Err(Error::LineEnd { .. }) => return Ok(()),
        Err(error) => return Err(error.to_string()),
        Ok(tokens) => tokens,
    };
    let raw = tokenize_raw(&captions).map_err(|error| error.to_string())?;
    if tokens.captions.len() != captions.len() || raw.captions.len() != captions.len() {
        return Err(format!("{} captions became {}", captions.len(), tokens.captions.len()));
    }
    if raw.captions.iter().any(|line| line.contains('\n') || line.contains(|c: char| c.is_ascii_uppercase()))
    {
        return Err("a token with a line end or in upper case".to_owned());
    }
    let _ = vqa::accuracy(captions[0], &captions);
    Ok(())
}

/// Scores are between 0 and 1, and those of a caption against itself are 1 where it has a word.
fn meteor_scores(tables: &MeteorTables, input: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(input);
    let captions: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let video = |id: &str, hypothesis: &str, references: &[String]| Video {
        id: id.to_owned(),
        hypothesis: hypothesis.to_owned(),
        references: references.to_vec(),
    };
    let videos = [
        video("v", &captions[0], &captions[1.min(captions.len() - 1)..]),
        video("w", &captions[0], &captions[..1]),
    ];
    let scores = meteor(tables, &videos);
    for (score, video) in scores.videos.iter().zip(&videos) {
        if !(0.0..=1.0).contains(&score.score()) {
            return Err(format!("{} for {:?}", score.score(), video));
        }
    }
    if (0.0..=1.0).contains(&scores.corpus) { Ok(()) } else { Err(format!("corpus {}", scores.corpus)) }
}

/// What is read as predictions and references joins and scores, or is refused with the file's name.
fn readers(path: &Path, kind: u8) -> Result<(), String> {
    let named = |error: Error| match error.to_string() {
        message if message.contains(&path.display().to_string()) => Ok(()),
        message => Err(format!("a message without the file's name: {message}")),
    };
    let split = kind.is_multiple_of(3).then_some("test");
    let references = match read_references(path, split) {
        Ok(references) => Some(references),
        Err(error) => named(error).map(|()| None)?,
    };
    let predictions = match read_predictions(path) {
        Ok(predictions) => Some(predictions),
        Err(error) => named(error).map(|()| None)?,
    };
    let (predictions, references) = match (predictions, references) {
        (Some(predictions), Some(references)) => (predictions, references),
        (None, Some(references)) => {
            (references.iter().map(|(id, captions)| (id.clone(), captions[0].clone())).collect(), references)
        }
        (Some(predictions), None) => {
            let references =
                predictions.iter().map(|(id, caption)| (id.clone(), vec![caption.clone()])).collect();
            (predictions, references)
        }
        (None, None) => return Ok(()),
    };
    let joined = match join(predictions, references, true) {
        Ok(joined) => joined,
        Err(Error::NothingInCommon { .. }) => return Ok(()),
        Err(error) => return Err(format!("{error:?}")),
    };
    match score(&joined.corpus, &Options::default()) {
        Err(Error::LineEnd { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(scores) if scores.cider.is_finite() && scores.rouge_l.is_finite() => {
            Corpus::new(joined.corpus.videos().to_vec()).map(drop).map_err(|error| error.to_string())
        }
        Ok(scores) => Err(format!("{scores:?}")),
    }
}

/// The captions of the goldens.
fn captions() -> Vec<String> {
    let mut captions: Vec<String> = Vec::new();
    for line in include_str!("../tests/data/ptb_1500.jsonl").lines().skip(1) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        captions.extend(line["in"].as_str().map(str::to_owned));
    }
    for line in include_str!("../tests/data/meteor_400.jsonl").lines().skip(1) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        captions.extend(line["hyp"].as_str().map(str::to_owned));
        captions.extend(line["refs"][0].as_str().map(str::to_owned));
    }
    captions
}

/// Pieces that mean something to the tokeniser or to METEOR.
const WORDS: [&str; 40] = [
    "a ",
    "the man ",
    ".",
    "..",
    "DOTMULTI.",
    "'",
    "n't",
    "'s ",
    "-",
    "--",
    "|||",
    "\u{a0}",
    "\u{ad}",
    "\u{2028}",
    "<a b='",
    "<!",
    ">",
    "http://",
    "@",
    "#",
    "1/2",
    "10,000 ",
    "+1 555 ",
    "etc. ",
    "U.S. ",
    "e.g. ",
    "(",
    ":-)",
    "&amp;",
    "&quot;",
    "\"",
    "`",
    "😀",
    "é",
    "İ",
    "ß",
    "中",
    "\0",
    "\u{feff}",
    "is playing ",
];

/// Pieces that mean something to a reader of JSON, of a table or of a list.
const PIECES: [&str; 40] = [
    "[",
    "]",
    "{",
    "}",
    "[[",
    "{\"a\":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    ",",
    ":",
    "null",
    "true",
    "1e999999",
    "-0",
    "99999999999999999999999999",
    "0.1",
    "\n",
    "\r\n",
    "\t",
    "\u{feff}",
    "\"caption\"",
    "\"image_id\"",
    "\"sentences\"",
    "\"videos\"",
    "\"split\"",
    "\"annotations\"",
    "\"descs\"",
    "\"enCap\"",
    "VideoID",
    "English",
    "\"\"",
    "vid1",
    "video0",
    "\u{1f}\u{8b}",
    "PK",
    "\u{2028}",
    "\r",
    "a dog",
];

/// One small file of each kind.
const FILES: [&str; 11] = [
    r#"[{"image_id": 7, "caption": "a dog"}, {"image_id": "8", "caption": ""}]"#,
    r#"{"images": [{"id": 7}], "annotations": [{"image_id": 7, "id": 1, "caption": "A dog."}, {"image_id": 7, "id": 2, "caption": "a cat"}]}"#,
    r#"{"video0": "a man", "video1": ["a dog"], "video2": [{"caption": "c"}]}"#,
    "{\"image_id\": 1, \"caption\": \"a\"}\n{\"image_id\": 2, \"caption\": \"b\"}\n",
    r#"{"videos": [{"video_id": "video1", "id": 1, "split": "test"}], "sentences": [{"caption": "a", "video_id": "video1", "sen_id": 0}]}"#,
    "vid1\ta man runs\nvid1\ta man\r\n\nvid2\tdogs\n",
    ",VideoID,Start,End,Language,Description\n0,x-_,1,9,English,\"A \"\"b\"\", c\"\n1,x-_,1,9,German,Ein\n",
    "{\"vid_name\": \"v\", \"clip_id\": 3, \"descs\": [{\"desc\": \"a\"}]}\n{\"videoID\": \"w\", \"enCap\": [\"b\"]}",
    r#"{"predictions": [{"video_id": 3, "caption": "x"}]}"#,
    r#"{"vid1": ["a", "b"], "vid2": ["c\nd"]}"#,
    "",
];

/// A small generator, so that a seed gives the same inputs on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// What this process has used of the processor, in steps of 10 ms; where the system doesn't tell, the time on
/// the clock.
fn processor_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let Ok(line) = std::fs::read_to_string("/proc/self/stat") else { return START.elapsed() };
    // Behind the command's name in brackets, user and system time are the 12th and 13th field.
    let ticks = line.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    Duration::from_millis(10 * ticks.map(|field| field.parse::<u64>().unwrap()).sum::<u64>())
}

fn check_memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: u64 = peak.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    if peak * 1024 > MOST_MEMORY {
        println!("the process grew to {peak} kB; the seed and the inputs so far tell where");
        std::process::exit(1);
    }
}
