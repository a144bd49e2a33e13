//! Whole runs of a tiny captioner: stopped and resumed, split among processes, failing in every way.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use captioner::HostVisual;
use data::datasets::Split;
use model::Blip2;
use model::recompute::Recompute;
use serde_json::json;

use crate::dashboard::Dashboard;
use crate::fit::fit;
use crate::metrics::CIDER;
use crate::objective::{Evaluation, Loss, Objective, StepContext};
use crate::processes::SingleProcess;
use crate::testing::{DRAWING, batch, blip2, language_models};
use crate::{
    Batch, CrossEntropy, Examples, Fit, Metrics, Outcome, Prediction, Scorer, SelectionMetric, TrainConfig,
    TrainError, Validation,
};

mod processes;

/// Clips of noise; the run is stopped, or an example is gone, after so many batches.
struct Clips {
    count: usize,
    made: AtomicUsize,
    stop_after: Option<(usize, Arc<AtomicBool>)>,
    gone: Option<usize>,
    poisoned: bool,
}

impl Clips {
    fn new(count: usize) -> Self {
        Self { count, made: AtomicUsize::new(0), stop_after: None, gone: None, poisoned: false }
    }
}

impl Examples for Clips {
    fn len(&self) -> usize {
        self.count
    }

    fn batch(&self, epoch: usize, items: &[usize], own: Range<usize>) -> Result<Batch, TrainError> {
        if self.gone.is_some_and(|gone| epoch == 2 && items.contains(&gone)) {
            return Err(TrainError::Data(format!("clip {} is gone", self.gone.unwrap_or_default())));
        }
        let made = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some((after, stop)) = &self.stop_after
            && made >= *after
        {
            stop.store(true, Ordering::Relaxed);
        }
        let mut batch = batch(&items[own]);
        if let Batch::Caption { visual: HostVisual::Frames { values, .. }, .. } = &mut batch
            && self.poisoned
            && epoch == 2
        {
            values[0] = f32::NAN;
        }
        Ok(batch)
    }

    fn name(&self, item: usize) -> String {
        format!("clip{item}")
    }
}

/// Scores captions by their length: any number that follows from the captions will do.
struct Lengths;

impl Scorer for Lengths {
    fn names(&self) -> Vec<String> {
        vec![CIDER.to_owned()]
    }

    fn score_predictions(&self, predictions: &[Prediction]) -> Result<Metrics, TrainError> {
        let letters: usize = predictions.iter().map(|one| one.caption.len()).sum();
        Ok(Metrics::one(CIDER, letters as f64 / predictions.len().max(1) as f64))
    }
}

fn validation(split: Split) -> Validation {
    Validation {
        split,
        examples: Arc::new(Clips::new(3)),
        ids: (0..3).map(|clip| format!("clip{clip}")).collect(),
        scorer: Some(Arc::new(Lengths)),
        batch_size: 2,
    }
}

fn config() -> TrainConfig {
    TrainConfig {
        epochs: 3,
        batch_size: 4,
        micro_batches: 2,
        learning_rate: 5e-3,
        warmup_steps: 2,
        save_every: 2,
        ..TrainConfig::default()
    }
}

/// Weights and objective, with that rate of dropout.
fn task(dropout: f64) -> (Blip2, CrossEntropy) {
    let (model, context) = blip2(language_models(dropout)[0].clone(), 3);
    (model, CrossEntropy::new(context, 0.0))
}

/// Trains the model with dropout.
fn train(run: Fit<CrossEntropy>) -> Result<Outcome<Blip2>, TrainError> {
    fit(task(0.1).0, run)
}

fn run_of(directory: &Path, config: TrainConfig) -> Fit<CrossEntropy> {
    let validation = Some(validation(Split::Validate));
    Fit { validation, ..fit_of(directory, config, task(0.1).1, Arc::new(Clips::new(10))) }
}

/// A run without validation.
fn fit_of<O: Objective>(
    directory: &Path,
    config: TrainConfig,
    objective: O,
    train: Arc<dyn Examples>,
) -> Fit<O> {
    Fit {
        config,
        objective,
        train,
        validation: None,
        directory: directory.to_owned(),
        device: Device::flex(),
        seed: 11,
        label: "test".to_owned(),
        settings: json!({ "seed": 11 }),
        stop: Arc::new(AtomicBool::new(false)),
        dashboard: Dashboard::Silent,
        processes: Arc::new(SingleProcess),
    }
}

/// Every file that a run leaves is the same to the last byte, but for saved states, which hold how long steps
/// took.
fn assert_left_the_same(one: &Path, other: &Path) {
    let epochs = (1..=3).map(|epoch| format!("predictions/validate-epoch-{epoch}.json"));
    for path in ["metrics.jsonl", "best/model.safetensors"].map(str::to_owned).into_iter().chain(epochs) {
        let read = |folder: &Path| std::fs::read(folder.join(&path)).unwrap();
        assert!(read(one) == read(other), "{path} differs");
    }
}

/// With dropout, so that random numbers are part of what must be the same.
#[test]
fn a_run_stopped_after_every_step_ends_bit_for_bit_as_one_never_stopped() {
    let whole = tempfile::tempdir().unwrap();
    let outcome = train(run_of(whole.path(), config())).unwrap();
    assert_eq!((outcome.steps, outcome.history.len(), outcome.interrupted), (9, 3, false));

    let stopped = tempfile::tempdir().unwrap();
    let mut sessions = 0;
    loop {
        let mut run = run_of(stopped.path(), config());
        let stop = run.stop.clone();
        let stops = |count| Clips { stop_after: Some((1, stop.clone())), ..Clips::new(count) };
        if sessions == 3 {
            // after three steps a session begins with a validation
            run.validation.as_mut().unwrap().examples = Arc::new(stops(3));
        } else {
            run.train = Arc::new(stops(10));
        }
        let outcome = train(run).unwrap();
        sessions += 1;
        assert!(sessions < 30, "it never ends");
        if !outcome.interrupted {
            assert_eq!(outcome.steps, 9);
            break;
        }
    }
    assert_eq!(sessions, 11, "one a step, one in a validation, and one for the last validation");
    assert_left_the_same(whole.path(), stopped.path());
}

/// Rounding apart: 1e-4 relative over nine steps.
#[test]
fn recomputed_blocks_learn_the_same() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [plain, recomputed] = [Recompute::default(), Recompute::ALL].map(|recompute| {
        let folder = &folders[usize::from(recompute == Recompute::ALL)];
        train(run_of(folder.path(), TrainConfig { recompute, ..config() })).unwrap()
    });
    for (one, other) in plain.history.iter().zip(&recomputed.history) {
        assert!((one.loss - other.loss).abs() < 1e-4 * one.loss, "{one:?} {other:?}");
    }
}

#[test]
fn evaluation_and_saving_go_by_steps_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig {
        steps: Some(8),
        evaluate_every: Some(3),
        save_every: 1,
        keep_checkpoints: 3,
        ..config()
    };
    let outcome = train(run_of(folder.path(), config)).unwrap();
    let steps: Vec<usize> = outcome.history.iter().map(|record| record.step).collect();
    assert_eq!((outcome.steps, steps), (8, vec![3, 6, 8]));
    let mut states: Vec<String> = std::fs::read_dir(folder.path().join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("step-"))
        .collect();
    states.sort();
    assert_eq!(states, ["step-6", "step-7", "step-8"]);
}

#[test]
fn a_run_out_of_patience_ends_early_and_keeps_its_best() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { epochs: 20, learning_rate: 1e-12, patience: Some(2), ..config() };
    let outcome = train(run_of(folder.path(), config)).unwrap();
    assert_eq!((outcome.history.len(), outcome.best_epoch()), (3, 1), "the first, and two no better");
}

#[test]
fn a_damaged_state_and_another_configuration_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    train(run_of(folder.path(), config())).unwrap();
    let other = Fit { settings: json!({ "seed": 12, "new": 1 }), ..run_of(folder.path(), config()) };
    let error = train(other).unwrap_err().to_string();
    assert!(error.contains("seed was 11, now 12") && error.contains("new was not set, now 1"), "{error}");
    let state = folder.path().join("checkpoints/step-9/state.json");
    let text = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, &text[..text.len() / 2]).unwrap();
    let error = train(run_of(folder.path(), config())).unwrap_err().to_string();
    assert!(error.contains("step-9") && error.contains("remove that folder"), "{error}");
    std::fs::remove_dir_all(folder.path().join("checkpoints/step-9")).unwrap();
    assert_eq!(train(run_of(folder.path(), config())).unwrap().steps, 9, "from the state before it");
}

/// Weights that are drawn in another thread meanwhile are the same as without the run.
#[test]
fn a_run_leaves_the_devices_generator_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ((model, _), run) = (task(0.1), run_of(folder.path(), config()));
    let _guard = DRAWING.lock().unwrap();
    let device = Device::flex();
    let random = || Tensor::<1>::random([8], Distribution::Default, &device).into_data();
    device.seed(5);
    let (first, second) = (random(), random());
    device.seed(5);
    assert_eq!(random(), first);
    fit(model, run).unwrap();
    assert_eq!(random(), second);
}

#[test]
fn an_example_that_is_gone_stops_the_run_and_the_rest_can_be_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let gone = Clips { gone: Some(4), ..Clips::new(10) };
    let run = Fit { train: Arc::new(gone), ..run_of(folder.path(), config()) };
    let error = train(run).unwrap_err().to_string();
    assert!(error.contains("clip 4 is gone"), "{error}");
    let outcome = train(run_of(folder.path(), config())).unwrap();
    let whole = tempfile::tempdir().unwrap();
    train(run_of(whole.path(), config())).unwrap();
    assert_eq!(outcome.steps, 9);
    assert_left_the_same(folder.path(), whole.path());
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_with_step_clips_and_last_values() {
    let folder = tempfile::tempdir().unwrap();
    let poisoned = Clips { poisoned: true, ..Clips::new(10) };
    let run = Fit { train: Arc::new(poisoned), ..run_of(folder.path(), config()) };
    let error = train(run).unwrap_err();
    let TrainError::NotFinite { step, last, examples, .. } = &error else { panic!("{error}") };
    assert_eq!((*step, examples.len()), (4, 4));
    assert!(last.is_some_and(|(loss, norm)| loss.is_finite() && norm > 0.0));
    assert!(error.to_string().contains("clip"), "{error}");
    assert!(folder.path().join("checkpoints/step-3").is_dir(), "the state before it");
}

#[test]
fn a_state_that_cannot_be_written_stops_the_run_and_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_of(folder.path(), TrainConfig { steps: Some(4), ..config() });
    train(run).unwrap();
    let states = folder.path().join("checkpoints");
    // what stands where the next state's temporary folder would, for root too: a file in the folder's place
    std::fs::rename(&states, folder.path().join("aside")).unwrap();
    std::fs::write(&states, b"").unwrap();
    let error = train(run_of(folder.path(), config())).unwrap_err().to_string();
    assert!(error.contains("checkpoints"), "{error}");
    std::fs::remove_file(&states).unwrap();
    std::fs::rename(folder.path().join("aside"), &states).unwrap();
    assert!(states.join("step-4").is_dir());
}

#[test]
fn selecting_on_the_test_split_or_by_an_unknown_figure_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = Fit { validation: Some(validation(Split::Test)), ..run_of(folder.path(), config()) };
    assert!(matches!(train(run), Err(TrainError::SelectsOnTest)));
    let by_spice = TrainConfig { select: SelectionMetric::parse("spice"), ..config() };
    let error = train(run_of(folder.path(), by_spice)).unwrap_err().to_string();
    assert!(error.contains("spice") && error.contains(CIDER), "{error}");
}

/// Counts the copies of a model that are alive.
#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(1)))
    }
}

impl Clone for Alive {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::SeqCst);
        Self(self.0.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Module, Debug)]
struct Counted {
    weight: Param<Tensor<1>>,
    #[module(skip)]
    alive: Alive,
}

/// The squared norm of the weights; records the copies of the model that are alive in each step.
#[derive(Debug, Default)]
struct SquaredNorm(Arc<Mutex<Vec<usize>>>);

impl Objective for SquaredNorm {
    type Model = Counted;

    fn weight(&self, batch: &Batch) -> f64 {
        batch.items().len() as f64
    }

    fn loss(&self, model: &Counted, _: Batch, _: &StepContext<'_>) -> Result<Loss, TrainError> {
        self.0.lock().unwrap().push(model.alive.0.load(Ordering::SeqCst));
        Ok(Loss::from(model.weight.val().square().sum()))
    }

    fn evaluate(&self, _: &Counted, _: Batch) -> Result<Evaluation, TrainError> {
        Ok(Evaluation::default())
    }

    fn save(&self, _: &Counted, _: &Path) -> Result<(), TrainError> {
        Ok(())
    }
}

/// A second copy would hold the initial weights for the whole run, and keep the optimizer from updating in
/// place.
#[test]
fn a_run_holds_one_copy_of_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    let objective = SquaredNorm::default();
    let alive = objective.0.clone();
    let config =
        TrainConfig { steps: Some(4), evaluate_every: Some(4), save_every: 1, micro_batches: 1, ..config() };
    let model =
        Counted { weight: Param::from_tensor(Tensor::ones([3], &Device::flex())), alive: Alive::new() };
    let Fit { train, device, seed, label, settings, stop, dashboard, processes, .. } =
        run_of(folder.path(), TrainConfig::default());
    let (directory, validation) = (folder.path().to_owned(), None);
    let run = Fit {
        config,
        objective,
        train,
        validation,
        directory,
        device,
        seed,
        label,
        settings,
        stop,
        dashboard,
        processes,
    };
    let outcome = fit(model, run).unwrap();
    assert_eq!(*alive.lock().unwrap(), [1, 1, 1, 1]);
    assert_eq!(outcome.best.alive.0.load(Ordering::SeqCst), 1, "and none of the others is left");
    assert!(outcome.best.weight.val().into_data().as_slice::<f32>().unwrap()[0] < 1.0);
}
