//! How a run reports its progress: burn-train's terminal dashboard, or one line an evaluation without a
//! terminal.

use std::io::IsTerminal;

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::MetricDefinition;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};

/// How a run reports its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dashboard {
    /// burn-train's dashboard.
    Terminal,
    /// One line an evaluation on standard output.
    Lines,
    /// Nothing.
    Silent,
}

impl Dashboard {
    /// The dashboard if standard output is a terminal and it was not declined, else lines.
    pub fn choose(declined: bool) -> Self {
        if !declined && std::io::stdout().is_terminal() { Self::Terminal } else { Self::Lines }
    }

    /// The renderer; `None` is burn-train's own. The training loop prints lines itself.
    pub(crate) fn renderer(self) -> Option<Box<dyn MetricsRenderer>> {
        match self {
            Self::Terminal => None,
            Self::Lines | Self::Silent => Some(Box::new(Quiet)),
        }
    }
}

/// Makes Ctrl-C a signal again: burn-train's dashboard sets the terminal to raw mode and ignores the key.
pub(crate) fn keep_ctrl_c() {
    #[cfg(unix)]
    {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let terminal = std::io::stdin();
        if let Ok(mut modes) = tcgetattr(&terminal)
            && !modes.local_modes.contains(LocalModes::ISIG)
        {
            modes.local_modes |= LocalModes::ISIG;
            // a failure is no reason to stop a run
            let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
        }
    }
}

/// A renderer that shows nothing: without a terminal burn-train's own prints a line for every batch.
struct Quiet;

impl MetricsRendererTraining for Quiet {
    fn update_train(&mut self, _state: MetricState) {}
    fn update_valid(&mut self, _state: MetricState) {}
}

impl TrainingProgressLogger for Quiet {
    fn start(&mut self, _epochs: usize, _from: usize, _items: Option<usize>, _label: Option<&str>) {}
    fn update_epoch(&mut self, _epoch: usize) {}
    fn start_split(&mut self, _split: &str, _items: usize) {}
    fn update_split(&mut self, _items: usize) {}
    fn end_split(&mut self) {}
    fn end(&mut self) {}
    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for Quiet {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl EvaluationProgressLogger for Quiet {
    fn start_global_progress(&mut self, _tests: usize) {}
    fn start_test(&mut self, _name: &str, _items: usize) {}
    fn update_test_progress(&mut self, _items: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for Quiet {
    fn manual_close(&mut self) {}
    fn register_metric(&mut self, _definition: MetricDefinition) {}
}
