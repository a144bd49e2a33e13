//! Starts a run: checks it, opens its newest saved state, and trains inside burn-train.

use data::datasets::Split;

use crate::TrainError;
use crate::burn_train::{self, Display};
use crate::dashboard::Dashboard;
use crate::evaluation::Validation;
use crate::metrics::{GRADIENT_NORM, LEARNING_RATE, MetricSpec};
use crate::objective::Objective;
use crate::processes::agree;
use crate::run::{Fit, Outcome, Run};

/// Trains `model`, which is on a plain device, from the newest saved state in the run's folder if there is
/// one.
///
/// The model is taken by value: once training starts, weights without another owner are updated in place.
///
/// # Errors
/// When data, the device or the file system fail; when the loss is not finite; when the best model would be
/// selected on the test split; when the saved state has another configuration. The newest saved state stays
/// intact.
pub fn fit<O: Objective>(model: O::Model, fit: Fit<O>) -> Result<Outcome<O::Model>, TrainError> {
    if fit.validation.as_ref().is_some_and(|validation| validation.split == Split::Test) {
        return Err(TrainError::SelectsOnTest);
    }
    fit.config.parameters.check(&model::parameters::list(&model))?;
    let mut training = fit.objective.metrics();
    training.extend([GRADIENT_NORM, LEARNING_RATE].map(|name| MetricSpec::new(name, false)));
    let validation = fit.validation.as_ref().map_or(Vec::new(), Validation::metrics);
    let dashboard = if fit.processes.rank() == 0 { fit.dashboard } else { Dashboard::Silent };
    let (directory, label) = (fit.directory.join("dashboard"), fit.label.clone());
    let processes = fit.processes.clone();
    let (mut run, model) = agree(&*processes, Run::prepare(model, fit))?;
    let evaluations = run.evaluations();
    let display =
        Display { dashboard, directory: &directory, label: &label, training, validation, evaluations };
    burn_train::launch(&display, move |events| {
        let (model, interrupted) = run.train(model, events)?;
        agree(&*processes, run.finish(&model, interrupted))
    })
}

#[cfg(test)]
mod tests;
