//! Running a study: every variant with every seed, in order. [`run`](mod@run) is one run from its checkpoint
//! to its test score; `reuse` finds equal runs of other studies; `models` evaluates the pretrained models;
//! `overview` shows how far a study is.
//!
//! A study has variants, a variant has one run a seed, and a run has one or two stages of training.

mod models;
pub(crate) mod overview;
pub(crate) mod repeat;
mod reuse;
mod run;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use data::datasets::Split;
use model::device::DeviceError;
use train::dashboard::Dashboard;
use train::processes::{check_same, share_first};
use train::{BEST, files};

use crate::config::{Ablation, PretrainConfig, Resolved, RunConfig, Variant, find_checkpoint, image_size};
use crate::plan::{Machine, shortage};
use crate::pretrain;
use crate::records::{
    Failure, PARTS, Provenance, RESULT, RunResult, SUMMARY, Summary, VariantSummary, clips, run_folder,
};
use crate::runtime::{FolderLock, Session, Status, note};
use crate::tasks::{self, Clips};
use crate::text::error_chain;
use models::Models;
use overview::Overview;
use run::Run;

pub(crate) use run::evaluate;

/// A study to be run.
pub(crate) struct Request<'a> {
    pub ablation: &'a Ablation,
    pub profile: &'a str,
    /// The variants to be run, in the study's order.
    pub variants: Vec<Resolved<'a>>,
    /// Seeds of each variant.
    pub seeds: RangeInclusive<u64>,
    /// Whether this is one job of several that run parts of the study in the same folder.
    pub is_part: bool,
    /// Whether finished runs are skipped and an interrupted one continues.
    pub resume: bool,
    /// Whether equal runs of other studies are copied.
    pub reuse: bool,
    pub runs: &'a Path,
    /// The device that it must fit on.
    pub machine: Machine,
}

impl Request<'_> {
    /// The folder of the study.
    pub(crate) fn folder(&self) -> PathBuf {
        self.runs.join(&self.ablation.name)
    }

    /// The file of the summary. Each part writes a separate one.
    fn summary(&self) -> PathBuf {
        if !self.is_part {
            return self.folder().join(SUMMARY);
        }
        let names: Vec<&str> = self.variants.iter().map(|(variant, _)| variant.name.as_str()).collect();
        let name =
            if names.len() == self.ablation.variants.len() { "all".to_owned() } else { names.join("+") };
        self.folder().join(PARTS).join(format!("{name}.seed-{}.json", self.seeds.start()))
    }

    /// Locks the folder: the whole study for one job, or for all jobs that run parts of it.
    fn lock(&self) -> anyhow::Result<FolderLock> {
        if self.is_part {
            FolderLock::share_or_fail(&self.folder())
        } else {
            FolderLock::or_fail(&self.folder())
        }
    }

    /// The variants of the summary: a part has the others too, without runs, so that they are known to be
    /// missing.
    fn summarised(&self) -> Vec<VariantSummary> {
        let started = |variant: &Variant| VariantSummary {
            name: variant.name.clone(),
            description: variant.description.clone(),
            ..VariantSummary::default()
        };
        let is_left_out =
            |variant: &&Variant| self.ablation.left_out(self.profile).any(|(name, _)| *name == variant.name);
        if self.is_part {
            return self
                .ablation
                .variants
                .iter()
                .filter(|variant| !is_left_out(variant))
                .map(started)
                .collect();
        }
        self.variants.iter().map(|(variant, _)| started(variant)).collect()
    }

    /// Refuses processes that do not run the same: another program, or other settings.
    fn check_processes(&self, session: &Session) -> anyhow::Result<()> {
        let processes = &*session.processes;
        check_same(processes, "the program", &Provenance::program())?;
        let hash = |(variant, config): &Resolved<'_>| Ok(format!("{} {}", variant.name, config.hash(1)?));
        let variants: Vec<String> = session.agree(self.variants.iter().map(hash).collect())?;
        let Self { seeds, resume, reuse, .. } = self;
        let request = format!("{}, seeds {seeds:?}, resume {resume}, reuse {reuse}", variants.join(", "));
        check_same(processes, "the study", &request)?;
        Ok(())
    }

    /// Refuses a study with a variant that does not fit into the device's memory, before anything is
    /// computed.
    fn check_memory(&self) -> anyhow::Result<()> {
        let mut faults = Vec::new();
        for (variant, config) in &self.variants {
            let is_finished = |seed| run_folder(&self.folder(), &variant.name, seed).join(RESULT).exists();
            if self.resume && self.seeds.clone().all(is_finished) {
                continue;
            }
            // a checkpoint that is not there is reported when it is opened
            if config.pretraining.is_none() && find_checkpoint(&config.checkpoint).is_err() {
                continue;
            }
            if let Some(shortage) = shortage(config, &self.machine)? {
                faults.push(format!("{}: {shortage}", variant.name));
            }
        }
        if faults.is_empty() {
            return Ok(());
        }
        bail!(
            "{}\n--only runs the variants that fit; --device-memory SIZE plans for another amount than was found",
            faults.join("\n")
        )
    }
}

/// Runs a study. A failed run is reported, and the others are run.
pub(crate) fn run(request: &Request<'_>, session: &Session) -> anyhow::Result<Status> {
    let Request { ablation, profile, variants, .. } = request;
    for (name, reason) in ablation.left_out(profile) {
        note(&format!("{name} is not in profile {profile}: {reason}"));
    }
    let Some((_, first)) = variants.first() else {
        bail!("profile {profile} has none of the chosen variants of {}", ablation.name)
    };
    session.agree(request.check_memory())?;
    let folder = request.folder();
    session.agree(request.check_processes(session))?;
    let _lock = session.first(|| request.lock())?;
    session.once(|| prepare_folder(&folder, request.resume))?;
    check_shared(&folder, session)?;

    let earlier = if request.resume { Summary::find(&folder)? } else { None };
    let models = Models::new(session, &folder, earlier);
    let mut study = Study { request, session, folder: &folder, models, clips: None, learned: HashMap::new() };
    let Some(first) = with_checkpoint(first, session)? else { return Ok(Status::Interrupted) };
    let (task, loaded) = (tasks::of(&first), study.clips(&first)?);
    session.once(|| clips::save(&folder, &task.test_clips(&loaded)))?;
    let data_hash = Some(loaded.hash().to_owned());
    let baselines = match study.models.earlier(data_hash.as_ref()) {
        Some(earlier) => earlier.baselines.clone(),
        None => task.baselines(&loaded)?,
    };
    let count = |split| loaded.split(split).len();
    let mut summary = Summary {
        ablation: ablation.name.clone(),
        question: ablation.question.clone(),
        paper: ablation.paper.clone(),
        profile: (*profile).to_owned(),
        data_set: Some(loaded.name().to_owned()),
        clips: Some([count(Split::Train), count(Split::Validate), count(Split::Test)]),
        baselines,
        models: Vec::new(),
        seeds: Some(*request.seeds.end()),
        variants: request.summarised(),
        published: ablation.published.clone(),
        world: data_hash,
    };
    // a checkpoint that cannot be read stops the study before anything is trained
    study.models.add(&variants[0].0.name, &first, &loaded, &mut summary)?;
    drop(loaded);
    if !study.run(&mut summary)? {
        return Ok(Status::Interrupted);
    }
    let has_failures = summary.variants.iter().any(|variant| !variant.failures.is_empty());
    Ok(if has_failures { Status::Failed } else { Status::Finished })
}

/// A study in progress.
struct Study<'a> {
    request: &'a Request<'a>,
    session: &'a Session,
    folder: &'a Path,
    models: Models<'a>,
    /// The clips of the last run, which most variants share.
    clips: Option<Arc<Clips>>,
    /// Checkpoints after cross-entropy training, from which self-critical training can start, by the hash of
    /// their configuration.
    learned: HashMap<String, PathBuf>,
}

impl Study<'_> {
    /// All runs. The summary is saved after each, so that a report can be made at any time; returns whether
    /// all have ended.
    fn run(&mut self, summary: &mut Summary) -> anyhow::Result<bool> {
        let path = self.request.summary();
        self.save(&path, summary)?;
        for (variant, config) in &self.request.variants {
            for seed in self.request.seeds.clone() {
                let outcome = without_panic(self.session, || self.one(variant, config, seed, summary));
                let outcome = self.session.agree(outcome);
                let entry = summary.variants.iter_mut().find(|entry| entry.name == variant.name);
                let entry = entry.context("a variant is not in the summary")?;
                match outcome {
                    Ok(Some(result)) => entry.runs.push(result),
                    Ok(None) => return Ok(false),
                    Err(error) => {
                        let reason = error_chain(&error);
                        note(&format!("{} seed {seed} failed, the others are run: {reason}", variant.name));
                        entry.failures.push(Failure { seed, reason });
                    }
                }
                self.save(&path, summary)?;
                if share_first(&*self.session.processes, self.session.is_stopped())? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn save(&self, path: &Path, summary: &Summary) -> anyhow::Result<()> {
        self.session.once(|| Ok(files::replace_json(path, summary)?))
    }

    /// One run, or its result where it is finished; none where it was interrupted.
    fn one(
        &mut self,
        variant: &Variant,
        config: &RunConfig,
        seed: u64,
        summary: &mut Summary,
    ) -> anyhow::Result<Option<RunResult>> {
        let directory = run_folder(self.folder, &variant.name, seed);
        // another job may run another part of the study, but not this run
        let lock = || self.request.is_part.then(|| FolderLock::or_fail(&directory)).transpose();
        let _lock = self.session.first(lock)?;
        let run = Run::new(&variant.name, config, seed, directory.clone());
        let finished = self.session.agree(run.finished())?;
        let result = match share_first(&*self.session.processes, finished)? {
            Some(finished) if self.models.keep(&variant.name, summary) => Some(finished),
            finished => {
                if self.session.dashboard != Dashboard::Silent && finished.is_none() {
                    let state = Overview::read(self.folder)?.text();
                    println!("\n{state}\n\nnow: {} seed {seed}", variant.name);
                }
                let Some(config) = &with_checkpoint(config, self.session)? else { return Ok(None) };
                let clips = self.clips(config)?;
                self.models.add(&variant.name, config, &clips, summary)?;
                match finished {
                    Some(finished) => Some(finished),
                    None => self.train(&Run::new(&variant.name, config, seed, directory.clone()), &clips)?,
                }
            }
        };
        if result.is_some() && config.scst.is_none() {
            self.learned.entry(config.hash(seed)?).or_insert_with(|| directory.join(BEST));
        }
        Ok(result)
    }

    /// Trains a run, or copies an equal one of another study.
    fn train(&mut self, run: &Run<'_>, clips: &Clips) -> anyhow::Result<Option<RunResult>> {
        let provenance =
            run.provenance(self.session, clips, self.models.weights_hash(&run.config.checkpoint)?)?;
        let processes = &*self.session.processes;
        let weights = provenance.weights_hash.as_deref().unwrap_or_default();
        for (what, own) in [
            ("the hash of the settings", provenance.config_hash.as_str()),
            ("the hash of the data", &provenance.data_hash),
            ("the hash of the weights", weights),
        ] {
            check_same(processes, what, own)?;
        }
        // a run that was started here continues here
        let may_reuse = self.request.reuse && !run.directory.exists();
        let equal = may_reuse.then(|| reuse::find(self.request.runs, self.folder, &provenance)).transpose();
        let equal = share_first(processes, self.session.agree(equal)?.flatten())?;
        if let Some(equal) = equal {
            self.session.once(|| reuse::copy_run(&equal, &run.directory))?;
            let (variant, seed, equal) = (run.variant, run.seed, equal.display());
            note(&format!(
                "{variant} seed {seed} is the run in {equal}, which was copied (--no-reuse would train it again)"
            ));
            return run.finished();
        }
        // self-critical training starts from a run of this study that has the same first stage
        let start = run.first_stage_hash()?.and_then(|hash| self.learned.get(&hash));
        run.run(self.session, clips, &provenance, start.map(PathBuf::as_path))
    }

    /// The clips of a configuration; those of the last run where it reads the same frames.
    fn clips(&mut self, config: &RunConfig) -> anyhow::Result<Arc<Clips>> {
        let (task, size) = (tasks::of(config), image_size(config)?);
        if let Some(clips) = self.clips.as_ref().filter(|clips| clips.is_of(config, &*task, size)) {
            return Ok(clips.clone());
        }
        self.clips = None;
        let clips = Clips::open_together(config, &*task, size, self.session, None)?;
        Ok(self.clips.insert(Arc::new(clips)).clone())
    }
}

/// A configuration with the checkpoint of its pretraining, which is run where that does not exist; none where
/// it was interrupted.
fn with_checkpoint(config: &RunConfig, session: &Session) -> anyhow::Result<Option<RunConfig>> {
    let Some(choice) = &config.pretraining else { return Ok(Some(config.clone())) };
    let chosen = PretrainConfig::find(&choice.name, &choice.sets())?;
    let checkpoint = pretrain::checkpoint(&chosen, session)?;
    Ok(checkpoint.map(|checkpoint| RunConfig { checkpoint, ..config.clone() }))
}

/// Makes an error of a panic, such as that of a GPU's memory pool which cannot grow: the other runs of a
/// study go on. With several processes the program ends: the others wait for this one, and the launcher stops
/// them.
fn without_panic<T>(session: &Session, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        let text = DeviceError::new(format_args!("{text}")).to_string();
        if session.processes.world_size() > 1 {
            eprintln!("process {} ended in a panic: {text}", session.processes.rank());
            std::process::exit(1);
        }
        Err(anyhow!("the run ended in a panic: {text}"))
    })
}

/// Refuses a folder that the processes do not share: the first writes what the others read.
fn check_shared(folder: &Path, session: &Session) -> anyhow::Result<()> {
    // several jobs may do this at the same time
    let name = format!(".processes-{}-{}", std::process::id(), time::OffsetDateTime::now_utc().nanosecond());
    let mark = folder.join(share_first(&*session.processes, name)?);
    session.once(|| Ok(files::replace(&mark, b"")?))?;
    let found = mark.exists().then_some(()).with_context(|| {
        format!(
            "{} is not the folder that process 0 writes to: all processes need one shared folder (process {})",
            folder.display(),
            session.processes.rank()
        )
    });
    session.agree(found)?;
    session.once(|| std::fs::remove_file(&mark).context("cannot write to the folder of the run"))
}

/// Moves an earlier run of the study aside, unless it is resumed, and makes the folder.
fn prepare_folder(folder: &Path, resume: bool) -> anyhow::Result<()> {
    if folder.exists() && !resume {
        let aside = reuse::free_name_aside(folder);
        std::fs::rename(folder, &aside)
            .with_context(|| format!("cannot move the earlier run aside: {}", folder.display()))?;
        eprintln!("the earlier run was moved to {} (--resume would continue it)", aside.display());
    }
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot write to the folder of the run: {}", folder.display()))?;
    // a folder that cannot be written to is reported before the first run, not after it
    tempfile::NamedTempFile::new_in(folder).context("cannot write to the folder of the run")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_run_is_its_error() {
        let session = Session::for_tests();
        let message =
            |work: fn() -> anyhow::Result<()>| without_panic(&session, work).unwrap_err().to_string();
        let (size, constant) =
            (message(|| panic!("cannot allocate {} bytes", 5)), message(|| panic!("full")));
        assert_eq!(size, "the run ended in a panic: cannot allocate 5 bytes");
        assert_eq!(constant, "the run ended in a panic: full");
        assert_eq!(without_panic(&session, || Ok(3)).unwrap(), 3);
    }
}
