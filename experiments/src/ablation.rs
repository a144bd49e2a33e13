//! The grid of an ablation: every variant with every seed, in order, from one checkpoint on one world.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, bail};
use data::datasets::Split;
use data::text::clean_caption;
use data::tiny_world::{WorldConfig, chance_levels};
use metrics::best_constant_caption;
use serde::{Deserialize, Serialize};
use train::dashboard::{Dashboard, Metrics};
use train::{BEST, Captioner, files};

use crate::answering::{self, Reader};
use crate::clips::{Clips, DatasetConfig};
use crate::config::{Ablation, FrameConfig, Resolved, RunConfig, Variant, choices, resolve_all};
use crate::judge::chance_metrics;
use crate::lock::FolderLock;
use crate::overview::Overview;
use crate::pretrain;
use crate::pretrained::Pretrained;
use crate::report::{self, Published, TestClip};
use crate::reuse;
use crate::run::{Done, Run, RunResult, Session, measure};

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
    /// Take over equal runs of other studies.
    pub reuse: bool,
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
    /// The data set.
    pub data_set: String,
    /// Hash that names its content.
    pub world: String,
    /// The pretrained model.
    pub model: String,
    /// Seeds of each variant.
    pub seeds: u64,
    /// Clips of train, validate and test.
    pub clips: [usize; 3],
    /// What one gets without learning.
    pub baselines: Baselines,
    /// Every variant, in the study's order.
    pub variants: Vec<VariantSummary>,
    /// The paper's numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

/// A run that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Why.
    pub reason: String,
}

/// What one gets without learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baselines {
    /// The caption of the training split with the highest average CIDEr there.
    pub constant_caption: String,
    /// Its scores on the test split.
    pub constant: Metrics,
    /// The pretrained model's scores on the test split before any training.
    pub pretrained: Metrics,
    /// The most frequent answer's accuracy on the test split.
    pub chance: Metrics,
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
    /// Seeds whose runs failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
}

/// A finished run.
struct Cell {
    variant: String,
    seed: u64,
    /// Names what it learned, where that was by cross-entropy alone.
    cross_entropy: Option<String>,
}

/// How an ablation ended.
pub enum Ended {
    /// All runs are done.
    Finished,
    /// The grid is done, and some of its runs failed.
    Failed,
    /// Ctrl-C; `--resume` goes on.
    Interrupted,
}

/// Runs the grid, then writes table, plots and report. A run that fails is told and reported, and the rest goes on.
///
/// # Errors
/// When nothing can be run, or a file of the whole study cannot be written. What is finished stays and `--resume` skips
/// it.
pub fn run(request: &Request, session: &Session) -> anyhow::Result<Ended> {
    let variants = chosen(request)?;
    for (name, reason) in request.ablation.left_out(&request.profile) {
        eprintln!("{name} is not in profile {}: {reason}", request.profile);
    }
    let Some((_, first)) = variants.first() else {
        bail!("profile {} has none of the chosen variants of {}", request.profile, request.ablation.name)
    };
    let folder = request.runs.join(&request.ablation.name);
    let _lock = FolderLock::or_fail(&folder)?;
    prepare_folder(&folder, request.resume)?;

    let mut grid = Grid { request, session, folder: &folder, loaded: None, cells: Vec::new() };
    let Some(first) = &grid.pretrained(first)? else { return Ok(Ended::Interrupted) };
    let pretrained = Pretrained::load(first, &session.device)?;
    let clips = grid.clips(first)?;
    let truth = |id: &str| clips.world().and_then(|world| world.truth(id)).map(|truth| &truth.scene);
    let test = clips.clips(Split::Test);
    let test: Vec<TestClip> = match first.answering {
        Some(_) => test.iter().flat_map(|clip| TestClip::asked(clip, truth(&clip.id))).collect(),
        None => test.iter().map(|clip| TestClip::of(clip, truth(&clip.id))).collect(),
    };
    report::clips::write(&folder, &test)?;
    tell_unknown_words(&pretrained, &clips)?;
    let baselines = baselines(first, &pretrained, &clips, &folder)?;
    let parameters = model::parameters::count(&pretrained.model, |_| true);
    drop(pretrained);

    let count = |split| clips.clips(split).len();
    let begun = |(variant, _): &Resolved<'_>| VariantSummary {
        name: variant.name.clone(),
        description: variant.description.clone(),
        runs: Vec::new(),
        failures: Vec::new(),
    };
    let mut summary = Summary {
        ablation: request.ablation.name.clone(),
        question: request.ablation.question.clone(),
        paper: request.ablation.paper.clone(),
        profile: request.profile.clone(),
        data_set: clips.name().to_owned(),
        world: clips.hash().to_owned(),
        model: format!("{} of {} weights", first.checkpoint.display(), report::thousands(parameters)),
        seeds: request.seeds,
        clips: [count(Split::Train), count(Split::Validate), count(Split::Test)],
        baselines,
        variants: variants.iter().map(begun).collect(),
        published: request.ablation.published.clone(),
    };
    drop(clips);
    if !grid.run(&variants, &mut summary)? {
        return Ok(Ended::Interrupted);
    }
    report::write(&folder)?;
    let is_whole = summary.variants.iter().all(|variant| variant.failures.is_empty());
    Ok(if is_whole { Ended::Finished } else { Ended::Failed })
}

/// A grid in progress.
struct Grid<'a> {
    request: &'a Request,
    session: &'a Session,
    folder: &'a Path,
    /// The clips of the runs before, which most variants share.
    loaded: Option<(ClipsKey, Arc<Clips>)>,
    cells: Vec<Cell>,
}

/// What decides which frames of which clips are loaded.
type ClipsKey = (WorldConfig, Option<DatasetConfig>, FrameConfig, usize);

impl Grid<'_> {
    /// The clips of a configuration, loaded anew where they are others than those of the runs before.
    fn clips(&mut self, config: &RunConfig) -> anyhow::Result<Arc<Clips>> {
        let size = Pretrained::image_size_of(config)?;
        let key = (config.world.clone(), config.dataset.clone(), config.frames.clone(), size);
        if let Some((loaded, clips)) = &self.loaded
            && *loaded == key
        {
            return Ok(clips.clone());
        }
        self.loaded = None;
        let clips = Arc::new(Clips::load(config, size, &self.request.cache)?);
        self.loaded = Some((key, clips.clone()));
        Ok(clips)
    }

    /// A configuration with the checkpoint of its pretraining, which is made if it is not there; nothing when that was
    /// stopped.
    fn pretrained(&self, config: &RunConfig) -> anyhow::Result<Option<RunConfig>> {
        let Some(choice) = &config.pretraining else { return Ok(Some(config.clone())) };
        let chosen = pretrain::find(&choice.name, &choice.sets())?;
        let checkpoint = pretrain::checkpoint(&chosen, self.session, &self.request.cache)?;
        Ok(checkpoint.map(|checkpoint| RunConfig { checkpoint, ..config.clone() }))
    }

    /// All runs, each written down in `summary.json` as soon as it has ended, so that a report can be had at any time;
    /// says whether it was not stopped.
    fn run(&mut self, variants: &[Resolved<'_>], summary: &mut Summary) -> anyhow::Result<bool> {
        let path = self.folder.join("summary.json");
        files::replace_json(&path, summary)?;
        for (place, (variant, config)) in variants.iter().enumerate() {
            for seed in 1..=self.request.seeds {
                match self.cell(variant, config, seed) {
                    Ok(Some(result)) => {
                        let cross_entropy = config.scst.is_none().then(|| config.hash(seed));
                        self.cells.push(Cell { variant: variant.name.clone(), seed, cross_entropy });
                        summary.variants[place].runs.push(result);
                    }
                    Ok(None) => return Ok(false),
                    Err(error) => {
                        let reason = format!("{error:#}");
                        eprintln!("{} seed {seed} failed, the rest goes on: {reason}", variant.name);
                        summary.variants[place].failures.push(Failure { seed, reason });
                    }
                }
                files::replace_json(&path, summary)?;
                if self.session.stop.load(Ordering::Relaxed) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn cell(
        &mut self,
        variant: &Variant,
        config: &RunConfig,
        seed: u64,
    ) -> anyhow::Result<Option<RunResult>> {
        let directory = self.directory(&variant.name, seed);
        let cache = &self.request.cache;
        let run = Run { variant: &variant.name, config, seed, directory, cache };
        if let Some((finished, _)) = run.finished()? {
            return Ok(Some(finished));
        }
        if self.session.dashboard != Dashboard::Silent {
            println!("\n{}\n\nnow: {} seed {seed}", Overview::read(self.folder)?.text(), variant.name);
        }
        let Some(config) = &self.pretrained(config)? else { return Ok(None) };
        let run = Run { config, ..run };
        let clips = self.clips(config)?;
        let provenance = run.provenance(self.session, &clips)?;
        // what was begun is ended, so that a resumed run is the run that it was
        if self.request.reuse
            && !run.directory.exists()
            && let Some(equal) = reuse::find(&self.request.runs, self.folder, &provenance)?
        {
            reuse::take_over(&equal, &run.directory)?;
            eprintln!(
                "{} seed {seed} is the run in {}, which was copied (--no-reuse would train it again)",
                variant.name,
                equal.display()
            );
            return Ok(run.finished()?.map(|(result, _)| result));
        }
        // self-critical training goes on from a run of this grid that learned the same by cross-entropy
        let before = config.scst.is_some().then(|| RunConfig { scst: None, ..config.clone() }.hash(seed));
        let equal = self.cells.iter().find(|cell| before.is_some() && cell.cross_entropy == before);
        let start = equal.map(|cell| self.directory(&cell.variant, cell.seed).join(BEST));
        match run.run(self.session, &clips, &provenance, start.as_deref())? {
            Done::Finished(result, _) => Ok(Some(*result)),
            Done::Interrupted => Ok(None),
        }
    }

    fn directory(&self, variant: &str, seed: u64) -> PathBuf {
        self.folder.join(variant).join(format!("seed-{seed}"))
    }
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

/// The variants that the command line names, in the study's order, as far as the profile has them.
fn chosen(request: &Request) -> anyhow::Result<Vec<Resolved<'_>>> {
    let mut variants = resolve_all(&request.profile, &request.ablation, &request.sets)?;
    variants.retain(|(variant, _)| request.only.is_empty() || request.only.contains(&variant.name));
    Ok(variants)
}

/// What the ending of a study's folder begins with when it was moved aside.
pub(crate) const ASIDE: &str = "old-";

/// An earlier run of the same study is moved aside, never lost; with `--resume` it is gone on with.
fn prepare_folder(folder: &Path, resume: bool) -> anyhow::Result<()> {
    if folder.exists() && !resume {
        let aside = (1..).map(|n| folder.with_extension(format!("{ASIDE}{n}"))).find(|path| !path.exists());
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

/// Tells which words of a data set's captions the checkpoint's vocabulary does not have.
fn tell_unknown_words(pretrained: &Pretrained, clips: &Clips) -> anyhow::Result<()> {
    let captions = || {
        let captions = clips.clips(Split::Train).into_iter().flat_map(|clip| &clip.captions);
        captions.map(|caption| clean_caption(caption))
    };
    let unknown = pretrained.tokenizer.unknown_words(captions())?;
    if unknown.is_empty() {
        return Ok(());
    }
    let all: usize = captions().map(|caption| caption.split_whitespace().count()).sum();
    let count: usize = unknown.iter().map(|(_, count)| count).sum();
    let first: Vec<&str> = unknown.iter().take(5).map(|(word, _)| word.as_str()).collect();
    eprintln!(
        "not in the checkpoint's vocabulary: {count} of the {all} words of the training captions ({} different ones, as {}). They \
         are read and written as one unknown word; `experiments pretrain` makes a model that knows the words of your captions \
         (docs/pretraining.md).",
        unknown.len(),
        first.join(", ")
    );
    Ok(())
}

fn baselines(
    config: &RunConfig,
    pretrained: &Pretrained,
    clips: &Clips,
    folder: &Path,
) -> anyhow::Result<Baselines> {
    let context = pretrained.context(config)?;
    let videos = clips.videos(Split::Test)?;
    let batch_size = config.evaluate.batch_size;
    let (split, constant_caption, constant, chance) = match &config.answering {
        Some(answering) => {
            let judge = clips.answer_scorer(Split::Test)?;
            let chance = judge.chance(&clips.answer_scorer(Split::Train)?)?;
            let reader = Reader::new(answering.clone(), &pretrained.config, pretrained.tokenizer.clone())?;
            let questions = answering::examples(videos, &clips.clips(Split::Test), reader)?;
            let split = questions.validation(Split::Test, Arc::new(judge), batch_size);
            (split, String::new(), Metrics::default(), chance)
        }
        None => {
            let references: Vec<&[String]> =
                clips.clips(Split::Train).iter().map(|clip| clip.captions.as_slice()).collect();
            let Some((caption, _)) = best_constant_caption(&references) else {
                bail!("the training split has no captions");
            };
            let judge = clips.judge(Split::Test)?;
            let constant = judge.score(&vec![caption.clone(); videos.ids().len()])?;
            let chance = clips
                .world()
                .map_or_else(Metrics::default, |world| chance_metrics(&chance_levels(world, Split::Test)));
            (videos.validation(Split::Test, Arc::new(judge), batch_size), caption, constant, chance)
        }
    };
    let captioner = Captioner::new(pretrained.model.clone(), context);
    let measured = measure(&captioner, &split, Some(&folder.join("pretrained-test.json")))?;
    Ok(Baselines { constant_caption, constant, pretrained: measured.metrics, chance })
}
