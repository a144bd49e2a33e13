//! The grid of an ablation: every variant with every seed, in order, from one checkpoint on one world.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context as _, bail};
use data::datasets::Split;
use data::datasets::synthetic::chance_levels;
use metrics::best_constant_caption;
use serde::{Deserialize, Serialize};
use train::captioner::Captioner;
use train::dashboard::Figures;
use train::files;
use train::strategy::{Judge, write_predictions};

use crate::config::{Ablation, RunConfig, Variant, choices, resolve};
use crate::examples::Videos;
use crate::judge::{WorldJudge, chance_figures};
use crate::report::{self, TestClip};
use crate::run::{Done, Pretrained, Run, RunResult, Session, write_captions};
use crate::world::LoadedWorld;

/// What the command line asks for.
pub struct Request {
    /// The study.
    pub ablation: Ablation,
    /// How large.
    pub profile: String,
    /// Variants to run; all where it is empty.
    pub only: Vec<String>,
    /// Seeds 1 to this.
    pub seeds: u64,
    /// `key=value` settings.
    pub sets: Vec<String>,
    /// Go on with what is there.
    pub resume: bool,
    /// Folder of all runs.
    pub runs: PathBuf,
    /// Folder of worlds and decoded frames.
    pub cache: PathBuf,
}

/// `summary.json`: every score of the ablation, and nothing that differs from run to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The study.
    pub ablation: String,
    /// What it asks.
    pub question: String,
    /// Figure or table of the paper.
    pub paper: String,
    /// How large.
    pub profile: String,
    /// Hash that names the world.
    pub world: String,
    /// Clips of train, validate and test.
    pub clips: [usize; 3],
    /// What one gets without learning.
    pub baselines: Baselines,
    /// Every variant, in the study's order.
    pub variants: Vec<VariantSummary>,
}

/// What one gets without learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baselines {
    /// The caption of the training split with the highest average CIDEr there.
    pub constant_caption: String,
    /// Its scores on the test split.
    pub constant: Figures,
    /// The pretrained model's scores on the test split before any training.
    pub pretrained: Figures,
    /// The most frequent answer's accuracy on the test split.
    pub chance: Figures,
}

/// A variant's runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantSummary {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// One result a seed.
    pub runs: Vec<RunResult>,
}

/// How an ablation ended.
pub enum Ended {
    /// All runs are done.
    Finished,
    /// Ctrl-C; `--resume` goes on.
    Interrupted,
}

/// Runs the grid, then writes table, plots and report.
///
/// # Errors
/// When a run fails. What is finished stays and `--resume` skips it.
pub fn run(request: &Request, session: &Session) -> anyhow::Result<Ended> {
    let variants = chosen(request);
    let configs = variants
        .iter()
        .map(|variant| resolve(&request.profile, variant, &request.sets))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let Some(first) = configs.first() else { bail!("no variant to run") };
    let folder = request.runs.join(&request.ablation.name);
    prepare_folder(&folder, request.resume)?;

    let pretrained = Pretrained::load(first, &session.device)?;
    let world = LoadedWorld::load(first, pretrained.image_size(), &request.cache)?;
    let truth = |id: &str| world.world.truth(id).map(|truth| &truth.scene);
    let test = world.clips(Split::Test);
    let test: Vec<TestClip> = test.iter().map(|clip| TestClip::of(clip, truth(&clip.id))).collect();
    report::clips::write(&folder, &test)?;
    let baselines = baselines(first, &pretrained, &world, &folder)?;
    drop(pretrained);

    let mut summaries = Vec::new();
    for (variant, config) in variants.iter().zip(&configs) {
        if (&config.world, &config.frames) != (&first.world, &first.frames) {
            bail!(
                "variant \"{}\" changes the world or its frames, which all variants of an ablation share",
                variant.name
            );
        }
        let mut runs = Vec::new();
        for seed in 1..=request.seeds {
            let directory = folder.join(&variant.name).join(format!("seed-{seed}"));
            let run = Run { variant: &variant.name, config, seed, directory };
            let result = match run.finished()? {
                Some((result, _)) => result,
                None => {
                    match run.run(session, &world).with_context(|| format!("variant \"{}\"", variant.name))? {
                        Done::Finished(result, _) => *result,
                        Done::Interrupted => return Ok(Ended::Interrupted),
                    }
                }
            };
            runs.push(result);
            if session.stop.load(Ordering::Relaxed) {
                return Ok(Ended::Interrupted);
            }
        }
        let (name, description) = (variant.name.clone(), variant.description.clone());
        summaries.push(VariantSummary { name, description, runs });
    }
    let count = |split| world.clips(split).len();
    let summary = Summary {
        ablation: request.ablation.name.clone(),
        question: request.ablation.question.clone(),
        paper: request.ablation.paper.clone(),
        profile: request.profile.clone(),
        world: world.world.hash().to_owned(),
        clips: [count(Split::Train), count(Split::Validate), count(Split::Test)],
        baselines,
        variants: summaries,
    };
    files::replace_json(&folder.join("summary.json"), &summary)?;
    report::write(&folder)?;
    Ok(Ended::Finished)
}

/// Refuses `--only` with a name that is no variant's.
///
/// # Errors
/// Names the first such word and the variants there are.
pub fn check_only(ablation: &Ablation, only: &[String]) -> anyhow::Result<()> {
    let names: Vec<&str> = ablation.variants.iter().map(|variant| variant.name.as_str()).collect();
    match only.iter().find(|only| !names.contains(&only.as_str())) {
        None => Ok(()),
        Some(stray) => {
            let next = format!("experiments show {}", ablation.name);
            bail!("--only {stray}: no variant of {}{}", ablation.name, choices(stray, &names, &next))
        }
    }
}

/// The variants that the command line names, in the study's order.
fn chosen(request: &Request) -> Vec<Variant> {
    let is_chosen = |variant: &&Variant| request.only.is_empty() || request.only.contains(&variant.name);
    request.ablation.variants.iter().filter(is_chosen).cloned().collect()
}

/// An earlier run of the same study is moved aside, never lost; with `--resume` it is gone on with.
fn prepare_folder(folder: &Path, resume: bool) -> anyhow::Result<()> {
    if folder.exists() && !resume {
        let aside = (1..).map(|n| folder.with_extension(format!("old-{n}"))).find(|path| !path.exists());
        if let Some(aside) = aside {
            std::fs::rename(folder, &aside)
                .with_context(|| format!("cannot move the earlier run aside: {}", folder.display()))?;
            eprintln!("the earlier run now lies in {} (--resume would go on with it)", aside.display());
        }
    }
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot write to the folder of the run: {}", folder.display()))?;
    // a folder that cannot be written to is found out here and not after an hour of training
    files::replace(&folder.join(".writable"), b"")?;
    std::fs::remove_file(folder.join(".writable")).context("cannot write to the folder of the run")
}

fn baselines(
    config: &RunConfig,
    pretrained: &Pretrained,
    world: &LoadedWorld,
    folder: &Path,
) -> anyhow::Result<Baselines> {
    let references: Vec<&[String]> =
        world.clips(Split::Train).iter().map(|clip| clip.captions.as_slice()).collect();
    let Some((constant_caption, _)) = best_constant_caption(&references) else {
        bail!("the training split has no captions");
    };
    let judge = WorldJudge::new(&world.world, &world.clips(Split::Test));
    let test = Videos::new(world.frames(Split::Test).clone());
    let captioner = Captioner::new(pretrained.model.clone(), pretrained.context(config));
    let written = write_captions(&captioner, &test, config.evaluate.batch_size)?;
    write_predictions(&folder.join("pretrained-test.json"), &written, test.ids())?;
    Ok(Baselines {
        constant: judge.score(&vec![constant_caption.clone(); test.ids().len()])?,
        constant_caption,
        pretrained: judge.judge(&written)?,
        chance: chance_figures(&chance_levels(&world.world, Split::Test)),
    })
}
