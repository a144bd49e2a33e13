//! Small models of every kind, with random weights.

use model::lm::LanguageModelConfig;
use model::lm::llama::LlamaConfig;
use model::lm::opt::OptConfig;
use model::lm::t5::{FeedForward, T5Config};
use model::lora::LoraConfig;
use model::qformer::QFormerConfig;
use model::vit::VitConfig;
use model::{Blip2Config, Fusion, Temporal};

const VOCABULARY: usize = 23;

pub(crate) fn language_models() -> Vec<LanguageModelConfig> {
    let t5 = T5Config {
        vocab_size: VOCABULARY,
        d_model: 16,
        d_kv: 6,
        d_ff: 24,
        num_layers: 3,
        num_decoder_layers: 3,
        num_heads: 3,
        dropout_rate: 0.0,
        ..T5Config::default()
    };
    let tied = T5Config {
        feed_forward_proj: FeedForward::Relu,
        tie_word_embeddings: true,
        num_decoder_layers: 2,
        ..t5.clone()
    };
    let opt = OptConfig {
        vocab_size: VOCABULARY,
        hidden_size: 16,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        ffn_dim: 24,
        max_position_embeddings: 40,
        dropout: 0.0,
        init_std: 0.3,
        ..OptConfig::default()
    };
    let llama = LlamaConfig {
        vocab_size: VOCABULARY,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: Some(2),
        head_dim: Some(4),
        max_position_embeddings: 40,
        initializer_range: 0.3,
        ..LlamaConfig::default()
    };
    vec![
        LanguageModelConfig::T5(t5),
        LanguageModelConfig::T5(tied),
        LanguageModelConfig::Opt(opt),
        LanguageModelConfig::Llama(llama),
    ]
}

pub(crate) fn vision() -> VitConfig {
    VitConfig {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        image_size: 8,
        patch_size: 4,
        initializer_range: 0.2,
        ..VitConfig::default()
    }
}

pub(crate) fn qformer() -> QFormerConfig {
    QFormerConfig {
        hidden_size: 12,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        intermediate_size: 24,
        encoder_hidden_size: 16,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        initializer_range: 0.2,
        reads_text: true,
        vocab_size: VOCABULARY,
        max_position_embeddings: 12,
        ..QFormerConfig::default()
    }
}

pub(crate) fn captioner(text_config: LanguageModelConfig) -> Blip2Config {
    Blip2Config {
        vision_config: vision(),
        qformer_config: qformer(),
        text_config,
        num_query_tokens: 3,
        fusion: Fusion::Concat,
        temporal: Temporal::Learned,
        ..Blip2Config::default()
    }
}

pub(crate) fn with_lora(config: Blip2Config) -> Blip2Config {
    let targets = ["q", "v", "q_proj", "v_proj", "fc1", "wo"];
    let lora = LoraConfig {
        r: 2,
        lora_alpha: 4.0,
        lora_dropout: 0.0,
        target_modules: targets.map(str::to_owned).to_vec(),
        ..LoraConfig::default()
    };
    Blip2Config { lora: Some(lora), ..config }
}
