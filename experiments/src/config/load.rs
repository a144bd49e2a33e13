//! Finding, merging and checking TOML files.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use data::datasets::DataSet;

use super::suggest::{nearest, with_suggestion};
use super::{Recipe, RunConfig, faults};
use crate::report::Published;

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

/// A study: variants of one run that differ in what is studied.
#[derive(Debug, Clone)]
pub struct Ablation {
    /// Its name.
    pub name: String,
    /// What it asks, in a sentence.
    pub question: String,
    /// Figure or table of the paper; empty where the paper has no such study.
    pub paper: String,
    /// The paper's numbers.
    pub published: Vec<Published>,
    /// Name, description and settings of each variant, in order.
    pub variants: Vec<Variant>,
}

impl Ablation {
    /// The variants that a profile has, in order.
    pub fn variants_in<'a>(&'a self, profile: &'a str) -> impl Iterator<Item = &'a Variant> {
        self.variants.iter().filter(move |variant| !variant.not_in.contains_key(profile))
    }

    /// The variants that a profile lacks, each with the reason.
    pub fn left_out<'a>(&'a self, profile: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let reason =
            move |variant: &'a Variant| Some((variant.name.as_str(), variant.not_in.get(profile)?.as_str()));
        self.variants.iter().filter_map(reason)
    }
}

/// One variant of an ablation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Its name; the table's key.
    #[serde(skip)]
    pub name: String,
    /// The file that it is from, or the ablation's name.
    #[serde(skip)]
    pub place: String,
    /// What it is, in a few words.
    pub description: String,
    /// What it changes.
    #[serde(default)]
    pub set: Table,
    /// What it changes besides in a profile, by the profile's name.
    #[serde(default)]
    pub profiles: Table,
    /// Profiles that have no such variant, and why.
    #[serde(default)]
    pub not_in: BTreeMap<String, String>,
}

/// A variant with its configuration.
pub type Resolved<'a> = (&'a Variant, RunConfig);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AblationFile {
    question: String,
    #[serde(default)]
    paper: String,
    #[serde(default)]
    published: Vec<Published>,
    variants: Table,
}

/// A size at which anything can be run.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// First line of its comment.
    pub summary: String,
    settings: Table,
}

/// All ablations that come with the program.
///
/// # Errors
/// When one of them is not valid.
pub fn ablations() -> anyhow::Result<Vec<Ablation>> {
    ABLATIONS.iter().map(|(name, text)| parse_ablation(name, text, name)).collect()
}

/// All profiles that come with the program.
///
/// # Errors
/// When one of them is not valid.
pub fn profiles() -> anyhow::Result<Vec<Profile>> {
    PROFILES.iter().map(|(name, text)| parse_profile(name, text, name)).collect()
}

/// An ablation by its name, or by the path of a TOML file of one's own.
///
/// # Errors
/// When there is none of that name, or the file is not a valid ablation.
pub fn find_ablation(name: &str) -> anyhow::Result<Ablation> {
    if let Some((name, text)) = ABLATIONS.iter().find(|(known, _)| *known == name) {
        return parse_ablation(name, text, name);
    }
    let path = Path::new(name);
    if path.extension().is_some_and(|extension| extension == "toml") {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the ablation {name}"))?;
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("ablation");
        return parse_ablation(stem, &text, name);
    }
    let known: Vec<&str> = ABLATIONS.iter().map(|(known, _)| *known).collect();
    bail!("there is no ablation \"{name}\"{}", choices(name, &known, "experiments list"))
}

/// A profile by its name.
///
/// # Errors
/// When there is none of that name.
fn find_profile(name: &str) -> anyhow::Result<Profile> {
    match PROFILES.iter().find(|(known, _)| *known == name) {
        Some((name, text)) => parse_profile(name, text, name),
        None => {
            let known: Vec<&str> = PROFILES.iter().map(|(known, _)| *known).collect();
            bail!("there is no profile \"{name}\"{}", choices(name, &known, "experiments list"))
        }
    }
}

/// `; did you mean "x"?` or the whole list, and where to look.
pub fn choices(word: &str, known: &[&str], next: &str) -> String {
    match nearest(word, known.iter().copied()) {
        Some(other) => format!("; did you mean \"{other}\"? (`{next}` shows all)"),
        None => format!("; there are: {} (`{next}` shows more)", known.join(", ")),
    }
}

/// The configuration of a variant: profile, then variant, then what the variant changes in the profile, then
/// `--set key=value`. `recipe=released` among the latter chooses the recipe: each of the first three may have a table
/// `recipes.released`, which is laid over it.
///
/// # Errors
/// When a profile, key or value is not known; all such keys and values are listed.
pub fn resolve(profile: &str, variant: &Variant, sets: &[String]) -> anyhow::Result<RunConfig> {
    let layers = layers(profile, variant)?;
    let recipe = chosen_recipe(sets)?;
    let place = format!("variant \"{}\" of {} on profile \"{profile}\"", variant.name, variant.place);
    typed(laid(&layers, recipe), sets, &place)
}

/// The configurations of all of an ablation's variants that a profile has.
///
/// # Errors
/// What is wrong with each, all at once; a recipe that nothing of the ablation is written for.
pub fn resolve_all<'a>(
    profile: &'a str,
    ablation: &'a Ablation,
    sets: &[String],
) -> anyhow::Result<Vec<Resolved<'a>>> {
    let recipe = chosen_recipe(sets)?;
    // what is wrong with the profile or the settings is wrong in every variant, and told once
    let mut faults: Vec<(String, String, usize)> = Vec::new();
    let (mut resolved, mut has_recipe) = (Vec::new(), recipe == Recipe::Paper);
    for variant in ablation.variants_in(profile) {
        let names_recipe = |layer: &Table| {
            layer.get("recipes").and_then(Value::as_table).is_some_and(|own| own.contains_key(recipe.name()))
        };
        has_recipe |= layers(profile, variant)?.iter().any(names_recipe);
        match resolve(profile, variant, sets) {
            Ok(config) => resolved.push((variant, config)),
            Err(error) => {
                let error = format!("{error:#}");
                let (what, place) = error.rsplit_once("\nin ").unwrap_or((&error, ""));
                match faults.iter_mut().find(|(known, ..)| known == what) {
                    Some((_, _, others)) => *others += 1,
                    None => faults.push((what.to_owned(), place.to_owned(), 0)),
                }
            }
        }
    }
    if !faults.is_empty() {
        let told = faults.iter().map(|(what, place, others)| match (place.as_str(), others) {
            ("", _) => what.clone(),
            (place, 0) => format!("{what}\nin {place}"),
            (place, others) => format!("{what}\nin {place}; the same in {others} other variants"),
        });
        bail!("{}", told.collect::<Vec<_>>().join("\n"));
    }
    if !has_recipe {
        let (name, recipe) = (&ablation.name, recipe.name());
        bail!(
            "on profile \"{profile}\" the recipe \"{recipe}\" changes nothing of {name}; leave it out, or take --profile paper"
        );
    }
    Ok(resolved)
}

/// The configuration of a profile alone, with settings changed.
///
/// # Errors
/// When a profile, key or value is not known.
pub fn resolve_plain(profile: &str, sets: &[String]) -> anyhow::Result<RunConfig> {
    let settings = find_profile(profile)?.settings;
    typed(laid(&[settings], chosen_recipe(sets)?), sets, &format!("profile \"{profile}\""))
}

/// What a variant's configuration is made of, from the first that is overruled to the last that overrules.
fn layers(profile: &str, variant: &Variant) -> anyhow::Result<Vec<Table>> {
    let own = variant.profiles.get(profile).and_then(Value::as_table).cloned().unwrap_or_default();
    Ok(vec![find_profile(profile)?.settings, variant.set.clone(), own])
}

/// Layers upon each other, each followed by what it says of the recipe.
fn laid(layers: &[Table], recipe: Recipe) -> Table {
    let mut table = Table::new();
    for layer in layers {
        let mut layer = layer.clone();
        let recipes = layer.remove(RECIPES);
        merge(&mut table, &layer);
        if let Some(Value::Table(own)) = recipes.as_ref().and_then(|recipes| recipes.get(recipe.name())) {
            merge(&mut table, own);
        }
    }
    table
}

const RECIPES: &str = "recipes";

/// The recipe that the last `recipe=NAME` among the settings names.
fn chosen_recipe(sets: &[String]) -> anyhow::Result<Recipe> {
    let named = sets.iter().rev().find_map(|set| {
        let (key, value) = set.split_once('=')?;
        (key.trim() == "recipe").then(|| value.trim().trim_matches('"'))
    });
    let Some(word) = named else { return Ok(Recipe::default()) };
    let known = Recipe::ALL.map(Recipe::name);
    match Recipe::ALL.into_iter().find(|recipe| recipe.name() == word) {
        Some(recipe) => Ok(recipe),
        None => {
            bail!("there is no recipe \"{word}\"{}", choices(word, &known, "experiments ablation --help"))
        }
    }
}

/// Refuses recipes of other names than there are, in a table of settings.
fn check_recipes(layer: &Table) -> anyhow::Result<()> {
    let Some(recipes) = layer.get(RECIPES) else { return Ok(()) };
    let Some(recipes) = recipes.as_table() else { bail!("recipes must be a table of tables of settings") };
    for (name, own) in recipes {
        if name != Recipe::Released.name() {
            bail!("recipes.{name}: only recipes.released may change what is beside it, which is the paper's");
        }
        if !own.is_table() {
            bail!("recipes.{name} must be a table of settings");
        }
    }
    Ok(())
}

/// A study of one variant, whose settings are a file's.
///
/// # Errors
/// When the file cannot be read or is no TOML.
pub fn single(path: &Path) -> anyhow::Result<Ablation> {
    let shown = path.display().to_string();
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the configuration {shown}"))?;
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run").to_owned();
    let description = format!("as {shown} says");
    let variant = Variant {
        name: name.clone(),
        place: shown.clone(),
        description,
        set: parse(&text, &shown)?,
        profiles: Table::new(),
        not_in: BTreeMap::new(),
    };
    check_recipes(&variant.set).with_context(|| shown.clone())?;
    Ok(Ablation {
        name,
        question: format!("What comes of {shown}?"),
        paper: String::new(),
        published: Vec::new(),
        variants: vec![variant],
    })
}

/// The settings that `--dataset NAME[=DIR]` stands for.
///
/// # Errors
/// When there is no data set of that name.
pub fn dataset_sets(word: &str) -> anyhow::Result<Vec<String>> {
    let (name, directory) = word.split_once('=').unwrap_or((word, ""));
    if name == "tiny" && directory.is_empty() {
        return Ok(vec![TINY_WORLD.to_owned()]);
    }
    let known: Vec<&str> = DataSet::ALL.iter().map(|dataset| dataset.name()).chain(["tiny"]).collect();
    if !known.contains(&name) {
        bail!("there is no data set \"{name}\"{}", choices(name, &known, "experiments ablation --help"));
    }
    let directory = if directory.is_empty() { format!("datasets/{name}") } else { directory.to_owned() };
    // quoted, so that a folder called 8 or true stays a name
    Ok(vec![
        format!("dataset.name={name}"),
        format!("dataset.directory=\"{}\"", directory.replace('\\', "/")),
    ])
}

/// The settings of a study: what `--dataset` and `--recipe` stand for, then those of `--set`, which win.
///
/// # Errors
/// When there is no data set of that name.
pub fn study_sets(
    dataset: Option<&str>,
    recipe: Option<&str>,
    sets: Vec<String>,
) -> anyhow::Result<Vec<String>> {
    let mut all = dataset.map(dataset_sets).transpose()?.unwrap_or_default();
    all.extend(recipe.map(|recipe| format!("recipe={recipe}")));
    all.extend(sets);
    Ok(all)
}

/// The setting that takes a profile's data set away, so that the tiny world is back in its place.
const TINY_WORLD: &str = "dataset=tiny";

/// A configuration from one file's text and the command line's settings.
///
/// # Errors
/// When a key or value is not known.
pub fn merge_sets<T: DeserializeOwned>(text: &str, sets: &[String], place: &str) -> anyhow::Result<T> {
    typed(parse(text, place)?, sets, place)
}

fn typed<T: DeserializeOwned>(mut table: Table, sets: &[String], place: &str) -> anyhow::Result<T> {
    for set in sets {
        if set == TINY_WORLD {
            table.remove("dataset");
            continue;
        }
        let (key, value) = set.split_once('=').with_context(|| format!("--set {set}: expected key=value"))?;
        let parts = key_parts(key.trim()).with_context(|| {
            format!(
                "--set {set}: \"{}\" is no key; a part that holds dots or stars is quoted, as in \
                 --set 'train.parameters.\"vision_model.*\"=frozen'",
                key.trim()
            )
        })?;
        assign(&mut table, &parts, parse_value(value.trim()))
            .with_context(|| format!("--set {set}: not a key of the configuration"))?;
    }
    inherit(&mut table);
    faults::typed(table).map_err(|faults| {
        let place = if sets.is_empty() {
            place.to_owned()
        } else {
            format!("{place}, with --set {} (`experiments show NAME` prints every key)", sets.join(" --set "))
        };
        anyhow::anyhow!("{}\nin {place}", faults.join("\n"))
    })
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
    if faults.is_empty() && variants.is_empty() {
        bail!("the ablation {place} has no variants; add a table [variants.NAME]");
    }
    let AblationFile { question, paper, published, .. } = file;
    for row in published.iter().filter(|row| row.variant.is_some()) {
        if faults.is_empty() && !variants.iter().any(|variant| Some(&variant.name) == row.variant.as_ref()) {
            faults.push(format!("published \"{}\": of a variant that there is not", row.label));
        }
    }
    if !faults.is_empty() {
        bail!("{}\nin {place}", faults.join("\n"));
    }
    Ok(Ablation { name: name.to_owned(), question, paper, published, variants })
}

/// A variant of a file, or all that is wrong with its own table. Its settings are checked when they are laid over a
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

fn parse<'a, T: Deserialize<'a>>(text: &'a str, place: &str) -> anyhow::Result<T> {
    toml::from_str(text)
        .map_err(|error| anyhow::anyhow!("{}\nin {place}", with_suggestion(&error.to_string())))
}

/// What self-critical training leaves out is as in the training before it.
fn inherit(table: &mut Table) {
    let Some(Value::Table(mut train)) = table.get("train").cloned() else { return };
    if let Some(Value::Table(scst)) = table.get_mut("scst")
        && let Value::Table(own) = scst.entry("train").or_insert_with(|| Value::Table(Table::new()))
    {
        merge(&mut train, own);
        *own = train;
    }
}

/// Lays `over` over `base`, table by table. A table of patterns is replaced, not merged, as its order counts; and so is
/// one of another kind, which has other keys.
fn merge(base: &mut Table, over: &Table) {
    let is_of_other_kind = |base: &Table, over: &Table| {
        ["mode", "model_type"]
            .iter()
            .any(|kind| over.contains_key(*kind) && over.get(*kind) != base.get(*kind))
    };
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Table(base)), Value::Table(over))
                if key != "parameters" && !is_of_other_kind(base, over) =>
            {
                merge(base, over);
            }
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The parts of a dotted key, as TOML reads it; none where it is no key.
fn key_parts(key: &str) -> Option<Vec<String>> {
    let mut table = toml::from_str::<Table>(&format!("{key} = 0")).ok()?;
    let mut parts = Vec::new();
    loop {
        let mut entries = table.into_iter();
        let (Some((part, inner)), None) = (entries.next(), entries.next()) else { return None };
        parts.push(part);
        match inner {
            Value::Table(inner) => table = inner,
            _ => return Some(parts),
        }
    }
}

/// Sets `a.b.c`; `a` and `a.b` must be tables, or absent.
fn assign(table: &mut Table, key: &[String], value: Value) -> anyhow::Result<()> {
    match key {
        [] => bail!("there is no key"),
        [last] => {
            table.insert(last.clone(), value);
            Ok(())
        }
        [head, rest @ ..] => {
            let inner = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
            match inner {
                Value::Table(inner) => assign(inner, rest, value),
                _ => bail!("\"{head}\" is a value, not a table"),
            }
        }
    }
}

/// A TOML value, or the text itself as a string.
fn parse_value(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_key_that_holds_dots_is_quoted() {
        assert_eq!(key_parts("train.epochs").unwrap(), ["train", "epochs"]);
        assert_eq!(
            key_parts("train.parameters.\"vision_model.*\"").unwrap(),
            ["train", "parameters", "vision_model.*"]
        );
        for wrong in ["", "train..epochs", "train.parameters.vision_model.*", "a = 1\nb"] {
            assert_eq!(key_parts(wrong), None, "{wrong:?}");
        }
    }

    fn variant() -> Variant {
        find_ablation("freeze_vit").unwrap().variants.remove(0)
    }

    fn message(sets: &[&str]) -> String {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        format!("{:#}", resolve("tiny", &variant(), &sets).unwrap_err())
    }

    #[test]
    fn every_ablation_resolves_in_every_profile() {
        let mut resolved = BTreeMap::new();
        for profile in profiles().unwrap() {
            for ablation in ablations().unwrap() {
                let count = resolve_all(&profile.name, &ablation, &[]).unwrap().len();
                *resolved.entry(profile.name.clone()).or_insert(0) += count;
            }
        }
        let all: usize = ablations().unwrap().iter().map(|ablation| ablation.variants.len()).sum();
        assert_eq!(resolved["paper"], all);
        assert_eq!(resolved["tiny"], resolved["smoke"]);
    }

    #[test]
    fn every_file_among_the_configurations_is_built_in() {
        for (folder, known) in [("ablations", ABLATIONS), ("profiles", PROFILES)] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(folder);
            let mut files: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
                .collect();
            files.sort();
            let mut names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            assert_eq!(files, names);
        }
    }

    #[test]
    fn a_variants_table_of_patterns_replaces_the_profiles_and_other_tables_merge() {
        let mut base: Table =
            toml::from_str("[train]\nepochs = 3\n[train.parameters]\n\"*\" = \"frozen\"").unwrap();
        let over: Table = toml::from_str("[train]\nbatch_size = 2\n[train.parameters]\n\"a\" = 0.5").unwrap();
        merge(&mut base, &over);
        let expected: Table =
            toml::from_str("[train]\nepochs = 3\nbatch_size = 2\n[train.parameters]\n\"a\" = 0.5").unwrap();
        assert_eq!(base, expected);
    }

    #[test]
    fn self_critical_training_inherits_what_it_does_not_say() {
        let sets =
            ["scst.reward.mode=released", "scst.train.epochs=3", "train.batch_size=7"].map(str::to_owned);
        let config = resolve("tiny", &variant(), &sets).unwrap();
        let scst = config.scst.unwrap();
        assert_eq!((scst.train.epochs, scst.train.batch_size), (3, 7));
        assert_eq!(scst.train.weight_decay, config.train.weight_decay);
        assert!(message(&["scst.reward.mode=relaesed"]).contains("released"));
    }

    #[test]
    fn set_takes_toml_values_and_bare_words() {
        let sets: Vec<String> = ["train.epochs=7", "model.fusion=average", "train.learning_rate = 2e-4"]
            .map(str::to_owned)
            .to_vec();
        let config = resolve("tiny", &variant(), &sets).unwrap();
        assert_eq!(config.train.epochs, 7);
        assert_eq!(config.model.fusion, model::Fusion::Average);
        assert_eq!(config.train.learning_rate, 2e-4);
    }

    #[test]
    fn a_misspelt_or_ill_typed_set_names_the_key_and_what_was_meant() {
        assert!(
            message(&["train.epoch=3"]).contains("did you mean \"epochs\"?"),
            "{}",
            message(&["train.epoch=3"])
        );
        assert!(message(&["model.fusion=concat_querys"]).contains("concat_queries"));
        assert!(message(&["train.epochs=many"]).contains("train.epochs=many"));
        assert!(message(&["epochs"]).contains("key=value"));
        assert!(message(&["checkpoint.x=1"]).contains("checkpoint"));
    }

    #[test]
    fn unknown_names_are_answered_with_near_ones() {
        let error = find_ablation("freeze_vti").unwrap_err().to_string();
        assert!(error.contains("freeze_vit") && error.contains("experiments list"), "{error}");
        assert!(find_profile("tinny").unwrap_err().to_string().contains("tiny"));
        assert!(find_ablation("nowhere.toml").is_err());
    }

    #[test]
    fn an_ablation_of_ones_own_is_read_by_path_and_its_errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let name = path.to_str().unwrap();
        std::fs::write(&path, "question = \"?\"\npaper = \"-\"\n[variants.a]\ndescription = \"a\"\n")
            .unwrap();
        assert_eq!(find_ablation(name).unwrap().name, "mine");
        std::fs::write(&path, "question = \"?\"\npapre = \"-\"\n[variants.a]\ndescription = \"a\"\n")
            .unwrap();
        let error = find_ablation(name).unwrap_err().to_string();
        assert!(error.contains("did you mean \"paper\"?") && error.contains("mine.toml"), "{error}");
    }
}
