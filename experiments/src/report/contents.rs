//! The sections of a report, independent of HTML and Markdown.

use std::iter::once;

use serde_json::Value;

use super::differences::differences;
use super::drawings;
use super::folder::{NOT_RUN, Run, RunState, Study, Variant};
use super::paper;
use super::plots::Panel;
use super::statistics::{Course, Resampling, Spread, print_all};
use crate::config::flatten;
use crate::text::metrics::{ACCURACY, DISTINCT, EVENT, ORDERED_CIDER};
use crate::text::numbers::{NumberFormat, seconds};
use crate::text::{Table, distinct, thousands};

/// A part of the report.
pub(super) struct Section {
    pub id: &'static str,
    pub title: &'static str,
    /// Whether a page shows it folded.
    pub is_folded: bool,
    pub blocks: Vec<Block>,
}

/// A piece of a section.
pub(super) enum Block {
    Text(String),
    Points(Vec<String>),
    Terms(Vec<(String, String)>),
    /// A caption and a table.
    Table(String, Table),
    /// File name, title and panels of a plot.
    Plots(String, String, Vec<Panel>),
}

impl Section {
    fn new(id: &'static str, title: &'static str, blocks: Vec<Block>) -> Self {
        Self { id, title, is_folded: false, blocks }
    }
}

/// All sections but the clips, in their order. The last one is folded.
pub(super) fn sections(study: &Study, resampling: Resampling) -> Vec<Section> {
    let mut sections = Vec::new();
    if !study.gaps.is_empty() {
        let gaps = vec![Block::Points(study.gaps.clone())];
        sections.push(Section::new("gaps", "Missing files and runs", gaps));
    }
    sections.push(Section::new("varies", "Variants", varies(study)));
    sections.push(Section::new("results", "Results", results(study)));
    sections.push(Section::new("differences", "Differences", differences(study, resampling)));
    sections.push(Section::new("plots", "Plots", drawings::bars(study)));
    let paper = paper::blocks(study);
    if !paper.is_empty() {
        sections.push(Section::new("paper", "The paper's numbers", paper));
    }
    sections.push(Section::new("training", "Training", training(study)));
    sections.push(Section::new("cost", "Time and memory", vec![cost(study)]));
    sections.push(Section { is_folded: true, ..Section::new("provenance", "Provenance", provenance(study)) });
    sections
}

/// The paragraph below the title.
pub(super) fn about(study: &Study) -> String {
    let summary = &study.summary;
    let mut parts = Vec::new();
    parts.extend((!summary.paper.is_empty()).then(|| format!("The paper's {}.", summary.paper)));
    parts.extend((!summary.profile.is_empty()).then(|| format!("Profile {}.", summary.profile)));
    let world = || summary.world.as_ref().map(|world| format!("the tiny world {world}"));
    if let Some(data) = summary.data_set.clone().or_else(world) {
        let data = format!("Data: {data}");
        parts.push(match summary.clips {
            Some([train, validate, test]) => format!(
                "{data}, {} training, {} validation and {} test clips.",
                thousands(train),
                thousands(validate),
                thousands(test)
            ),
            None => data + ".",
        });
    }
    parts.extend(models(study).map(|models| format!("Model: {models}.")));
    let seeds = study.variants.first().map_or(0, |variant| variant.runs.len());
    parts.push(if seeds == 1 { "One seed.".to_owned() } else { format!("{seeds} seeds.") });
    parts.join(" ")
}

/// The pretrained models and their numbers of weights.
pub(super) fn models(study: &Study) -> Option<String> {
    let models = &study.summary.models;
    let texts = models.iter().map(|model| {
        let text = format!("{} of {} weights", model.checkpoint, thousands(model.parameters));
        if models.len() == 1 { text } else { format!("{text} ({})", model.variants.join(", ")) }
    });
    (!models.is_empty()).then(|| texts.collect::<Vec<_>>().join("; "))
}

fn varies(study: &Study) -> Vec<Block> {
    let named = |variant: &Variant| (variant.name.clone(), variant.description.clone());
    let mut blocks = vec![Block::Terms(study.variants.iter().map(named).collect())];
    let settings = |variant: &Variant| -> Option<toml::Table> {
        let table = variant.finished().find_map(|run| run.config.as_ref())?;
        Some(flatten(table).into_iter().collect())
    };
    let named = study.variants.iter().map(|variant| (&variant.name, settings(variant)));
    let known: Vec<(&String, toml::Table)> =
        named.filter_map(|(name, settings)| Some((name, settings?))).collect();
    let text = |value: Option<&toml::Value>| match value {
        None => "not set".to_owned(),
        Some(toml::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let mut table = Table::new(once("setting").chain(known.iter().map(|(name, _)| name.as_str())));
    for key in distinct(known.iter().flat_map(|(_, settings)| settings.keys())) {
        let values: Vec<String> = known.iter().map(|(_, settings)| text(settings.get(key))).collect();
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            table.push(once(key.clone()).chain(values));
        }
    }
    if !table.is_empty() {
        blocks.push(Block::Table("Settings in which the variants differ".to_owned(), table));
    }
    blocks
}

fn results(study: &Study) -> Vec<Block> {
    let names = study.metrics();
    let headline = study.headline();
    let validated = headline.as_ref().map(|name| format!("val {name}"));
    let titles: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(at, name)| if at == 0 { format!("test {name}") } else { name.clone() })
        .collect();
    let mut heading = vec!["variant", "trainable", "best epoch"];
    heading.extend(validated.as_deref());
    heading.extend(titles.iter().map(String::as_str));
    let mut table = Table::new(&heading);
    for variant in &study.variants {
        let runs: Vec<&Run> = variant.finished().collect();
        let mut row = vec![variant.name.clone()];
        if runs.is_empty() {
            row.push(variant.absence());
            row.resize(heading.len(), NOT_RUN.to_owned());
            table.push(row);
            continue;
        }
        row.push(runs[0].result.trainable.map_or(String::new(), thousands));
        row.push(print_all(runs.iter().map(|run| run.result.best_epoch as f64), &NumberFormat::WHOLE));
        if let Some(name) = &headline {
            let best = runs.iter().filter_map(|run| Some(course(run, name)?.best));
            row.push(print_all(best, &NumberFormat::of(name)));
        }
        let test = |name: &String| {
            print_all(runs.iter().filter_map(|run| study.test(run, name)), &NumberFormat::of(name))
        };
        row.extend(names.iter().map(test));
        table.push(row);
    }
    let baselines = &study.summary.baselines;
    let models = &study.summary.models;
    let pretrained = models.iter().map(|model| match models.len() {
        1 => ("pretrained, not trained".to_owned(), &model.test),
        _ => (format!("pretrained, not trained ({})", model.variants.join(", ")), &model.test),
    });
    let others = [("best constant caption", &baselines.constant), ("chance", &baselines.chance)];
    for (name, metrics) in pretrained.chain(others.map(|(name, metrics)| (name.to_owned(), metrics))) {
        if names.iter().all(|name| metrics.get(name).is_none()) {
            continue;
        }
        let mut row = vec![name];
        row.resize(heading.len() - names.len(), String::new());
        let print = |name: &String| {
            metrics.get(name).map_or(String::new(), |value| NumberFormat::of(name).print(value))
        };
        row.extend(names.iter().map(print));
        table.push(row);
    }
    let planned = study.variants.first().map_or(0, |variant| variant.runs.len());
    let caption = "Metrics on the test split, mean ± standard deviation over seeds";
    let mut blocks = vec![Block::Table(caption.to_owned(), table)];
    if study.variants.iter().any(|variant| variant.finished().count() != planned) {
        blocks.push(Block::Table("Runs".to_owned(), grid(study, planned)));
    }
    blocks.push(Block::Text(legend(study, &names)));
    blocks
}

/// The state of every run.
fn grid(study: &Study, planned: usize) -> Table {
    let seeds = (1..=planned).map(|seed| format!("seed {seed}"));
    let mut table = Table::new(once("variant".to_owned()).chain(seeds));
    for variant in &study.variants {
        table.push(once(variant.name.clone()).chain(variant.runs.iter().map(RunState::state)));
    }
    table
}

fn legend(study: &Study, names: &[String]) -> String {
    let has = |name: &str| names.iter().any(|known| known == name);
    let baselines = &study.summary.baselines;
    let best = format!("The best constant caption is \"{}\".", baselines.constant_caption);
    let sentences = [
        (
            names.iter().any(|name| NumberFormat::of(name).scale == 100.0),
            "CIDEr, BLEU, METEOR, ROUGE-L and accuracy are multiplied by 100, as papers print them.",
        ),
        (
            has(ORDERED_CIDER),
            "CIDEr, order: CIDEr of the test clips that look different backwards; CIDEr, no order: of the others; both with the \
             document frequencies of all clips.",
        ),
        (
            has(EVENT),
            "shape, colour, event: share of test clips whose caption names the right shape, the right colour, exactly the right \
             kinds of events; left and right, up and down, grow and shrink are one kind each. direction, order: share of right \
             captions among those that state one.",
        ),
        (has(DISTINCT), "different: number of different captions."),
        (baselines.chance.get(ACCURACY).is_some(), "chance: the most frequent answer."),
        (!baselines.constant_caption.is_empty(), best.as_str()),
    ];
    let shown = sentences.into_iter().filter(|(is_shown, _)| *is_shown).map(|(_, sentence)| sentence);
    shown.collect::<Vec<_>>().join(" ")
}

/// A validation metric of a run over the epochs.
pub(super) fn course(run: &Run, metric: &str) -> Option<Course> {
    let history = run.result.history.iter();
    let epochs = history.filter_map(|epoch| Some((epoch.epoch, epoch.validation.get(metric)?)));
    Course::of(&epochs.collect::<Vec<_>>(), run.result.best_epoch)
}

fn training(study: &Study) -> Vec<Block> {
    let mut blocks = drawings::curves(study);
    let Some(headline) = study.headline() else { return blocks };
    let format = NumberFormat::of(&headline);
    let best = format!("val {headline} there");
    let last = format!("val {headline} at the end");
    let mut table = Table::new([
        "variant",
        "best epoch",
        "of",
        best.as_str(),
        last.as_str(),
        "lost after the best epoch",
    ]);
    for variant in &study.variants {
        let courses: Vec<Course> = variant.finished().filter_map(|run| course(run, &headline)).collect();
        if courses.is_empty() {
            let row = [variant.name.clone(), variant.absence()].into_iter();
            table.push(row.chain([NOT_RUN; 4].map(str::to_owned)));
            continue;
        }
        let over = |value: &dyn Fn(&Course) -> f64, format: &NumberFormat| {
            print_all(courses.iter().map(value), format)
        };
        table.push(vec![
            variant.name.clone(),
            over(&|course| course.best_epoch as f64, &NumberFormat::WHOLE),
            over(&|course| course.last_epoch as f64, &NumberFormat::WHOLE),
            over(&|course| course.best, &format),
            over(&|course| course.last, &format),
            over(&Course::lost, &format),
        ]);
    }
    blocks.push(Block::Table("The best epoch, and overfitting after it".to_owned(), table));
    blocks
}

fn cost(study: &Study) -> Block {
    let mut table =
        Table::new(["variant", "training step time an epoch", "whole run", "memory", "device memory"]);
    for variant in &study.variants {
        let timings: Vec<_> = variant.finished().filter_map(|run| run.timing.as_ref()).collect();
        if variant.finished().next().is_none() {
            table.push(once(variant.name.clone()).chain([NOT_RUN; 4].map(str::to_owned)));
            continue;
        }
        let over = |values: Vec<f64>, print: &dyn Fn(f64) -> String| match Spread::of(&values) {
            None => "not measured".to_owned(),
            Some(Spread { mean, deviation: None, .. }) => print(mean),
            Some(Spread { mean, deviation: Some(deviation), .. }) => {
                format!("{} ± {}", print(mean), print(deviation))
            }
        };
        let gib = |bytes: f64| format!("{:.2} GiB", bytes / f64::powi(2.0, 30));
        let memory = |bytes: Vec<u64>, without: &str| {
            bytes.into_iter().max().map_or_else(|| without.to_owned(), |bytes| gib(bytes as f64))
        };
        table.push(vec![
            variant.name.clone(),
            over(timings.iter().filter_map(|timing| timing.seconds_per_epoch).collect(), &seconds),
            over(timings.iter().filter_map(|timing| timing.seconds).collect(), &seconds),
            memory(timings.iter().filter_map(|timing| timing.peak_memory).collect(), "not measured"),
            memory(timings.iter().filter_map(|timing| timing.device_memory).collect(), "not reported"),
        ]);
    }
    let caption = "Time (mean ± standard deviation over seeds) and peak memory (the highest of all seeds)";
    Block::Table(caption.to_owned(), table)
}

fn provenance(study: &Study) -> Vec<Block> {
    let named = |variant: &Variant, run: &Run| format!("{} seed {}", variant.name, run.result.seed);
    let of = |variant| Variant::finished(variant).map(move |run| (named(variant, run), run));
    let runs = study.variants.iter().flat_map(of);
    let runs: Vec<_> = runs.filter_map(|(name, run)| Some((name, run.provenance.as_ref()?))).collect();
    let Some((_, first)) = runs.first() else {
        return vec![Block::Text("No run has a provenance.json.".to_owned())];
    };
    let print = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "not recorded".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let keys = distinct(runs.iter().flat_map(|(_, provenance)| provenance.keys()));
    let is_shared = |key: &&String| runs.iter().all(|(_, other)| other.get(*key) == first.get(*key));
    let (shared, own): (Vec<&String>, Vec<&String>) = keys.into_iter().partition(is_shared);
    let mut blocks =
        vec![Block::Terms(shared.iter().map(|key| ((*key).clone(), print(first.get(*key)))).collect())];
    if !own.is_empty() {
        let mut table = Table::new(once("run").chain(own.iter().map(|key| key.as_str())));
        for (run, provenance) in &runs {
            table.push(once(run.clone()).chain(own.iter().map(|key| print(provenance.get(*key)))));
        }
        blocks.push(Block::Table("Run by run".to_owned(), table));
    }
    blocks
}
