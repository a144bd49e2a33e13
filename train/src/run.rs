//! The loop: rounds of steps, an evaluation after each, the best model kept, everything saved.
//!
//! A round is what lies between two evaluations: an epoch, or as many steps as are asked for.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use burn::data::dataloader::Progress;
use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use burn::train::{EventProcessorTraining, Interrupter, LearnerEvent, TrainingItem};

use crate::checkpoint::{self, EpochRecord, State};
use crate::dashboard::{Dashboard, GRADIENT_NORM, LOSS, Metrics, StepOutput, keep_ctrl_c};
use crate::evaluation::{Measured, evaluate};
use crate::fit::{Events, Fit, Outcome};
use crate::loader::{Loader, Sampler, Stream};
use crate::optimizer::{Groups, clip_global_norm};
use crate::schedule::Schedule;
use crate::task::{MicroBatches, Step, StepContext, Task, gradients};
use crate::{Batch, TrainError, files};

/// Folder of the best evaluation's weights, as others can read them, inside a run's folder.
pub const BEST: &str = "best";
/// Folder of the states to resume from, inside a run's folder.
pub const STATES: &str = "checkpoints";
const METRICS: &str = "metrics.jsonl";

/// A run in progress.
pub(crate) struct Run<T: Task> {
    fit: Fit<T>,
    task: T,
    device: Device,
    train: Loader,
    /// Open between rounds, so that batches are made while the model is measured.
    stream: Option<Stream>,
    groups: Groups,
    optimizer: ModuleOptimizer,
    schedule: Schedule,
    parts: MicroBatches,
    best: Option<T::Model>,
    state: State,
    saved: Instant,
}

impl<T: Task> Run<T> {
    /// A run at its start, or where its newest saved state left it.
    pub(crate) fn prepare(fit: Fit<T>) -> Result<Self, TrainError> {
        let config = &fit.config;
        let visit = Sampler::Shuffled { seed: fit.seed, group_by_length: config.group_by_length };
        let train = Loader::new(fit.train.clone(), config.batch_size, visit, fit.processes.clone());
        let device = fit.device.clone().autodiff();
        let model = fit.task.model().clone().fork(&device).train();
        let model = model::parameters::set_trainable(model, |name| config.parameters.trains(name));
        let optimizer = |model: &T::Model| Groups::new(model, &config.parameters).optimizer(config);
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
                (model, optimizer, State::new(train.save(train.start()), fit.settings.clone()))
            }
        };
        train.restore(&state.position)?;
        let groups = Groups::new(&model, &config.parameters);
        let schedule = config.rates(train.batches());
        Ok(Self {
            task: fit.task.with_model(model),
            parts: MicroBatches {
                count: config.micro_batches,
                side_by_side: fit.device == Device::flex(),
                recompute: config.recompute,
            },
            device,
            train,
            stream: None,
            groups,
            optimizer,
            schedule,
            best: None,
            state,
            saved: Instant::now(),
            fit,
        })
    }

    /// Evaluations of the whole run.
    pub(crate) fn rounds(&self) -> usize {
        self.schedule.total.div_ceil(self.fit.config.round(self.train.batches()))
    }

    /// Trains to the end or until stopped; says whether it was stopped.
    pub(crate) fn go(&mut self, events: &mut Events, interrupter: &Interrupter) -> Result<bool, TrainError> {
        while self.state.history.len() < self.rounds() && !self.is_out_of_patience() {
            let round = self.state.history.len() + 1;
            if self.train_round(round, events, interrupter)? {
                return Ok(true);
            }
            let Some(measured) = self.validate(round, events, interrupter)? else { return Ok(true) };
            send(events.process_train(LearnerEvent::EndEpoch(round)))?;
            self.close_round(round, measured)?;
            if self.must_stop(interrupter)? {
                return Ok(self.state.history.len() < self.rounds() && !self.is_out_of_patience());
            }
        }
        Ok(false)
    }

    /// The steps of a round that are still to be taken; says whether it was stopped (and saved).
    fn train_round(
        &mut self,
        round: usize,
        events: &mut Events,
        interrupter: &Interrupter,
    ) -> Result<bool, TrainError> {
        let length = self.fit.config.round(self.train.batches());
        let (start, end) = ((round - 1) * length, (round * length).min(self.schedule.total));
        let total_items = end - start;
        send(events.process_train(LearnerEvent::StartSplit { epoch_number: round, total_items }))?;
        let position = self.train.restore(&self.state.position)?;
        let mut stream = self.stream.take().unwrap_or_else(|| self.train.stream(position));
        while self.state.step < end {
            keep_ctrl_c();
            let started = Instant::now();
            let nothing = || Err(TrainError::Data("there is no example to learn from".to_owned()));
            let batch = stream.next().unwrap_or_else(nothing);
            self.state.seconds.data += started.elapsed().as_secs_f64();
            let metrics = match batch.and_then(|batch| self.step(batch)) {
                Ok(metrics) => metrics,
                Err(error) => return Err(self.saved_with(error)),
            };
            self.state.position = self.train.save(stream.position());
            let rate = Some(self.groups.rates(self.schedule.at(self.state.step - 1)));
            let progress = Progress::new(self.state.step - start, total_items, Some("steps".to_owned()));
            let item = TrainingItem::new(StepOutput::new(metrics, 1), progress, Some(self.state.step), rate);
            send(events.process_train(LearnerEvent::ProcessedItem(item)))?;
            self.state.seconds.steps += started.elapsed().as_secs_f64();
            let must_stop = self.must_stop(interrupter)?;
            if must_stop || self.must_save() {
                self.save()?;
            }
            if must_stop {
                return Ok(true);
            }
        }
        send(events.process_train(LearnerEvent::EndSplit(round)))?;
        self.stream = Some(stream);
        Ok(false)
    }

    /// One update; gives its figures.
    fn step(&mut self, batch: Batch) -> Result<Metrics, TrainError> {
        let items = batch.items().to_vec();
        let rate = self.schedule.at(self.state.step);
        // no generator's state is saved: all that is drawn in a step follows from its place in the run
        let seed = mix(self.fit.seed, self.state.step as u64);
        let started = Instant::now();
        let step_context = StepContext { seed, processes: &*self.fit.processes };
        let Step { mut gradients, metrics } = gradients(&self.task, batch, self.parts, &step_context)?;
        self.state.seconds.passes += started.elapsed().as_secs_f64();
        let started = Instant::now();
        let norm = clip_global_norm(self.task.model(), &mut gradients, self.fit.config.max_grad_norm);
        let loss = metrics.get(LOSS).unwrap_or(f64::NAN);
        if !loss.is_finite() || !norm.is_finite() {
            return Err(TrainError::NotFinite {
                step: self.state.step + 1,
                loss,
                norm,
                last: self.state.last,
                learning_rate: rate,
                examples: items.iter().map(|&item| self.train.examples().name(item)).collect(),
            });
        }
        // weights that nobody else holds are updated where they lie
        let model = std::mem::replace(&mut self.task, self.fit.task.clone()).into_model();
        let model = self.optimizer.step(self.groups.rates(rate), model, gradients);
        self.task = self.fit.task.with_model(model);
        self.state.seconds.update += started.elapsed().as_secs_f64();
        let metrics = metrics.with(GRADIENT_NORM, norm);
        self.state.step += 1;
        self.state.steps += 1;
        self.state.sums.add(&metrics);
        self.state.last = Some((loss, norm));
        Ok(metrics)
    }

    /// Measures the model on the validation split; nothing when it was stopped (and saved) meanwhile.
    fn validate(
        &mut self,
        round: usize,
        events: &mut Events,
        interrupter: &Interrupter,
    ) -> Result<Option<Measured>, TrainError> {
        let Some(validation) = &self.fit.validation else {
            return Ok(Some(Measured { metrics: Metrics::default(), written: Vec::new() }));
        };
        let total_items = validation.examples.len();
        send(events.process_valid(LearnerEvent::StartSplit { epoch_number: round, total_items }))?;
        let task = self.task.with_model(self.task.model().valid());
        let path = self.fit.directory.join(format!("predictions/{}-epoch-{round}.json", validation.split));
        let step = self.state.step;
        let show = |events: &mut Events, metrics: Metrics, done: usize| {
            let progress = Progress::new(done, total_items, Some("examples".to_owned()));
            let item = TrainingItem::new(StepOutput::new(metrics, 1), progress, Some(step), None);
            send(events.process_valid(LearnerEvent::ProcessedItem(item)))
        };
        let measured = evaluate(&task, validation, &self.fit.processes, Some(&path), |done| {
            keep_ctrl_c();
            show(events, Metrics::default(), done)?;
            Ok(!self.must_stop(interrupter)?)
        })?;
        let Some(measured) = measured else {
            self.save()?;
            return Ok(None);
        };
        show(events, measured.metrics.clone(), total_items)?;
        send(events.process_valid(LearnerEvent::EndSplit(round)))?;
        Ok(Some(measured))
    }

    /// Keeps the model if it is the best, writes what the round gave, and saves the state.
    fn close_round(&mut self, round: usize, measured: Measured) -> Result<(), TrainError> {
        let is_best = self.is_best(&measured.metrics)?;
        if is_best {
            let best = self.task.model().valid();
            if self.writes() {
                checkpoint::save_best(&self.states(), self.state.step, &best, &self.groups)?;
            }
            self.best = Some(best);
        }
        let training = std::mem::take(&mut self.state.sums).times(1.0 / self.state.steps.max(1) as f64);
        let record = EpochRecord {
            epoch: round,
            step: self.state.step,
            learning_rate: self.schedule.at(self.state.step.saturating_sub(1)),
            loss: training.get(LOSS).unwrap_or(f64::NAN),
            training: training.without(LOSS),
            validation: measured.metrics,
            is_best,
        };
        if self.fit.dashboard == Dashboard::Lines && self.writes() {
            println!("{}", self.line(&record));
        }
        self.state.history.push(record);
        self.state.steps = 0;
        self.save()?;
        if is_best && self.writes() {
            checkpoint::keep_best(&self.states(), self.state.step)?;
        }
        let mut lines = Vec::new();
        for record in &self.state.history {
            let line = serde_json::to_string(record).map_err(|error| TrainError::Data(error.to_string()))?;
            lines.push(line + "\n");
        }
        if self.writes() {
            files::replace(&self.fit.directory.join(METRICS), lines.concat().as_bytes())?;
        }
        Ok(())
    }

    /// Whether an evaluation is better than all before it; every one is, where there is no validation.
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
            self.rounds(),
            record.step,
            record.loss,
            record.learning_rate,
            metrics.join("  "),
            if record.is_best && self.fit.validation.is_some() { "  *" } else { "" },
        )
    }

    /// Whether this process writes files.
    fn writes(&self) -> bool {
        self.fit.processes.rank() == 0
    }

    fn must_save(&self) -> bool {
        let config = &self.fit.config;
        self.state.step.is_multiple_of(config.save_every.max(1))
            || self.saved.elapsed().as_secs_f64() > config.save_minutes * 60.0
    }

    fn save(&mut self) -> Result<(), TrainError> {
        self.saved = Instant::now();
        if !self.writes() {
            return Ok(());
        }
        let (model, keep) = (self.task.model(), self.fit.config.keep);
        checkpoint::save(&self.states(), keep, &self.state, model, &self.groups, &self.optimizer)
    }

    /// Saves the state before a step that failed; the failure is told in any case.
    fn saved_with(&mut self, error: TrainError) -> TrainError {
        match self.save() {
            Ok(()) => error,
            Err(unsaved) => TrainError::Unsaved { error: Box::new(error), unsaved: Box::new(unsaved) },
        }
    }

    fn states(&self) -> PathBuf {
        self.fit.directory.join(STATES)
    }

    /// Stopped from outside, or from the dashboard, in any process.
    fn must_stop(&self, interrupter: &Interrupter) -> Result<bool, TrainError> {
        let own = self.fit.stop.load(Ordering::Relaxed) || interrupter.should_stop();
        let mut stopped = [f64::from(u8::from(own))];
        self.fit.processes.sum(&mut stopped)?;
        Ok(stopped[0] > 0.0)
    }

    /// What came of it; the best weights are also written as others can read them, once the run is complete.
    pub(crate) fn finish(mut self, interrupted: bool) -> Result<Outcome<T>, TrainError> {
        let best_step =
            self.state.history.iter().rev().find(|record| record.is_best).map(|record| record.step);
        let best = match (self.best.take(), best_step) {
            (Some(best), _) => best,
            (None, Some(step)) => checkpoint::restore_best(&self.states(), step, self.task.model().valid())?,
            (None, None) => self.task.model().valid(),
        };
        let best = self.task.with_model(best.fork(&self.device.clone().inner()).valid());
        if !interrupted && self.writes() {
            best.export(&self.fit.directory.join(BEST))?;
        }
        Ok(Outcome {
            best,
            history: self.state.history,
            interrupted,
            steps: self.state.step,
            seconds: self.state.seconds,
        })
    }
}

fn send<E: std::fmt::Display>(result: Result<(), E>) -> Result<(), TrainError> {
    result.map_err(|error| TrainError::Dashboard(error.to_string()))
}

/// A seed that differs for every step of every run (the finaliser of SplitMix64).
fn mix(seed: u64, step: u64) -> u64 {
    let mut z =
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
