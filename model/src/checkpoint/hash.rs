//! The identity of a checkpoint: a hash of its content.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::CheckpointError;
use super::base::{BASE_FILE, Base};

/// File in a checkpoint with the settings that it was trained and evaluated with.
pub const SETTINGS_FILE: &str = "recap.toml";
/// Folder of the Q-Former's tokenizer (InstructBLIP).
pub const QFORMER_TOKENIZER: &str = "qformer_tokenizer";
/// Files that record how a checkpoint was made. They are no part of [`weights_hash`].
const RECORDS: [&str; 3] = [SETTINGS_FILE, "provenance.json", "pretraining.json"];

/// Hash of a checkpoint's files: weights, sizes, tokenizers. Records of how it was made do not count. Where
/// it has trained tensors only, the hash of its base counts, and not the base's place.
///
/// # Errors
/// If a file cannot be read.
pub fn weights_hash(directory: &Path) -> Result<String, CheckpointError> {
    let base = Base::of(directory)?;
    hash_files(directory, base.as_ref()).map_err(|source| CheckpointError::Io {
        action: "read the checkpoint",
        source,
        path: directory.to_owned(),
    })
}

fn hash_files(directory: &Path, base: Option<&Base>) -> std::io::Result<String> {
    let mut names = names_of_files(directory)?;
    names.retain(|name| !RECORDS.iter().any(|record| name == record));
    if directory.join(QFORMER_TOKENIZER).is_dir() {
        let own = names_of_files(&directory.join(QFORMER_TOKENIZER))?;
        names.extend(own.into_iter().map(|name| Path::new(QFORMER_TOKENIZER).join(name).into_os_string()));
    }
    names.sort();
    let mut hash = Sha256::new();
    let mut part = vec![0; 1 << 18];
    for name in names {
        hash.update(name.as_encoded_bytes());
        if let Some(Base { weights_hash, types, .. }) = base
            && name == BASE_FILE
        {
            hash.update(format!("{weights_hash} {types:?}"));
            continue;
        }
        let mut file = File::open(directory.join(&name))?;
        hash.update(file.metadata()?.len().to_le_bytes());
        loop {
            match file.read(&mut part)? {
                0 => break,
                read => hash.update(&part[..read]),
            }
        }
    }
    Ok(hex(&hash.finalize()))
}

/// The first 16 hexadecimal digits of a digest.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn names_of_files(directory: &Path) -> std::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.path().is_file() {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}
