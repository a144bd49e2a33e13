//! `experiments caption`

mod collection;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ::data::captioned::RowFormat;
use ::data::collection::Collection;
use anyhow::{bail, ensure};
use captioner::{Captioner, ClipCaptions, Options, Overrides, Settings};
use clap::{Args, ValueEnum};
use model::Fusion;
use model::generate::Sample;
use serde_json::{Value, json};

use super::image_ids::image_ids;
use super::options::{DeviceOption, Weights};
use super::{Outcome, Usage, done, verdict};
use crate::runtime::Caches;
use collection::{CollectionOptions, Request, own_share};

/// Caption videos. Frames, prompt and generation are by default those that the checkpoint's run saved in
/// recap.toml, else 8 uniform frames, no prompt and 5 beams
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder of the checkpoint
    #[arg(long, value_name = "DIR", required_unless_present_any = ["status", "merge"])]
    checkpoint: Option<PathBuf>,
    /// Video, GIF or image files; with --out also folders, lists and webdataset shards
    #[arg(required_unless_present_any = ["status", "merge"], value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Output: text, jsonl (with ids, scores and errors) or coco (results that `experiments score` reads; the
    /// id is the file's name, or its path below the common folder where names are equal); with --out: jsonl,
    /// parquet or webdataset (the clips with their captions in tar files) [default: text, with --out jsonl]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Frames a clip [default: as in the checkpoint's recap.toml, else 8]
    #[arg(long)]
    frames: Option<usize>,
    /// Clips at a time
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Fusion of the frames instead of the checkpoint's: concat, average, concat_queries, average_queries
    #[arg(long, value_parser = parse_fusion)]
    fusion: Option<Fusion>,
    /// Prompt that the language model reads after the video [default: as in recap.toml, else none]
    #[arg(long)]
    prompt: Option<String>,
    /// Beams; 1 is greedy search [default: as in recap.toml, else 5]
    #[arg(long)]
    beams: Option<usize>,
    /// Maximum number of new tokens [default: as in recap.toml, else 32]
    #[arg(long)]
    max_new_tokens: Option<usize>,
    /// Minimum number of new tokens
    #[arg(long)]
    min_new_tokens: Option<usize>,
    /// Length penalty P: score / length^P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    length_penalty: Option<f64>,
    /// Repetition penalty: divides the scores of tokens that the caption already contains
    #[arg(long)]
    repetition_penalty: Option<f64>,
    /// Write no sequence of N tokens twice; 0 allows it [default: as in recap.toml, else as in
    /// generation_config.json]
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// Write no sequence of N tokens of the encoder's input; no effect on a BLIP-2, as in transformers
    #[arg(long, value_name = "N")]
    encoder_no_repeat_ngram_size: Option<usize>,
    /// Tokens of a word that is not written, as in 4,5,6; several times for several words
    #[arg(long, value_name = "IDS", value_parser = parse_ids)]
    bad_words_ids: Option<Vec<TokenIds>>,
    /// Token that follows the first one of the text: the first new token of a T5, the second one of OPT and
    /// LLaMA
    #[arg(long, value_name = "ID")]
    forced_bos_token_id: Option<u32>,
    /// Sample at this temperature instead of beam search
    #[arg(long, value_name = "TEMPERATURE", allow_negative_numbers = true)]
    sample: Option<f64>,
    /// Random seed of sampling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Captions a clip
    #[arg(long, default_value_t = 1)]
    captions: usize,
    #[command(flatten)]
    pub(super) device: DeviceOption,
    /// Number type of the values of ViT and language model
    #[arg(long, value_enum, default_value_t, value_name = "TYPE")]
    weights: Weights,
    #[command(flatten)]
    collection: CollectionOptions,
}

/// Output of captions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// `FILE: caption`
    Text,
    /// One JSON object a line.
    Jsonl,
    /// `[{"image_id": .., "caption": ..}]`
    Coco,
    /// Files of columns.
    Parquet,
    /// Tar files of clips and captions.
    Webdataset,
}

/// The tokens of a word.
type TokenIds = Vec<u32>;

fn parse_ids(word: &str) -> Result<TokenIds, String> {
    let ids = word.split(',').map(|id| id.trim().parse());
    ids.collect::<Result<_, _>>()
        .map_err(|_| "expected token ids with commas between, as in 4,5,6".to_owned())
}

fn parse_fusion(word: &str) -> Result<Fusion, String> {
    serde_json::from_value(json!(word))
        .map_err(|_| "expected concat, average, concat_queries or average_queries".to_owned())
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let CollectionOptions { status, merge, out, .. } = &arguments.collection;
    if let Some(folder) = status {
        return collection::print_state(folder).failure().map(done);
    }
    if let (Some(folder), Some(out)) = (merge, out) {
        return collection::merge_to(folder, out).failure().map(done);
    }
    // clap requires it, but for the two above
    let directory = arguments.checkpoint.as_deref().unwrap_or(Path::new(""));
    if let Some(folder) = out {
        let format = row_format(arguments).usage()?;
        let share = own_share(&arguments.collection).usage()?;
        let inputs = Collection::open(&arguments.inputs).map_err(anyhow::Error::from).usage()?;
        let captioner = open(arguments, directory).failure()?;
        let weights = arguments.weights.to_string();
        let options = &arguments.collection;
        let request = Request { options, folder, format, share, checkpoint: directory, weights };
        return collection::caption(&captioner, &inputs, &request).failure().map(done);
    }
    check_files(arguments).usage()?;
    let ids = coco_ids(arguments).usage()?;
    caption(arguments, directory, &ids).failure().map(verdict)
}

/// The format of the shards of a collection.
fn row_format(arguments: &Arguments) -> anyhow::Result<RowFormat> {
    match arguments.format {
        None | Some(Format::Jsonl) => Ok(RowFormat::Jsonl),
        Some(Format::Parquet) => Ok(RowFormat::Parquet),
        Some(Format::Webdataset) => Ok(RowFormat::Webdataset),
        Some(Format::Text | Format::Coco) => bail!("--out needs --format jsonl, parquet or webdataset"),
    }
}

/// Without `--out`, captions of files are printed.
fn check_files(arguments: &Arguments) -> anyhow::Result<()> {
    if matches!(arguments.format, Some(Format::Parquet | Format::Webdataset)) {
        bail!("--format parquet and webdataset need --out DIR");
    }
    const LISTS: [&str; 7] = ["txt", "csv", "tsv", "jsonl", "ndjson", "parquet", "tar"];
    let is_list = |path: &&PathBuf| {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        path.is_dir() || LISTS.contains(&extension.as_str())
    };
    match arguments.inputs.iter().find(is_list) {
        Some(input) => {
            bail!("folders, lists and shards need --out DIR for their captions: {}", input.display())
        }
        None => Ok(()),
    }
}

/// The ids of COCO results, which have one caption a clip.
fn coco_ids(arguments: &Arguments) -> anyhow::Result<HashMap<PathBuf, String>> {
    if arguments.format != Some(Format::Coco) {
        return Ok(HashMap::new());
    }
    ensure!(
        arguments.captions <= 1,
        "--format coco has one caption a clip, but --captions is {}; use --format jsonl",
        arguments.captions
    );
    let ids = image_ids(&arguments.inputs)?;
    Ok(arguments.inputs.iter().cloned().zip(ids).collect())
}

/// Opens the checkpoint with the settings of the options.
fn open(arguments: &Arguments, directory: &Path) -> anyhow::Result<Captioner> {
    let seed = arguments.seed;
    let device = arguments.device.open(&Caches::new(None))?.device;
    let options = Options {
        precision: arguments.weights.for_captions(directory, &device)?,
        device,
        overrides: Overrides { fusion: arguments.fusion, ..Overrides::default() },
        settings: Some(settings(arguments, Settings::of_checkpoint(directory)?.unwrap_or_default())),
        sample: arguments.sample.map(|temperature| Sample { temperature, seed, ..Sample::default() }),
        captions: arguments.captions,
        batch_size: arguments.batch_size,
    };
    let captioner = Captioner::open(directory, options)?;
    for change in captioner.changes() {
        eprintln!("changed: {change}");
    }
    if captioner.context.generate.encoder_no_repeat_ngram_size > 0 {
        eprintln!("note: {}", model::generate::NO_ENCODER_IDS);
    }
    Ok(captioner)
}

/// Captions every input; returns whether all of them could be decoded. `ids` are those of COCO results.
fn caption(arguments: &Arguments, directory: &Path, ids: &HashMap<PathBuf, String>) -> anyhow::Result<bool> {
    let captioner = open(arguments, directory)?;
    let format = arguments.format.unwrap_or(Format::Text);
    let (mut results, mut all_decoded) = (Vec::new(), true);
    captioner.caption_each(&arguments.inputs, |clip| {
        all_decoded &= clip.captions.is_ok();
        print(&clip, format, ids, &mut results);
    })?;
    if format == Format::Coco {
        println!("{}", serde_json::to_string_pretty(&results)?);
    }
    Ok(all_decoded)
}

/// The saved settings, changed by the options.
fn settings(arguments: &Arguments, mut settings: Settings) -> Settings {
    fn set<T: Clone>(value: &mut T, option: &Option<T>) {
        if let Some(option) = option {
            value.clone_from(option);
        }
    }
    let generate = &mut settings.generate;
    set(&mut generate.max_new_tokens, &arguments.max_new_tokens);
    set(&mut generate.min_new_tokens, &arguments.min_new_tokens);
    set(&mut generate.num_beams, &arguments.beams);
    set(&mut generate.length_penalty, &arguments.length_penalty);
    set(&mut generate.repetition_penalty, &arguments.repetition_penalty);
    let own = |value: &mut Option<usize>, option: Option<usize>| *value = option.or(*value);
    own(&mut generate.no_repeat_ngram_size, arguments.no_repeat_ngram_size);
    own(&mut generate.encoder_no_repeat_ngram_size, arguments.encoder_no_repeat_ngram_size);
    if arguments.bad_words_ids.is_some() {
        generate.bad_words_ids.clone_from(&arguments.bad_words_ids);
    }
    generate.forced_bos_token_id = arguments.forced_bos_token_id.or(generate.forced_bos_token_id);
    set(&mut settings.frames.count, &arguments.frames);
    set(&mut settings.text.prompt, &arguments.prompt);
    settings
}

/// Prints the captions of a clip, or collects them for the COCO results. A clip that cannot be decoded is
/// reported.
fn print(clip: &ClipCaptions, format: Format, ids: &HashMap<PathBuf, String>, results: &mut Vec<Value>) {
    let path = &clip.path;
    let captions = match &clip.captions {
        Ok(captions) => captions,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            if format == Format::Jsonl {
                println!("{}", json!({"input": path, "error": error.to_string()}));
            }
            return;
        }
    };
    for caption in captions {
        match format {
            Format::Text | Format::Parquet | Format::Webdataset => {
                println!("{}: {}", path.display(), caption.text);
            }
            Format::Jsonl => println!(
                "{}",
                json!({
                    "input": path, "caption": caption.text, "ids": caption.ids,
                    "log_probability": caption.log_probability, "score": caption.score,
                })
            ),
            Format::Coco => {
                results.push(json!({"image_id": ids.get(path), "caption": caption.text}));
            }
        }
    }
}
