//! Tiny models with every language model, and batches for them, for this crate's tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use data::text::Tokenizer;
use model::generate::GenerateConfig;
use model::lm::LanguageModelConfig;
use model::lm::llama::LlamaConfig;
use model::lm::opt::OptConfig;
use model::lm::t5::T5Config;
use model::parameters::FieldPath;
use model::pretraining::{Pretraining, PretrainingConfig};
use model::qformer::QFormerConfig;
use model::vit::VitConfig;
use model::{Blip2, Blip2Config};

use captioner::{Context, HostTokens, HostVisual, PromptIds};

use crate::Batch;
use crate::pretraining::FirstStage;

const WORDS: [&str; 20] = [
    "a", "man", "woman", "is", "playing", "guitar", "on", "stage", "slicing", "an", "onion", "red", "blue",
    "moves", "left", "right", "the", "cat", "dog", "runs",
];

/// Held while weights are drawn: the tests of a process share the CPU's one generator.
pub(crate) static DRAWING: Mutex<()> = Mutex::new(());

/// Draws a module's weights from a seed, whatever other tests do meanwhile.
pub(crate) fn drawn<M: Module>(seed: u64, init: impl FnOnce(&Device) -> M) -> M {
    let _guard = DRAWING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let device = Device::flex();
    device.seed(seed);
    let module = init(&device);
    model::parameters::draw(&module);
    module
}

/// Words for every id but the three special ones.
pub(crate) fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::word_level(&WORDS.map(str::to_owned)).unwrap())
}

/// One language model of each kind.
pub(crate) fn language_models(dropout: f64) -> Vec<LanguageModelConfig> {
    let (vocab_size, end) = (WORDS.len() + 3, 1);
    let mut all = vec![
        LanguageModelConfig::T5(T5Config {
            vocab_size,
            d_model: 16,
            d_kv: 6,
            d_ff: 24,
            num_layers: 2,
            num_decoder_layers: 2,
            num_heads: 3,
            ..T5Config::default()
        }),
        LanguageModelConfig::Opt(OptConfig {
            vocab_size,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            ffn_dim: 24,
            max_position_embeddings: 40,
            init_std: 0.3,
            eos_token_id: Some(end),
            ..OptConfig::default()
        }),
        LanguageModelConfig::Llama(LlamaConfig {
            vocab_size,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            max_position_embeddings: 40,
            initializer_range: 0.3,
            eos_token_id: Some(end),
            ..LlamaConfig::default()
        }),
    ];
    for language_model in &mut all {
        language_model.set_dropout(dropout);
    }
    all
}

fn vision() -> VitConfig {
    VitConfig {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: 8,
        patch_size: 4,
        initializer_range: 0.2,
        ..VitConfig::default()
    }
}

fn qformer(dropout: f64) -> QFormerConfig {
    QFormerConfig {
        hidden_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 24,
        encoder_hidden_size: 16,
        hidden_dropout_prob: dropout,
        attention_probs_dropout_prob: dropout,
        initializer_range: 0.2,
        ..QFormerConfig::default()
    }
}

/// The gradients of a model's parameters by name.
pub(crate) fn gradients_of<M: Module>(
    model: &M,
    mut gradients: GradientsParams,
) -> BTreeMap<String, Vec<f32>> {
    struct Gradients<'a>(&'a mut GradientsParams);
    impl Of for Gradients<'_> {
        fn of<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) -> Option<Tensor<D>> {
            self.0.remove::<D>(parameter.id)
        }
    }
    collect(model, Gradients(&mut gradients))
}

/// The values of a model's parameters by name.
pub(crate) fn values_of<M: Module>(model: &M) -> BTreeMap<String, Vec<f32>> {
    struct Values;
    impl Of for Values {
        fn of<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) -> Option<Tensor<D>> {
            Some(parameter.val())
        }
    }
    collect(model, Values)
}

/// A tensor of each parameter, or none.
trait Of {
    fn of<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) -> Option<Tensor<D>>;
}

fn collect<M: Module>(model: &M, of: impl Of) -> BTreeMap<String, Vec<f32>> {
    struct Collector<T> {
        path: FieldPath,
        of: T,
        found: BTreeMap<String, Vec<f32>>,
    }
    impl<T: Of> ModuleVisitor for Collector<T> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            if let Some(tensor) = self.of.of(parameter) {
                self.found.insert(self.path.name(), tensor.into_data().try_to_vec::<f32>().unwrap());
            }
        }
    }
    let mut collector = Collector { path: FieldPath::default(), of, found: BTreeMap::new() };
    model.visit(&mut collector);
    collector.found
}

/// A model of the first stage of pretraining with weights of a seed, on a plain device, and its objective.
pub(crate) fn first_stage(seed: u64, dropout: f64) -> (Pretraining, FirstStage) {
    let vocab_size = WORDS.len() + 4;
    let config = PretrainingConfig {
        vision_config: vision(),
        qformer_config: QFormerConfig {
            reads_text: true,
            vocab_size,
            max_position_embeddings: 16,
            ..qformer(dropout)
        },
        num_query_tokens: 3,
        embed_dim: 8,
        ..PretrainingConfig::default()
    };
    let model = drawn(seed, |device| config.init(device));
    (model, FirstStage { start_token: vocab_size as u32 - 1 })
}

/// Images of noise, whose items are `items`, each with a text that names it.
pub(crate) fn pairs(items: &[usize]) -> Batch {
    let Batch::Caption { visual, captions: Some(texts), items, .. } = batch(items) else {
        panic!("clips have captions");
    };
    Batch::Pairs { visual, texts, items }
}

/// A BLIP-2 with weights of a seed, on a plain device, and its context.
pub(crate) fn blip2(text_config: LanguageModelConfig, seed: u64) -> (Blip2, Context) {
    let dropout = text_config.dropout();
    let config = Blip2Config {
        vision_config: vision(),
        qformer_config: qformer(dropout),
        text_config,
        num_query_tokens: 3,
        ..Blip2Config::default()
    };
    let model = drawn(seed, |device| config.init(device));
    let context = Context {
        config,
        tokenizer: tokenizer(),
        qformer_tokenizer: None,
        prompt: PromptIds::default(),
        generate: GenerateConfig { max_new_tokens: 8, end_tokens: vec![1], ..GenerateConfig::default() },
    };
    (model, context)
}

/// Clips of noise, whose items are `items`, with captions that name them.
pub(crate) fn batch(items: &[usize]) -> Batch {
    let each = 2 * 3 * 8 * 8;
    let noise = |item: usize| {
        let mut state = item as u64 + 1;
        (0..each).map(move |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
    };
    let words = |item: usize| [0, 1 + item % 5, 3, 13 + item % 3].map(|word| WORDS[word]).join(" ");
    let texts: Vec<String> = items.iter().map(|&item| words(item)).collect();
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer().encode(text, 8).unwrap()).collect();
    Batch::Caption {
        visual: HostVisual::Frames {
            values: items.iter().flat_map(|&item| noise(item)).collect(),
            shape: [items.len(), 2, 3, 8, 8],
        },
        prompts: None,
        captions: Some(HostTokens::pad(&ids)),
        texts,
        clips: items.to_vec(),
        items: items.to_vec(),
    }
}
