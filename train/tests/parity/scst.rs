//! Self-critical training as released: fixed sequences and rewards take the place of those that the model would write.

use std::path::Path;
use std::sync::Arc;

use model::Blip2;
use serde::Deserialize;
use train::scst::{Released, Rewards, Scored, Scst, ScstConfig};
use train::task::{Evaluated, Loss, Moment};
use train::{Batch, Task, TrainError};

use crate::fixture::{Case, open, pixels};
use crate::{FRAMES, captioner, check_captioner, trained};

#[derive(Debug, Deserialize)]
struct Rewarded {
    clips: Vec<usize>,
    sequences: Vec<Vec<Vec<u32>>>,
    rewards: Vec<Vec<f64>>,
}

impl Rewarded {
    /// What [`Scst::write`] would have given.
    fn scored(&self) -> Scored {
        let candidates = self.rewards[0].len();
        let mean = |rewards: &Vec<f64>| rewards.iter().sum::<f64>() / candidates as f64;
        Scored {
            candidates,
            sequences: self.sequences.concat(),
            log_probabilities: Vec::new(),
            rewards: self.rewards.concat(),
            baselines: self.rewards.iter().flat_map(|rewards| vec![mean(rewards); candidates]).collect(),
        }
    }
}

/// The task, told what was written: the steps' captions are looked up by the batch's items.
#[derive(Debug, Clone)]
struct Given {
    scst: Scst,
    scored: Arc<Vec<Scored>>,
}

impl Task for Given {
    type Model = Blip2;

    fn model(&self) -> &Blip2 {
        self.scst.model()
    }

    fn with_model(&self, blip2: Blip2) -> Self {
        Self { scst: self.scst.with_model(blip2), scored: self.scored.clone() }
    }

    fn weight(&self, batch: &Batch) -> f64 {
        self.scst.weight(batch)
    }

    fn loss(&self, batch: Batch, _moment: &Moment<'_>) -> Result<Loss, TrainError> {
        let step = batch.items()[0] / batch.items().len();
        self.scst.policy_loss(batch, &self.scored[step]).map(Loss::from)
    }

    fn evaluate(&self, batch: Batch) -> Result<Evaluated, TrainError> {
        self.scst.evaluate(batch)
    }

    fn export(&self, directory: &Path) -> Result<(), TrainError> {
        self.scst.export(directory)
    }

    fn draws(&self) -> bool {
        self.scst.draws()
    }
}

#[test]
fn released_self_critical_training_on_given_captions_and_rewards() {
    let name = "scst-t5-lora";
    let case: Arc<Case<Rewarded>> = Arc::new(open(name));
    let config = ScstConfig::Released(Released { dropout: false, ..Released::default() });
    let no_captions: [Vec<&str>; 0] = [];
    let scst = Scst::new(captioner(&case), Arc::new(Rewards::new(config, &no_captions).unwrap()));
    let task = Given { scst, scored: Arc::new(case.batches.iter().map(Rewarded::scored).collect()) };
    let given = case.clone();
    let batch = move |step: usize, items| Batch::Caption {
        visual: pixels(&given.batches[step].clips, FRAMES),
        prompts: None,
        captions: None,
        texts: Vec::new(),
        clips: given.batches[step].clips.clone(),
        items,
    };
    let directory = tempfile::tempdir().unwrap();
    trained(task, &case.train, batch, directory.path());
    check_captioner(name, &case, directory.path());
}
