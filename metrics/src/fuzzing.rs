//! Entry points of the fuzz targets in `fuzz/`: each reads one input and panics where a promise is broken.

use std::path::Path;

use crate::files::{join, read_predictions, read_references};
use crate::meteor::{MeteorTables, meteor, pack_tables};
use crate::ptb::{tokenize_all, tokenize_raw};
use crate::{Error, Options, Video, score, vqa};

/// Captions, one a line: each keeps its place, a line end is refused by name, nothing is in upper case.
pub fn ptb(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let captions: Vec<&str> = text.split('\n').collect();
    let tokens = match tokenize_all(&captions) {
        Err(Error::LineEnd { .. }) => return,
        tokens => tokens.expect("only a line end is refused").captions,
    };
    let raw = tokenize_raw(&captions).expect("tokenized above").captions;
    assert_eq!((tokens.len(), raw.len()), (captions.len(), captions.len()), "captions keep their places");
    for line in &raw {
        let is_whole = |c: char| c != '\n' && !c.is_ascii_uppercase();
        assert!(line.chars().all(is_whole), "a line end or upper case in {line:?}");
    }
    let accuracy = vqa::accuracy(captions[0], &captions);
    assert!((0.0..=1.0).contains(&accuracy), "accuracy {accuracy}");
}

/// Paraphrases (probability, phrase, paraphrase), synsets (lemma, numbers), irregular words (base, forms),
/// function words, and words that keep their period. No text of METEOR's own tables.
const SMALL_TABLES: [&str; 5] = [
    "0.5\na man\na person\n0.5\na person\na man\n0.1\nplays\nis playing\n0.1\nis playing\nplays\n0.2\n\
     is playing\nplays the\n0.2\nthe guitar\na guitar\n0.1\nman\nthe man\n0.1\nman\nman\n",
    "man\n1 2\nperson\n2 3\nguitar\n4\nbig\n5\nlarge\n5 6\nplay\n7\ngoose\n8\nbeauti\n9\n",
    "goose\ngeese\nbe\nis are was\n",
    "a\nthe\nis\n,\n.\n",
    "mr\nno #NUMERIC_ONLY#\nv\n# a comment\n",
];

/// A hypothesis and its references, one a line, with small tables: scores are between 0 and 1.
pub fn meteor_scores(folder: &Path, input: &[u8]) {
    let tables = match MeteorTables::find(&[folder.to_owned()]) {
        Ok(tables) => tables,
        Err(_) => {
            pack_tables(SMALL_TABLES, folder).expect("small tables");
            MeteorTables::find(&[folder.to_owned()]).expect("just written")
        }
    };
    score_lines(&tables, &String::from_utf8_lossy(input));
}

/// Compact tables without their first 72 bytes, which name the version: whatever they hold, captions get
/// scores between 0 and 1, or the tables an error.
pub fn meteor_tables(folder: &Path, input: &[u8]) {
    let folder = folder.join("damaged");
    std::fs::create_dir_all(&folder).expect("a folder");
    crate::meteor::write_damaged(input, &folder).expect("a file");
    match MeteorTables::find(std::slice::from_ref(&folder)) {
        Ok(tables) => {
            score_lines(&tables, "a man is playing the guitar\na person plays a big guitar no. 1\ngeese");
        }
        Err(Error::BadTables { path, .. }) => assert!(path.starts_with(&folder)),
        Err(error) => panic!("{error}"),
    }
}

fn score_lines(tables: &MeteorTables, text: &str) {
    let captions: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let video = |id: &str, references: &[String]| Video {
        id: id.to_owned(),
        hypothesis: captions[0].clone(),
        references: references.to_vec(),
    };
    let scores =
        meteor(tables, &[video("v", &captions[captions.len().min(2) - 1..]), video("w", &captions[..1])]);
    for score in scores.videos.iter().map(|video| video.score()).chain([scores.corpus]) {
        assert!((0.0..=1.0).contains(&score), "score {score} of {captions:?}");
    }
}

/// A file of predictions, of references, or of both: read and scored, or refused with the file's name.
pub fn caption_files(folder: &Path, input: &[u8]) {
    let path = folder.join("captions");
    std::fs::write(&path, input).expect("a file");
    let named = |error: &Error| {
        assert!(error.to_string().contains(&path.display().to_string()), "no file in {error}");
    };
    let split = input.len().is_multiple_of(3).then_some("test");
    let references = read_references(&path, split).inspect_err(named).ok();
    let predictions = read_predictions(&path).inspect_err(named).ok();
    let (predictions, references) = match (predictions, references) {
        (Some(predictions), Some(references)) => (predictions, references),
        (None, Some(references)) => {
            (references.iter().map(|(id, captions)| (id.clone(), captions[0].clone())).collect(), references)
        }
        (Some(predictions), None) => {
            let references = predictions.iter().map(|(id, caption)| (id.clone(), vec![caption.clone()]));
            let references = references.collect();
            (predictions, references)
        }
        (None, None) => return,
    };
    let joined = match join(predictions, references, true) {
        Err(Error::NothingInCommon { .. }) => return,
        joined => joined.expect("ids in common"),
    };
    match score(&joined.corpus, &Options::default()) {
        Err(Error::LineEnd { .. }) => {}
        scores => {
            let scores = scores.expect("a corpus");
            assert!(scores.cider.is_finite() && scores.rouge_l.is_finite(), "{scores:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a target on its committed corpus, which holds what fuzzing once found.
    fn corpus(target: &str, run: impl Fn(&Path, &[u8])) {
        let scratch = tempfile::tempdir().unwrap();
        let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&inputs).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            run(scratch.path(), &std::fs::read(path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{}", inputs.display());
    }

    #[test]
    fn the_corpora_of_the_fuzz_targets_keep_every_promise() {
        corpus("ptb", |_, input| ptb(input));
        corpus("meteor", meteor_scores);
        corpus("meteor_tables", meteor_tables);
        corpus("caption_files", caption_files);
    }
}
