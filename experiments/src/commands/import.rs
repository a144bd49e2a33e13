//! `experiments import` and `experiments export`: checkpoints from and for other programs.

use std::path::{Path, PathBuf};

use ::data::text::Tokenizer;
use anyhow::{Context as _, bail, ensure};
use burn::tensor::Device;
use captioner::QFORMER_TOKENIZER;
use captioner::checkpoint::{open_qformer_tokenizer, open_tokenizer};
use clap::Args;
use hf_hub::api::sync::ApiBuilder;
use model::checkpoint::layout::Layout;
use model::checkpoint::{
    self, ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILES, Base, CONFIG_FILE, Parts, Precision, Role,
};
use model::layers::Activation;
use model::lm::LanguageModelConfig;
use model::presets::Preset;
use model::{Blip2Config, Fusion};

use super::options::CheckpointOption;
use super::small_files::SmallFiles;
use crate::text::thousands;

/// Arguments of `import`.
#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// A whole checkpoint, or the parts that no other option names: a Hugging Face directory or hub name,
    /// .pth, .safetensors, .onnx
    #[arg(value_name = "SRC")]
    source: Option<String>,
    /// File or directory with the ViT
    #[arg(long, value_name = "F")]
    vision: Option<String>,
    /// File or directory with Q-Former, queries and projection
    #[arg(long, value_name = "F")]
    qformer: Option<String>,
    /// File or directory with the language model; may be given twice, for an encoder and a decoder in two
    /// files
    #[arg(long, value_name = "F")]
    language_model: Vec<String>,
    /// Sizes of the model, as a Hugging Face Blip2 config.json; by default those of the published model of
    /// that name
    #[arg(long, value_name = "CONFIG.json")]
    config: Option<PathBuf>,
    /// Folder of the new checkpoint
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print every tensor that was skipped, and the reason
    #[arg(long)]
    verbose: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &ImportArguments) -> anyhow::Result<()> {
    let ImportArguments { source, vision, qformer, language_model, .. } = arguments;
    let given = [
        (Role::Whole, source.as_slice()),
        (Role::Vision, vision.as_slice()),
        (Role::QFormer, qformer.as_slice()),
        (Role::LanguageModel, language_model.as_slice()),
    ];
    let given =
        given.into_iter().flat_map(|(role, sources)| sources.iter().map(move |source| (role, source)));
    let sources =
        given.map(|(role, source)| Ok((role, find(source)?))).collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(
        !sources.is_empty(),
        "nothing to import: give a checkpoint, or parts with --vision, --qformer, --language-model"
    );
    let borrowed: Vec<(Role, &Path)> = sources.iter().map(|(role, path)| (*role, path.as_path())).collect();
    let parts = Parts::open(&borrowed)?;
    let words = source.iter().chain(qformer).chain(language_model);
    let mut small = SmallFiles::read(&sources)?;
    let tokenizer = small.tokenizer.as_deref().map(Tokenizer::open).transpose()?;
    let mut config = configure(arguments.config.as_deref(), &sources, words, &parts)?;
    if parts.layouts().contains(&Layout::Lavis) {
        compute_as_lavis(&mut config, tokenizer.as_ref(), &mut small)?;
    }
    let imported = checkpoint::import(parts, &config, &arguments.out)?;
    small.write(&arguments.out)?;
    copy_adapter(&sources, &arguments.out)?;
    if tokenizer.is_some() {
        open_tokenizer(&arguments.out, &config)?;
    }
    let reads_text = config.qformer_config.reads_text;
    if reads_text && small.has_qformer_tokenizer() {
        open_qformer_tokenizer(&arguments.out, &config)?;
    }
    let names = small.names();
    println!(
        "{}: {} tensors, {} parameters{}",
        arguments.out.display(),
        imported.tensors,
        thousands(imported.parameters),
        if names.is_empty() { String::new() } else { format!(", {}", names.join(", ")) },
    );
    if !imported.left_out.is_empty() {
        let all = imported.left_out.len();
        println!("{all} tensors of the sources were skipped");
        let shown = if arguments.verbose { all } else { 3 };
        imported.left_out.iter().take(shown).for_each(|line| println!("  {line}"));
        if all > shown {
            println!("  ... (--verbose prints all)");
        }
    }
    let out = arguments.out.display();
    if tokenizer.is_none() {
        println!("the sources have no tokenizer; put the language model's into {out}");
    }
    if reads_text && !small.has_qformer_tokenizer() {
        println!(
            "the sources have no tokenizer of the Q-Former, which reads prompts: put BERT's into {out}/{QFORMER_TOKENIZER}"
        );
    }
    Ok(())
}

/// A path, or a repository of the hub, which is downloaded to the cache of Hugging Face's programs.
fn find(source: &str) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(source);
    if path.exists() {
        return Ok(path);
    }
    let is_repository = source.split('/').count() == 2
        && source.split('/').all(|word| !word.is_empty() && !word.starts_with('.'))
        && path.extension().is_none_or(|extension| {
            !["pth", "pt", "bin", "safetensors", "onnx"].iter().any(|known| extension == *known)
        });
    ensure!(is_repository, "{source} does not exist, and is not the name of a repository (OWNER/NAME)");
    download(source).with_context(|| {
        format!("cannot download {source} from the Hugging Face hub; download it another way and give the directory's path")
    })
}

/// Downloads the files of a checkpoint from a repository; files in the cache are not downloaded again.
fn download(name: &str) -> anyhow::Result<PathBuf> {
    let api = ApiBuilder::from_env().with_progress(true).build()?;
    let repository = api.model(name.to_owned());
    let info = repository.info()?;
    let files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
    let has_safetensors = files.iter().any(|file| !file.contains('/') && file.ends_with(".safetensors"));
    let (start, end) = if has_safetensors { ("", ".safetensors") } else { ("pytorch_model", ".bin") };
    let is_weights =
        |file: &str| file.starts_with(start) && file.trim_end_matches(".index.json").ends_with(end);
    let mut directory = None;
    for file in &files {
        let is_inside = file.contains('/');
        let is_wanted = !is_inside && (is_weights(file) || file == CONFIG_FILE);
        if is_wanted || SmallFiles::contain(file) {
            let path = repository.get(file)?;
            if !is_inside {
                directory = path.parent().map(Path::to_owned);
            }
        }
    }
    directory.with_context(|| format!("{name} holds no checkpoint"))
}

/// The sizes: from `--config`, a directory's `config.json`, or the published model that a name implies; the
/// language model's from its own `config.json` where it comes alone; the image size from the ViT's positions.
fn configure<'a>(
    given: Option<&Path>,
    sources: &[(Role, PathBuf)],
    mut words: impl Iterator<Item = &'a String>,
    parts: &Parts,
) -> anyhow::Result<Blip2Config> {
    let directory_of = |wanted: Role| {
        let configured =
            |(role, path): &&(Role, PathBuf)| *role == wanted && path.join(CONFIG_FILE).is_file();
        sources.iter().find(configured).map(|(_, path)| path)
    };
    let preset = words.find_map(|word| Preset::from_name(word));
    let mut config = match (given, directory_of(Role::Whole), preset) {
        (Some(path), ..) => checkpoint::load_config_file(path)?,
        (None, Some(directory), _) => checkpoint::load_config(directory)?,
        (None, None, Some(preset)) => preset.config(),
        (None, None, None) => {
            let known: Vec<&str> = Preset::ALL.iter().map(|preset| preset.name()).collect();
            bail!(
                "the sizes of these weights are unknown; give --config CONFIG.json, or name a file after one of {}",
                known.join(", ")
            )
        }
    };
    if let Some(directory) = directory_of(Role::LanguageModel).filter(|_| given.is_none()) {
        config.text_config = checkpoint::load_language_model_config(directory)?;
    }
    if let Some(size) = checkpoint::image_size(parts, &config) {
        config.vision_config.image_size = size;
    }
    Ok(config)
}

/// Copies the adapter of the first directory that has one.
fn copy_adapter(sources: &[(Role, PathBuf)], out: &Path) -> anyhow::Result<()> {
    for (_, directory) in sources.iter().filter(|(_, path)| path.is_dir()) {
        if checkpoint::load_adapter_config(directory)?.is_none() {
            continue;
        }
        for name in [ADAPTER_CONFIG_FILE].iter().chain(&ADAPTER_WEIGHTS_FILES) {
            let from = directory.join(name);
            if from.is_file() {
                std::fs::copy(&from, out.join(name))
                    .with_context(|| format!("cannot copy {} to {}", from.display(), out.display()))?;
            }
        }
        println!("{}: with the adapter of {}", out.display(), directory.display());
        break;
    }
    Ok(())
}

/// The line break, which ends LAVIS's captions with OPT, in OPT's published tokenizer.
const LINE_BREAK: u32 = 50_118;

/// Sets what LAVIS computes with, independently of the language model's own files.
fn compute_as_lavis(
    config: &mut Blip2Config,
    tokenizer: Option<&Tokenizer>,
    small: &mut SmallFiles,
) -> anyhow::Result<()> {
    config.vision_config.post_layernorm_eps = Some(1e-5);
    match &mut config.text_config {
        LanguageModelConfig::T5(t5) => t5.dense_act_fn = Some(Activation::Gelu),
        LanguageModelConfig::Opt(opt) => {
            let line_break = tokenizer.map_or(Some(LINE_BREAK), |own| own.id_of("\u{10a}"));
            opt.eos_token_id = line_break.or(opt.eos_token_id);
            small.set_end_token(opt.eos_token_id)?;
        }
        LanguageModelConfig::Llama(_) => {}
    }
    Ok(())
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    checkpoint: CheckpointOption,
    /// Folder of the new checkpoint in the layout and names that transformers loads
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Merge LoRA updates into their weights instead of saving them separately, as peft loads them
    #[arg(long)]
    merge_lora: bool,
}

/// Runs the command.
pub(super) fn export(arguments: &ExportArguments) -> anyhow::Result<()> {
    let directory = &arguments.checkpoint.checkpoint;
    let base = Base::of(directory)?;
    // frozen values keep the types that they had in the run; updates are merged in f32
    let types = base.as_ref().filter(|_| !arguments.merge_lora).map(|base| base.types);
    let precision = types.map(Precision::from).unwrap_or_default();
    let (mut config, mut blip2) = checkpoint::load_in(directory, |_| {}, precision, &Device::flex())?;
    ensure!(
        config.temporal == model::Temporal::None,
        "{} has a temporal embedding, which transformers does not support",
        directory.display()
    );
    if arguments.merge_lora && config.lora.take().is_some() {
        model::lora::merge(&mut blip2.language_model);
    }
    checkpoint::save(&blip2, &config, &arguments.out)?;
    SmallFiles::read(&[(Role::Whole, directory.clone())])?.write(&arguments.out)?;
    println!("{}", arguments.out.display());
    if let Some(Base { absolute, weights_hash, .. }) = base {
        let (trained, base) = (directory.display(), absolute.display());
        println!("the trained tensors of {trained} were merged with those of {base} ({weights_hash})");
    }
    if config.fusion != Fusion::Concat {
        println!("transformers reads one image at a time and has no fusion {:?}", config.fusion);
    }
    Ok(())
}
