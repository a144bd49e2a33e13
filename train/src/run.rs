//! The training loop: intervals of steps, an evaluation after each, the best model kept, everything saved.
//!
//! An interval is an epoch, or `evaluate_every` steps. burn-train has its own loop; this one exists
//! because a stop in mid-epoch must lose nothing, the gradient norm is clipped globally, only trained
//! parameters are saved, and validation generates and scores captions.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use data::files;
use serde_json::Value;

use crate::burn_train::{Events, Phase, Progressed};
use crate::checkpoint::{self, EpochRecord, Seconds, State};
use crate::config::TrainConfig;
use crate::dashboard::Dashboard;
use crate::evaluation::{Validation, evaluate};
use crate::gradients::{MicroBatches, Step, gradients};
use crate::loader::{Examples, Loader, Stream, shuffled};
use crate::metrics::{GRADIENT_NORM, LOSS, Metrics};
use crate::objective::{Evaluation, Objective, StepContext};
use crate::optimizer::{ParameterGroups, clip_global_norm};
use crate::processes::{ProcessGroup, Transfer, agree};
use crate::schedule::Schedule;
use crate::{Batch, TrainError};

/// Folder of the best evaluation's weights, for other programs, inside a run's folder.
pub const BEST: &str = "best";
/// Folder of the saved states, inside a run's folder.
pub const STATES: &str = "checkpoints";
const METRICS: &str = "metrics.jsonl";

/// A run: everything except the weights.
pub struct Fit<O: Objective> {
    /// How to train.
    pub config: TrainConfig,
    /// The loss.
    pub objective: O,
    /// Training examples.
    pub train: Arc<dyn Examples>,
    /// Selects the best evaluation; without it the last one is the best.
    pub validation: Option<Validation>,
    /// The run's folder.
    pub directory: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// Seed of the examples' order, dropout and all other draws.
    pub seed: u64,
    /// Name on the dashboard.
    pub label: String,
    /// Everything that decides the result, by key: a saved state with other values is rejected.
    pub settings: Value,
    /// Set from outside to stop after the current step.
    pub stop: Arc<AtomicBool>,
    /// What to show.
    pub dashboard: Dashboard,
    /// The processes that train together.
    pub processes: Arc<dyn ProcessGroup>,
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome<M> {
    /// Weights of the best evaluation, on a plain device.
    pub best: M,
    /// Every evaluation.
    pub history: Vec<EpochRecord>,
    /// Whether it was stopped before its end; its state is saved.
    pub interrupted: bool,
    /// Steps taken.
    pub steps: usize,
    /// Duration of the steps.
    pub seconds: Seconds,
}

impl<M> Outcome<M> {
    /// Number of the best evaluation, from 1.
    pub fn best_epoch(&self) -> usize {
        self.history.iter().rev().find(|record| record.is_best).map_or(0, |record| record.epoch)
    }
}

/// A run in progress. The trained weights are passed from step to step by value, as the optimizer updates in
/// place what has no second owner.
pub(crate) struct Run<O: Objective> {
    fit: Fit<O>,
    device: Device,
    loader: Loader,
    /// Open between intervals, so that batches are loaded during validation.
    stream: Option<Stream>,
    groups: ParameterGroups,
    optimizer: ModuleOptimizer,
    schedule: Schedule,
    /// Weights of the best evaluation of this session.
    best: Option<O::Model>,
    state: State,
    saved: Instant,
}

impl<O: Objective> Run<O> {
    /// A run at its start, or at its newest saved state, and its weights.
    pub(crate) fn prepare(model: O::Model, fit: Fit<O>) -> Result<(Self, O::Model), TrainError> {
        let config = &fit.config;
        let order = shuffled(&fit.train, fit.seed, config.group_by_length);
        let loader = Loader::new(fit.train.clone(), config.batch_size, order, fit.processes.clone())
            .with_workers(config.workers);
        let device = fit.device.clone().autodiff();
        let model = model.fork(&device).train();
        let model = model::parameters::set_trainable(model, |name| config.parameters.trains(name));
        let optimizer = |model: &O::Model| ParameterGroups::new(model, &config.parameters).optimizer(config);
        let states = fit.directory.join(STATES);
        if fit.processes.rank() == 0 {
            checkpoint::clean(&states)?;
        }
        let (model, optimizer, state) = match checkpoint::newest(&states, &fit.settings)? {
            Some((path, state)) => {
                let (model, optimizer) = checkpoint::restore(&path, model, optimizer)?;
                (model, optimizer, state)
            }
            None => {
                let optimizer = optimizer(&model);
                let (position, settings) = (loader.save(loader.start()), fit.settings.clone());
                (model, optimizer, State { position, settings, ..State::default() })
            }
        };
        loader.restore(&state.position)?;
        let groups = ParameterGroups::new(&model, &config.parameters);
        let schedule = config.learning_rates(loader.batches());
        let (stream, best, saved) = (None, None, Instant::now());
        Ok((Self { device, loader, stream, groups, optimizer, schedule, best, state, saved, fit }, model))
    }

    /// Evaluations of the whole run.
    pub(crate) fn evaluations(&self) -> usize {
        self.schedule.total.div_ceil(self.interval_steps())
    }

    fn interval_steps(&self) -> usize {
        self.fit.config.evaluation_interval(self.loader.batches())
    }

    /// Trains to the end or until stopped; returns the weights and whether it was stopped.
    pub(crate) fn train(
        &mut self,
        mut model: O::Model,
        events: &mut Events,
    ) -> Result<(O::Model, bool), TrainError> {
        let mut stopped = false;
        while !stopped && !self.is_complete() {
            let interval = self.state.history.len() + 1;
            (model, stopped) = self.train_interval(model, interval, events)?;
            if stopped {
                break;
            }
            let Some(evaluation) = self.validate(&model, interval, events)? else { return Ok((model, true)) };
            self.agree(events.end_interval(interval))?;
            self.close_interval(&model, interval, evaluation)?;
            stopped = self.next(events, Ok(()))?.stop && !self.is_complete();
        }
        Ok((model, stopped))
    }

    fn is_complete(&self) -> bool {
        self.state.history.len() >= self.evaluations() || self.is_out_of_patience()
    }

    /// Takes the remaining steps of an interval; returns whether it was stopped (and saved).
    fn train_interval(
        &mut self,
        mut model: O::Model,
        interval: usize,
        events: &mut Events,
    ) -> Result<(O::Model, bool), TrainError> {
        let length = self.interval_steps();
        let (start, end) = ((interval - 1) * length, (interval * length).min(self.schedule.total));
        self.agree(events.start(Phase::Training, interval, end - start))?;
        let position = self.loader.restore(&self.state.position)?;
        let mut stream = self.stream.take().unwrap_or_else(|| self.loader.stream(position));
        while self.state.step < end {
            let started = Instant::now();
            let nothing = || Err(TrainError::Data("there are no training examples".to_owned()));
            let batch = agree(&*self.fit.processes, stream.next().unwrap_or_else(nothing));
            self.state.seconds.data += started.elapsed().as_secs_f64();
            let step = match batch.and_then(|batch| self.gradients(&model, batch)) {
                Ok(step) => step,
                Err(error) => return Err(self.save_after(&model, error)),
            };
            let (updated, metrics) = self.update(model, step);
            model = updated;
            self.state.position = self.loader.save(stream.position());
            let learning_rate = self.groups.learning_rates(self.schedule.at(self.state.step - 1));
            let progress = Progressed {
                metrics,
                done: self.state.step - start,
                total: end - start,
                unit: "steps",
                step: self.state.step,
                learning_rate: Some(learning_rate),
            };
            let shown = events.progress(Phase::Training, progress);
            self.state.seconds.steps += started.elapsed().as_secs_f64();
            let next = self.next(events, shown)?;
            if next.stop || next.save {
                self.save(&model)?;
            }
            if next.stop {
                return Ok((model, true));
            }
        }
        self.agree(events.end(Phase::Training, interval))?;
        self.stream = Some(stream);
        Ok((model, false))
    }

    /// Clipped gradients of a step. An error leaves the state as it was before the step.
    fn gradients(&mut self, model: &O::Model, batch: Batch) -> Result<Step, TrainError> {
        let items = batch.items().to_vec();
        // no generator's state is saved: all draws of a step depend on the run's seed and the step's number
        let seed = mix(self.fit.seed, self.state.step as u64);
        let config = &self.fit.config;
        let micro_batches = MicroBatches {
            count: config.micro_batches,
            in_parallel: self.fit.device == Device::flex(),
            recompute: config.recompute,
            transfer: if config.bf16_transfer { Transfer::Bf16 } else { Transfer::F32 },
        };
        let started = Instant::now();
        let context = StepContext { seed, processes: &*self.fit.processes };
        let Step { mut gradients, metrics, exchange } =
            gradients(&self.fit.objective, model, batch, micro_batches, &context)?;
        self.state.seconds.passes += started.elapsed().as_secs_f64() - exchange;
        self.state.seconds.exchange += exchange;
        let started = Instant::now();
        let norm = clip_global_norm(model, &mut gradients, config.max_grad_norm)?;
        let loss = metrics.get(LOSS).unwrap_or(f64::NAN);
        if !loss.is_finite() || !norm.is_finite() {
            return Err(TrainError::NotFinite {
                step: self.state.step + 1,
                loss,
                norm,
                last: self.state.last,
                learning_rate: self.schedule.at(self.state.step),
                examples: items.iter().map(|&item| self.loader.examples().name(item)).collect(),
            });
        }
        self.state.seconds.update += started.elapsed().as_secs_f64();
        self.state.last = Some((loss, norm));
        Ok(Step { gradients, exchange, metrics: metrics.with(GRADIENT_NORM, norm) })
    }

    /// Updates the weights; returns the step's metrics too.
    fn update(&mut self, model: O::Model, step: Step) -> (O::Model, Metrics) {
        let started = Instant::now();
        let learning_rates = self.groups.learning_rates(self.schedule.at(self.state.step));
        let model = self.optimizer.step(learning_rates, model, step.gradients);
        self.state.seconds.update += started.elapsed().as_secs_f64();
        self.state.step += 1;
        self.state.steps += 1;
        self.state.sums.add(&step.metrics);
        (model, step.metrics)
    }

    /// Evaluates the model on the validation split; `None` if it was stopped (and saved) meanwhile.
    fn validate(
        &mut self,
        model: &O::Model,
        interval: usize,
        events: &mut Events,
    ) -> Result<Option<Evaluation>, TrainError> {
        let Some(validation) = &self.fit.validation else { return Ok(Some(Evaluation::default())) };
        let (total, step) = (validation.examples.len(), self.state.step);
        self.agree(events.start(Phase::Validation, interval, total))?;
        let file = format!("predictions/{}-epoch-{interval}.json", validation.split);
        let path = self.fit.directory.join(file);
        let show = |events: &mut Events, metrics, done| {
            let progress = Progressed { metrics, done, total, unit: "examples", step, learning_rate: None };
            events.progress(Phase::Validation, progress)
        };
        let (objective, processes) = (&self.fit.objective, &self.fit.processes);
        let evaluation = evaluate(objective, &model.valid(), validation, processes, Some(&path), |done| {
            let shown = show(events, Metrics::default(), done);
            Ok(!self.next(events, shown)?.stop)
        })?;
        let Some(evaluation) = evaluation else {
            self.save(model)?;
            return Ok(None);
        };
        let shown = show(events, evaluation.metrics.clone(), total);
        self.agree(shown.and_then(|()| events.end(Phase::Validation, interval)))?;
        Ok(Some(evaluation))
    }

    /// Keeps the model if it is the best, records the interval, and saves the state.
    fn close_interval(
        &mut self,
        model: &O::Model,
        interval: usize,
        evaluation: Evaluation,
    ) -> Result<(), TrainError> {
        let is_best = self.is_best(&evaluation.metrics)?;
        if is_best {
            let best = model.valid();
            self.in_first(|| checkpoint::save_best(&self.states(), self.state.step, &best, &self.groups))?;
            self.best = Some(best);
        }
        let training = std::mem::take(&mut self.state.sums).times(1.0 / self.state.steps.max(1) as f64);
        let record = EpochRecord {
            epoch: interval,
            step: self.state.step,
            learning_rate: self.schedule.at(self.state.step.saturating_sub(1)),
            loss: training.get(LOSS).unwrap_or(f64::NAN),
            training: training.without(LOSS),
            validation: evaluation.metrics,
            is_best,
        };
        if self.fit.dashboard == Dashboard::Lines && self.writes_files() {
            println!("{}", self.line(&record));
        }
        self.state.history.push(record);
        self.state.steps = 0;
        self.save(model)?;
        self.in_first(|| {
            if is_best {
                checkpoint::keep_best(&self.states(), self.state.step)?;
            }
            let mut lines = Vec::new();
            for record in &self.state.history {
                let line =
                    serde_json::to_string(record).map_err(|error| TrainError::Data(error.to_string()))?;
                lines.push(line + "\n");
            }
            Ok(files::replace(&self.fit.directory.join(METRICS), lines.concat().as_bytes())?)
        })
    }

    /// Whether an evaluation is better than all before it; without validation every one is.
    fn is_best(&self, metrics: &Metrics) -> Result<bool, TrainError> {
        if self.fit.validation.is_none() {
            return Ok(true);
        }
        let select = &self.fit.config.select;
        let value = select.value(metrics).map_err(|missing| TrainError::Selection {
            by: select.to_string(),
            missing,
            given: metrics.iter().map(|(name, _)| name).collect::<Vec<_>>().join(", "),
        })?;
        let before = self.state.history.iter().filter_map(|record| select.value(&record.validation).ok());
        Ok(before.fold(f64::NEG_INFINITY, f64::max) < value)
    }

    /// Whether the last evaluations were all no better than one before them.
    fn is_out_of_patience(&self) -> bool {
        let since = self.state.history.iter().rev().take_while(|record| !record.is_best).count();
        self.fit.config.patience.is_some_and(|patience| since >= patience)
    }

    fn line(&self, record: &EpochRecord) -> String {
        let metrics: Vec<String> = record
            .training
            .iter()
            .filter(|(name, _)| *name != GRADIENT_NORM)
            .chain(record.validation.iter())
            .map(|(name, value)| format!("{name} {value:.3}"))
            .collect();
        format!(
            "{}  epoch {:>2}/{}  step {:>4}  loss {:.3}  rate {:.1e}  {}{}",
            self.fit.label,
            record.epoch,
            self.evaluations(),
            record.step,
            record.loss,
            record.learning_rate,
            metrics.join("  "),
            if record.is_best && self.fit.validation.is_some() { "  *" } else { "" },
        )
    }

    /// The first process writes files for all.
    fn writes_files(&self) -> bool {
        self.fit.processes.rank() == 0
    }

    fn must_save(&self) -> bool {
        let config = &self.fit.config;
        self.state.step.is_multiple_of(config.save_every.max(1))
            || self.saved.elapsed().as_secs_f64() > config.save_minutes * 60.0
    }

    fn save(&mut self, model: &O::Model) -> Result<(), TrainError> {
        self.saved = Instant::now();
        let keep = self.fit.config.keep_checkpoints;
        let save =
            || checkpoint::save(&self.states(), keep, &self.state, model, &self.groups, &self.optimizer);
        self.in_first(save)
    }

    /// Lets the first process write for all.
    fn in_first(&self, write: impl FnOnce() -> Result<(), TrainError>) -> Result<(), TrainError> {
        self.agree(if self.writes_files() { write() } else { Ok(()) })
    }

    /// An error of one process is one of all.
    fn agree<T>(&self, own: Result<T, TrainError>) -> Result<T, TrainError> {
        agree(&*self.fit.processes, own)
    }

    /// Saves the state before a step that failed; returns the failure, whether that worked or not.
    fn save_after(&mut self, model: &O::Model, error: TrainError) -> TrainError {
        match self.save(model) {
            Ok(()) => error,
            Err(unsaved) => TrainError::Unsaved { error: Box::new(error), unsaved: Box::new(unsaved) },
        }
    }

    fn states(&self) -> PathBuf {
        self.fit.directory.join(STATES)
    }

    /// What all processes do after a step or a batch: stop if one was stopped, from outside or from the
    /// dashboard; save if one finds that it is time, as their clocks differ; fail if one could not show its
    /// progress.
    fn next(&self, events: &Events, shown: Result<(), TrainError>) -> Result<Next, TrainError> {
        let stop = self.fit.stop.load(Ordering::Relaxed) || events.is_stopped();
        let mut all = [stop, self.must_save(), shown.is_err()].map(|one| f64::from(u8::from(one)));
        self.fit.processes.sum(&mut all)?;
        let [stop, save, failed] = all.map(|count| count > 0.0);
        if failed {
            self.agree(shown)?;
        }
        Ok(Next { stop, save })
    }

    /// The outcome; the best weights of a complete run are saved for other programs too.
    pub(crate) fn finish(
        mut self,
        model: &O::Model,
        interrupted: bool,
    ) -> Result<Outcome<O::Model>, TrainError> {
        let best_step =
            self.state.history.iter().rev().find(|record| record.is_best).map(|record| record.step);
        let best = match (self.best.take(), best_step) {
            (Some(best), _) => best,
            (None, Some(step)) => checkpoint::restore_best(&self.states(), step, model.valid())?,
            (None, None) => model.valid(),
        };
        let best = best.fork(&self.device.clone().inner()).valid();
        if !interrupted && self.writes_files() {
            self.fit.objective.save(&best, &self.fit.directory.join(BEST))?;
        }
        let State { history, step, seconds, .. } = self.state;
        Ok(Outcome { best, history, interrupted, steps: step, seconds })
    }
}

/// What follows a step.
struct Next {
    stop: bool,
    save: bool,
}

/// A seed that differs for every step of every run (the finaliser of SplitMix64).
fn mix(seed: u64, step: u64) -> u64 {
    let mut z =
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
