//! Loading and saving checkpoints: a directory in Hugging Face's layout (`config.json`, `model.safetensors`,
//! an adapter of peft), the same with the trained tensors of a run and the name of its base, and the import
//! of files in other layouts.
//!
//! A missing, unexpected or wrongly shaped tensor is an error that lists all of them; a partly loaded model
//! is never returned.

mod base;
mod bert;
mod config;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod generation;
mod hash;
mod huggingface;
mod import;
mod json;
pub mod layout;
mod parts;
mod peft;
mod precision;
mod read;
mod save;
pub mod source;
mod stand_in;

pub use base::{BASE_FILE, Base, FrozenTypes, FrozenValue, TRAINED_FILE, Trained};
pub use bert::init_from_bert;
pub use config::{load_config_file, load_language_model_config};
pub use generation::Constraints;
pub use hash::{QFORMER_TOKENIZER, SETTINGS_FILE, hex, weights_hash};
pub use import::{Imported, image_size, import};
pub use parts::{Parts, Role};
pub use peft::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILES, load_adapter, load_adapter_config, save_adapter};
pub use precision::Precision;
pub use stand_in::stand_in;

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::blip2::{Blip2, Blip2Config};
use crate::pretraining::{Pretraining, PretrainingConfig};
use huggingface::Names;

/// File of the configuration.
pub const CONFIG_FILE: &str = "config.json";
/// File of the settings of text generation; optional.
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";
/// File of the weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// Why a checkpoint cannot be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system reported an error.
    #[error("cannot {action}: {source}: {path}")]
    Io {
        /// The failed action.
        action: &'static str,
        /// The cause.
        source: std::io::Error,
        /// The file or directory.
        path: PathBuf,
    },
    /// `config.json` is not JSON, or not the configuration of a BLIP-2.
    #[error("not the configuration of a BLIP-2: {reason}: {path}")]
    Config {
        /// The cause.
        reason: String,
        /// The file or directory.
        path: PathBuf,
    },
    /// A file of settings is no JSON.
    #[error("not readable as JSON (truncated or damaged?): {reason}: {path}")]
    Json {
        /// The cause.
        reason: String,
        /// The file.
        path: PathBuf,
    },
    /// An adapter computes something that is not supported.
    #[error("the adapter cannot be used: {reason}: {path}")]
    Adapter {
        /// The key, its value, and what to do.
        reason: String,
        /// The file.
        path: PathBuf,
    },
    /// The file of weights is damaged.
    #[error("not a readable safetensors file (truncated or damaged?): {reason}: {path}")]
    Weights {
        /// The cause.
        reason: String,
        /// The file or directory.
        path: PathBuf,
    },
    /// The base of a checkpoint that has trained tensors only is missing, or is not the one that it was.
    #[error(
        "this checkpoint has trained tensors only, and the checkpoint that it was trained from, with the content hash \
         {expected}, is not there: {found}; bring it back, or set \"absolute\" to its new folder in {}",
        path.display()
    )]
    Base {
        /// Hash of the base.
        expected: String,
        /// What is in each of its places.
        found: String,
        /// The file that names it.
        path: PathBuf,
    },
    /// A file or one of its tensors cannot be read.
    #[error(transparent)]
    Source(#[from] source::SourceError),
    /// The tensors do not fit the configured model.
    #[error("{} tensors do not fit the model that config.json describes:\n  {}\nin {path}", problems.len(), problems.join("\n  "))]
    Mismatch {
        /// One line per tensor.
        problems: Vec<String>,
        /// The file or directory.
        path: PathBuf,
    },
}

/// Loads the configuration of a checkpoint.
///
/// # Errors
/// If it is absent or not that of a BLIP-2 or InstructBLIP with OPT, T5 or LLaMA.
pub fn load_config(directory: &Path) -> Result<Blip2Config, CheckpointError> {
    let mut config = load_config_file(&directory.join(CONFIG_FILE))?;
    config.lora = load_adapter_config(directory)?;
    Ok(config)
}

/// The end tokens of a checkpoint's language model, from its `generation_config.json`, else its
/// `config.json`. A negative id is no token, as in transformers.
///
/// # Errors
/// If `generation_config.json` is damaged.
pub fn end_tokens(directory: &Path, config: &Blip2Config) -> Result<Vec<u32>, CheckpointError> {
    let own = || config.text_config.end().into_iter().collect();
    let path = directory.join(GENERATION_CONFIG_FILE);
    let Some(settings) = json::read_if_present(&path)? else { return Ok(own()) };
    let value = &settings["eos_token_id"];
    if value.is_null() {
        return Ok(own());
    }
    let ids = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let ids = ids.iter().map(|id| match id.as_i64().map(u32::try_from) {
        Some(Ok(id)) => Ok(Some(id)),
        Some(Err(_)) if id.as_i64() < Some(0) => Ok(None),
        _ => Err(CheckpointError::Json {
            reason: format!("eos_token_id is {value}, expected a token or a list of tokens"),
            path: path.clone(),
        }),
    });
    Ok(ids.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Loads a checkpoint onto a device in f32. `adapt` may change settings that do not depend on the weights
/// (fusion, dropout) and the image size, to which the ViT's positions are resampled. A temporal embedding
/// that the file lacks is zero.
///
/// # Errors
/// If a file cannot be read, or any tensor is missing, unexpected or wrongly shaped.
pub fn load(
    directory: &Path,
    adapt: impl FnOnce(&mut Blip2Config),
    device: &Device,
) -> Result<(Blip2Config, Blip2), CheckpointError> {
    load_in(directory, adapt, Precision::default(), device)
}

/// [`load`] with other types than f32.
///
/// # Errors
/// If a file cannot be read, or any tensor is missing, unexpected or wrongly shaped.
pub fn load_in(
    directory: &Path,
    adapt: impl FnOnce(&mut Blip2Config),
    precision: Precision,
    device: &Device,
) -> Result<(Blip2Config, Blip2), CheckpointError> {
    let mut config = load_config(directory)?;
    adapt(&mut config);
    let fail = |reason: String| CheckpointError::Config { reason, path: directory.join(CONFIG_FILE) };
    config.check().map_err(fail)?;
    let mut tensors = Parts::open(&[(Role::Whole, directory)])?;
    tensors.exclude_pretraining(&config);
    tensors.find_embeddings(&mut config)?;
    let (empty, names) = (config.init(device), Names::new(&config));
    let mut model = if precision.int8 {
        read::fill_int8(empty, &names, &tensors, directory)?
    } else {
        read::fill(empty, &names, &tensors, precision, directory)?
    };
    if config.lora.is_some() && directory.join(ADAPTER_CONFIG_FILE).is_file() {
        let dropout = config.lora.as_ref().map_or(0.0, |lora| lora.lora_dropout);
        load_adapter(&mut model, directory, |lora| lora.lora_dropout = dropout)?;
    }
    Ok((config, model))
}

/// Loads a model of the first stage of pretraining, as saved by [`save_pretraining`] or by LAVIS together
/// with its ViT.
///
/// # Errors
/// If a file cannot be read, or any tensor is missing, unexpected or wrongly shaped.
pub fn load_pretraining(
    mut parts: Parts,
    config: &PretrainingConfig,
    device: &Device,
) -> Result<Pretraining, CheckpointError> {
    parts.exclude_evas_last_block(config.vision_config.num_hidden_layers);
    let path = parts.path().to_owned();
    read::fill(config.init(device), &Names::pretraining(), &parts, Precision::default(), &path)
}

/// Saves a checkpoint; each file is complete or absent.
///
/// # Errors
/// If the directory is not writable.
pub fn save(model: &Blip2, config: &Blip2Config, directory: &Path) -> Result<(), CheckpointError> {
    create_directory(directory)?;
    save::save_weights(model, &Names::new(config), &directory.join(WEIGHTS_FILE))?;
    base::remove_base(directory)?;
    save_the_rest(model, config, directory)
}

/// Saves the tensors that a run trained, and the name of the checkpoint that has the others; a whole
/// checkpoint if it trained them all. Each file is complete or absent.
///
/// # Errors
/// If the directory is not writable.
pub fn save_trained(
    model: &Blip2,
    config: &Blip2Config,
    trained: &Trained,
    directory: &Path,
) -> Result<(), CheckpointError> {
    create_directory(directory)?;
    let names = Names::new(config);
    if !trained.save(save::entries(model, &names), &names, directory)? {
        return save(model, config, directory);
    }
    save_the_rest(model, config, directory)
}

fn save_the_rest(model: &Blip2, config: &Blip2Config, directory: &Path) -> Result<(), CheckpointError> {
    if let Some(lora) = &config.lora {
        save_adapter(&mut model.clone(), lora, directory)?;
    }
    config::save_config(config, &directory.join(CONFIG_FILE))
}

/// Saves a model of the first stage of pretraining, with its ViT; the file is complete or absent.
///
/// # Errors
/// If the directory is not writable.
pub fn save_pretraining(model: &Pretraining, directory: &Path) -> Result<(), CheckpointError> {
    create_directory(directory)?;
    save::save_weights(model, &Names::pretraining(), &directory.join(WEIGHTS_FILE))
}

fn create_directory(path: &Path) -> Result<(), CheckpointError> {
    let action = "create the checkpoint's directory";
    std::fs::create_dir_all(path).map_err(|source| CheckpointError::Io {
        action,
        source,
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blip2::tests::tiny;
    use crate::fusion::{Fusion, Temporal};
    use crate::lm::LanguageModelConfig;
    use crate::parameters::{draw, list};
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::{Tensor, TensorData};

    fn saved(seed: u64) -> (tempfile::TempDir, Blip2) {
        let device = Device::flex();
        device.seed(seed);
        let config = tiny(Fusion::Concat);
        let model = config.init(&device);
        draw(&model);
        let directory = tempfile::tempdir().unwrap();
        save(&model, &config, directory.path()).unwrap();
        (directory, model)
    }

    #[cfg(unix)]
    #[test]
    fn weights_have_the_permissions_of_the_configuration() {
        use std::os::unix::fs::PermissionsExt;
        let (directory, _) = saved(6);
        let mode = |file: &str| std::fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
        std::fs::write(directory.path().join("another"), "").unwrap();
        assert_eq!(mode("model.safetensors"), mode("another"));
        assert_eq!(mode("config.json"), mode("another"));
    }

    pub(super) fn values(model: &Blip2) -> Vec<TensorData> {
        struct Values(Vec<TensorData>);
        impl ModuleVisitor for Values {
            fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
                self.0.push(parameter.val().into_data());
            }
        }
        let mut visitor = Values(Vec::new());
        model.visit(&mut visitor);
        visitor.0
    }

    #[test]
    fn what_is_saved_is_loaded_bit_for_bit() {
        let (directory, model) = saved(41);
        let (config, loaded) = load(directory.path(), |_| {}, &Device::flex()).unwrap();
        assert_eq!(config, tiny(Fusion::Concat));
        assert_eq!(values(&model), values(&loaded));
    }

    pub(super) fn embeddings(config: &Blip2Config) -> (bool, bool) {
        let LanguageModelConfig::T5(t5) = &config.text_config else { panic!("a T5") };
        (t5.encoder_has_embedding, t5.decoder_has_embedding)
    }

    pub(super) const SHARED: &str = "language_model.shared.weight";
    pub(super) const DECODERS: &str = "language_model.decoder.embed_tokens.weight";

    /// Saves each tensor of the fixture under all names that `names_of` gives it.
    pub(super) fn three_tables(directory: &Path, names_of: impl Fn(&str) -> Vec<String>) -> Blip2Config {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/t5-three-tables");
        let source = &source::Source::open(&fixture).unwrap();
        let entries = source.names().flat_map(|tensor| {
            let shape = source.get(tensor).unwrap().shape.to_vec();
            names_of(tensor).into_iter().map(move |name| save::Entry {
                name,
                dtype: safetensors::Dtype::F32,
                shape: shape.clone(),
                fetch: Box::new(move || Ok(source.read_bytes(tensor)?.into_owned())),
            })
        });
        save::save_tensors(entries.collect(), &directory.join(WEIGHTS_FILE)).unwrap();
        std::fs::copy(fixture.join(CONFIG_FILE), directory.join(CONFIG_FILE)).unwrap();
        load_config(directory).unwrap()
    }

    #[test]
    fn three_embeddings_of_a_t5_are_loaded_and_saved_bit_for_bit() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        three_tables(first.path(), |name| vec![name.to_owned()]);
        let (config, model) = load(first.path(), |_| {}, &Device::flex()).unwrap();
        assert_eq!(embeddings(&config), (true, true));
        save(&model, &config, second.path()).unwrap();
        let (config, again) = load(second.path(), |_| {}, &Device::flex()).unwrap();
        assert_eq!(embeddings(&config), (true, true));
        assert_eq!(values(&model), values(&again));
    }

    #[test]
    fn equal_and_absent_embeddings_are_no_separate_parameters() {
        let copy = |name: &str| match name {
            SHARED => vec![SHARED.to_owned(), DECODERS.to_owned()],
            DECODERS => vec![],
            name => vec![name.to_owned()],
        };
        let without = |absent: &'static [&'static str]| {
            move |name: &str| if absent.contains(&name) { vec![] } else { vec![name.to_owned()] }
        };
        let found = |names_of: &dyn Fn(&str) -> Vec<String>| {
            let directory = tempfile::tempdir().unwrap();
            three_tables(directory.path(), names_of);
            embeddings(&load(directory.path(), |_| {}, &Device::flex()).unwrap().0)
        };
        assert_eq!(found(&copy), (true, false));
        assert_eq!(found(&without(&[DECODERS])), (true, false));
        // the encoder's table replaces an absent `shared`
        assert_eq!(found(&without(&[SHARED])), (false, true));
    }

    #[test]
    fn a_language_model_in_a_separate_directory_keeps_its_three_embeddings() {
        let (whole, bare, out) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let others = |name: &str| (!name.starts_with("language_model.")).then(|| name.to_owned());
        let config = three_tables(whole.path(), |name| others(name).into_iter().collect());
        let inner = |name: &str| name.strip_prefix("language_model.").map(str::to_owned);
        three_tables(bare.path(), |name| inner(name).into_iter().collect());
        let sources = [(Role::Whole, whole.path()), (Role::LanguageModel, bare.path())];
        import(Parts::open(&sources).unwrap(), &config, out.path()).unwrap();
        let (config, _) = load(out.path(), |_| {}, &Device::flex()).unwrap();
        assert_eq!(embeddings(&config), (true, true));
    }

    #[test]
    fn a_missing_temporal_embedding_starts_at_zero_and_a_missing_weight_is_an_error() {
        let (directory, _) = saved(42);
        let (_, model) =
            load(directory.path(), |config| config.temporal = Temporal::Learned, &Device::flex()).unwrap();
        assert!(list(&model).iter().any(|parameter| parameter.name == "temporal.weight"));
        let deeper = |config: &mut Blip2Config| config.qformer_config.num_hidden_layers = 3;
        let error = load(directory.path(), deeper, &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("qformer.encoder.layer.2.attention.attention.query.weight"), "{error}");
    }

    /// Its name starts as that of the temperature of pretraining, which is passed over.
    #[test]
    fn a_trained_temporal_embedding_is_loaded() {
        let (device, directory) = (Device::flex(), tempfile::tempdir().unwrap());
        let config = Blip2Config { temporal: Temporal::Learned, ..tiny(Fusion::Concat) };
        let model = config.init(&device);
        draw(&model);
        let model = base::tests::train(model, |name| name == "temporal.weight");
        save(&model, &config, directory.path()).unwrap();
        let (_, loaded) =
            load(directory.path(), |config| config.temporal = Temporal::Learned, &device).unwrap();
        assert!(values(&model) == values(&loaded));
    }

    #[test]
    fn another_width_is_an_error_that_lists_every_tensor() {
        let (directory, _) = saved(43);
        let wider = |config: &mut Blip2Config| {
            if let LanguageModelConfig::T5(t5) = &mut config.text_config {
                t5.d_ff = 48;
            }
        };
        let error = load(directory.path(), wider, &Device::flex()).unwrap_err().to_string();
        // two blocks each side, three matrices a block
        assert_eq!(error.matches("DenseReluDense").count(), 12, "{error}");
        assert!(error.contains("expected [48, 16], got [24, 16]"), "{error}");
    }

    #[test]
    fn a_tensor_too_many_is_an_error() {
        let (directory, _) = saved(44);
        let shallower = |config: &mut Blip2Config| config.vision_config.num_hidden_layers = 1;
        let error = load(directory.path(), shallower, &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("unexpected vision_model.encoder.layers.1."), "{error}");
    }

    #[test]
    fn truncated_garbled_and_absent_files_are_errors_that_name_the_file() {
        let (directory, _) = saved(45);
        let weights = directory.path().join(WEIGHTS_FILE);
        let whole = std::fs::read(&weights).unwrap();
        let mut absurd = whole.clone();
        absurd[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        for bytes in [&whole[..whole.len() - 10], &whole[..7], &[], &absurd] {
            std::fs::write(&weights, bytes).unwrap();
            let error = load(directory.path(), |_| {}, &Device::flex()).unwrap_err().to_string();
            assert!(error.contains(WEIGHTS_FILE), "{error}");
        }
        std::fs::remove_file(&weights).unwrap();
        assert!(
            load(directory.path(), |_| {}, &Device::flex()).unwrap_err().to_string().contains(WEIGHTS_FILE)
        );
        std::fs::write(directory.path().join(CONFIG_FILE), "{").unwrap();
        assert!(
            load(directory.path(), |_| {}, &Device::flex()).unwrap_err().to_string().contains(CONFIG_FILE)
        );
    }

    #[test]
    fn the_configuration_of_another_architecture_is_refused() {
        let (directory, _) = saved(46);
        std::fs::write(directory.path().join(CONFIG_FILE), r#"{"model_type": "llava"}"#).unwrap();
        let error = load_config(directory.path()).unwrap_err().to_string();
        assert!(error.contains("llava") && error.contains("blip-2"), "{error}");
    }
}
