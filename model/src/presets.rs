//! Sizes of the published models, by their Hugging Face names.

use crate::blip2::Blip2Config;
use crate::fusion::Fusion;
use crate::layers::Activation;
use crate::lm::LanguageModelConfig;
use crate::lm::llama::LlamaConfig;
use crate::lm::opt::OptConfig;
use crate::lm::t5::T5Config;
use crate::qformer::QFormerConfig;
use crate::vit::VitConfig;

/// A published model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// `Salesforce/blip2-opt-2.7b`
    Blip2Opt2B7,
    /// `Salesforce/blip2-opt-2.7b-coco`, for images of 364 pixels.
    Blip2Opt2B7Coco,
    /// `Salesforce/blip2-opt-6.7b`
    Blip2Opt6B7,
    /// `Salesforce/blip2-opt-6.7b-coco`, for images of 364 pixels.
    Blip2Opt6B7Coco,
    /// `Salesforce/blip2-flan-t5-xl`
    Blip2FlanT5Xl,
    /// `Salesforce/blip2-flan-t5-xl-coco`, for images of 364 pixels.
    Blip2FlanT5XlCoco,
    /// `Salesforce/blip2-flan-t5-xxl`
    Blip2FlanT5Xxl,
    /// `Salesforce/blip2-vicuna-7b`: BLIP-2's second stage on Vicuna, which the paper trains; not published.
    Blip2Vicuna7B,
    /// `Salesforce/instructblip-flan-t5-xl`
    InstructBlipFlanT5Xl,
    /// `Salesforce/instructblip-flan-t5-xxl`
    InstructBlipFlanT5Xxl,
    /// `Salesforce/instructblip-vicuna-7b`
    InstructBlipVicuna7B,
    /// `Salesforce/instructblip-vicuna-13b`
    InstructBlipVicuna13B,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Blip2Opt2B7,
        Self::Blip2Opt2B7Coco,
        Self::Blip2Opt6B7,
        Self::Blip2Opt6B7Coco,
        Self::Blip2FlanT5Xl,
        Self::Blip2FlanT5XlCoco,
        Self::Blip2FlanT5Xxl,
        Self::Blip2Vicuna7B,
        Self::InstructBlipFlanT5Xl,
        Self::InstructBlipFlanT5Xxl,
        Self::InstructBlipVicuna7B,
        Self::InstructBlipVicuna13B,
    ];

    /// The name of its repository, without the owner.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blip2Opt2B7 => "blip2-opt-2.7b",
            Self::Blip2Opt2B7Coco => "blip2-opt-2.7b-coco",
            Self::Blip2Opt6B7 => "blip2-opt-6.7b",
            Self::Blip2Opt6B7Coco => "blip2-opt-6.7b-coco",
            Self::Blip2FlanT5Xl => "blip2-flan-t5-xl",
            Self::Blip2FlanT5XlCoco => "blip2-flan-t5-xl-coco",
            Self::Blip2FlanT5Xxl => "blip2-flan-t5-xxl",
            Self::Blip2Vicuna7B => "blip2-vicuna-7b",
            Self::InstructBlipFlanT5Xl => "instructblip-flan-t5-xl",
            Self::InstructBlipFlanT5Xxl => "instructblip-flan-t5-xxl",
            Self::InstructBlipVicuna7B => "instructblip-vicuna-7b",
            Self::InstructBlipVicuna13B => "instructblip-vicuna-13b",
        }
    }

    /// The preset of a repository's name, with or without the owner, or of a LAVIS file's name.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_lowercase();
        if let Some(preset) = Self::ALL.into_iter().find(|preset| preset.name() == name) {
            return Some(preset);
        }
        let is_coco = name.contains("coco") || name.contains("caption");
        let is_instruct = name.contains("instruct");
        let language_models = [
            ("opt2.7b", [Self::Blip2Opt2B7, Self::Blip2Opt2B7Coco, Self::Blip2Opt2B7]),
            ("opt6.7b", [Self::Blip2Opt6B7, Self::Blip2Opt6B7Coco, Self::Blip2Opt6B7]),
            ("flant5xxl", [Self::Blip2FlanT5Xxl, Self::Blip2FlanT5Xxl, Self::InstructBlipFlanT5Xxl]),
            ("flant5xl", [Self::Blip2FlanT5Xl, Self::Blip2FlanT5XlCoco, Self::InstructBlipFlanT5Xl]),
            ("vicuna7b", [Self::Blip2Vicuna7B, Self::Blip2Vicuna7B, Self::InstructBlipVicuna7B]),
            ("vicuna13b", [Self::InstructBlipVicuna13B; 3]),
        ];
        let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_')).collect();
        let (_, [pretrained, coco, instruct]) =
            language_models.into_iter().find(|(language_model, _)| plain.contains(language_model))?;
        Some(match (is_instruct, is_coco) {
            (true, _) => instruct,
            (false, true) => coco,
            (false, false) => pretrained,
        })
    }

    /// Its sizes.
    pub fn config(self) -> Blip2Config {
        let (is_instruct, is_coco) = (self.name().starts_with("instruct"), self.name().ends_with("-coco"));
        Blip2Config {
            vision_config: VitConfig { image_size: if is_coco { 364 } else { 224 }, ..VitConfig::default() },
            qformer_config: QFormerConfig {
                reads_text: is_instruct,
                // BERT's tokens and the [DEC] of pretraining
                vocab_size: if is_instruct { 30_523 } else { 30_522 },
                ..QFormerConfig::default()
            },
            text_config: self.language_model(),
            fusion: if is_instruct { Fusion::ConcatQueries } else { Fusion::Concat },
            ..Blip2Config::default()
        }
    }

    fn language_model(self) -> LanguageModelConfig {
        match self {
            Self::Blip2Opt2B7 | Self::Blip2Opt2B7Coco => {
                LanguageModelConfig::Opt(OptConfig { eos_token_id: Some(50_118), ..OptConfig::default() })
            }
            Self::Blip2Opt6B7 | Self::Blip2Opt6B7Coco => LanguageModelConfig::Opt(OptConfig {
                hidden_size: 4096,
                ffn_dim: 16_384,
                eos_token_id: Some(50_118),
                ..OptConfig::default()
            }),
            // LAVIS sets the exact GELU, and so do the published files
            Self::Blip2FlanT5Xl | Self::Blip2FlanT5XlCoco | Self::InstructBlipFlanT5Xl => {
                LanguageModelConfig::T5(T5Config {
                    dense_act_fn: Some(Activation::Gelu),
                    ..T5Config::default()
                })
            }
            Self::Blip2FlanT5Xxl | Self::InstructBlipFlanT5Xxl => LanguageModelConfig::T5(T5Config {
                d_model: 4096,
                d_ff: 10_240,
                num_heads: 64,
                dense_act_fn: Some(Activation::Gelu),
                ..T5Config::default()
            }),
            Self::Blip2Vicuna7B | Self::InstructBlipVicuna7B => {
                LanguageModelConfig::Llama(LlamaConfig { vocab_size: 32_001, ..LlamaConfig::default() })
            }
            Self::InstructBlipVicuna13B => LanguageModelConfig::Llama(LlamaConfig {
                vocab_size: 32_001,
                hidden_size: 5120,
                intermediate_size: 13_824,
                num_hidden_layers: 40,
                num_attention_heads: 40,
                ..LlamaConfig::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::{LoraConfig, attach};
    use crate::parameters::count;
    use crate::pretraining::PretrainingConfig;
    use burn::tensor::Device;

    /// What the second stage of pretraining trains: everything but the ViT and the language model.
    fn second_stage(name: &str) -> bool {
        !name.starts_with("vision_model.") && !name.starts_with("language_model.")
    }

    /// The reference's counts (reference/paper-and-peers.md, 2.1), taken from LAVIS's logs and modules. No
    /// weight is allocated: parameters are drawn when they are first read.
    #[test]
    fn full_size_models_have_the_published_numbers_of_parameters() {
        let device = Device::flex();
        let of = |preset: Preset, choose: fn(&str) -> bool| count(&preset.config().init(&device), choose);
        let vit = |name: &str| name.starts_with("vision_model.");
        assert_eq!(of(Preset::Blip2FlanT5Xl, vit), 985_894_528);
        assert_eq!(of(Preset::Blip2Opt2B7, second_stage), 107_133_696);
        assert_eq!(of(Preset::Blip2FlanT5Xl, second_stage), 106_739_968);
        assert_eq!(of(Preset::Blip2Vicuna7B, second_stage), 108_314_880);
        assert_eq!(of(Preset::Blip2Opt2B7Coco, |name| !name.starts_with("language_model.")), 1_093_619_584);
        let first_stage = PretrainingConfig::default().init(&device);
        assert_eq!(count(&first_stage, |name| !name.starts_with("vision_model.")), 186_705_470);
    }

    /// The language models' own counts, as `transformers` counts them on the meta device; to FLAN-T5's, whose
    /// head it counts as tied, the head's `32,128 · d` is added, as the published files have one.
    #[test]
    fn language_models_have_the_published_numbers_of_parameters() {
        let device = Device::flex();
        let of = |preset: Preset| {
            count(&preset.config().init(&device), |name| name.starts_with("language_model."))
        };
        assert_eq!(of(Preset::Blip2Opt2B7), 2_651_596_800);
        assert_eq!(of(Preset::Blip2Opt6B7), 6_658_473_984);
        assert_eq!(of(Preset::Blip2FlanT5Xl), 2_849_757_184);
        assert_eq!(of(Preset::Blip2FlanT5Xxl), 11_135_332_352);
        // the added padding token has a row in embedding and head
        assert_eq!(of(Preset::Blip2Vicuna7B), 6_738_415_616 + 2 * 4096);
        assert_eq!(of(Preset::InstructBlipVicuna13B), 13_015_864_320 + 2 * 5120);
    }

    #[test]
    fn lora_on_t5_xl_adds_the_published_number_of_parameters() {
        let mut model = Preset::Blip2FlanT5Xl.config().init(&Device::flex());
        assert_eq!(attach(&mut model.language_model, &LoraConfig::default()), 144);
        assert_eq!(count(&model, |name| name.contains(".lora.")), 4_718_592);
    }

    #[test]
    fn presets_are_found_by_the_names_of_repositories_and_of_lavis_files() {
        for preset in Preset::ALL {
            assert_eq!(Preset::from_name(&format!("Salesforce/{}", preset.name())), Some(preset));
            preset.config().check().unwrap();
        }
        for (file, preset) in [
            ("blip2_pretrained_flant5xl.pth", Preset::Blip2FlanT5Xl),
            ("blip2_pretrained_flant5xxl.pth", Preset::Blip2FlanT5Xxl),
            ("blip2_caption_opt2.7b.pth", Preset::Blip2Opt2B7Coco),
            ("instruct_blip_vicuna13b_trimmed.pth", Preset::InstructBlipVicuna13B),
        ] {
            assert_eq!(Preset::from_name(file), Some(preset), "{file}");
        }
        assert_eq!(Preset::from_name("llava-1.5-7b"), None);
    }
}
