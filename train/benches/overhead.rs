//! What the trainer costs besides forward and backward passes, and what the reward costs of a self-critical
//! step, with the tiny BLIP-2 that comes with the project, at the batch sizes of the profile `tiny`.
//!
//!     cargo bench -p train --bench overhead

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::Device;
use captioner::{Context, HostTokens, HostVisual, PromptIds};
use data::text::Tokenizer;
use data::tiny_world::{WorldConfig, text_corpus};
use model::generate::GenerateConfig;
use train::checkpoint::Seconds;
use train::dashboard::Dashboard;
use train::processes::SingleProcess;
use train::scst::{Rewards, Scst, ScstConfig, Standard};
use train::{Batch, CrossEntropy, Examples, Fit, Freezing, Objective, TrainConfig, TrainError, fit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

const CLIPS: usize = 1000;
const REFERENCES: usize = 20;

/// Clips of noise, as a frozen ViT sees them and as they are stored, with sentences of the tiny world.
struct Noise {
    tokenizer: Arc<Tokenizer>,
    captions: Vec<Vec<String>>,
    shape: [usize; 3],
    values: Vec<f32>,
}

impl Noise {
    fn new(tokenizer: Arc<Tokenizer>, captions: Vec<Vec<String>>, shape: [usize; 3]) -> Self {
        let each: usize = shape.iter().product();
        let value = |place: usize| (place.wrapping_mul(2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
        let values = (0..captions.len() * each).map(value).collect();
        Self { tokenizer, captions, shape, values }
    }
}

impl Examples for Noise {
    fn len(&self) -> usize {
        self.captions.len()
    }

    fn batch(&self, epoch: usize, items: &[usize], own: Range<usize>) -> Result<Batch, TrainError> {
        let items = &items[own];
        let [f, p, d] = self.shape;
        let each = f * p * d;
        let mut values = Vec::with_capacity(items.len() * each);
        for &item in items {
            values.extend_from_slice(&self.values[item * each..(item + 1) * each]);
        }
        let texts: Vec<String> =
            items.iter().map(|&item| self.captions[item][epoch % REFERENCES].clone()).collect();
        let ids =
            texts.iter().map(|text| self.tokenizer.target(text, 32)).collect::<data::Result<Vec<_>>>()?;
        Ok(Batch::Caption {
            visual: HostVisual::Features { values, shape: [items.len(), f, p, d] },
            prompts: None,
            captions: Some(HostTokens::pad(&ids)),
            texts,
            clips: items.to_vec(),
            items: items.to_vec(),
        })
    }
}

fn main() -> Result<(), Failure> {
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/checkpoints/tiny");
    let (config, model) = model::checkpoint::load(&checkpoint, |_| {}, &Device::flex())?;
    let tokenizer = Arc::new(Tokenizer::from_file(&checkpoint.join("tokenizer.json"))?);
    let (tokens, width) = (config.vision_config.tokens(), config.vision_config.hidden_size);
    let context = Context {
        config,
        tokenizer: tokenizer.clone(),
        qformer_tokenizer: None,
        prompt: PromptIds::default(),
        generate: GenerateConfig {
            max_new_tokens: 32,
            end_tokens: vec![tokenizer.end()],
            ..GenerateConfig::default()
        },
    };
    let sentences = text_corpus(&WorldConfig::default(), CLIPS * REFERENCES);
    let captions: Vec<Vec<String>> = sentences.chunks(REFERENCES).map(<[String]>::to_vec).collect();
    let examples = Arc::new(Noise::new(tokenizer, captions.clone(), [8, tokens, width]));

    println!("of a step, least of three runs:      ms   passes   update     data    else");
    let mut least: Option<(f64, Seconds)> = None;
    for _ in 0..3 {
        let (each, seconds) =
            time(model.clone(), CrossEntropy::new(context.clone(), 0.0), examples.clone(), 256)?;
        if least.is_none_or(|(other, _)| each < other) {
            least = Some((each, seconds));
        }
    }
    if let Some((each, seconds)) = least {
        let share = |part: f64| 100.0 * part / seconds.steps;
        let rest = seconds.steps - seconds.passes - seconds.update - seconds.data;
        println!(
            "cross-entropy, 32 clips         {:8.1} {:7.1}% {:7.1}% {:7.1}% {:6.2}%",
            1000.0 * each,
            share(seconds.passes),
            share(seconds.update),
            share(seconds.data),
            share(rest)
        );
    }

    let rewards = Arc::new(Rewards::new(ScstConfig::Standard(Standard::default()), &captions)?);
    let scst = Scst::new(context, rewards.clone());
    let (each, _) = time(model.clone(), scst.clone(), examples.clone(), 8)?;
    let items: Vec<usize> = (0..32).collect();
    let scored =
        scst.generate(&model, &scst.encode(&model, examples.batch(1, &items, 0..items.len())?)?, 1)?;
    let rows: Vec<usize> = (0..scored.sequences.len()).map(|row| row / scored.candidates).collect();
    let decode = |ids: &Vec<u32>| examples.tokenizer.decode(ids);
    let captions = scored.sequences.iter().map(decode).collect::<data::Result<Vec<_>>>()?;
    let mut fastest = f64::INFINITY;
    for _ in 0..20 {
        let started = Instant::now();
        rewards.rewards(&captions, &rows, &items, &[])?;
        fastest = fastest.min(started.elapsed().as_secs_f64());
    }
    println!(
        "self-critical, 32 clips of {} captions: {:.1} ms a step, of it the reward {:.2} ms ({:.2}%)",
        scored.candidates,
        1000.0 * each,
        1000.0 * fastest,
        100.0 * fastest / each
    );
    Ok(())
}

/// Trains so many steps; seconds a step, and where they went.
fn time<O: Objective>(
    model: O::Model,
    objective: O,
    train: Arc<Noise>,
    steps: usize,
) -> Result<(f64, Seconds), Failure> {
    let folder = tempfile::tempdir()?;
    let config = TrainConfig {
        steps: Some(steps),
        evaluate_every: Some(steps),
        micro_batches: 2,
        parameters: serde_json::from_str::<Freezing>(r#"{"vision_model.*": "frozen"}"#)?,
        ..TrainConfig::default()
    };
    let outcome = fit(
        model,
        Fit {
            config,
            objective,
            train,
            validation: None,
            directory: folder.path().to_owned(),
            device: Device::flex(),
            seed: 1,
            label: "overhead".to_owned(),
            settings: serde_json::Value::Null,
            stop: Arc::new(AtomicBool::new(false)),
            dashboard: Dashboard::Silent,
            processes: Arc::new(SingleProcess),
        },
    )?;
    Ok((outcome.seconds.steps / steps as f64, outcome.seconds))
}
