//! The low-rank update of a dense layer (LoRA, arXiv:2106.09685): `y = W x + (α/r)·B A x` with `W` frozen;
//! rank-stabilised (rsLoRA, arXiv:2312.03732), the scale is `α/√r`.
//!
//! Training never forms the dense product `B A`, as Burn's own LoRA does in every forward pass: it multiplies
//! by `A`, then by `B`. The factors are f32 whatever the weight's type, as `peft` keeps them.

use std::collections::BTreeMap;

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

use super::{Dropout, DropoutConfig, product};

/// Which layers get an update, and of what rank; keys as in `peft`'s `adapter_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// Rank of the update.
    pub r: usize,
    /// The update is scaled by this over the rank.
    pub lora_alpha: f64,
    /// Dropout on the update's input.
    pub lora_dropout: f64,
    /// Names of layers, as Hugging Face names them: the last part of the path (`q`) or several
    /// (`SelfAttention.q`).
    pub target_modules: Vec<String>,
    /// Whether the update is scaled by `lora_alpha` over the root of the rank.
    #[serde(skip_serializing_if = "is_false")]
    pub use_rslora: bool,
    /// Other ranks, by names of layers as in `target_modules`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other values of `lora_alpha`, by names of layers as in `target_modules`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(value: &bool) -> bool {
    !value
}

impl Default for LoraConfig {
    /// What the paper's authors train FLAN-T5 with.
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 16.0,
            lora_dropout: 0.05,
            target_modules: vec!["q".to_owned(), "v".to_owned()],
            use_rslora: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
        }
    }
}

/// The largest rank that is not taken for a damaged file.
const MAX_RANK: usize = 1 << 14;

/// The language model's name in a BLIP-2 that peft has wrapped as a whole.
const LANGUAGE_MODEL: &str = "language_model.";

impl LoraConfig {
    /// Rejects ranks and scales that make no update, and names of layers that are regular expressions in
    /// peft.
    ///
    /// # Errors
    /// The key, its value and what is expected.
    pub fn check(&self) -> Result<(), String> {
        let ranks = self.rank_pattern.iter().map(|(name, rank)| (format!("rank_pattern.{name}"), *rank));
        for (key, rank) in std::iter::once(("r".to_owned(), self.r)).chain(ranks) {
            if rank == 0 || rank > MAX_RANK {
                return Err(format!("{key} is {rank}, expected a rank from 1 to {MAX_RANK}"));
            }
        }
        let alphas = self.alpha_pattern.iter().map(|(name, alpha)| (format!("alpha_pattern.{name}"), *alpha));
        for (key, alpha) in std::iter::once(("lora_alpha".to_owned(), self.lora_alpha)).chain(alphas) {
            if !alpha.is_finite() {
                return Err(format!("{key} is {alpha}, expected a finite number"));
            }
        }
        let is_plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "._^".contains(c));
        let ranks = self.rank_pattern.keys().map(|name| ("rank_pattern", name));
        let alphas = self.alpha_pattern.keys().map(|name| ("alpha_pattern", name));
        if let Some((key, name)) = ranks.chain(alphas).find(|(_, name)| !is_plain(name)) {
            return Err(format!(
                "{key} has the pattern \"{name}\", expected a layer's name or the end of it"
            ));
        }
        Ok(())
    }

    /// Whether a layer of this path, in Hugging Face's names, gets an update.
    pub fn targets(&self, path: &str) -> bool {
        self.target_modules.iter().any(|target| names(target, path))
    }

    /// Whether several names of `rank_pattern` or of `alpha_pattern` give a layer different values. peft uses
    /// the first of the file, whose order is not known here.
    pub fn is_ambiguous(&self, path: &str) -> bool {
        fn differ<T: PartialEq>(table: &BTreeMap<String, T>, path: &str) -> bool {
            let mut values = of_layer(table, path);
            let first = values.next();
            values.any(|value| Some(value) != first)
        }
        differ(&self.rank_pattern, path) || differ(&self.alpha_pattern, path)
    }

    /// A fresh update of a layer: `A` as `peft` draws it (uniform, `±1/√in`), `B` zero, so that it changes
    /// nothing yet.
    pub fn init(&self, path: &str, [d_output, d_input]: [usize; 2], device: &Device) -> Lora {
        let bound = (d_input as f64).powf(-0.5);
        let rank = of_layer(&self.rank_pattern, path).next().copied().unwrap_or(self.r);
        let alpha = of_layer(&self.alpha_pattern, path).next().copied().unwrap_or(self.lora_alpha);
        let divisor = if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        Lora {
            a: Initializer::Uniform { min: -bound, max: bound }.init([rank, d_input], device),
            b: Initializer::Zeros.init([d_output, rank], device),
            dropout: DropoutConfig::new(self.lora_dropout).init(),
            scale: alpha / divisor,
        }
    }
}

/// Whether `name` is a path or the end of one, in whole parts.
fn names(name: &str, path: &str) -> bool {
    let name = name.strip_prefix(LANGUAGE_MODEL).unwrap_or(name);
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The values of a layer in a table by names of layers; `^` marks a whole path.
fn of_layer<'a, T>(table: &'a BTreeMap<String, T>, path: &'a str) -> impl Iterator<Item = &'a T> {
    let fits = move |name: &str| match name.strip_prefix('^') {
        Some(whole) => whole.strip_prefix(LANGUAGE_MODEL).unwrap_or(whole) == path,
        None => names(name, path),
    };
    table.iter().filter(move |(name, _)| fits(name)).map(|(_, value)| value)
}

/// The update of one layer.
#[derive(Module, Debug)]
pub struct Lora {
    /// `[r, in]`
    pub a: Param<Tensor<2>>,
    /// `[out, r]`
    pub b: Param<Tensor<2>>,
    dropout: Dropout,
    scale: f64,
}

impl Lora {
    /// The update's part of the output.
    ///
    /// # Shapes
    /// - input: `[rows, in]`
    /// - output: `[rows, out]`, in f32
    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let input = self.dropout.forward(input.cast(FloatDType::F32));
        product(product(input, self.a.val(), None), self.b.val(), None).mul_scalar(self.scale)
    }

    /// The update as a dense matrix, `(α/r)·B A`: `[out, in]`.
    pub fn dense(&self) -> Tensor<2> {
        self.b.val().matmul(self.a.val()).mul_scalar(self.scale)
    }
}
