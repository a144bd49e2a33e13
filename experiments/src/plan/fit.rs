//! Whether a configuration fits into the memory of a device, and which settings would make it fit.

use std::fmt;

use burn::tensor::Device;
use train::TrainConfig;

use super::step::Step;
use crate::config::{FrozenType, RunConfig, sizes};
use crate::text::numbers::bytes;

/// The device that a study is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Bytes of its memory; none where it is unknown, and everything fits.
    pub memory: Option<usize>,
    /// Micro-batches that it computes at the same time: the cores of a CPU, 1 on a GPU.
    pub parallel: usize,
}

/// A configuration that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// The stage that needs most.
    pub stage: &'static str,
    /// Bytes that it needs, and those there are.
    pub needed: usize,
    pub available: usize,
    /// Settings that make it fit, as `--set` takes them, and the bytes needed then.
    pub remedy: Option<(Vec<String>, usize)>,
}

impl fmt::Display for Shortage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [needed, available] = [self.needed, self.available].map(bytes);
        write!(formatter, "{} training needs {needed} of memory, and there is {available}; ", self.stage)?;
        match &self.remedy {
            Some((sets, then)) => {
                let sets: Vec<String> = sets.iter().map(|set| format!("--set {set}")).collect();
                write!(formatter, "it needs {} with {}", bytes(*then), sets.join(" "))
            }
            None => write!(
                formatter,
                "no smaller micro-batch or recomputation makes it fit: train fewer parameters, or use a larger device"
            ),
        }
    }
}

/// What a configuration lacks on a machine; none where it fits.
pub(crate) fn shortage(config: &RunConfig, machine: &Machine) -> anyhow::Result<Option<Shortage>> {
    let Some(available) = machine.memory else { return Ok(None) };
    let (stage, needed) = peak(config, machine.parallel)?;
    if needed <= available {
        return Ok(None);
    }
    Ok(Some(Shortage { stage, needed, available, remedy: remedy(config, available, machine.parallel)? }))
}

/// The stage that needs most, and its bytes.
fn peak(config: &RunConfig, parallel: usize) -> anyhow::Result<(&'static str, usize)> {
    let sizes = sizes(config)?;
    let parameters = model::parameters::list(&sizes.init(&Device::flex()));
    let steps = Step::all(config, &sizes, &parameters, parallel)?;
    let totals = steps.iter().map(|step| (step.name, step.memory().total()));
    Ok(totals.max_by_key(|(_, total)| *total).unwrap_or(("cross-entropy", 0)))
}

/// One change that takes less memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    HalfPrecision,
    LanguageModel,
    QFormer,
    VisionModel,
    /// The smallest micro-batches that there are.
    MicroBatches(usize),
}

impl Change {
    /// Applies it to every stage; returns the settings that do the same.
    fn apply(self, config: &mut RunConfig) -> Vec<String> {
        if self == Self::HalfPrecision {
            config.model.frozen_type = FrozenType::Bf16;
            return vec!["model.frozen_type=bf16".to_owned()];
        }
        let stages =
            [("", Some(&mut config.train)), ("scst.", config.scst.as_mut().map(|scst| &mut scst.train))];
        let of_stage = |(stage, train): (&str, Option<&mut TrainConfig>)| {
            let train = train?;
            let set = match self {
                Self::HalfPrecision => return None,
                Self::LanguageModel => on(&mut train.recompute.language_model, "recompute.language_model")?,
                Self::QFormer => on(&mut train.recompute.qformer, "recompute.qformer")?,
                Self::VisionModel => on(&mut train.recompute.vision_model, "recompute.vision_model")?,
                Self::MicroBatches(count) => {
                    let count = count.min(train.batch_size);
                    if train.micro_batches >= count {
                        return None;
                    }
                    train.micro_batches = count;
                    format!("micro_batches={count}")
                }
            };
            Some(format!("{stage}train.{set}"))
        };
        stages.into_iter().filter_map(of_stage).collect()
    }
}

/// Switches on what is off; the setting that does so.
fn on(switch: &mut bool, key: &str) -> Option<String> {
    (!std::mem::replace(switch, true)).then(|| format!("{key}=true"))
}

/// The first changes, in the order of what they cost, that make a configuration fit; changes that are not
/// needed are left out.
fn remedy(
    config: &RunConfig,
    available: usize,
    parallel: usize,
) -> anyhow::Result<Option<(Vec<String>, usize)>> {
    let with = |changes: &[Change]| -> anyhow::Result<(Vec<String>, usize)> {
        let mut changed = config.clone();
        let sets: Vec<String> = changes.iter().flat_map(|change| change.apply(&mut changed)).collect();
        Ok((sets, peak(&changed, parallel)?.1))
    };
    let batch =
        config.scst.iter().map(|scst| scst.train.batch_size).fold(config.train.batch_size, usize::max);
    let counts =
        std::iter::successors(Some(2), |count| Some(count * 2)).take_while(|&count| count < 2 * batch);
    let counts = counts.map(|count| Change::MicroBatches(count.min(batch)));
    let once = [Change::LanguageModel, Change::VisionModel, Change::QFormer, Change::HalfPrecision];
    let mut changes: Vec<Change> = Vec::new();
    let mut needed = with(&changes)?.1;
    for change in once.into_iter().chain(counts) {
        if needed <= available {
            break;
        }
        let is_count = matches!(change, Change::MicroBatches(_));
        let earlier = changes.iter().filter(|own| !(is_count && matches!(own, Change::MicroBatches(_))));
        let tried: Vec<Change> = earlier.copied().chain([change]).collect();
        let then = with(&tried)?.1;
        if is_count || then < needed {
            (changes, needed) = (tried, then);
        }
    }
    if needed > available {
        return Ok(None);
    }
    for change in once {
        let without: Vec<Change> = changes.iter().copied().filter(|other| *other != change).collect();
        if without.len() < changes.len() && with(&without)?.1 <= available {
            changes = without;
        }
    }
    Ok(Some(with(&changes)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve_plain;

    const GB: usize = 1_000_000_000;

    fn config(sets: &[&str]) -> RunConfig {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        resolve_plain("paper", &sets).unwrap()
    }

    /// A ViT that is trained needs far more than one card; each remedy, applied, makes it fit.
    #[test]
    fn a_remedy_that_is_named_makes_the_configuration_fit() {
        let trained = "train.parameters={ \"language_model.*\" = \"frozen\" }";
        let reward = "scst.reward={ mode = \"standard\", candidates = 5 }";
        for sets in [vec![trained], vec![trained, reward], vec![reward, "model.frozen_type=f32"]] {
            let config = config(&[&sets[..], &["train.micro_batches=1"]].concat());
            let machine = Machine { memory: Some(40 * GB), parallel: 1 };
            let shortage = shortage(&config, &machine).unwrap().expect("it does not fit");
            assert!(shortage.needed > 40 * GB && shortage.available == 40 * GB);
            let (remedy, then) = shortage.remedy.clone().expect("there is a remedy");
            assert!(then <= 40 * GB && !remedy.is_empty(), "{remedy:?}");
            let all: Vec<&str> = sets.iter().copied().chain(["train.micro_batches=1"]).collect();
            let all: Vec<&str> = all.into_iter().chain(remedy.iter().map(String::as_str)).collect();
            assert_eq!(self::shortage(&self::config(&all), &machine).unwrap(), None, "{remedy:?}");
            let text = shortage.to_string();
            assert!(text.contains("40.0 GB") && text.contains(&format!("--set {}", remedy[0])), "{text}");
        }
    }

    /// The paper's card is an A6000 of 48 GB.
    #[test]
    fn every_variant_of_every_study_fits_the_papers_card_in_both_recipes() {
        let machine = Machine { memory: Some(48 * GB), parallel: 1 };
        let mut count = 0;
        for ablation in crate::config::ablations().unwrap() {
            for recipe in ["recipe=paper", "recipe=released"] {
                for (variant, config) in
                    crate::config::resolve_all("paper", &ablation, &[recipe.to_owned()]).unwrap()
                {
                    let lacks = shortage(&config, &machine).unwrap();
                    assert_eq!(lacks, None, "{} {}", ablation.name, variant.name);
                    count += 1;
                }
            }
        }
        assert!(count > 50, "{count} variants");
    }

    #[test]
    fn what_fits_lacks_nothing_and_what_nothing_helps_says_so() {
        let everything = config(&["train.parameters={}"]);
        let machine = |gigabytes| Machine { memory: Some(gigabytes * GB), parallel: 1 };
        assert_eq!(shortage(&everything, &machine(400)).unwrap(), None);
        assert_eq!(shortage(&everything, &Machine { memory: None, parallel: 1 }).unwrap(), None);
        let shortage = shortage(&everything, &machine(24)).unwrap().unwrap();
        assert_eq!(shortage.remedy, None, "weights and moments alone take more");
        assert!(shortage.to_string().contains("train fewer parameters"), "{shortage}");
    }

    #[test]
    fn micro_batches_at_the_same_time_take_their_memory_at_the_same_time() {
        let config = config(&[]);
        let need = |parallel| peak(&config, parallel).unwrap().1;
        assert!(need(2) > need(1));
        assert_eq!(need(4), need(64), "there are four micro-batches");
    }
}
