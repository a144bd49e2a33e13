//! A Q-Former that starts from BERT, as BLIP-2's does (`Blip2Base.init_Qformer` in LAVIS): self-attention,
//! feed-forward layers, embeddings and language-modelling head are BERT's; the layers for queries are copies
//! of those for text. Cross-attention, queries and the heads of the first stage stay random.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use super::CheckpointError;
use super::source::Source;
use crate::parameters::{FieldPath, track_path};
use crate::pretraining::Pretraining;

/// From names of parameters to BERT's: in names that start with the first column, the second column is
/// replaced by the third. Rows apply from top to bottom.
const TABLE: &[(&str, &str, &str)] = &[
    ("qformer.text.", "qformer.text.word", "bert.embeddings.word_embeddings.weight"),
    ("qformer.text.", "qformer.text.position", "bert.embeddings.position_embeddings.weight"),
    ("qformer.layernorm.", "qformer.layernorm.", "bert.embeddings.LayerNorm."),
    ("qformer.layers.", "qformer.layers.", "bert.encoder.layer."),
    ("bert.encoder.", ".attention.query.", ".attention.self.query."),
    ("bert.encoder.", ".attention.key.", ".attention.self.key."),
    ("bert.encoder.", ".attention.value.", ".attention.self.value."),
    ("bert.encoder.", ".intermediate_query.", ".intermediate."),
    ("bert.encoder.", ".output_query.", ".output."),
    ("bert.encoder.", ".intermediate.", ".intermediate.dense."),
    ("bert.encoder.", ".layer_norm.", ".LayerNorm."),
    ("writer.dense.", "writer.", "cls.predictions.transform."),
    ("writer.layer_norm.", "writer.layer_norm.", "cls.predictions.transform.LayerNorm."),
    ("writer.bias", "writer.", "cls.predictions."),
];

/// Parameters with a row for each word: the model may have more words than BERT, such as `[DEC]`.
const VOCABULARY: [&str; 2] = ["qformer.text.word", "writer.bias"];

/// Fills a model of the first stage with BERT's weights; every other parameter keeps its value.
///
/// `directory` holds BERT's `model.safetensors` or `pytorch_model.bin`, as saved from `BertForPreTraining`,
/// `BertForMaskedLM` or `BertModel`; the last has no language-modelling head, which then stays random.
///
/// # Errors
/// If the file cannot be read, a tensor is missing or of another shape, or BERT has more layers.
pub fn init_from_bert(model: Pretraining, directory: &Path) -> Result<Pretraining, CheckpointError> {
    let source = Source::open(directory)?;
    let has_head = source.names().any(|name| name.starts_with("cls.predictions."));
    let mut loader = Loader {
        source: &source,
        has_head,
        path: FieldPath::default(),
        read: BTreeSet::new(),
        problems: Vec::new(),
        failure: None,
    };
    let model = model.map(&mut loader);
    let Loader { mut problems, read, failure, .. } = loader;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let layers = source.names().filter(|name| name.contains("encoder.layer.") && !read.contains(*name));
    problems.extend(layers.map(|name| format!("unexpected {name}")));
    if problems.is_empty() {
        Ok(model)
    } else {
        Err(CheckpointError::Mismatch { problems, path: directory.to_owned() })
    }
}

/// BERT's name of a parameter; none where it has no such weight.
fn bert_name(ours: &str) -> Option<String> {
    let is_shared = ours.starts_with("qformer.") || ours.starts_with("writer.");
    if !is_shared || ours.contains(".crossattention.") {
        return None;
    }
    let replace = |name: String, (start, from, to): &(&str, &str, &str)| {
        if name.starts_with(start) { name.replacen(from, to, 1) } else { name }
    };
    Some(TABLE.iter().fold(ours.to_owned(), replace))
}

struct Loader<'a> {
    source: &'a Source,
    has_head: bool,
    path: FieldPath,
    read: BTreeSet<String>,
    problems: Vec<String>,
    failure: Option<CheckpointError>,
}

impl Loader<'_> {
    /// The tensor's name in the file: that of `BertModel` has no prefix, and older files call the weights of
    /// norms gamma and beta.
    fn held(&self, name: &str) -> Option<String> {
        let bare = name.strip_prefix("bert.").unwrap_or(name);
        let old = |name: &str| match name.rsplit_once(".LayerNorm.") {
            Some((front, "weight")) => format!("{front}.LayerNorm.gamma"),
            Some((front, _)) => format!("{front}.LayerNorm.beta"),
            None => name.to_owned(),
        };
        let names = [name.to_owned(), bare.to_owned(), old(name), old(bare)];
        names.into_iter().find(|name| self.source.get(name).is_some())
    }

    /// The values of a parameter whose own are `initial`; none where it stays as it is.
    fn values(&mut self, ours: &str, initial: &TensorData) -> Result<Option<TensorData>, CheckpointError> {
        let Some(wanted) = bert_name(ours) else { return Ok(None) };
        if !self.has_head && ours.starts_with("writer.") {
            return Ok(None);
        }
        let Some(name) = self.held(&wanted) else {
            self.problems.push(format!("missing {wanted}"));
            return Ok(None);
        };
        let expected = initial.shape().to_vec();
        let shape = self.source.get(&name).map(|info| info.shape.to_vec()).unwrap_or_default();
        self.read.insert(name.clone());
        let has_more_rows = VOCABULARY.contains(&ours)
            && shape.first() <= expected.first()
            && shape.get(1..) == expected.get(1..);
        if shape != expected && !has_more_rows {
            self.problems.push(format!("{name}: expected {expected:?}, got {shape:?}"));
            return Ok(None);
        }
        let mut values = self.source.read_f32(&name)?;
        if values.len() < expected.iter().product() {
            let own = initial.clone().try_to_vec::<f32>().map_err(|error| CheckpointError::Weights {
                reason: format!("{ours}: {error:?}"),
                path: self.source.path().to_owned(),
            })?;
            values.extend_from_slice(&own[values.len()..]);
        }
        Ok(Some(TensorData::new(values, expected)))
    }
}

impl ModuleMapper for Loader<'_> {
    track_path!();

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failure.is_some() {
            return parameter;
        }
        let ours = self.path.name();
        match self.values(&ours, &parameter.val().without_autodiff().into_data()) {
            Ok(Some(data)) => {
                let tensor = Tensor::<D>::from_data(data, &parameter.lazy_device().inner());
                let id = parameter.id;
                parameter.transform_for_load(tensor, id)
            }
            Ok(None) => parameter,
            Err(failure) => {
                self.failure = Some(failure);
                parameter
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::draw;
    use crate::pretraining::PretrainingConfig;
    use crate::qformer::QFormerConfig;
    use crate::vit::VitConfig;
    use burn::module::ModuleVisitor;
    use burn::tensor::Device;
    use std::collections::BTreeMap;

    const D: usize = 6;
    const WORDS: usize = 9;

    fn config(hidden_size: usize) -> PretrainingConfig {
        PretrainingConfig {
            vision_config: VitConfig {
                hidden_size: 8,
                intermediate_size: 8,
                num_hidden_layers: 1,
                num_attention_heads: 2,
                image_size: 8,
                patch_size: 4,
                ..VitConfig::default()
            },
            qformer_config: QFormerConfig {
                hidden_size,
                intermediate_size: 10,
                num_hidden_layers: 2,
                num_attention_heads: 2,
                encoder_hidden_size: 8,
                reads_text: true,
                vocab_size: WORDS + 1,
                max_position_embeddings: 7,
                ..QFormerConfig::default()
            },
            num_query_tokens: 3,
            embed_dim: 4,
            ..PretrainingConfig::default()
        }
    }

    fn model(hidden_size: usize) -> Pretraining {
        let device = Device::flex();
        device.seed(5);
        let model = config(hidden_size).init(&device);
        draw(&model);
        model
    }

    /// Names and shapes of `BertForPreTraining` in transformers, of this size.
    fn bert(layers: usize) -> Vec<(String, Vec<usize>)> {
        let mut all = vec![
            ("bert.embeddings.word_embeddings.weight".to_owned(), vec![WORDS, D]),
            ("bert.embeddings.position_embeddings.weight".to_owned(), vec![7, D]),
            ("bert.embeddings.token_type_embeddings.weight".to_owned(), vec![2, D]),
            ("bert.embeddings.LayerNorm.weight".to_owned(), vec![D]),
            ("bert.embeddings.LayerNorm.bias".to_owned(), vec![D]),
            ("bert.pooler.dense.weight".to_owned(), vec![D, D]),
            ("bert.pooler.dense.bias".to_owned(), vec![D]),
            ("cls.predictions.bias".to_owned(), vec![WORDS]),
            ("cls.predictions.transform.dense.weight".to_owned(), vec![D, D]),
            ("cls.predictions.transform.dense.bias".to_owned(), vec![D]),
            ("cls.predictions.transform.LayerNorm.weight".to_owned(), vec![D]),
            ("cls.predictions.transform.LayerNorm.bias".to_owned(), vec![D]),
            ("cls.seq_relationship.weight".to_owned(), vec![2, D]),
            ("cls.seq_relationship.bias".to_owned(), vec![2]),
        ];
        for layer in 0..layers {
            let mut linear = |name: &str, output: usize, input: usize| {
                all.push((format!("bert.encoder.layer.{layer}.{name}.weight"), vec![output, input]));
                all.push((format!("bert.encoder.layer.{layer}.{name}.bias"), vec![output]));
            };
            for name in ["query", "key", "value"] {
                linear(&format!("attention.self.{name}"), D, D);
            }
            linear("attention.output.dense", D, D);
            linear("intermediate.dense", 10, D);
            linear("output.dense", D, 10);
            for norm in ["attention.output.LayerNorm", "output.LayerNorm"] {
                all.push((format!("bert.encoder.layer.{layer}.{norm}.weight"), vec![D]));
                all.push((format!("bert.encoder.layer.{layer}.{norm}.bias"), vec![D]));
            }
        }
        all
    }

    /// Writes tensors whose values count up from a number of their own.
    fn write(
        tensors: &[(String, Vec<usize>)],
        rename: impl Fn(&str) -> String,
    ) -> (tempfile::TempDir, BTreeMap<String, Vec<f32>>) {
        let directory = tempfile::tempdir().unwrap();
        let values: BTreeMap<String, Vec<f32>> = tensors
            .iter()
            .enumerate()
            .map(|(at, (name, shape))| {
                let count = shape.iter().product::<usize>();
                (name.clone(), (0..count).map(|value| (at * 1000 + value) as f32).collect())
            })
            .collect();
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .iter()
            .map(|(name, shape)| {
                let bytes = values[name].iter().flat_map(|value| value.to_le_bytes()).collect();
                (rename(name), shape.clone(), bytes)
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
            (name.clone(), view.unwrap())
        });
        let path = directory.path().join("model.safetensors");
        safetensors::serialize_to_file(views, None, &path).unwrap();
        (directory, values)
    }

    fn values<M: Module>(model: &M) -> BTreeMap<String, Vec<f32>> {
        #[derive(Default)]
        struct Collector {
            path: FieldPath,
            found: BTreeMap<String, Vec<f32>>,
        }
        impl ModuleVisitor for Collector {
            track_path!();

            fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
                let values = parameter.val().into_data().try_to_vec::<f32>().unwrap();
                self.found.insert(self.path.name(), values);
            }
        }
        let mut collector = Collector::default();
        model.visit(&mut collector);
        collector.found
    }

    #[test]
    fn every_shared_weight_is_berts_and_the_others_stay_as_they_were_drawn() {
        let original = model(D);
        let before = values(&original);
        let plain: fn(&str) -> String = str::to_owned;
        let old: fn(&str) -> String = |name| {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        };
        for rename in [plain, old] {
            let (directory, theirs) = write(&bert(2), rename);
            let after = values(&init_from_bert(original.clone(), directory.path()).unwrap());
            let mut used = BTreeSet::new();
            for (ours, initial) in &before {
                let found = &after[ours];
                let Some(name) = bert_name(ours) else {
                    assert_eq!(found, initial, "{ours}");
                    continue;
                };
                let expected = &theirs[&name];
                assert_eq!(&found[..expected.len()], expected, "{ours}");
                assert_eq!(found[expected.len()..], initial[expected.len()..], "{ours}: the row of [DEC]");
                used.insert(name);
            }
            let unused: Vec<&String> = theirs.keys().filter(|name| !used.contains(*name)).collect();
            assert_eq!(
                unused,
                [
                    "bert.embeddings.token_type_embeddings.weight",
                    "bert.pooler.dense.bias",
                    "bert.pooler.dense.weight",
                    "cls.seq_relationship.bias",
                    "cls.seq_relationship.weight",
                ],
                "what the Q-Former has no place for"
            );
            assert_eq!(
                after["qformer.layers.1.output_query.dense.weight"],
                after["qformer.layers.1.output.dense.weight"]
            );
        }
    }

    #[test]
    fn a_bert_without_a_head_leaves_the_head_random() {
        let inner: Vec<_> = bert(2).into_iter().filter(|(name, _)| name.starts_with("bert.")).collect();
        let (directory, theirs) = write(&inner, |name| name.trim_start_matches("bert.").to_owned());
        let original = model(D);
        let before = values(&original);
        let after = values(&init_from_bert(original, directory.path()).unwrap());
        assert_eq!(after["writer.dense.weight"], before["writer.dense.weight"]);
        assert_eq!(
            after["qformer.layers.0.attention.query.weight"],
            theirs["bert.encoder.layer.0.attention.self.query.weight"]
        );
    }

    #[test]
    fn a_bert_of_another_size_is_refused_with_the_tensors_that_differ() {
        let refused = |hidden_size: usize, tensors: &[(String, Vec<usize>)]| {
            let (directory, _) = write(tensors, str::to_owned);
            init_from_bert(model(hidden_size), directory.path()).unwrap_err().to_string()
        };
        let wide = refused(8, &bert(2));
        assert!(
            wide.contains("bert.encoder.layer.0.attention.self.query.weight: expected [8, 8], got [6, 6]"),
            "{wide}"
        );
        let deep = refused(D, &bert(3));
        assert!(deep.contains("unexpected bert.encoder.layer.2.attention"), "{deep}");
        let shallow = refused(D, &bert(1));
        assert!(shallow.contains("missing bert.encoder.layer.1.attention"), "{shallow}");
        let mut words = bert(2);
        words[0].1[0] = WORDS + 2;
        let many = refused(D, &words);
        assert!(many.contains("word_embeddings.weight: expected [10, 6], got [11, 6]"), "{many}");
    }
}
