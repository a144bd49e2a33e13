//! Studies, profiles and their settings.

use super::*;

fn variant() -> Variant {
    find_ablation("freeze_vit").unwrap().variants.remove(0)
}

fn resolve(profile: &str, variant: &Variant, sets: &[String]) -> anyhow::Result<RunConfig> {
    Ok(typed_variant(&layers(profile, variant)?, chosen_recipe(sets)?, profile, variant, sets)?)
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
fn self_critical_training_inherits_what_it_does_not_say() {
    let sets = ["scst.reward.mode=released", "scst.train.epochs=3", "train.batch_size=7"].map(str::to_owned);
    let config = resolve("tiny", &variant(), &sets).unwrap();
    let scst = config.scst.unwrap();
    assert_eq!((scst.train.epochs, scst.train.batch_size), (3, 7));
    assert_eq!(scst.train.weight_decay, config.train.weight_decay);
    assert!(message(&["scst.reward.mode=relaesed"]).contains("released"));
}

#[test]
fn set_takes_toml_values_and_bare_words() {
    let sets: Vec<String> =
        ["train.epochs=7", "model.fusion=average", "train.learning_rate = 2e-4"].map(str::to_owned).to_vec();
    let config = resolve("tiny", &variant(), &sets).unwrap();
    assert_eq!(config.train.epochs, 7);
    assert_eq!(config.model.fusion, Some(model::Fusion::Average));
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
    std::fs::write(&path, "question = \"?\"\npaper = \"-\"\n[variants.a]\ndescription = \"a\"\n").unwrap();
    assert_eq!(find_ablation(name).unwrap().name, "mine");
    std::fs::write(&path, "question = \"?\"\npapre = \"-\"\n[variants.a]\ndescription = \"a\"\n").unwrap();
    let error = find_ablation(name).unwrap_err().to_string();
    assert!(error.contains("did you mean \"paper\"?") && error.contains("mine.toml"), "{error}");
}
