//! `experiments caption`: what a checkpoint says about videos.

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use anyhow::Context as _;
use burn::tensor::{Int, Tensor, TensorData};
use clap::{Args, ValueEnum};
use data::preprocess::Preprocess;
use data::text::Tokenizer;
use data::video::{FrameRequest, decode};
use model::checkpoint::{self, Precision};
use model::generate::{GenerateConfig, Sample, Search};
use model::lm::LanguageModelConfig;
use model::{Blip2, Blip2Config, Fusion, Prompt, PromptTokens, Visual};
use serde_json::json;

use crate::device;
use crate::pretrained::{TOKENIZER_FILE, check_tokenizer};

/// Arguments of `caption`.
#[derive(Debug, Args)]
pub struct CaptionArguments {
    /// Folder of the checkpoint
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    /// Video, GIF or image files
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// How to print: text, jsonl (ids, scores and errors too) or coco (results that `experiments score` reads)
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Frames a clip
    #[arg(long, default_value_t = 8)]
    pub frames: usize,
    /// Clips at a time
    #[arg(long, default_value_t = 8)]
    pub batch_size: usize,
    /// How frames are joined, where not as the checkpoint says: concat, average, concat_queries, average_queries
    #[arg(long, value_parser = parse_fusion)]
    pub fusion: Option<Fusion>,
    /// What the language model reads behind the video
    #[arg(long, default_value = "")]
    pub prompt: String,
    /// Beams; 1 is greedy search
    #[arg(long, default_value_t = 5)]
    pub beams: usize,
    /// Most new tokens
    #[arg(long, default_value_t = 32)]
    pub max_new_tokens: usize,
    /// Fewest new tokens
    #[arg(long, default_value_t = 0)]
    pub min_new_tokens: usize,
    /// Power of the length that a sequence's score is divided by
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub length_penalty: f64,
    /// Divides the scores of tokens that were written before
    #[arg(long, default_value_t = 1.0)]
    pub repetition_penalty: f64,
    /// Draw tokens at this temperature instead of searching
    #[arg(long, value_name = "TEMPERATURE", allow_negative_numbers = true)]
    pub sample: Option<f64>,
    /// Where the draws start
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Captions a clip
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

/// Captions every input; gives back whether all of them could be. A clip that cannot be decoded is told and does not
/// stop the rest.
///
/// # Errors
/// When the checkpoint cannot be read, or the settings do not fit.
pub fn run(arguments: &CaptionArguments) -> anyhow::Result<bool> {
    let device = device::select(&arguments.device)?;
    let half = burn::tensor::FloatDType::BF16;
    let precision = match arguments.bf16 {
        true => Precision { vision_model: half, language_model: half },
        false => Precision::default(),
    };
    let adapt = |config: &mut Blip2Config| {
        if let Some(fusion) = arguments.fusion {
            config.fusion = fusion;
        }
        config.max_frames = config.max_frames.max(arguments.frames);
    };
    let (config, blip2) = checkpoint::load_in(&arguments.checkpoint, adapt, precision, &device)?;
    let tokenizer = open_tokenizer(&arguments.checkpoint, &config)?;
    let settings = settings(arguments, &config, &tokenizer)?;
    let writer = Writer { arguments, config: &config, blip2: &blip2, tokenizer: &tokenizer, settings };

    let (sender, receiver) = sync_channel(2);
    let request = FrameRequest::uniform(arguments.frames, config.vision_config.image_size as u32);
    std::thread::scope(|scope| {
        // clips are decoded while the batch before them is captioned
        scope.spawn(move || {
            for paths in arguments.inputs.chunks(arguments.batch_size.max(1)) {
                let batch: Vec<_> = std::thread::scope(|scope| {
                    let running: Vec<_> = paths
                        .iter()
                        .map(|path| scope.spawn(move || (path, decode(path, &request))))
                        .collect();
                    running.into_iter().filter_map(|clip| clip.join().ok()).collect()
                });
                if sender.send(batch).is_err() {
                    return;
                }
            }
        });
        let mut results = Vec::new();
        let (mut done, mut all_fine) = (0, true);
        for batch in receiver {
            all_fine &= writer.batch(batch, &mut done, &mut results)?;
        }
        if arguments.format == Format::Coco {
            println!("{}", serde_json::to_string_pretty(&results)?);
        }
        Ok(all_fine)
    })
}

/// The checkpoint's tokenizer: `tokenizer.json`, or the files that the language model's own library reads.
fn open_tokenizer(directory: &Path, config: &Blip2Config) -> anyhow::Result<Tokenizer> {
    let path = directory.join(TOKENIZER_FILE);
    let path = if path.is_file() { path } else { directory.to_owned() };
    let tokenizer = Tokenizer::from_file(&path).context("the checkpoint's tokenizer cannot be read")?;
    check_tokenizer(&tokenizer, config, directory)?;
    Ok(tokenizer)
}

struct Writer<'a> {
    arguments: &'a CaptionArguments,
    config: &'a Blip2Config,
    blip2: &'a Blip2,
    tokenizer: &'a Tokenizer,
    settings: GenerateConfig,
}

impl Writer<'_> {
    /// Captions the clips of a batch that could be decoded and tells of the others; whether there were none of those.
    fn batch(
        &self,
        batch: Vec<(&PathBuf, data::Result<data::video::Frames>)>,
        done: &mut u64,
        results: &mut Vec<serde_json::Value>,
    ) -> anyhow::Result<bool> {
        let preprocess = Preprocess::new(self.config.vision_config.image_size as u32);
        let (mut pixels, mut paths, mut all_fine) = (Vec::new(), Vec::new(), true);
        for (path, frames) in batch {
            match frames {
                Ok(frames) => {
                    pixels.extend(preprocess.normalize(&frames.data));
                    paths.push(path);
                }
                Err(error) => {
                    all_fine = false;
                    eprintln!("{}: {error}", path.display());
                    if self.arguments.format == Format::Jsonl {
                        println!("{}", json!({"input": path, "error": error.to_string()}));
                    }
                }
            }
        }
        if paths.is_empty() {
            return Ok(all_fine);
        }
        let (b, size) = (paths.len(), self.config.vision_config.image_size);
        let device = self.blip2.query_tokens.val().device();
        let shape = [b, self.arguments.frames, 3, size, size];
        let frames = Tensor::from_data(TensorData::new(pixels, shape), &device);
        let prompt = Prompt { streams: Some((*done..*done + b as u64).collect()), ..self.prompt(b)? };
        *done += b as u64;
        let captions = self.blip2.caption(Visual::Frames(frames), &prompt, &self.settings)?;
        for (path, captions) in paths.into_iter().zip(captions) {
            for caption in captions {
                let text = self.tokenizer.decode(&caption.ids)?;
                match self.arguments.format {
                    Format::Text => println!("{}: {text}", path.display()),
                    Format::Jsonl => println!(
                        "{}",
                        json!({
                            "input": path, "caption": text, "ids": caption.ids,
                            "log_probability": caption.log_probability, "score": caption.score,
                        })
                    ),
                    Format::Coco => {
                        let id = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
                        results.push(json!({"image_id": id, "caption": text}));
                    }
                }
            }
        }
        Ok(all_fine)
    }

    fn prompt(&self, b: usize) -> anyhow::Result<Prompt> {
        let words = self.arguments.prompt.trim();
        let tokens = |tokenizer: &Tokenizer, words: &str| -> anyhow::Result<PromptTokens> {
            let mut ids = tokenizer.encode(words, usize::MAX)?;
            if ids.last() == Some(&tokenizer.end()) {
                ids.pop(); // a prompt goes on
            }
            let ids: Vec<i32> = ids.into_iter().map(|id| id as i32).collect();
            let t = ids.len();
            let device = self.blip2.query_tokens.val().device();
            let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, t]), &device).expand([b, t]);
            Ok(PromptTokens { ids, mask: None })
        };
        if words.is_empty() {
            return Ok(Prompt::default());
        }
        let instruction = if self.config.qformer_config.reads_text {
            let path = self.arguments.checkpoint.join("qformer_tokenizer");
            let tokenizer = Tokenizer::from_file(&path).context(
                "the Q-Former reads the prompt too, and its tokenizer (qformer_tokenizer/) cannot be read",
            )?;
            Some(tokens(&tokenizer, words)?)
        } else {
            None
        };
        Ok(Prompt { text: Some(tokens(self.tokenizer, words)?), instruction, streams: None })
    }
}

/// How captions are to be written, refused before anything is decoded where it cannot be.
fn settings(
    arguments: &CaptionArguments,
    config: &Blip2Config,
    tokenizer: &Tokenizer,
) -> anyhow::Result<GenerateConfig> {
    let mut end_tokens = checkpoint::end_tokens(&arguments.checkpoint, config)?;
    if matches!(config.text_config, LanguageModelConfig::T5(_)) && !end_tokens.contains(&tokenizer.end()) {
        end_tokens.push(tokenizer.end());
    }
    let search = match arguments.sample {
        Some(temperature) => {
            Search::Sample(Sample { temperature, seed: arguments.seed, ..Sample::default() })
        }
        None => Search::Beam,
    };
    let settings = GenerateConfig {
        max_new_tokens: arguments.max_new_tokens,
        min_new_tokens: arguments.min_new_tokens,
        end_tokens,
        num_beams: if arguments.sample.is_some() { 1 } else { arguments.beams },
        num_return_sequences: arguments.captions,
        length_penalty: arguments.length_penalty,
        repetition_penalty: arguments.repetition_penalty,
        search,
        ..GenerateConfig::default()
    };
    settings.validate()?;
    Ok(settings)
}
