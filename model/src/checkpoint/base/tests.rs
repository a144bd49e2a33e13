use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use tempfile::TempDir;

use super::*;
use crate::blip2::tests::tiny;
use crate::blip2::{Blip2, Blip2Config};
use crate::checkpoint::tests::{DECODERS, SHARED, embeddings, three_tables, values};
use crate::checkpoint::{Parts, import, load, load_in, save, save_trained};
use crate::fusion::Fusion;
use crate::parameters::{FieldPath, draw, list, names, track_path};

/// A pretrained checkpoint.
fn pretrained(seed: u64) -> TempDir {
    let device = Device::flex();
    device.seed(seed);
    let config = tiny(Fusion::Concat);
    let model = config.init(&device);
    draw(&model);
    let folder = tempfile::tempdir().unwrap();
    save(&model, &config, folder.path()).unwrap();
    folder
}

/// Changes the parameters that are chosen, as training does.
pub(in crate::checkpoint) fn train(model: Blip2, choose: fn(&str) -> bool) -> Blip2 {
    struct Mapper {
        path: FieldPath,
        choose: fn(&str) -> bool,
    }
    impl ModuleMapper for Mapper {
        track_path!();

        fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !(self.choose)(&self.path.name()) {
                return parameter;
            }
            parameter.map(|tensor| tensor.mul_scalar(1.25).add_scalar(0.125))
        }
    }
    model.map(&mut Mapper { path: FieldPath::default(), choose })
}

/// What a run trains from a base.
fn trained(model: &Blip2, base: &Path, choose: fn(&str) -> bool) -> Trained {
    let parameters = names(model).into_iter().filter(|name| choose(name)).collect();
    Trained::new(base, Path::new("as/configured"), weights_hash(base).unwrap(), parameters).unwrap()
}

/// The same weights saved whole, and without those of the base.
struct Saved {
    whole: TempDir,
    partial: TempDir,
    config: Blip2Config,
}

fn run(
    base: &Path,
    adapt: impl FnOnce(&mut Blip2Config),
    precision: Precision,
    choose: fn(&str) -> bool,
) -> Saved {
    let (config, model) = load_in(base, adapt, precision, &Device::flex()).unwrap();
    let trained = trained(&model, base, choose);
    let model = train(model, choose);
    let (whole, partial) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    save(&model, &config, whole.path()).unwrap();
    save_trained(&model, &config, &trained, partial.path()).unwrap();
    Saved { whole, partial, config }
}

impl Saved {
    /// Both load as the same model, and merging gives the bytes of the whole one.
    fn check(&self) {
        let [whole, partial] = [&self.whole, &self.partial].map(TempDir::path);
        assert!(!partial.join(WEIGHTS_FILE).exists() && partial.join(TRAINED_FILE).is_file());
        let loaded = |folder| load(folder, |_| {}, &Device::flex()).unwrap();
        let ((of_whole, expected), (config, got)) = (loaded(whole), loaded(partial));
        assert_eq!(of_whole, config);
        assert!(values(&expected) == values(&got), "the same model");
        let out = tempfile::tempdir().unwrap();
        let types = Base::of(partial).unwrap().unwrap().types;
        let (config, model) = load_in(partial, |_| {}, types.into(), &Device::flex()).unwrap();
        save(&model, &config, out.path()).unwrap();
        let bytes = |folder: &Path| std::fs::read(folder.join(WEIGHTS_FILE)).unwrap();
        assert!(bytes(out.path()) == bytes(whole), "merged bit for bit");
        import(Parts::open(&[(Role::Whole, partial)]).unwrap(), &self.config, out.path()).unwrap();
        assert!(bytes(out.path()) == bytes(whole), "imported bit for bit");
    }

    fn tensors(&self) -> Vec<String> {
        let source =
            crate::checkpoint::source::Source::open(&self.partial.path().join(TRAINED_FILE)).unwrap();
        source.names().map(str::to_owned).collect()
    }
}

const QFORMER: fn(&str) -> bool = |name| name.starts_with("qformer.");
const HALF: Precision =
    Precision { vision_model: FloatDType::BF16, language_model: FloatDType::BF16, int8: false };

#[test]
fn trained_tensors_over_their_base_are_the_whole_checkpoint_bit_for_bit() {
    let base = pretrained(51);
    let saved = run(base.path(), |_| {}, Precision::default(), QFORMER);
    saved.check();
    let model = saved.config.init(&Device::flex());
    let trained: usize = list(&model).iter().filter(|own| QFORMER(&own.name)).map(|own| 4 * own.len()).sum();
    let bytes = std::fs::metadata(saved.partial.path().join(TRAINED_FILE)).unwrap().len() as usize;
    let header = 200 * saved.tensors().len();
    assert!(bytes >= trained && bytes < trained + header, "{bytes} for {trained} of trained values");
    assert!(saved.tensors().iter().all(|name| name.starts_with("qformer.")));
}

#[test]
fn frozen_values_are_rounded_as_in_the_run() {
    let base = pretrained(52);
    let choose: fn(&str) -> bool = |name| QFORMER(name) || name.starts_with("language_projection.");
    let saved = run(base.path(), |_| {}, HALF, choose);
    let types = Base::of(saved.partial.path()).unwrap().unwrap().types;
    assert_eq!((types.vision_model, types.language_model), (FrozenValue::Bf16, FrozenValue::Bf16));
    saved.check();
    let one = Precision { language_model: FloatDType::F32, ..HALF };
    run(base.path(), |_| {}, one, |name| name.ends_with("relative_attention_bias.weight")).check();
}

#[test]
fn a_fused_bias_is_saved_whole_if_a_part_of_it_is_trained() {
    let base = pretrained(53);
    let saved =
        run(base.path(), |_| {}, Precision::default(), |name| name.ends_with("layers.0.self_attn.q_bias"));
    assert_eq!(saved.tensors(), ["vision_model.encoder.layers.0.self_attn.qkv.bias"]);
    saved.check();
}

#[test]
fn resampled_positions_and_what_the_base_lacks_are_saved_though_frozen() {
    let base = pretrained(54);
    let adapt = |config: &mut Blip2Config| {
        config.vision_config.image_size *= 2;
        config.temporal = crate::fusion::Temporal::Learned;
    };
    let saved = run(base.path(), adapt, HALF, |name| name == "query_tokens" || name == "temporal.weight");
    let own = ["query_tokens", "temporal_embedding.weight", "vision_model.embeddings.position_embedding"];
    assert_eq!(saved.tensors(), own);
    saved.check();
}

#[test]
fn nothing_is_trained_or_everything() {
    let base = pretrained(55);
    run(base.path(), |_| {}, Precision::default(), |_| false).check();
    let all = run(base.path(), |_| {}, Precision::default(), |_| true);
    assert!(!all.partial.path().join(BASE_FILE).exists());
    let bytes = |folder: &TempDir| std::fs::read(folder.path().join(WEIGHTS_FILE)).unwrap();
    assert!(bytes(&all.partial) == bytes(&all.whole));
}

#[test]
fn a_run_may_start_from_the_trained_tensors_of_another() {
    let base = pretrained(56);
    let first = run(base.path(), |_| {}, HALF, QFORMER);
    let full = |name: &str| name.starts_with("language_projection.") || name.ends_with("norm2.weight");
    let second = run(first.partial.path(), |_| {}, Precision::default(), full);
    let whole = run(first.whole.path(), |_| {}, Precision::default(), full);
    let loaded = |folder: &TempDir| values(&load(folder.path(), |_| {}, &Device::flex()).unwrap().1);
    assert!(loaded(&second.partial) == loaded(&whole.whole));
    assert!(loaded(&second.partial) == loaded(&whole.partial));
    second.check();
}

#[test]
fn a_trained_embedding_leaves_its_copies_in_the_base_behind() {
    let copies = |name: &str| match name {
        SHARED => vec![SHARED.to_owned(), DECODERS.to_owned()],
        DECODERS => vec![],
        name => vec![name.to_owned()],
    };
    let under_another_name = |name: &str| if name == SHARED { vec![] } else { vec![name.to_owned()] };
    check_shared(&copies, (true, false));
    check_shared(&under_another_name, (false, true));
}

fn check_shared(names_of: &dyn Fn(&str) -> Vec<String>, expected: (bool, bool)) {
    let base = tempfile::tempdir().unwrap();
    three_tables(base.path(), names_of);
    let saved = run(base.path(), |_| {}, Precision::default(), |name| name == "language_model.shared");
    saved.check();
    assert_eq!(embeddings(&load(saved.partial.path(), |_| {}, &Device::flex()).unwrap().0), expected);
    // a frozen one has them still
    run(base.path(), |_| {}, Precision::default(), QFORMER).check();
}

#[test]
fn a_base_that_moved_is_found_where_it_was_configured_and_another_content_is_refused() {
    let base = pretrained(57);
    let saved = run(base.path(), |_| {}, Precision::default(), QFORMER);
    let folder = saved.partial.path();
    let desk = tempfile::tempdir().unwrap();
    let (moved, here) = (desk.path().join("moved/base"), base.path().to_owned());
    let path = folder.join(BASE_FILE);
    let edit = |change: &dyn Fn(&mut Base)| {
        let mut base = Base::of(folder).unwrap().unwrap();
        change(&mut base);
        std::fs::write(&path, serde_json::to_string(&base).unwrap()).unwrap();
    };
    edit(&|base| base.directory = moved.clone());
    let hash = weights_hash(folder).unwrap();
    std::fs::create_dir_all(moved.parent().unwrap()).unwrap();
    std::fs::rename(&here, &moved).unwrap();
    saved.check();

    let expected = weights_hash(&moved).unwrap();
    edit(&|base| base.weights_hash = "another".to_owned());
    assert_ne!(weights_hash(folder).unwrap(), hash, "another base is another checkpoint");
    let message = || load(folder, |_| {}, &Device::flex()).unwrap_err().to_string();
    let changed = message();
    for word in ["another", &expected, &moved.display().to_string(), BASE_FILE, "set \"absolute\""] {
        assert!(changed.contains(word), "{word}: {changed}");
    }
    edit(&|base| base.weights_hash = expected.clone());
    edit(&|base| base.absolute = "/somewhere/else".into());
    assert_eq!(weights_hash(folder).unwrap(), hash, "its place is no part of it");
    std::fs::remove_dir_all(&moved).unwrap();
    let missing = message();
    for word in [&expected, "/somewhere/else does not exist", "moved/base does not exist"] {
        assert!(missing.contains(word), "{word}: {missing}");
    }
    std::fs::write(&path, "{").unwrap();
    assert!(message().contains(BASE_FILE) && weights_hash(folder).is_err());
}

/// The lists are made before training: a base that has gone does not lose its result.
#[test]
fn saving_needs_no_base() {
    let base = pretrained(58);
    let (config, model) = load(base.path(), |_| {}, &Device::flex()).unwrap();
    let trained = trained(&model, base.path(), QFORMER);
    drop(base);
    let folder = tempfile::tempdir().unwrap();
    save_trained(&model, &config, &trained, folder.path()).unwrap();
    assert!(folder.path().join(TRAINED_FILE).is_file());
}

#[test]
fn a_whole_checkpoint_replaces_a_partial_one_in_its_folder_and_the_reverse() {
    let base = pretrained(59);
    let saved = run(base.path(), |_| {}, Precision::default(), QFORMER);
    let folder = saved.whole.path();
    let (config, model) = load(folder, |_| {}, &Device::flex()).unwrap();
    let files = || [WEIGHTS_FILE, TRAINED_FILE, BASE_FILE].map(|name| folder.join(name).exists());
    save_trained(&model, &config, &trained(&model, base.path(), QFORMER), folder).unwrap();
    assert_eq!(files(), [false, true, true]);
    save(&model, &config, folder).unwrap();
    assert_eq!(files(), [true, false, false]);
}
