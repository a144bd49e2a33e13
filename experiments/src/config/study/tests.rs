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

/// Training of the stages of a study's variant on the paper's profile.
fn on_paper(ablation: &str, variant: &str, sets: &[&str]) -> RunConfig {
    let ablation = find_ablation(ablation).unwrap();
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    let all = resolve_all("paper", &ablation, &sets).unwrap();
    all.into_iter().find(|(own, _)| own.name == variant).unwrap().1
}

/// Steps of a run's first stage and between evaluations, with the official number of captions.
fn steps(config: &RunConfig) -> (usize, usize) {
    let dataset = config.dataset.as_ref().unwrap().name;
    let examples = data::datasets::splits::sizes(dataset).unwrap().learned;
    let batches = examples.div_ceil(config.train.batch_size);
    (config.train.total_steps(batches), config.train.evaluation_interval(batches))
}

/// `caption_{msrvtt,msvd,vatex}_flant5xl_{ft,scst}.yaml` of the released code.
#[test]
fn each_data_set_has_the_settings_of_the_authors_code_in_the_released_recipe() {
    for (dataset, frames, length, batch, [rate, last, rewarded]) in [
        ("msrvtt", 16, (15_000, 500), 512, [1e-5, 1e-6, 20_000.0]),
        ("msvd", 16, (15_000, 1000), 512, [1e-6, 1e-7, 15_000.0]),
        ("vatex", 8, (20_320, 1016), 256, [1e-5, 1e-6, 20_000.0]),
    ] {
        let name = format!("dataset.name={dataset}");
        for (study, variant) in [("headline", "full"), ("scst", "scst")] {
            let config = on_paper(study, variant, &["recipe=released", &name]);
            let train = &config.train;
            assert_eq!(config.frames.count, frames, "{study} {dataset}");
            assert_eq!((steps(&config), train.batch_size), (length, batch), "{study} {dataset}");
            assert_eq!((train.learning_rate, train.min_learning_rate), (5e-5, 1e-5), "{dataset}");
            let scst = config.scst.unwrap();
            assert_eq!((scst.train.learning_rate, scst.train.min_learning_rate), (rate, last), "{dataset}");
            assert_eq!(scst.train.total_steps(1), rewarded as usize, "{study} {dataset}");
            assert_eq!(scst.train.evaluate_every, Some(1000), "{study} {dataset}");
            assert!(matches!(scst.reward, train::scst::ScstConfig::Released(_)), "{dataset}");
        }
        let first = on_paper("scst", "cross_entropy", &["recipe=released", &name]);
        assert_eq!(first.frames.count, frames, "{dataset}");
        let paper = on_paper("headline", "full", &[&name]);
        assert_eq!((paper.train.steps, paper.train.epochs, paper.train.batch_size), (None, 32, 32));
    }
}

/// `caption_msrvtt_{opt2.7b,vicuna7b}_ft.yaml` count epochs: other data sets get as many.
#[test]
fn decoder_only_models_train_the_epochs_of_the_authors_code_on_every_data_set() {
    for (dataset, captions) in [("msrvtt", 130_260_usize), ("msvd", 48_774), ("vatex", 259_910)] {
        let sets = ["recipe=released", &format!("dataset.name={dataset}")];
        for (study, variant, epochs, batch) in [
            ("lm_size", "small", 30, 512),
            ("pretraining_size", "few", 30, 512),
            ("lm_size", "large", 20, 128),
            ("scst", "vicuna_scst", 20, 128),
        ] {
            let config = on_paper(study, variant, &sets);
            let epoch = captions.div_ceil(batch);
            assert_eq!(config.train.batch_size, batch, "{study} {variant} {dataset}");
            assert_eq!(steps(&config), (epochs * epoch, epoch), "{study} {variant} {dataset}");
        }
    }
}

/// `qa_{msrvtt,msvd}_{flant5xl,vicuna7b}_eval*.yaml` of LAVIS, and InstructBLIP's batches.
#[test]
fn questions_are_trained_and_answered_as_in_instructblip() {
    for (dataset, tokens) in [("msrvtt-qa", 10), ("msvd-qa", 30)] {
        for (variant, batch) in [("qformer_only", 192), ("opt_2_7b", 192), ("vicuna_7b", 128)] {
            let config = on_paper("vqa", variant, &[&format!("dataset.name={dataset}")]);
            assert_eq!(config.answering.unwrap().generate.max_new_tokens, tokens, "{dataset}");
            assert_eq!((config.train.batch_size, config.train.steps), (batch, Some(30_000)), "{variant}");
            let augment = serde_json::to_value(&config.frames).unwrap()["augment"].clone();
            assert_eq!(augment["scale"], serde_json::json!([0.9, 1.0]), "{variant}");
            assert_eq!(config.frames.count, 4, "{variant}");
        }
    }
}

/// A study of rewards also has variants without; the settings of the others do not break them.
#[test]
fn settings_of_a_stage_apply_to_the_variants_that_have_it() {
    let study = find_ablation("scst").unwrap();
    let steps = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let all = resolve_all("paper", &study, &sets).unwrap();
        all.into_iter().map(|(_, config)| config.scst.map(|scst| scst.train.steps)).collect::<Vec<_>>()
    };
    assert_eq!(steps(&["scst.train.steps=3"]), [None, Some(Some(3)), None, Some(Some(3))]);
    let error = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        resolve_all("paper", &find_ablation("fusion").unwrap(), &sets).unwrap_err().to_string()
    };
    assert!(error(&["scst.train.steps=3"]).contains("reward"), "no variant has the stage: it lacks a reward");
    assert!(error(&["scst.train.stepps=3"]).contains("stepps"));
}

#[test]
fn rewards_are_those_of_rennie_in_the_paper_recipe_and_the_tiny_worlds_own_on_tiny() {
    use train::scst::Baseline;
    for (ablation, variant) in [("scst", "scst"), ("headline", "full"), ("scst", "vicuna_scst")] {
        let reward = on_paper(ablation, variant, &[]).scst.unwrap().reward.settings();
        let found = (reward.candidates, reward.baseline, reward.cross_entropy);
        assert_eq!(found, (1, Baseline::Greedy, 0.0), "{ablation} {variant}");
    }
    for profile in ["tiny", "smoke"] {
        let ablation = find_ablation("scst").unwrap();
        let all = resolve_all(profile, &ablation, &[]).unwrap();
        let reward = all[1].1.scst.as_ref().unwrap().reward.settings();
        assert_eq!(
            (reward.candidates, reward.baseline, reward.cross_entropy),
            (5, Baseline::LeaveOneOut, 0.2)
        );
    }
}
