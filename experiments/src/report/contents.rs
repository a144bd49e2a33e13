//! What a report says, section by section, before it is put as HTML or Markdown.

use serde_json::Value;

use super::differences::{Comparison, compare};
use super::drawings;
use super::figures::{Shown, number, numbers, seconds, thousands};
use super::folder::{Cell, NOT_RUN, Run, Study, Variant};
use crate::judge::ORDERED_CIDER;
use crate::plots::Panel;
use crate::statistics::{Course, Resampling, Spread};
use crate::table::Table;

/// A part of the report.
pub(super) struct Section {
    /// Its anchor.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// Whether a page shows it only when asked.
    pub is_folded: bool,
    /// What it says.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
pub(super) enum Block {
    /// A paragraph.
    Text(String),
    /// Sentences, one a line.
    Points(Vec<String>),
    /// Words and what they mean.
    Terms(Vec<(String, String)>),
    /// A table with what it is about.
    Table(String, Table),
    /// Drawings, which also lie in a file of that name.
    Plots(String, String, Vec<Panel>),
}

impl Section {
    fn new(id: &'static str, title: &'static str, blocks: Vec<Block>) -> Self {
        Self { id, title, is_folded: false, blocks }
    }
}

/// All sections but the clips, in their order. The last one is folded.
pub(super) fn sections(study: &Study, resampling: Resampling) -> Vec<Section> {
    let comparisons = compare(study, resampling);
    let mut sections = Vec::new();
    if !study.gaps.is_empty() {
        sections.push(Section::new("gaps", "What is missing", vec![Block::Points(study.gaps.clone())]));
    }
    sections.push(Section::new("varies", "What is varied", varies(study)));
    sections.push(Section::new("results", "Results", results(study)));
    sections.push(Section::new("differences", "Differences", differences(study, &comparisons, resampling)));
    sections.push(Section::new("plots", "Plots", drawings::bars(study)));
    if !study.summary.published.is_empty() {
        sections.push(Section::new("paper", "The paper's numbers", published(study)));
    }
    sections.push(Section::new("training", "Training", training(study)));
    sections.push(Section::new("cost", "Time and memory", vec![cost(study)]));
    sections.push(Section {
        is_folded: true,
        ..Section::new("provenance", "Where the numbers come from", provenance(study))
    });
    sections
}

/// What the study is about, under its title.
pub(super) fn about(study: &Study) -> String {
    let summary = &study.summary;
    let mut parts = Vec::new();
    if !summary.paper.is_empty() {
        parts.push(format!("The paper's {}.", summary.paper));
    }
    if !summary.profile.is_empty() {
        parts.push(format!("Profile {}.", summary.profile));
    }
    let data = match (&summary.data_set, &summary.world) {
        (Some(data_set), _) => Some(format!("Data: {data_set}")),
        (None, Some(world)) => Some(format!("Data: the tiny world {world}")),
        (None, None) => None,
    };
    if let Some(data) = data {
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
    parts.extend(summary.model.as_ref().map(|model| format!("Model: {model}.")));
    let seeds = study.variants.first().map_or(0, |variant| variant.cells.len());
    parts.push(if seeds == 1 { "One seed.".to_owned() } else { format!("{seeds} seeds.") });
    parts.join(" ")
}

fn varies(study: &Study) -> Vec<Block> {
    let named = |variant: &Variant| (variant.name.clone(), variant.description.clone());
    let mut blocks = vec![Block::Terms(study.variants.iter().map(named).collect())];
    let settings = |variant: &Variant| {
        let mut flat = Vec::new();
        let table = variant.runs().find_map(|run| run.config.as_ref())?;
        flatten("", &toml::Value::Table(table.clone()), &mut flat);
        Some(flat)
    };
    let known: Vec<(&str, Vec<(String, String)>)> = study
        .variants
        .iter()
        .filter_map(|variant| Some((variant.name.as_str(), settings(variant)?)))
        .collect();
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in known.iter().flat_map(|(_, settings)| settings) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let value = |settings: &[(String, String)], key: &str| {
        settings
            .iter()
            .find(|(name, _)| name == key)
            .map_or_else(|| "not set".to_owned(), |(_, value)| value.clone())
    };
    let heading: Vec<&str> = std::iter::once("setting").chain(known.iter().map(|(name, _)| *name)).collect();
    let mut table = Table::new(&heading);
    for key in keys {
        let values: Vec<String> = known.iter().map(|(_, settings)| value(settings, key)).collect();
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            table.push([vec![key.clone()], values].concat());
        }
    }
    if !table.is_empty() {
        blocks.push(Block::Table("Settings in which the variants differ".to_owned(), table));
    }
    blocks
}

fn flatten(prefix: &str, value: &toml::Value, flat: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) if !table.is_empty() => {
            for (key, value) in table {
                // a key with a dot is one key: parameters are chosen by patterns such as "vision_model.*"
                let key = if key.contains(['.', '*']) { format!("\"{key}\"") } else { key.clone() };
                let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(&path, value, flat);
            }
        }
        toml::Value::Table(_) => {}
        toml::Value::String(text) => flat.push((prefix.to_owned(), text.clone())),
        value => flat.push((prefix.to_owned(), value.to_string())),
    }
}

fn results(study: &Study) -> Vec<Block> {
    let names = study.figures();
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
        let runs: Vec<&Run> = variant.runs().collect();
        let mut row = vec![variant.name.clone()];
        if runs.is_empty() {
            row.push(variant.absence());
            row.resize(heading.len(), NOT_RUN.to_owned());
            table.push(row);
            continue;
        }
        let spread = |values: Vec<f64>, shown: &Shown| numbers(&values, shown);
        row.push(runs[0].summary.trainable.map_or(String::new(), thousands));
        row.push(spread(runs.iter().map(|run| run.summary.best_epoch as f64).collect(), &Shown::WHOLE));
        if let Some(name) = &headline {
            let best = runs.iter().filter_map(|run| Some(course(run, name)?.best));
            row.push(spread(best.collect(), &Shown::of(name)));
        }
        for name in &names {
            row.push(spread(runs.iter().filter_map(|run| study.test(run, name)).collect(), &Shown::of(name)));
        }
        table.push(row);
    }
    let baselines = &study.summary.baselines;
    for (name, figures) in [
        ("pretrained, not trained", &baselines.pretrained),
        ("best constant caption", &baselines.constant),
        ("chance", &baselines.chance),
    ] {
        // questions have no constant caption
        let Some(figures) =
            figures.as_ref().filter(|figures| names.iter().any(|name| figures.get(name).is_some()))
        else {
            continue;
        };
        let mut row = vec![name.to_owned()];
        row.resize(heading.len() - names.len(), String::new());
        row.extend(
            names
                .iter()
                .map(|name| figures.get(name).map_or(String::new(), |value| number(value, &Shown::of(name)))),
        );
        table.push(row);
    }
    let finished: Vec<usize> = study.variants.iter().map(|variant| variant.runs().count()).collect();
    let planned = study.variants.first().map_or(0, |variant| variant.cells.len());
    let mut blocks = vec![Block::Table(
        "Metrics on the test split, mean ± standard deviation over seeds".to_owned(),
        table,
    )];
    if finished.iter().any(|&count| count != planned) {
        blocks.push(Block::Table("Cells of the grid".to_owned(), grid(study, planned)));
    }
    blocks.push(Block::Text(legend(study, &names)));
    blocks
}

/// Which runs there are, where some are missing.
fn grid(study: &Study, planned: usize) -> Table {
    let seeds: Vec<String> = (1..=planned).map(|seed| format!("seed {seed}")).collect();
    let mut table =
        Table::new(&std::iter::once("variant").chain(seeds.iter().map(String::as_str)).collect::<Vec<_>>());
    for variant in &study.variants {
        table.push(
            std::iter::once(variant.name.clone()).chain(variant.cells.iter().map(Cell::state)).collect(),
        );
    }
    table
}

fn legend(study: &Study, names: &[String]) -> String {
    let has = |name: &str| names.iter().any(|known| known == name);
    let mut text = String::new();
    if names.iter().any(|name| Shown::of(name).scale == 100.0) {
        text.push_str(
            "CIDEr, BLEU, METEOR, ROUGE-L and accuracy are multiplied by 100, as papers print them.",
        );
    }
    if has(ORDERED_CIDER) {
        text.push_str(
            " CIDEr, order: of the test clips alone that show something else backwards; CIDEr, no order: of the others; both \
             with the document frequencies of all.",
        );
    }
    if has("event") {
        text.push_str(
            " shape, colour, event: share of test clips whose caption names the right shape, the right colour, all the \
             right kinds of events and no others; left and right, up and down, grow and shrink count as one kind each. \
             direction, order: share of right ones among captions that state one.",
        );
    }
    if has("different") {
        text.push_str(" different: number of different captions.");
    }
    if study.summary.baselines.chance.is_some() {
        text.push_str(" chance: the most frequent answer.");
    }
    if let Some(caption) =
        study.summary.baselines.constant_caption.as_ref().filter(|caption| !caption.is_empty())
    {
        text.push_str(&format!(" The best constant caption is \"{caption}\"."));
    }
    text.trim().to_owned()
}

fn differences(study: &Study, comparisons: &[Comparison], resampling: Resampling) -> Vec<Block> {
    let name = |variant: usize| study.variants[variant].name.as_str();
    let pair = |comparison: &Comparison| format!("{} − {}", name(comparison.first), name(comparison.second));
    let mut blocks = Vec::new();
    let Some(&headline) = study.measures.first().filter(|_| !comparisons.is_empty()) else {
        let why = match (study.variants.len(), &study.clips) {
            (1, _) => "There is one variant, so there is nothing to compare.",
            (_, None) => "Without the test clips nothing can be compared.",
            _ => "Nothing can be compared.",
        };
        return vec![Block::Text(why.to_owned())];
    };
    let mut table = Table::new(&["pair", "difference", "95 % interval", "p", "seeds"]);
    for comparison in comparisons.iter().filter(|comparison| comparison.measure == headline) {
        let shown = Shown::of(headline.name());
        let cells = match &comparison.difference {
            Some(difference) => [
                signed(difference.difference, &shown),
                format!("{} to {}", signed(difference.low, &shown), signed(difference.high, &shown)),
                p_value(difference.p),
            ],
            None => [0; 3].map(|_| absence(study, comparison)),
        };
        table.push([vec![pair(comparison)], cells.to_vec(), vec![comparison.seeds.to_string()]].concat());
    }
    blocks.push(Block::Table(format!("Differences in test {}", headline.name()), table));
    let others = &study.measures[1..];
    if !others.is_empty() {
        let heading: Vec<&str> =
            std::iter::once("pair").chain(others.iter().map(|measure| measure.name())).collect();
        let mut table = Table::new(&heading);
        for whole in comparisons.chunks(study.measures.len()) {
            let cell = |comparison: &Comparison| {
                let shown = Shown::of(comparison.measure.name());
                match &comparison.difference {
                    Some(d) => format!(
                        "{} ({} to {}), p {}",
                        signed(d.difference, &shown),
                        signed(d.low, &shown),
                        signed(d.high, &shown),
                        p_value(d.p)
                    ),
                    None => absence(study, comparison),
                }
            };
            table.push(std::iter::once(pair(&whole[0])).chain(whole[1..].iter().map(cell)).collect());
        }
        blocks.push(Block::Table(
            "Differences in the other figures: difference (95 % interval), p".to_owned(),
            table,
        ));
    }
    let few = match study.clips.as_ref().map_or(0, Vec::len) {
        clips if clips < FEW_CLIPS => " With so few clips the interval is too narrow and p too small.",
        _ => "",
    };
    blocks.push(Block::Text(format!(
        "Paired bootstrap over the {} test clips: {} resamples, drawn with seed {}, the same for all; figures are averaged over \
         the seeds that both variants have. BLEU-4 and METEOR are those of each resample's summed counts; CIDEr keeps the \
         document frequencies of the whole split. The interval tells how much depends on which clips are in the test split. \
         It does not tell how much another seed of training would change: for that, see the spread over seeds. p is \
         two-sided and not corrected for the number of comparisons.{few}",
        thousands(study.clips.as_ref().map_or(0, Vec::len)),
        thousands(resampling.resamples),
        resampling.seed
    )));
    blocks
}

/// Why two variants are not compared.
fn absence(study: &Study, comparison: &Comparison) -> String {
    let ran = |variant: usize| study.variants[variant].runs().next().is_some();
    match (ran(comparison.first) && ran(comparison.second), comparison.seeds) {
        (false, _) => NOT_RUN.to_owned(),
        (true, 0) => "not compared: no captions of one seed".to_owned(),
        (true, _) => "not told: too few captions state it".to_owned(),
    }
}

/// A bootstrap trusts the clips to show how clips vary, which a few don't.
const FEW_CLIPS: usize = 50;

fn signed(value: f64, shown: &Shown) -> String {
    let (scaled, digits) = (value * shown.scale, shown.digits);
    let text = format!("{scaled:+.digits$}");
    // a hyphen is no minus sign, and a rounded nothing has none
    if text.trim_start_matches(['+', '-']).chars().all(|digit| matches!(digit, '0' | '.')) {
        return text.trim_start_matches(['+', '-']).to_owned();
    }
    text.replace('-', "−")
}

fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

fn published(study: &Study) -> Vec<Block> {
    let ours = study.summary.model.clone().unwrap_or_else(|| "our model".to_owned());
    let mut table = Table::new(&["in the paper", "setting", "figure", "paper", "of", "ours", "our variant"]);
    for published in &study.summary.published {
        let variant = published.variant.as_ref();
        let found = variant.and_then(|name| study.variants.iter().find(|variant| variant.name == *name));
        let value = found.map(|found| {
            let values: Vec<f64> =
                found.runs().filter_map(|run| study.test(run, &published.metric)).collect();
            if values.is_empty() { found.absence() } else { numbers(&values, &Shown::of(&published.metric)) }
        });
        table.push(vec![
            published.figure.clone(),
            published.label.clone(),
            published.metric.clone(),
            as_printed(published.value),
            published.source(),
            value.unwrap_or_else(|| NOT_RUN.to_owned()),
            variant.cloned().unwrap_or_else(|| "none".to_owned()),
        ]);
    }
    let note = format!(
        "The paper's numbers are the paper's: one run each, on the data and with the model named beside them. Ours are of {ours} \
         on the data named above. Unless both are the same, only the order of settings can be compared, not the numbers."
    );
    vec![Block::Table("The paper's numbers beside ours".to_owned(), table), Block::Text(note)]
}

/// The paper prints one digit, where it prints no more.
fn as_printed(value: f64) -> String {
    if (value * 10.0 - (value * 10.0).round()).abs() < 1e-9 {
        format!("{value:.1}")
    } else {
        value.to_string()
    }
}

/// How a run's validation went, by one figure.
pub(super) fn course(run: &Run, figure: &str) -> Option<Course> {
    let epochs: Vec<(usize, f64)> = run
        .summary
        .history
        .iter()
        .filter_map(|epoch| Some((epoch.epoch, epoch.validation.get(figure)?)))
        .collect();
    Course::of(&epochs, run.summary.best_epoch)
}

fn training(study: &Study) -> Vec<Block> {
    let mut blocks = drawings::curves(study);
    let Some(headline) = study.headline() else { return blocks };
    let shown = Shown::of(&headline);
    let best = format!("val {headline} there");
    let last = format!("val {headline} at the end");
    let mut table = Table::new(&["variant", "best epoch", "of", &best, &last, "lost after the best epoch"]);
    for variant in &study.variants {
        let courses: Vec<Course> = variant.runs().filter_map(|run| course(run, &headline)).collect();
        if courses.is_empty() {
            let mut row = vec![variant.name.clone(), variant.absence()];
            row.resize(6, NOT_RUN.to_owned());
            table.push(row);
            continue;
        }
        let over = |value: &dyn Fn(&Course) -> f64, shown: &Shown| {
            numbers(&courses.iter().map(value).collect::<Vec<_>>(), shown)
        };
        table.push(vec![
            variant.name.clone(),
            over(&|course| course.best_epoch as f64, &Shown::WHOLE),
            over(&|course| course.last_epoch as f64, &Shown::WHOLE),
            over(&|course| course.best, &shown),
            over(&|course| course.last, &shown),
            over(&Course::lost, &shown),
        ]);
    }
    blocks.push(Block::Table("The best epoch, and overfitting after it".to_owned(), table));
    blocks
}

fn cost(study: &Study) -> Block {
    let mut table =
        Table::new(&["variant", "training step time an epoch", "whole run", "memory", "device memory"]);
    for variant in &study.variants {
        let timings: Vec<_> = variant.runs().filter_map(|run| run.timing.as_ref()).collect();
        if variant.runs().next().is_none() {
            table.push([vec![variant.name.clone()], vec![NOT_RUN.to_owned(); 4]].concat());
            continue;
        }
        let over = |values: Vec<f64>, told: &dyn Fn(f64) -> String| match Spread::of(&values) {
            None => "not measured".to_owned(),
            Some(Spread { mean, deviation: None, .. }) => told(mean),
            Some(Spread { mean, deviation: Some(deviation), .. }) => {
                format!("{} ± {}", told(mean), told(deviation))
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
            memory(timings.iter().filter_map(|timing| timing.device_memory).collect(), "none told"),
        ]);
    }
    Block::Table(
        "Time (mean ± standard deviation over seeds) and peak memory (the highest of all seeds)".to_owned(),
        table,
    )
}

fn provenance(study: &Study) -> Vec<Block> {
    let runs: Vec<(String, &serde_json::Map<String, Value>)> = study
        .variants
        .iter()
        .flat_map(|variant| variant.runs().map(move |run| (&variant.name, run)))
        .filter_map(|(name, run)| {
            Some((format!("{name} seed {}", run.summary.seed), run.provenance.as_ref()?))
        })
        .collect();
    let Some((_, first)) = runs.first() else {
        return vec![Block::Text("No run has a provenance.json.".to_owned())];
    };
    let told = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "not told".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let mut keys: Vec<&String> = Vec::new();
    for key in runs.iter().flat_map(|(_, provenance)| provenance.keys()) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let is_shared = |key: &&String| runs.iter().all(|(_, other)| other.get(*key) == first.get(*key));
    let (shared, own): (Vec<&String>, Vec<&String>) = keys.into_iter().partition(is_shared);
    let mut blocks =
        vec![Block::Terms(shared.iter().map(|key| ((*key).clone(), told(first.get(*key)))).collect())];
    if !own.is_empty() {
        let heading: Vec<&str> = std::iter::once("run").chain(own.iter().map(|key| key.as_str())).collect();
        let mut table = Table::new(&heading);
        for (run, provenance) in &runs {
            let values = own.iter().map(|key| told(provenance.get(*key)));
            table.push(std::iter::once(run.clone()).chain(values).collect());
        }
        blocks.push(Block::Table("Run by run".to_owned(), table));
    }
    blocks
}
