//! Finding, merging and checking TOML files.

use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::RunConfig;
use super::suggest::{nearest, with_suggestion};

/// The ablations that come with the program: name and text.
const ABLATIONS: &[(&str, &str)] = &[
    ("freeze_vit", include_str!("../../configs/ablations/freeze_vit.toml")),
    ("fusion", include_str!("../../configs/ablations/fusion.toml")),
    ("scst", include_str!("../../configs/ablations/scst.toml")),
    ("temporal", include_str!("../../configs/ablations/temporal.toml")),
];

/// The profiles that come with the program.
const PROFILES: &[(&str, &str)] = &[
    ("tiny", include_str!("../../configs/profiles/tiny.toml")),
    ("smoke", include_str!("../../configs/profiles/smoke.toml")),
];

/// A study: variants of one run that differ in what is studied.
#[derive(Debug, Clone)]
pub struct Ablation {
    /// Its name.
    pub name: String,
    /// What it asks, in a sentence.
    pub question: String,
    /// Figure or table of the paper.
    pub paper: String,
    /// Name, description and settings of each variant, in order.
    pub variants: Vec<Variant>,
}

/// One variant of an ablation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Its name; the table's key.
    #[serde(skip)]
    pub name: String,
    /// What it is, in a few words.
    pub description: String,
    /// What it changes.
    #[serde(default)]
    pub set: Table,
    /// What it changes besides in a profile, by the profile's name.
    #[serde(default)]
    pub profiles: Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AblationFile {
    question: String,
    paper: String,
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

/// The configuration of a variant: profile, then variant, then `--set key=value`.
///
/// # Errors
/// When a profile, key or value is not known.
pub fn resolve(profile: &str, variant: &Variant, sets: &[String]) -> anyhow::Result<RunConfig> {
    let mut table = find_profile(profile)?.settings;
    merge(&mut table, &variant.set);
    if let Some(Value::Table(own)) = variant.profiles.get(profile) {
        merge(&mut table, own);
    }
    typed(table, sets, &format!("variant \"{}\" on profile \"{profile}\"", variant.name))
}

/// A configuration from one file's text and the command line's settings.
///
/// # Errors
/// When a key or value is not known.
pub fn merge_sets<T: DeserializeOwned>(text: &str, sets: &[String], place: &str) -> anyhow::Result<T> {
    typed(parse(text, place)?, sets, place)
}

fn typed<T: DeserializeOwned>(mut table: Table, sets: &[String], place: &str) -> anyhow::Result<T> {
    for set in sets {
        let (key, value) = set.split_once('=').with_context(|| format!("--set {set}: expected key=value"))?;
        assign(&mut table, key.trim(), parse_value(value.trim()))
            .with_context(|| format!("--set {set}: not a key of the configuration"))?;
    }
    inherit(&mut table);
    Value::Table(table).try_into().map_err(|error: toml::de::Error| {
        let place = if sets.is_empty() {
            place.to_owned()
        } else {
            format!("--set {} (`experiments show NAME` prints every key)", sets.join(" --set "))
        };
        anyhow::anyhow!("{}: {place}", with_suggestion(&error.to_string()))
    })
}

fn parse_ablation(name: &str, text: &str, place: &str) -> anyhow::Result<Ablation> {
    let file: AblationFile = parse(text, place)?;
    let mut variants = Vec::new();
    for (name, value) in file.variants {
        let variant: Variant = value
            .try_into()
            .map_err(|error: toml::de::Error| anyhow::anyhow!("{}", with_suggestion(&error.to_string())))
            .with_context(|| format!("variant \"{name}\" of {place}"))?;
        for (profile, own) in &variant.profiles {
            find_profile(profile).with_context(|| format!("variant \"{name}\" of {place}"))?;
            if !own.is_table() {
                bail!("variant \"{name}\" of {place}: profiles.{profile} must be a table of settings");
            }
        }
        variants.push(Variant { name, ..variant });
    }
    if variants.is_empty() {
        bail!("the ablation {place} has no variants; add a table [variants.NAME]");
    }
    Ok(Ablation { name: name.to_owned(), question: file.question, paper: file.paper, variants })
}

fn parse_profile(name: &str, text: &str, place: &str) -> anyhow::Result<Profile> {
    let summary = text.lines().next().unwrap_or_default().trim_start_matches('#').trim().to_owned();
    Ok(Profile { name: name.to_owned(), summary, settings: parse(text, place)? })
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

/// Lays `over` over `base`, table by table. A table of patterns is replaced, not merged: its order counts.
fn merge(base: &mut Table, over: &Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Table(base)), Value::Table(over)) if key != "parameters" => merge(base, over),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Sets `a.b.c`; `a` and `a.b` must be tables, or absent.
fn assign(table: &mut Table, key: &str, value: Value) -> anyhow::Result<()> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((head, rest)) => {
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

    fn variant() -> Variant {
        find_ablation("freeze_vit").unwrap().variants.remove(0)
    }

    fn message(sets: &[&str]) -> String {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        format!("{:#}", resolve("tiny", &variant(), &sets).unwrap_err())
    }

    #[test]
    fn every_ablation_resolves_in_every_profile() {
        let mut resolved = 0;
        for ablation in ablations().unwrap() {
            for profile in profiles().unwrap() {
                for variant in &ablation.variants {
                    resolve(&profile.name, variant, &[]).unwrap();
                    resolved += 1;
                }
            }
        }
        assert_eq!(resolved, (3 + 2 + 2 + 2) * 2);
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
