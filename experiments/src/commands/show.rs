//! `experiments show`: the settings of an ablation, and estimates of its memory and work.

use std::iter::once;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use super::options::{ConfigOptions, MemoryOption};
use super::{Outcome, Usage};
use crate::config::{Variant, find_ablation, resolve_all};
use crate::plan::{Cached, Disk, Memory, Module, Plan, Stage, StoredViews, shortage};
use crate::text::numbers::{bytes, operations, seconds};
use crate::text::{Table, distinct, thousands};

/// Arguments of `show`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of an ablation, or path of a TOML file of your own
    name: String,
    #[command(flatten)]
    config: ConfigOptions,
    #[command(flatten)]
    memory: MemoryOption,
    /// Print one JSON array, an object a variant, instead of tables; sizes in bytes
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let ablation = find_ablation(&arguments.name).usage()?;
    let profile = arguments.config.profile.or_tiny();
    let resolved = resolve_all(profile, &ablation, &arguments.config.sets().usage()?).usage()?;
    let machine = arguments.memory.planned();
    let plans = resolved
        .iter()
        .map(|(variant, config)| Ok((*variant, Plan::of(config, machine.parallel)?)))
        .collect::<anyhow::Result<Vec<_>>>()
        .usage()?;
    if arguments.json {
        let all: Vec<Value> = plans.iter().map(as_json).collect();
        println!("{}", serde_json::to_string_pretty(&all).context("a plan as JSON").failure()?);
        return Ok(ExitCode::SUCCESS);
    }
    let paper = if ablation.paper.is_empty() { "not in the paper" } else { &ablation.paper };
    println!("# {} ({paper}): {}\n", ablation.name, ablation.question);
    println!("{}\n", variants(&plans).to_text());
    println!("{}\n", modules(&plans).to_text());
    println!("{}\n", stages(&plans).to_text());
    println!("{}\n", disk(&plans).to_text());
    if plans.iter().any(|(_, plan)| plan.views.is_some()) {
        println!("{}\n", views(&plans).to_text());
    }
    println!(
        "memory is that of training, micro-batches at a time: {}; time is that of training steps on 2 CPU cores at the tiny model's rate",
        machine.parallel,
    );
    for (variant, config) in &resolved {
        if let Some(shortage) = shortage(config, &machine).usage()? {
            println!("{} does not fit: {shortage}", variant.name);
        }
    }
    for (name, reason) in ablation.left_out(profile) {
        println!("{name}: not in profile {profile}: {reason}");
    }
    for (variant, config) in &resolved {
        let text = config.to_toml().context("a configuration as TOML").failure()?;
        println!("\n# ---- {} on profile {profile}\n{text}", variant.name);
    }
    Ok(ExitCode::SUCCESS)
}

type Planned<'a> = (&'a Variant, Plan);

fn as_json((variant, plan): &Planned<'_>) -> Value {
    let stage = |stage: &Stage| {
        let Memory { weights, gradients, optimizer, activations } = stage.memory;
        json!({
            "name": stage.name,
            "steps": stage.steps,
            "weights": weights,
            "gradients": gradients,
            "optimizer": optimizer,
            "activations": activations,
            "total": stage.memory.total(),
            "operations": stage.work(),
        })
    };
    let Disk { best, states, held_out, training } = plan.disk;
    let cached = |Cached { frames, features }: Cached| json!({ "frames": frames, "features": features });
    json!({
        "variant": variant.name,
        "trained": plan.trained(),
        "parameters": plan.values(),
        "examples": plan.examples,
        "stages": plan.stages.iter().map(stage).collect::<Vec<_>>(),
        "disk": { "best": best, "states": states, "held_out": cached(held_out), "training": cached(training) },
    })
}

fn variants(plans: &[Planned<'_>]) -> Table {
    let mut table =
        Table::new(["variant", "description", "trainable", "of", "share", "examples", "steps", "time"]);
    for (variant, plan) in plans {
        let (trained, values) = (plan.trained(), plan.values());
        let time = plan.seconds().map_or_else(|| "not run: no measured rate".to_owned(), seconds);
        table.push(vec![
            variant.name.clone(),
            variant.description.clone(),
            thousands(trained),
            thousands(values),
            format!("{:.2} %", 100.0 * trained as f64 / values.max(1) as f64),
            thousands(plan.examples),
            thousands(plan.stages.iter().map(|stage| stage.steps).sum()),
            time,
        ]);
    }
    table
}

fn modules(plans: &[Planned<'_>]) -> Table {
    let variants = plans.iter().map(|(variant, _)| variant.name.as_str());
    let mut table = Table::new(once("module").chain(variants));
    for name in distinct(plans.iter().flat_map(|(_, plan)| &plan.modules).map(|module| &module.name)) {
        let cell = |(_, plan): &Planned<'_>| match plan.modules.iter().find(|module| module.name == *name) {
            None => "-".to_owned(),
            Some(Module { values, trained: 0, .. }) => format!("{}, frozen", thousands(*values)),
            Some(Module { values, trained, .. }) if trained == values => thousands(*values),
            Some(Module { values, trained, .. }) => {
                format!("{}, {} of them trained", thousands(*values), thousands(*trained))
            }
        };
        table.push(once(name.clone()).chain(plans.iter().map(cell)));
    }
    table
}

fn stages(plans: &[Planned<'_>]) -> Table {
    let sizes =
        ["weights", "gradients", "optimizer", "activations", "not recomputed", "all recomputed", "total"];
    let mut table = Table::new(["stage", "steps"].into_iter().chain(sizes).chain(["work a step", "work"]));
    for (variant, plan) in plans {
        for stage in &plan.stages {
            let Stage { name, steps, memory, activations: [plain, recomputed], .. } = stage;
            let Memory { weights, gradients, optimizer, activations } = *memory;
            let sizes = [weights, gradients, optimizer, activations, *plain, *recomputed, memory.total()];
            let row = [format!("{}, {name}", variant.name), thousands(*steps)].into_iter();
            let work = [stage.step_work, stage.work()].map(operations);
            table.push(row.chain(sizes.map(bytes)).chain(work));
        }
    }
    table
}

/// Files: those of each run, and those in the cache, which runs share.
fn disk(plans: &[Planned<'_>]) -> Table {
    let columns = ["best/", "saved states", "a run", "held-out frames", "held-out features"];
    let training = ["training frames", "training features"];
    let mut table = Table::new(once("disk").chain(columns).chain(training));
    for (variant, plan) in plans {
        let Disk { best, states, held_out, training } = plan.disk;
        let cached = [held_out.frames, held_out.features, training.frames, training.features];
        let sizes = [best, states, best + states].into_iter().chain(cached);
        table.push(once(variant.name.clone()).chain(sizes.map(bytes)));
    }
    table
}

/// What `frames.views` saves and costs.
fn views(plans: &[Planned<'_>]) -> Table {
    let columns = ["views a clip", "ViT without", "ViT", "saved", "frames on disk", "features on disk"];
    let mut table = Table::new(once("stored views, a seed").chain(columns));
    for (variant, plan) in plans {
        if let Some(StoredViews { views, work_without, work }) = plan.views {
            let Cached { frames, features } = plan.disk.training;
            let saved = work_without - work;
            // a short run reads fewer views than are stored
            let sign = if saved < 0.0 { "-" } else { "" };
            let saved = format!("{sign}{}", operations(saved.abs()));
            let row = [variant.name.clone(), thousands(views)].into_iter();
            let work = [work_without, work].map(operations).into_iter().chain([saved]);
            table.push(row.chain(work).chain([frames, features].map(bytes)));
        }
    }
    table
}
