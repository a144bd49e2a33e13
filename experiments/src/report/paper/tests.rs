//! What the paper says beside runs made by hand.

use std::path::PathBuf;

use serde_json::json;

use super::super::drawings;
use super::super::folder::RunState;
use super::*;
use crate::config::{ablations, find_ablation};
use crate::records::{RunResult, Summary};

/// A study of the program in which every variant has one run of the same history.
fn study(ablation: &str, data_set: Option<&str>) -> Study {
    let ablation = find_ablation(ablation).unwrap();
    let metric = if ablation.name == "vqa" { "accuracy" } else { "CIDEr" };
    let epoch = |number: usize, loss: f64, score: f64| json!({ "epoch": number, "loss": loss, "validation": { metric: score } });
    let result: RunResult = serde_json::from_value(json!({
        "seed": 1,
        "best_epoch": 2,
        "history": [epoch(1, 4.0, 0.5), epoch(2, 3.0, 0.9), epoch(3, 2.0, 0.6), epoch(4, 1.0, 0.8)],
        "test": { metric: 0.1234 },
    }))
    .unwrap();
    let variant = |name: &str| {
        let run = Run { result: result.clone(), timing: None, provenance: None, config: None, scored: None };
        let runs = vec![RunState::Finished(Box::new(run))];
        Variant { name: name.to_owned(), description: String::new(), runs }
    };
    Study {
        variants: ablation.variants.iter().map(|own| variant(&own.name)).collect(),
        summary: Summary {
            ablation: ablation.name,
            published: ablation.published,
            data_set: data_set.map(str::to_owned),
            ..Summary::default()
        },
        folder: PathBuf::new(),
        clips: None,
        measures: Vec::new(),
        gaps: Vec::new(),
    }
}

/// The table whose caption begins so, as rows of cells.
fn table(study: &Study, caption: &str) -> Vec<Vec<String>> {
    let found = blocks(study).into_iter().find_map(|block| match block {
        Block::Table(title, table) if title.starts_with(caption) => Some(table.rows().to_vec()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no table {caption:?}"))
}

fn texts(study: &Study) -> String {
    let text = |block| match block {
        Block::Text(text) => Some(text),
        _ => None,
    };
    blocks(study).into_iter().filter_map(text).collect::<Vec<_>>().join("\n")
}

const NUMBERS: &str = "The paper's numbers beside ours";

#[test]
fn a_run_on_msvd_stands_beside_msvds_numbers_alone() {
    let msvd = study("headline", Some("msvd"));
    let ours = table(&msvd, NUMBERS);
    let cells = ["Table 1", "Ours", "CIDEr", "168.0"];
    assert_eq!(ours[0][..4], cells);
    assert_eq!(ours[0][5..], ["12.3", "full"], "ours, and our variant");
    let printed: Vec<&str> = ours.iter().map(|row| row[3].as_str()).collect();
    assert_eq!(printed, ["168.0", "48.3", "85.8", "73.5"]);
    assert!(ours.iter().all(|row| row[4].contains("MSVD")), "{ours:?}");
    let models: Vec<String> =
        table(&msvd, "Table 1 of the paper, MSVD").into_iter().map(|row| row.join(" ")).collect();
    assert!(models.contains(&"IcoCap (paper) 110.3 39.5 76.5 59.1 - no".to_owned()), "{models:?}");
    assert!(!models.iter().any(|row| row.contains("GIT2")), "it has no number on MSVD");
    assert!(texts(&msvd).contains("MSR-VTT, VATEX is left out"), "{}", texts(&msvd));
    let [_, Block::Plots(_, _, panels)] = &drawings::bars(&msvd)[..] else { panic!("no bars") };
    assert!(panels.iter().all(|panel| !panel.inline().contains("MSR-VTT")));
    assert!(panels.iter().any(|panel| panel.inline().contains("Table 1, CIDEr (paper, MSVD)")));
}

#[test]
fn no_study_stands_beside_numbers_of_other_data() {
    for own in ["msrvtt", "msvd", "vatex", "msrvtt-qa", "msvd-qa", "own"] {
        for ablation in ablations().unwrap() {
            let study = study(&ablation.name, Some(own));
            let data_sets = distinct(of_the_same_data(&study).filter_map(|row| row.data_set.clone()));
            let is_own = |name: &String| name.to_lowercase().replace("msr-vtt", "msrvtt") == own;
            assert!(data_sets.iter().all(is_own), "{} on {own}: {data_sets:?}", ablation.name);
        }
    }
    assert!(texts(&study("scst", Some("msvd"))).contains("prints no number of this study"));
    let own = study("headline", Some("own"));
    assert!(texts(&own).contains("MSR-VTT, MSVD, VATEX is left out"), "{}", texts(&own));
}

#[test]
fn the_tiny_world_stands_beside_msr_vtt_and_says_that_it_is_other_data() {
    for data_set in [None, Some("tiny")] {
        let tiny = study("headline", data_set);
        let printed: Vec<String> = table(&tiny, NUMBERS).into_iter().map(|row| row[3].clone()).collect();
        assert_eq!(printed, ["79.5", "34.2", "68.3", "52.4"]);
        let text = texts(&tiny);
        assert!(text.contains("The tiny world is no data set of the paper"), "{text}");
        assert!(text.contains("Where data or model differ"), "{text}");
    }
    let tiny = table(&study("vqa", Some("tiny-qa")), NUMBERS);
    assert_eq!((tiny.len(), tiny[0][3].as_str()), (10, "18.1"));
}

#[test]
fn question_answering_on_msvd_has_its_own_column_of_table_3() {
    let rows = table(&study("vqa", Some("msvd-qa")), NUMBERS);
    let of = |label: &str| {
        let row = rows.iter().find(|row| row[1] == label).unwrap();
        (row[3].clone(), row[5].clone(), row[6].clone())
    };
    let paired = |paper: &str, variant: &str| (paper.to_owned(), "12.3".to_owned(), variant.to_owned());
    assert_eq!(of("all modules trainable"), paired("36.2", "all_trainable"));
    assert_eq!(of("SCST disabled"), paired("38.8", "qformer_only"));
    assert_eq!(of("pretrained on 129M pairs"), paired("38.8", "qformer_only"));
    assert_eq!(of("FLAN-T5-XL-3B"), paired("38.8", "qformer_only"));
    assert_eq!(of("Vicuna-7B"), paired("38.5", "vicuna_7b"));
    assert_eq!(of("SCST enabled").0, "41.0");
}

#[test]
fn tables_1_and_2_are_the_papers_in_full() {
    let published = find_ablation("headline").unwrap().published;
    let numbers = published.iter().filter(|row| row.figure == "Table 1" && row.value.is_some());
    assert_eq!(numbers.count(), 68);
    let rows: Vec<String> = table(&study("headline", Some("msrvtt")), "Table 1 of the paper, MSR-VTT")
        .into_iter()
        .map(|row| row.join(" "))
        .collect();
    for line in [
        "MaMMUT (paper) 73.6 - - - - no",
        "VideoCoCa (paper) 73.2 - 68.0 53.8 144.7M no",
        "VALOR (paper) 74.0 32.9 68.0 54.4 1.18M yes",
        "VLAB (paper) 74.9 33.4 68.3 54.6 10.7M no",
        "VAST (paper) 78.0 - - 56.7 27M yes",
        "mPLUG-2 (paper) 80.0 34.9 70.1 57.8 2.5M yes",
        "Ours (paper) 79.5 34.2 68.3 52.4 6K yes",
    ] {
        assert!(rows.contains(&line.to_owned()), "{line}: {rows:?}");
    }
    assert!(rows[9].starts_with("full (this study, msrvtt) 12.3 "), "{}", rows[9]);
    let vatex = table(&study("headline", Some("vatex")), "Table 1 of the paper, VATEX");
    assert!(vatex.iter().any(|row| row.join(" ") == "VAST (paper) 99.5 - - 45.0 27M yes"), "{vatex:?}");
    let methods: Vec<String> = table(&study("headline", None), "Table 2 of the paper")
        .into_iter()
        .map(|row| row.join(" | "))
        .collect();
    assert_eq!(methods.len(), 9);
    for line in [
        "VideoCoCa | Yan et al., 2022 | 3B | 136M+8.7M | CoCa-V | CoCa-T",
        "VALOR | Chen et al., 2023a | 1.18M | 1.18M | CLIP-V/VideoSwin | BERT",
        "VAST | Chen et al., 2023b | - | 27M | ViT | BERT",
        "Ours | - | 129M | 6K | EVA-ViT-G | Flan-T5-XL",
    ] {
        assert!(methods.contains(&line.to_owned()), "{line}: {methods:?}");
    }
}

#[test]
fn statements_stand_beside_the_statistics_of_our_runs() {
    let study = study("lm_size", Some("msrvtt"));
    let rows = table(&study, "The paper's statements beside our runs");
    let peaks: Vec<[&str; 3]> =
        rows.iter().map(|row| [row[1].as_str(), row[4].as_str(), row[5].as_str()]).collect();
    assert_eq!(
        peaks[..3],
        [["small", "20", "2"], ["middle", "14", "2"], ["large", "5", "2"]],
        "Fig. 5: OPT, FLAN-T5, Vicuna"
    );
    // losses 2 and 1, scores 60 and 80 after epoch 2 of 4
    let after = table(&study, "Our runs after their best epoch");
    assert_eq!(after[0], ["small", "2", "4", "1.500", "14.1", "-0.424"]);
    let peaks = |variant: &str| {
        let rows = table(&self::study("freeze_vit", Some("msrvtt")), "The paper's statements");
        rows.into_iter().find(|row| row[1] == variant).unwrap()[4].clone()
    };
    let of_figure_4 = ["qformer_only", "freeze_vit", "all_trainable"].map(peaks);
    assert_eq!(of_figure_4, ["14", "6", "4"]);
}

#[test]
fn a_variant_that_has_not_run_says_so_beside_its_statement() {
    let mut study = study("fusion", Some("msrvtt"));
    study.variants[1].runs = vec![RunState::NotRun];
    let rows = table(&study, "The paper's statements");
    assert_eq!((rows[0][5].as_str(), rows[1][5].as_str()), ("2", NOT_RUN));
    let after = table(&study, "Our runs after their best epoch");
    assert_eq!(after[1][1..], [NOT_RUN; 5]);
}

#[test]
fn where_the_paper_contradicts_itself_both_sides_are_shown() {
    let rows = table(&study("vqa", Some("msrvtt-qa")), "Where the paper contradicts itself");
    let trainable = &rows[0];
    assert_eq!(trainable[..2], ["App. D.5", "all_trainable"]);
    assert!(trainable[2].contains("highest top-1 accuracy"), "{trainable:?}");
    assert!(trainable[3].contains("18.1, ViT frozen 22.5, Q-Former only 23.9"), "{trainable:?}");
    assert!(rows.iter().any(|row| row[3] == "Table 3: Vicuna-7B 20.2, FLAN-T5-XL-3B 23.9"), "{rows:?}");
    let msvd = table(&study("vqa", Some("msvd-qa")), "Where the paper contradicts itself");
    assert!(msvd[0][3].contains("36.2, ViT frozen 38.5, Q-Former only 38.8"), "{msvd:?}");
}
