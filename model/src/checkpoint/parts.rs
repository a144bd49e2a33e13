//! A checkpoint under Hugging Face's names, from one or several sources: LAVIS has separate files for the
//! ViT, the Q-Former and the language model, and a run with frozen parts saves only what it trained.

use std::collections::BTreeMap;
use std::path::Path;

use super::CheckpointError;
use super::base::{FrozenTypes, FrozenValue, Layer, layers};
use super::huggingface::held_name;
use super::layout::{Layout, Mapped};
use super::source::{ElementType, Source};
use crate::blip2::Blip2Config;
use crate::lm::LanguageModelConfig;

/// The part of the model that a source provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything that no other source provides.
    Whole,
    /// The ViT.
    Vision,
    /// The Q-Former, its queries, the norm before it and the projection after it.
    QFormer,
    /// The language model.
    LanguageModel,
}

/// The norm after the ViT. It is stored with the Q-Former, which it is trained with, or with the ViT.
pub(super) const LN_VISION: &str = "vision_model.post_layernorm.";

/// Prefixes that are absent from the files of one part: role, start of the name, prefix. The first matching
/// row applies.
const FRONTS: &[(Role, &str, &str)] = &[
    (Role::Vision, "embeddings.", "vision_model."),
    (Role::Vision, "encoder.", "vision_model."),
    (Role::Vision, "post_layernorm.", "vision_model."),
    (Role::QFormer, "encoder.layer.", "qformer."),
    (Role::QFormer, "layernorm.", "qformer."),
    (Role::QFormer, "embeddings.", "qformer."),
    (Role::LanguageModel, "shared.", "language_model."),
    (Role::LanguageModel, "lm_head.", "language_model."),
    (Role::LanguageModel, "model.", "language_model."),
    (Role::LanguageModel, "encoder.", "language_model."),
    (Role::LanguageModel, "decoder.block.", "language_model."),
    (Role::LanguageModel, "decoder.final_layer_norm.", "language_model."),
    (Role::LanguageModel, "decoder.embed_tokens.", "language_model."),
    // an OPT saved without its head
    (Role::LanguageModel, "decoder.", "language_model.model."),
];

/// Starts of names that only pretraining uses.
const PRETRAINING: &[&str] =
    &["embeddings.", "itm_head.", "vision_projection.", "text_projection.", "qformer.cls."];

/// The temperature of the first stage of pretraining; `temporal_embedding` starts with the same letters.
const TEMPERATURE: &str = "temp";

impl Role {
    /// Whether the role includes a tensor of this full name.
    fn holds(self, name: &str) -> bool {
        match self {
            Self::Whole => true,
            Self::Vision => name.starts_with("vision_model."),
            Self::QFormer => {
                name.starts_with("qformer.")
                    || name.starts_with("language_projection.")
                    || name.starts_with(LN_VISION)
                    || name == "query_tokens"
            }
            Self::LanguageModel => name.starts_with("language_model."),
        }
    }

    /// The full name of a tensor in a part's file.
    fn full_name(self, name: &str, is_opt: bool) -> String {
        if self.holds(name) && self != Self::Whole {
            return name.to_owned();
        }
        let fits = |(role, start, front): &&(Self, &str, &str)| {
            // the last norm and the embedding of a T5's decoder have the same names as an OPT's
            let is_t5s = start.starts_with("decoder.") && *front == "language_model.";
            *role == self && name.starts_with(start) && !(is_opt && is_t5s)
        };
        match FRONTS.iter().find(fits) {
            Some((_, _, front)) => format!("{front}{name}"),
            None => name.to_owned(),
        }
    }
}

/// The embedding that the stacks of a T5 share, and those that they may have of their own.
const SHARED: &str = "language_model.shared.weight";
const OF_STACKS: [&str; 2] =
    ["language_model.encoder.embed_tokens.weight", "language_model.decoder.embed_tokens.weight"];

/// Opened sources, and the source of each tensor.
#[derive(Debug)]
pub struct Parts {
    sources: Vec<Opened>,
    locations: BTreeMap<String, Location>,
    left_out: Vec<String>,
}

#[derive(Debug)]
struct Opened {
    mapped: Mapped,
    /// As in [`Layer`].
    rounded: Vec<FrozenTypes>,
}

#[derive(Debug)]
struct Location {
    source: usize,
    name: String,
    role: Role,
}

impl Parts {
    /// Opens every source. If two have the same tensor, the one whose role names its part is used. A folder
    /// that holds trained tensors only is opened with its base, whose tensors they replace.
    ///
    /// # Errors
    /// If a source or its base cannot be read, or has no tensor of its role.
    pub fn open(sources: &[(Role, &Path)]) -> Result<Self, CheckpointError> {
        let mut parts = Self { sources: Vec::new(), locations: BTreeMap::new(), left_out: Vec::new() };
        for (role, path) in sources {
            let first = parts.sources.len();
            let mut held = 0;
            for layer in layers(path)? {
                held += parts.add(*role, &layer, first)?;
            }
            if held == 0 {
                let reason = format!("holds no tensor of the {role:?} that it was given for");
                return Err(CheckpointError::Weights { reason, path: path.to_path_buf() });
            }
        }
        Ok(parts)
    }

    /// The layouts of the sources.
    pub fn layouts(&self) -> Vec<Layout> {
        self.sources.iter().map(|opened| opened.mapped.layout()).collect()
    }

    /// The type of a tensor's values in its file; that of the run, if the tensor is of a run's base.
    pub fn element_type(&self, name: &str) -> Option<ElementType> {
        let Location { source, name: own, .. } = self.locations.get(name)?;
        let Opened { mapped, rounded } = &self.sources[*source];
        let stored = mapped.get(own).map(|(_, element_type)| element_type)?;
        Some(match rounded.last().map(|types| types.value(name)) {
            None => stored,
            Some(FrozenValue::F32) => ElementType::F32,
            Some(FrozenValue::Bf16) => ElementType::BF16,
            Some(FrozenValue::F16) => ElementType::F16,
        })
    }

    /// Tensors that were left out, each with the reason.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Adds a layer of a source whose layers start with the source `first`; returns how many tensors of the
    /// role it has.
    fn add(&mut self, role: Role, layer: &Layer, first: usize) -> Result<usize, CheckpointError> {
        let Layer { path, rounded } = layer;
        let mapped = Mapped::new(Source::open(path)?)?;
        let source = self.sources.len();
        let is_first = source == first;
        if !is_first && mapped.names().any(|name| name == SHARED) {
            self.drop_copies_of_shared()?;
        }
        let is_opt = !mapped.names().any(|name| name.contains(".block.0."));
        let mut held = 0;
        for excused in mapped.excused() {
            self.left_out.push(format!("{}: {}", excused.name, excused.reason));
        }
        for name in mapped.names() {
            let full = role.full_name(name, is_opt);
            if !role.holds(&full) {
                self.left_out.push(format!("{name}: {} is not there for it", path.display()));
                continue;
            }
            held += 1;
            let location = Location { source, name: name.to_owned(), role };
            let other = self.locations.get(&full);
            if other.is_some_and(|other| other.source >= first) {
                self.locations.insert(full, location); // trained, where the other is the base's
                continue;
            }
            let gives_way = match other.map(|other| other.role) {
                None => false,
                Some(Role::Whole | Role::QFormer) if full.starts_with(LN_VISION) => true,
                Some(other) => role == Role::Whole && other != Role::Whole,
            };
            if gives_way {
                self.left_out
                    .push(format!("{name}: {} has it, but another source is there for it", path.display()));
                continue;
            }
            if let Some(replaced) = self.locations.insert(full.clone(), location) {
                let path = self.sources[replaced.source].mapped.source().path();
                self.left_out
                    .push(format!("{full}: {} has it, but another source is there for it", path.display()));
            }
        }
        self.sources.push(Opened { mapped, rounded: rounded.clone() });
        Ok(held)
    }

    /// Removes copies of T5's shared embedding, before a trained one replaces that: they would look like
    /// embeddings of their own.
    fn drop_copies_of_shared(&mut self) -> Result<(), CheckpointError> {
        let mut copies = Vec::new();
        for own in OF_STACKS {
            if self.locations.contains_key(own) && !self.is_own_embedding(own)? {
                copies.push(own);
            }
        }
        for copy in copies {
            self.locations.remove(copy);
        }
        Ok(())
    }

    /// The path of the first source.
    pub(super) fn path(&self) -> &Path {
        self.sources.first().map_or(Path::new(""), |opened| opened.mapped.source().path())
    }

    /// Sets in the configuration which stacks of a T5 have an embedding that differs from `shared`. Files may
    /// have copies of `shared` for both stacks; a copy is not a separate parameter.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub(super) fn find_embeddings(&self, config: &mut Blip2Config) -> Result<(), CheckpointError> {
        let LanguageModelConfig::T5(t5) = &mut config.text_config else { return Ok(()) };
        t5.encoder_has_embedding = self.is_own_embedding(OF_STACKS[0])?;
        t5.decoder_has_embedding = self.is_own_embedding(OF_STACKS[1])?;
        Ok(())
    }

    /// Whether the embedding of a stack differs from the one that is shared.
    fn is_own_embedding(&self, own: &str) -> Result<bool, CheckpointError> {
        let Some(shared) = held_name(SHARED, self).filter(|shared| shared != own) else { return Ok(false) };
        let role = |name: &str| self.locations.get(name).map(|location| location.role);
        Ok(role(own) == role(&shared) && self.read_f32(own)? != self.read_f32(&shared)?)
    }

    /// Leaves out tensors that only pretraining uses, and the last block of EVA.
    pub(super) fn exclude_pretraining(&mut self, config: &Blip2Config) {
        let reads_text = config.qformer_config.reads_text;
        let is_text_path = |name: &str| {
            let layer = name.strip_prefix("qformer.encoder.layer.").and_then(|rest| rest.split_once('.'));
            layer.is_some_and(|(_, rest)| rest.starts_with("intermediate.") || rest.starts_with("output."))
        };
        self.exclude("only pretraining uses it", |_, name| {
            name == TEMPERATURE
                || PRETRAINING.iter().any(|start| name.starts_with(start))
                || (!reads_text && is_text_path(name))
        });
        self.exclude_evas_last_block(config.vision_config.num_hidden_layers);
    }

    /// Leaves out the last block of EVA, which BLIP-2 does not use.
    pub(super) fn exclude_evas_last_block(&mut self, blocks: usize) {
        let last = format!("vision_model.encoder.layers.{blocks}.");
        self.exclude("EVA's last block, which BLIP-2 does not use", |layout, name| {
            layout == Layout::EvaVit && name.starts_with(&last)
        });
    }

    fn exclude(&mut self, reason: &str, choose: impl Fn(Layout, &str) -> bool) {
        let layouts = self.layouts();
        let left: Vec<String> = self
            .locations
            .iter()
            .filter(|(name, location)| choose(layouts[location.source], name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in left {
            self.locations.remove(&name);
            self.left_out.push(format!("{name}: {reason}"));
        }
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.locations.keys().map(String::as_str)
    }

    /// The shape of a tensor, if it exists.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let Location { source, name, .. } = self.locations.get(name)?;
        self.sources[*source].mapped.get(name).map(|(shape, _)| shape)
    }

    /// The values of a tensor in row-major order.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let Some(Location { source, name: own, .. }) = self.locations.get(name) else {
            return Err(CheckpointError::Weights {
                reason: format!("{name} is absent"),
                path: Default::default(),
            });
        };
        let Opened { mapped, rounded } = &self.sources[*source];
        let mut values = mapped.read_f32(own)?;
        for value in rounded.iter().map(|types| types.value(name)).filter(|value| *value != FrozenValue::F32)
        {
            values.iter_mut().for_each(|own| *own = value.round(*own));
        }
        Ok(values)
    }
}
