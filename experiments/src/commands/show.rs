//! `experiments show`: what an ablation would run, and what that takes.

use crate::cli::ShowArguments;
use crate::commands::{Failure, Usage};
use crate::config::{Ablation, Variant, resolve_all, study_sets};
use crate::plan::{Module, Plan, Stage};
use crate::report::thousands;
use crate::table::Table;

/// Prints an ablation's variants, sizes and resolved configurations. Neither data nor weights need be there.
///
/// # Errors
/// When a name, key or value is not known.
pub fn run(ablation: &Ablation, arguments: &ShowArguments) -> Result<(), Failure> {
    let sets = study_sets(arguments.dataset.as_deref(), arguments.recipe.as_deref(), arguments.sets.clone())
        .usage()?;
    let profile = &arguments.profile;
    let resolved = resolve_all(profile, ablation, &sets).usage()?;
    let plans = resolved
        .iter()
        .map(|(variant, config)| Ok((*variant, Plan::of(config)?)))
        .collect::<anyhow::Result<Vec<_>>>()
        .usage()?;
    let paper = if ablation.paper.is_empty() { "not in the paper" } else { &ablation.paper };
    println!("# {} ({paper}): {}\n", ablation.name, ablation.question);
    println!("{}\n", variants(&plans).to_text());
    println!("{}\n", modules(&plans).to_text());
    println!("{}\n", stages(&plans).to_text());
    println!(
        "memory is estimated, one micro-batch at a time; time is of training steps on 2 CPU cores, from the tiny model's rate"
    );
    for (name, reason) in ablation.left_out(profile) {
        println!("{name}: not in profile {profile}: {reason}");
    }
    for (variant, config) in &resolved {
        let text = config.to_toml().map_err(anyhow::Error::from).failure()?;
        println!("\n# ---- {} on profile {profile}\n{text}", variant.name);
    }
    Ok(())
}

type Planned<'a> = (&'a Variant, Plan);

fn variants(plans: &[Planned<'_>]) -> Table {
    let mut table = Table::new(&["variant", "what", "trainable", "of", "share", "examples", "steps", "time"]);
    for (variant, plan) in plans {
        let (trained, values) = (plan.trained(), plan.values());
        let time = plan.seconds().map_or_else(|| "not run: no measured rate".to_owned(), duration);
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
    let mut names: Vec<&str> = Vec::new();
    for module in plans.iter().flat_map(|(_, plan)| &plan.modules) {
        if !names.contains(&module.name.as_str()) {
            names.push(&module.name);
        }
    }
    let heading: Vec<&str> =
        std::iter::once("module").chain(plans.iter().map(|(variant, _)| variant.name.as_str())).collect();
    let mut table = Table::new(&heading);
    for name in names {
        let cell = |(_, plan): &Planned<'_>| match plan.modules.iter().find(|module| module.name == name) {
            None => "-".to_owned(),
            Some(Module { values, trained: 0, .. }) => format!("{}, frozen", thousands(*values)),
            Some(Module { values, trained, .. }) if trained == values => thousands(*values),
            Some(Module { values, trained, .. }) => {
                format!("{}, of them {} trained", thousands(*values), thousands(*trained))
            }
        };
        table.push(std::iter::once(name.to_owned()).chain(plans.iter().map(cell)).collect());
    }
    table
}

fn stages(plans: &[Planned<'_>]) -> Table {
    let mut table = Table::new(&[
        "stage",
        "steps",
        "weights",
        "gradients",
        "optimiser",
        "activations",
        "not recomputed",
        "all recomputed",
        "total",
        "work a step",
        "work",
    ]);
    for (variant, plan) in plans {
        for stage in &plan.stages {
            let Stage { name, steps, memory, activations: [plain, recomputed], .. } = stage;
            let mut row = vec![format!("{}, {name}", variant.name), thousands(*steps)];
            row.extend(
                [memory.weights, memory.gradients, memory.optimiser, memory.activations, *plain, *recomputed]
                    .map(bytes),
            );
            row.push(bytes(memory.total()));
            row.extend([stage.step_work, stage.work()].map(operations));
            table.push(row);
        }
    }
    table
}

/// A number of bytes, as `3.2 GB`.
fn bytes(number: usize) -> String {
    let number = number as f64;
    if number >= 1e9 { format!("{:.1} GB", number / 1e9) } else { format!("{:.1} MB", number / 1e6) }
}

/// A number of floating-point operations, as `3.2 TFLOP`.
fn operations(number: f64) -> String {
    let units = [(1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")];
    let (size, unit) = units.into_iter().find(|(size, _)| number >= *size).unwrap_or((1e6, "MFLOP"));
    format!("{:.1} {unit}", number / size)
}

/// A time, as `4 min`.
fn duration(seconds: f64) -> String {
    match seconds {
        under if under < 60.0 => format!("{under:.0} s"),
        under if under < 7200.0 => format!("{:.0} min", under / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_times_are_told_in_fitting_units() {
        assert_eq!((bytes(3_200_000_000), bytes(450_000)), ("3.2 GB".to_owned(), "0.5 MB".to_owned()));
        assert_eq!([2.5e6, 7e15].map(operations), ["2.5 MFLOP", "7.0 PFLOP"]);
        assert_eq!(
            [12.4, 300.0, 9e4].map(duration),
            ["12 s".to_owned(), "5 min".to_owned(), "25 h".to_owned()]
        );
    }
}
