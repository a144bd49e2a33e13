//! Entry points of the fuzz targets in `fuzz/`: each reads one input and panics where a promise is broken.

pub use crate::video::fuzzing::{bitstreams, containers, images};

use crate::Result;
use crate::datasets::{
    Annotations, images as image_sets, msrvtt, msvd, own, pairs, questions, skip, splits, vatex,
};
use crate::text::Tokenizer;
use std::path::Path;

type Reader = fn(&[&Path]) -> Result<Annotations>;

/// A file of annotations, read as each data set's: clips with an id each, or an error that names the file.
pub fn annotations(folder: &Path, input: &[u8]) {
    // The name tells the split of the formats that do not.
    let path = folder.join("train.json");
    std::fs::write(&path, input).expect("a file");
    let files = [path.as_path()];
    let read: [Reader; 11] = [
        msrvtt::read,
        |files| msvd::read_corpus(files, None),
        |files| msvd::read_corpus(files, files.first().copied()),
        |files| msvd::read_sentences(files, None),
        |files| vatex::read(files, None),
        |files| vatex::read(files, files.first().copied()),
        questions::read_msrvtt,
        |files| questions::read_msvd(files, None),
        image_sets::read_coco,
        |files| image_sets::read_flickr8k(files[0], files),
        |files| own::read(files[0]),
    ];
    for read in read {
        match read(&files) {
            Ok(annotations) => {
                let mut ids: Vec<&str> = annotations.clips.iter().map(|clip| clip.id.as_str()).collect();
                ids.sort_unstable();
                assert!(!ids.is_empty() && ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
            }
            Err(error) => named(&error.to_string(), "train.json"),
        }
    }
    for error in [
        msvd::Mapping::read(&path).err(),
        splits::read_ids(&path).err(),
        skip::SkipList::read(&path).err(),
        pairs::load_table(&path, folder).err(),
    ] {
        error.inspect(|error| named(&error.to_string(), "train.json"));
    }
}

/// A webdataset shard: pairs with images that can be read, or an error that names it.
pub fn webdataset(folder: &Path, input: &[u8]) {
    let path = folder.join("shard.tar");
    std::fs::write(&path, input).expect("a file");
    match pairs::load(&[path]) {
        Ok(set) => {
            for pair in &set.pairs {
                let image = set.image_bytes(pair).expect("the image of a pair");
                assert!(image.len() <= input.len(), "an image of {} bytes", image.len());
                assert!(!pair.id.is_empty(), "a pair without a name");
            }
        }
        Err(error) => named(&error.to_string(), "shard.tar"),
    }
}

/// A sentencepiece model, used on a few texts.
pub fn sentencepiece(folder: &Path, input: &[u8]) {
    let path = folder.join("tokenizer.model");
    std::fs::write(&path, input).expect("a file");
    tokenize(&path, "tokenizer.model");
}

/// A `tokenizer.json`, a `vocab.txt`, or a `vocab.json` and, behind a zero byte, its `merges.txt`.
pub fn tokenizers(folder: &Path, input: &[u8]) {
    let (first, second) = match input.iter().position(|&byte| byte == 0) {
        Some(place) => (&input[..place], &input[place + 1..]),
        None => (input, &b""[..]),
    };
    for name in ["tokenizer.json", "vocab.json", "vocab.txt"] {
        std::fs::write(folder.join(name), first).expect("a file");
    }
    std::fs::write(folder.join("merges.txt"), second).expect("a file");
    tokenize(&folder.join("tokenizer.json"), "tokenizer.json");
    tokenize(&folder.join("vocab.txt"), "vocab.txt");
    // A fault of either is named.
    let is_found = Tokenizer::open(&folder.join("vocab.json")).map(|_| ()).is_err_and(|error| {
        let message = error.to_string();
        assert!(message.contains("vocab.json") || message.contains("merges.txt"), "no file in {message}");
        true
    });
    if !is_found {
        tokenize(&folder.join("vocab.json"), "vocab.json");
    }
}

fn tokenize(path: &Path, name: &str) {
    let tokenizer = match Tokenizer::open(path) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return named(&error.to_string(), name),
    };
    for text in ["a man is playing, é 中 😀", "", "  A\tB\n", "<pad></s>[SEP]"] {
        let _ = tokenizer.encode_as_published(text, 9); // an error where the tables are broken
        let _ = tokenizer.target(text, 9);
        if let Ok(ids) = tokenizer.encode(text, 9) {
            assert!(ids.len() <= 9 && ids.contains(&tokenizer.end()), "{ids:?} without its end");
            let size = tokenizer.vocabulary_size();
            assert!(ids.iter().all(|&id| (id as usize) < size), "{ids:?} of {size} ids");
            let _ = tokenizer.decode(&ids);
        }
    }
    let _ = tokenizer.decode(&[0, 1, 2, 3, u32::MAX]);
}

fn named(message: &str, file: &str) {
    assert!(message.contains(file), "no file in {message}");
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
        corpus("annotations", annotations);
        corpus("bitstreams", |_, input| bitstreams(input));
        corpus("containers", containers);
        corpus("images", images);
        corpus("sentencepiece", sentencepiece);
        corpus("tokenizers", tokenizers);
        corpus("webdataset", webdataset);
    }
}
