//! Studies and profiles: finding their files, and the configuration of each variant.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use data::datasets::DataSet;
use serde::Deserialize;
use toml::{Table, Value};

use super::layers::{ConfigError, TINY_WORLD, parse, typed};
use super::published::ClaimRow;
use super::recipe::{check_recipes, chosen_recipe, merged, names_recipe};
use super::suggest::nearest;
use super::{Published, Recipe, RunConfig, faults};

/// The ablations that come with the program: name and text.
const ABLATIONS: &[(&str, &str)] = &[
    ("freeze_vit", include_str!("../../configs/ablations/freeze_vit.toml")),
    ("lm_size", include_str!("../../configs/ablations/lm_size.toml")),
    ("pretraining_size", include_str!("../../configs/ablations/pretraining_size.toml")),
    ("resolution", include_str!("../../configs/ablations/resolution.toml")),
    ("fusion", include_str!("../../configs/ablations/fusion.toml")),
    ("scst", include_str!("../../configs/ablations/scst.toml")),
    ("headline", include_str!("../../configs/ablations/headline.toml")),
    ("vqa", include_str!("../../configs/ablations/vqa.toml")),
    ("frames", include_str!("../../configs/ablations/frames.toml")),
    ("temporal", include_str!("../../configs/ablations/temporal.toml")),
    ("seeds", include_str!("../../configs/ablations/seeds.toml")),
];

/// The profiles that come with the program.
const PROFILES: &[(&str, &str)] = &[
    ("tiny", include_str!("../../configs/profiles/tiny.toml")),
    ("smoke", include_str!("../../configs/profiles/smoke.toml")),
    ("paper", include_str!("../../configs/profiles/paper.toml")),
];

/// A study: variants of one configuration that differ in what is studied.
#[derive(Debug, Clone)]
pub(crate) struct Ablation {
    pub name: String,
    /// Its question, a sentence.
    pub question: String,
    /// Figure or table of the paper; empty where the paper has no such study.
    pub paper: String,
    /// The paper's numbers, then its statements.
    pub published: Vec<Published>,
    /// Name, description and settings of each variant, in order.
    pub variants: Vec<Variant>,
}

impl Ablation {
    /// The variants that a profile has, in order.
    pub(crate) fn variants_in<'a>(&'a self, profile: &'a str) -> impl Iterator<Item = &'a Variant> {
        self.variants.iter().filter(move |variant| !variant.not_in.contains_key(profile))
    }

    /// The variants that a profile lacks, each with the reason.
    pub(crate) fn left_out<'a>(&'a self, profile: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let reason =
            move |variant: &'a Variant| Some((variant.name.as_str(), variant.not_in.get(profile)?.as_str()));
        self.variants.iter().filter_map(reason)
    }
}

/// One variant of an ablation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variant {
    /// Its name; the table's key.
    #[serde(skip)]
    pub name: String,
    /// Its file, or the name of its ablation.
    #[serde(skip)]
    pub place: String,
    pub description: String,
    #[serde(default)]
    pub set: Table,
    /// Its further settings in a profile, by the profile's name.
    #[serde(default)]
    pub profiles: Table,
    /// Profiles without this variant, each with the reason.
    #[serde(default)]
    pub not_in: BTreeMap<String, String>,
}

/// A variant with its configuration.
pub(crate) type Resolved<'a> = (&'a Variant, RunConfig);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AblationFile {
    question: String,
    #[serde(default)]
    paper: String,
    #[serde(default)]
    published: Vec<Published>,
    #[serde(default)]
    claims: Vec<ClaimRow>,
    variants: Table,
}

/// A size at which any study can be run.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub name: String,
    /// First line of its comment.
    pub summary: String,
    pub(super) settings: Table,
}

/// All ablations that come with the program.
pub(crate) fn ablations() -> anyhow::Result<Vec<Ablation>> {
    ABLATIONS.iter().map(|(name, text)| parse_ablation(name, text, name)).collect()
}

/// All profiles that come with the program.
pub(crate) fn profiles() -> anyhow::Result<Vec<Profile>> {
    PROFILES.iter().map(|(name, text)| parse_profile(name, text, name)).collect()
}

/// An ablation by its name or by the path of a TOML file.
pub(crate) fn find_ablation(name: &str) -> anyhow::Result<Ablation> {
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or("ablation");
    parse_ablation(stem, &find_text("ablation", ABLATIONS, name, "experiments list")?, name)
}

/// A profile by its name.
pub(super) fn find_profile(name: &str) -> anyhow::Result<Profile> {
    match PROFILES.iter().find(|(known, _)| *known == name) {
        Some((name, text)) => parse_profile(name, text, name),
        None => bail!(unknown("profile", PROFILES, name, "experiments list")),
    }
}

/// The text of a configuration that comes with the program, or of a TOML file.
pub(super) fn find_text(
    kind: &str,
    built_in: &[(&str, &'static str)],
    name: &str,
    next: &str,
) -> anyhow::Result<Cow<'static, str>> {
    if let Some((_, text)) = built_in.iter().find(|(known, _)| *known == name) {
        return Ok(Cow::Borrowed(*text));
    }
    ensure!(name.ends_with(".toml"), unknown(kind, built_in, name, next));
    let text = std::fs::read_to_string(name).with_context(|| format!("cannot read the {kind} {name}"))?;
    Ok(Cow::Owned(text))
}

fn unknown(kind: &str, built_in: &[(&str, &str)], name: &str, next: &str) -> String {
    let known: Vec<&str> = built_in.iter().map(|(known, _)| *known).collect();
    format!("there is no {kind} \"{name}\"{}", choices(name, &known, next))
}

/// The end of a message about an unknown word: the nearest known word or all of them, and the next command.
pub(crate) fn choices(word: &str, known: &[&str], next: &str) -> String {
    match nearest(word, known.iter().copied()) {
        Some(other) => format!("; did you mean \"{other}\"? (`{next}` shows all)"),
        None => format!("; there are: {} (`{next}` shows more)", known.join(", ")),
    }
}

/// The configuration of a variant: profile, then variant, then what the variant changes in the profile, then
/// `--set key=value`. Each of the first three may have settings of a data set and of a recipe, see
/// [`merged`].
fn typed_variant(
    layers: &[Table],
    recipe: Recipe,
    profile: &str,
    variant: &Variant,
    sets: &[String],
) -> Result<RunConfig, ConfigError> {
    let place = format!("variant \"{}\" of {} on profile \"{profile}\"", variant.name, variant.place);
    typed(merged(layers, recipe, sets), sets, &place)
}

/// Stages and tasks that some variants of a study have.
const PARTS: [&str; 2] = ["scst", "answering"];

/// The settings that apply to a variant: one of a part that it lacks, as `scst.train.steps`, is for the other
/// variants, if any of the study has that part.
fn sets_for(layers: &[Table], all: &[Vec<Table>], sets: &[String]) -> Vec<String> {
    let has = |layers: &[Table], part: &str| layers.iter().any(|layer| layer.contains_key(part));
    let applies = |set: &&String| {
        let part = PARTS.into_iter().find(|part| set.trim_start().starts_with(&format!("{part}.")));
        part.is_none_or(|part| has(layers, part) || !all.iter().any(|other| has(other, part)))
    };
    sets.iter().filter(applies).cloned().collect()
}

/// The configurations of all of an ablation's variants that a profile has.
pub(crate) fn resolve_all<'a>(
    profile: &'a str,
    ablation: &'a Ablation,
    sets: &[String],
) -> anyhow::Result<Vec<Resolved<'a>>> {
    let recipe = chosen_recipe(sets)?;
    // a fault of the profile or of --set is the same in every variant, and reported once
    let mut errors: Vec<(ConfigError, usize)> = Vec::new();
    let (mut resolved, mut has_recipe) = (Vec::new(), recipe == Recipe::Paper);
    let variants: Vec<&Variant> = ablation.variants_in(profile).collect();
    let all = variants.iter().map(|variant| layers(profile, variant)).collect::<anyhow::Result<Vec<_>>>()?;
    for (&variant, layers) in variants.iter().zip(&all) {
        has_recipe |= layers.iter().any(|layer| names_recipe(layer, recipe));
        match typed_variant(layers, recipe, profile, variant, &sets_for(layers, &all, sets)) {
            Ok(config) => resolved.push((variant, config)),
            Err(error) => match errors.iter_mut().find(|(known, _)| known.faults == error.faults) {
                Some((_, others)) => *others += 1,
                None => errors.push((error, 0)),
            },
        }
    }
    if !errors.is_empty() {
        let lines = errors.iter().map(|(error, others)| match (&error.place, others) {
            (None, _) | (_, 0) => error.to_string(),
            (Some(_), others) => format!("{error}; the same in {others} other variants"),
        });
        bail!("{}", lines.collect::<Vec<_>>().join("\n"));
    }
    let (name, recipe) = (&ablation.name, recipe.name());
    ensure!(
        has_recipe,
        "on profile \"{profile}\" the recipe \"{recipe}\" changes nothing of {name}; leave it out, or take --profile paper"
    );
    Ok(resolved)
}

/// The configuration of a profile alone, with settings changed.
pub(crate) fn resolve_plain(profile: &str, sets: &[String]) -> anyhow::Result<RunConfig> {
    let settings = find_profile(profile)?.settings;
    Ok(typed(merged(&[settings], chosen_recipe(sets)?, sets), sets, &format!("profile \"{profile}\""))?)
}

/// The tables that a variant's configuration is merged from; later ones win.
fn layers(profile: &str, variant: &Variant) -> anyhow::Result<Vec<Table>> {
    let own = variant.profiles.get(profile).and_then(Value::as_table).cloned().unwrap_or_default();
    Ok(vec![find_profile(profile)?.settings, variant.set.clone(), own])
}

/// A study of one variant with the settings of a file.
pub(crate) fn single(path: &Path) -> anyhow::Result<Ablation> {
    let shown = path.display().to_string();
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the configuration {shown}"))?;
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run").to_owned();
    let variant = Variant {
        name: name.clone(),
        place: shown.clone(),
        description: format!("settings of {shown}"),
        set: parse(&text, &shown)?,
        profiles: Table::new(),
        not_in: BTreeMap::new(),
    };
    check_recipes(&variant.set).with_context(|| shown.clone())?;
    Ok(Ablation {
        name,
        question: format!("What is the result of {shown}?"),
        paper: String::new(),
        published: Vec::new(),
        variants: vec![variant],
    })
}

/// The settings of `--dataset NAME[=DIR]`.
fn dataset_sets(word: &str) -> anyhow::Result<Vec<String>> {
    let (name, directory) = word.split_once('=').unwrap_or((word, ""));
    if name == "tiny" && directory.is_empty() {
        return Ok(vec![TINY_WORLD.to_owned()]);
    }
    let known: Vec<&str> = DataSet::ALL.iter().map(|dataset| dataset.name()).chain(["tiny"]).collect();
    let next = "experiments ablation --help";
    ensure!(known.contains(&name), "there is no data set \"{name}\"{}", choices(name, &known, next));
    let directory = if directory.is_empty() { format!("datasets/{name}") } else { directory.to_owned() };
    // quoted, so that a folder called 8 or true is read as a string
    let directory = directory.replace('\\', "/");
    Ok(vec![format!("dataset.name={name}"), format!("dataset.directory=\"{directory}\"")])
}

/// The settings of `--dataset`, `--recipe` and `--set`; those of `--set` win.
pub(crate) fn study_sets(
    dataset: Option<&str>,
    recipe: Option<&str>,
    sets: &[String],
) -> anyhow::Result<Vec<String>> {
    let mut all = dataset.map(dataset_sets).transpose()?.unwrap_or_default();
    all.extend(recipe.map(|recipe| format!("recipe={recipe}")));
    all.extend(sets.iter().cloned());
    Ok(all)
}

fn parse_ablation(name: &str, text: &str, place: &str) -> anyhow::Result<Ablation> {
    let mut file: AblationFile = parse(text, place)?;
    let (mut variants, mut faults) = (Vec::new(), Vec::new());
    for (name, value) in std::mem::take(&mut file.variants) {
        match parse_variant(&name, value, place) {
            Ok(variant) => variants.push(variant),
            Err(found) => faults.extend(found.iter().map(|fault| format!("variants.{name}.{fault}"))),
        }
    }
    ensure!(
        !faults.is_empty() || !variants.is_empty(),
        "the ablation {place} has no variants; add a table [variants.NAME]"
    );
    let AblationFile { question, paper, mut published, claims, .. } = file;
    published.extend(claims.into_iter().map(Published::from));
    faults.extend(published.iter().filter_map(Published::fault));
    for row in published.iter().filter(|row| row.variant.is_some()) {
        if faults.is_empty() && !variants.iter().any(|variant| Some(&variant.name) == row.variant.as_ref()) {
            let kind = if row.claim.is_some() { "claims" } else { "published" };
            faults
                .push(format!("{kind} \"{}\" of {}: of a variant that there is not", row.label, row.figure));
        }
    }
    ensure!(faults.is_empty(), "{}\nin {place}", faults.join("\n"));
    Ok(Ablation { name: name.to_owned(), question, paper, published, variants })
}

/// A variant of a file, or every fault of its table. Its settings are checked when they are merged over a
/// profile.
fn parse_variant(name: &str, value: Value, place: &str) -> Result<Variant, Vec<String>> {
    let Value::Table(table) = value else {
        return Err(vec!["must be a table with a description and settings".to_owned()]);
    };
    let variant: Variant = faults::typed(table)?;
    let mut faults = Vec::new();
    for profile in variant.profiles.keys().chain(variant.not_in.keys()) {
        if let Err(error) = find_profile(profile) {
            faults.push(format!("profiles.{profile}: {error}"));
        }
    }
    let settings =
        variant.profiles.iter().map(|(profile, own)| (format!("profiles.{profile}"), own.as_table()));
    for (key, own) in settings.chain([("set".to_owned(), Some(&variant.set))]) {
        match own {
            None => faults.push(format!("{key}: must be a table of settings")),
            Some(own) => faults.extend(check_recipes(own).err().map(|error| format!("{key}.{error}"))),
        }
    }
    if faults.is_empty() {
        Ok(Variant { name: name.to_owned(), place: place.to_owned(), ..variant })
    } else {
        Err(faults)
    }
}

fn parse_profile(name: &str, text: &str, place: &str) -> anyhow::Result<Profile> {
    let summary = text.lines().next().unwrap_or_default().trim_start_matches('#').trim().to_owned();
    let settings: Table = parse(text, place)?;
    check_recipes(&settings).with_context(|| place.to_owned())?;
    Ok(Profile { name: name.to_owned(), summary, settings })
}

#[cfg(test)]
mod tests;
