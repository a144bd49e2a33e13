//! BLIP-2's first stage of pretraining beside LAVIS's own, on the hard negatives that LAVIS drew.

use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use model::Visual;
use model::checkpoint::{Parts, Role, load_pretraining};
use model::loss::Targets;
use model::pretraining::{HardNegatives, Pairs, Pretraining, PretrainingConfig};
use serde::Deserialize;
use train::task::{Evaluated, Loss, Moment};
use train::{Batch, HostTokens, Task, TrainError};

use crate::compare::{check, shown_steps, values};
use crate::fixture::{Case, fixtures, models, open, pixels};
use crate::trained;

#[derive(Debug, Deserialize)]
struct Stage {
    config: PretrainingConfig,
    start_token: u32,
    texts: Vec<Vec<u32>>,
    #[serde(flatten)]
    case: Case<Drawn>,
}

#[derive(Debug, Deserialize)]
struct Drawn {
    pairs: Vec<usize>,
    negative_images: Vec<usize>,
    negative_texts: Vec<usize>,
}

/// The model as the trained part of `file`, beside the ViT that it started from.
fn load(file: &Path, config: &PretrainingConfig) -> Pretraining {
    let vit = models().join("lavis/eva_vit_g.pth");
    let parts = Parts::open(&[(Role::Whole, file), (Role::Vision, &vit)]).unwrap();
    load_pretraining(parts, config, &Device::flex()).unwrap()
}

/// The three losses on given hard negatives.
#[derive(Debug, Clone)]
struct Given {
    model: Pretraining,
    stage: Arc<Stage>,
}

impl Task for Given {
    type Model = Pretraining;

    fn model(&self) -> &Pretraining {
        &self.model
    }

    fn with_model(&self, model: Pretraining) -> Self {
        Self { model, stage: self.stage.clone() }
    }

    fn weight(&self, batch: &Batch) -> f64 {
        batch.items().len() as f64
    }

    fn loss(&self, batch: Batch, _moment: &Moment<'_>) -> Result<Loss, TrainError> {
        let Batch::Pairs { visual, texts, items } = batch else { panic!("pairs") };
        let drawn = &self.stage.case.batches[items[0] / items.len()];
        let negatives =
            HardNegatives { images: drawn.negative_images.clone(), texts: drawn.negative_texts.clone() };
        let Visual::Frames(frames) = visual.upload(&Device::flex()) else { panic!("frames") };
        let features = self.model.vision_model.valid().forward(frames.flatten(0, 1));
        let Targets { ids, mask } = texts.upload(&Device::flex());
        let pairs = Pairs { image: self.model.ln_vision.forward(features), ids, mask };
        let contrast = self.model.contrast(&pairs).unwrap();
        let contrastive = self.model.contrastive_loss(&self.model.similarities(&contrast, &contrast), 0);
        let matching = self.model.matching_loss(&pairs, &negatives).unwrap();
        let generation = self.model.generation_loss(&pairs, self.stage.start_token).unwrap();
        Ok(Loss::from(contrastive + matching + generation))
    }

    fn evaluate(&self, _batch: Batch) -> Result<Evaluated, TrainError> {
        panic!("nothing is evaluated")
    }

    fn export(&self, _directory: &Path) -> Result<(), TrainError> {
        Ok(())
    }

    fn draws(&self) -> bool {
        false
    }

    fn can_split(&self) -> bool {
        false
    }
}

/// Our name of a tensor whose gradient is zero.
fn our_name(theirs: &str) -> String {
    theirs.replace("Qformer.bert.encoder.layer", "qformer.layers").replace(".self.", ".")
}

#[test]
fn the_three_losses_of_the_first_stage_on_given_negatives() {
    let name = "stage1";
    let mut stage: Stage = open(name);
    let still = stage.case.without_gradient.iter().map(|theirs| our_name(theirs)).collect();
    stage.case.without_gradient = still;
    let stage = Arc::new(stage);
    let (config, settings) = (&stage.config, &stage.case.train);
    let initial = load(&models().join("lavis/stage1.pth"), config);
    let expected = load(&fixtures().join(format!("{name}.safetensors")), config);
    let task = Given { model: initial.clone(), stage: stage.clone() };
    let given = stage.clone();
    let batch = move |step: usize, items| {
        let pairs = &given.case.batches[step].pairs;
        let texts: Vec<Vec<u32>> = pairs.iter().map(|&pair| given.texts[pair].clone()).collect();
        Batch::Pairs { visual: pixels(pairs, 1), texts: HostTokens::pad(&texts), items }
    };
    let directory = tempfile::tempdir().unwrap();
    let outcome = trained(task, settings, batch, directory.path());
    let steps = shown_steps(directory.path(), settings.round(1), 20);
    let (got, initial, mut expected) = (values(&outcome.best.model), values(&initial), values(&expected));
    expected.retain(|tensor, _| settings.parameters.trains(tensor));
    check(name, &stage.case, &steps, &got, &expected, &initial);
}
