//! The small files of a checkpoint: tokenizers, and settings of other programs.

use std::path::{Path, PathBuf};

use ::data::text::has_tokenizer;
use anyhow::{Context as _, bail};
use captioner::QFORMER_TOKENIZER;
use model::checkpoint::{GENERATION_CONFIG_FILE, Role, stand_in};
use serde_json::{Value, json};

/// Files of a tokenizer in any layout.
const TOKENIZER: [&str; 9] = [
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// Other small files.
const SETTINGS: [&str; 3] = [GENERATION_CONFIG_FILE, "preprocessor_config.json", "processor_config.json"];

/// Small files of the sources of a checkpoint, in memory.
#[derive(Debug)]
pub(super) struct SmallFiles {
    /// The directory with the language model's tokenizer.
    pub(super) tokenizer: Option<PathBuf>,
    /// By their path in the checkpoint.
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl SmallFiles {
    /// Whether a checkpoint's file of this path is one of them.
    pub(super) fn contain(path: &str) -> bool {
        match path.split_once('/') {
            Some((folder, name)) => folder == QFORMER_TOKENIZER && TOKENIZER.contains(&name),
            None => TOKENIZER.contains(&path) || SETTINGS.contains(&path),
        }
    }

    /// Reads the files of the directories among the sources: each tokenizer from the first directory that has
    /// one, the language model's directories first.
    pub(super) fn read(sources: &[(Role, PathBuf)]) -> anyhow::Result<Self> {
        let of_role = |wanted: Role| {
            sources.iter().filter(move |(role, path)| *role == wanted && path.is_dir()).map(|(_, path)| path)
        };
        let directories: Vec<&PathBuf> = of_role(Role::LanguageModel).chain(of_role(Role::Whole)).collect();
        let tokenizer = directories.iter().find(|path| has_tokenizer(path)).map(|path| (*path).clone());
        let mut files = Self { tokenizer, files: Vec::new() };
        if let Some(folder) = files.tokenizer.clone() {
            files.add(&folder, Path::new(""), &TOKENIZER)?;
        }
        for name in SETTINGS {
            if let Some(folder) = directories.iter().find(|path| path.join(name).is_file()) {
                files.add(folder, Path::new(""), &[name])?;
            }
        }
        let with_qformer = of_role(Role::QFormer).chain(directories.iter().copied());
        let folder = with_qformer.map(|path| path.join(QFORMER_TOKENIZER)).find(|path| has_tokenizer(path));
        if let Some(folder) = folder {
            files.add(&folder, Path::new(QFORMER_TOKENIZER), &TOKENIZER)?;
        }
        Ok(files)
    }

    fn add(&mut self, from: &Path, to: &Path, names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            let path = from.join(name);
            if !path.is_file() {
                continue;
            }
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if let Some(reason) = stand_in(&bytes) {
                bail!("{reason}: {}", path.display());
            }
            self.files.push((to.join(name), bytes));
        }
        Ok(())
    }

    /// Whether the Q-Former's tokenizer is among them.
    pub(super) fn has_qformer_tokenizer(&self) -> bool {
        self.files.iter().any(|(path, _)| path.starts_with(QFORMER_TOKENIZER))
    }

    /// Sets the end token of generation, where a file sets one: that file has precedence over `config.json`.
    pub(super) fn set_end_token(&mut self, end: Option<u32>) -> anyhow::Result<()> {
        let own = self.files.iter_mut().find(|(path, _)| path == Path::new(GENERATION_CONFIG_FILE));
        let Some((path, bytes)) = own else { return Ok(()) };
        let damaged = || format!("not readable as JSON: {}", path.display());
        let mut settings: Value = serde_json::from_slice(bytes).with_context(damaged)?;
        let keys = settings.as_object_mut().with_context(damaged)?;
        keys.insert("eos_token_id".to_owned(), json!(end));
        *bytes = serde_json::to_vec_pretty(&settings)?;
        Ok(())
    }

    /// Their paths in the checkpoint.
    pub(super) fn names(&self) -> Vec<String> {
        self.files.iter().map(|(path, _)| path.display().to_string()).collect()
    }

    /// Writes them into a checkpoint; each file is complete or absent.
    pub(super) fn write(&self, out: &Path) -> anyhow::Result<()> {
        for (path, bytes) in &self.files {
            train::files::replace(&out.join(path), bytes)?;
        }
        Ok(())
    }
}
