//! BLIP-2's first stage of pretraining beside LAVIS's own, on the hard negatives that LAVIS drew.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use captioner::HostTokens;
use model::checkpoint::{Parts, Role, load_pretraining};
use model::pretraining::{HardNegatives, Pretraining, PretrainingConfig};
use serde::Deserialize;
use train::Batch;
use train::pretraining::FirstStage;

use crate::compare::{check, values};
use crate::fixture::{Case, fixtures, models, open, pixels};
use crate::trained;
use crate::watched::Watched;

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

/// The model with the trained part of `file` and the ViT that the stage started from.
fn load(file: &Path, config: &PretrainingConfig) -> Pretraining {
    let vit = models().join("lavis/eva_vit_g.pth");
    let parts = Parts::open(&[(Role::Whole, file), (Role::Vision, &vit)]).unwrap();
    load_pretraining(parts, config, &Device::default()).unwrap()
}

/// Our name of one of LAVIS's tensors in the Q-Former's attention.
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
    let settings = &stage.case.train;
    let initial = load(&models().join("lavis/stage1.pth"), &stage.config);
    let expected = load(&fixtures().join(format!("{name}.safetensors")), &stage.config);
    let first_stage = FirstStage { start_token: stage.start_token };
    let given = stage.clone();
    let losses_of = first_stage.clone();
    let (objective, seen) =
        Watched::new(first_stage, settings.batch_size, move |model: &Pretraining, step, batch, context| {
            let drawn = &given.case.batches[step];
            let negatives =
                HardNegatives { images: drawn.negative_images.clone(), texts: drawn.negative_texts.clone() };
            losses_of.losses(model, batch, Some(negatives), context).map(|losses| losses.sum())
        });
    let given = stage.clone();
    let batch = move |step: usize, items| {
        let pairs = &given.case.batches[step].pairs;
        let texts: Vec<Vec<u32>> = pairs.iter().map(|&pair| given.texts[pair].clone()).collect();
        Batch::Pairs { visual: pixels(pairs, 1), texts: HostTokens::pad(&texts), items }
    };
    let directory = tempfile::tempdir().unwrap();
    let outcome = trained(initial.clone(), objective, settings, batch, directory.path());
    let (got, initial, mut expected) = (values(&outcome.best), values(&initial), values(&expected));
    expected.retain(|tensor, _| settings.parameters.trains(tensor));
    check(name, &stage.case, &seen.losses(), &outcome.history, &got, &expected, &initial);
}
