//! `experiments caption`: captions of video files with a checkpoint.

use std::path::{Path, PathBuf};

use captioner::{Caption, Captioner, ClipCaptions, Options, Overrides, Settings};
use clap::{Args, ValueEnum};
use model::Fusion;
use model::checkpoint::Precision;
use model::generate::Sample;
use serde_json::json;

use crate::device;

/// Arguments of `caption`.
#[derive(Debug, Args)]
pub struct CaptionArguments {
    /// Folder of the checkpoint
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    /// Video, GIF or image files
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// How to print: text, jsonl (ids, scores and errors too) or coco (results that `experiments score`
    /// reads)
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Frames per clip [default: the checkpoint's, else 8]
    #[arg(long)]
    pub frames: Option<usize>,
    /// Clips per batch
    #[arg(long, default_value_t = 8)]
    pub batch_size: usize,
    /// How frames are joined, instead of the checkpoint's way: concat, average, concat_queries,
    /// average_queries
    #[arg(long, value_parser = parse_fusion)]
    pub fusion: Option<Fusion>,
    /// Prompt after the video [default: the checkpoint's, else none]
    #[arg(long)]
    pub prompt: Option<String>,
    /// Beams; 1 is greedy search [default: the checkpoint's, else 5]
    #[arg(long)]
    pub beams: Option<usize>,
    /// Maximum number of new tokens [default: the checkpoint's, else 32]
    #[arg(long)]
    pub max_new_tokens: Option<usize>,
    /// Minimum number of new tokens [default: the checkpoint's, else 0]
    #[arg(long)]
    pub min_new_tokens: Option<usize>,
    /// Length penalty P: a beam's score is its log-probability / length^P [default: the checkpoint's, else 1]
    #[arg(long, allow_negative_numbers = true)]
    pub length_penalty: Option<f64>,
    /// Repetition penalty: divides the scores of tokens that the caption already holds [default: the
    /// checkpoint's, else 1]
    #[arg(long)]
    pub repetition_penalty: Option<f64>,
    /// Sample tokens at this temperature instead of a beam search
    #[arg(long, value_name = "TEMPERATURE", allow_negative_numbers = true)]
    pub sample: Option<f64>,
    /// Random seed
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Captions per clip
    #[arg(long, default_value_t = 1)]
    pub captions: usize,
    /// Where to compute: auto, cpu, cuda, cuda:1, wgpu, vulkan, metal
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Hold ViT and language model in bf16
    #[arg(long)]
    pub bf16: bool,
}

/// How captions are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// `FILE: caption`
    Text,
    /// One JSON object a line.
    Jsonl,
    /// `[{"image_id": .., "caption": ..}]`
    Coco,
}

fn parse_fusion(word: &str) -> Result<Fusion, String> {
    serde_json::from_value(json!(word))
        .map_err(|_| "expected concat, average, concat_queries or average_queries".to_owned())
}

/// Captions every input; returns whether all of them could be decoded. A clip that cannot be decoded is
/// reported and does not stop the rest.
///
/// # Errors
/// When the checkpoint cannot be read, or the settings do not fit.
pub fn run(arguments: &CaptionArguments) -> anyhow::Result<bool> {
    let captioner = Captioner::open(&arguments.checkpoint, arguments.options()?)?;
    for change in captioner.changes() {
        eprintln!("not as in the checkpoint: {change}");
    }
    let (mut results, mut all_decoded) = (Vec::new(), true);
    captioner.caption_each(&arguments.inputs, |ClipCaptions { path, captions }| match captions {
        Ok(captions) => captions.iter().for_each(|caption| match arguments.format {
            Format::Coco => results.push(coco(&path, caption)),
            format => print(&path, caption, format),
        }),
        Err(error) => {
            all_decoded = false;
            eprintln!("{}: {error}", path.display());
            if arguments.format == Format::Jsonl {
                println!("{}", json!({"input": path, "error": error.to_string()}));
            }
        }
    })?;
    if arguments.format == Format::Coco {
        println!("{}", serde_json::to_string_pretty(&results)?);
    }
    Ok(all_decoded)
}

fn print(path: &Path, caption: &Caption, format: Format) {
    let Caption { text, ids, log_probability, score } = caption;
    if format == Format::Text {
        return println!("{}: {text}", path.display());
    }
    let line = json!({
        "input": path, "caption": text, "ids": ids, "log_probability": log_probability, "score": score,
    });
    println!("{line}");
}

fn coco(path: &Path, caption: &Caption) -> serde_json::Value {
    let id = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    json!({"image_id": id, "caption": caption.text})
}

impl CaptionArguments {
    fn options(&self) -> anyhow::Result<Options> {
        let half = burn::tensor::FloatDType::BF16;
        let precision = match self.bf16 {
            true => Precision { vision_model: half, language_model: half },
            false => Precision::default(),
        };
        let sample =
            self.sample.map(|temperature| Sample { temperature, seed: self.seed, ..Sample::default() });
        Ok(Options {
            device: device::select(&self.device)?,
            precision,
            overrides: Overrides { fusion: self.fusion, ..Overrides::default() },
            settings: Some(self.settings()?),
            sample,
            captions: self.captions,
            batch_size: self.batch_size,
        })
    }

    /// The checkpoint's own settings, or the defaults, with the arguments' changes.
    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = Settings::of_checkpoint(&self.checkpoint)?.unwrap_or_default();
        fn set<T: Clone>(own: &mut T, given: &Option<T>) {
            if let Some(given) = given {
                own.clone_from(given);
            }
        }
        set(&mut settings.frames.count, &self.frames);
        set(&mut settings.text.prompt, &self.prompt);
        let generate = &mut settings.generate;
        set(&mut generate.num_beams, &self.beams);
        set(&mut generate.max_new_tokens, &self.max_new_tokens);
        set(&mut generate.min_new_tokens, &self.min_new_tokens);
        set(&mut generate.length_penalty, &self.length_penalty);
        set(&mut generate.repetition_penalty, &self.repetition_penalty);
        Ok(settings)
    }
}
