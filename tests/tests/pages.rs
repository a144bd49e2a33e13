//! Runs the files and commands of the pages `docs/adding-*.md`.

#![allow(clippy::unwrap_used)] // a failure in a helper fails the test

use serde_json::Value;
use tests::Desk;

fn page(name: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name))
        .unwrap()
}

/// The fenced blocks of one language.
fn blocks(page: &str, kind: &str) -> Vec<String> {
    let start = format!("```{kind}\n");
    let after = page.split(start.as_str()).skip(1);
    after.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Runs a page's commands and returns their joined output.
fn run_commands(desk: &Desk, page: &str, count: usize) -> String {
    let commands = blocks(page, "sh");
    assert_eq!(commands.len(), count);
    let mut output = String::new();
    for command in &commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(words[0], "experiments");
        let ran = desk.run(&words[1..]);
        assert_eq!(ran.code, Some(0), "{command}: {}{}", ran.out, ran.err);
        output += &(ran.out + &ran.err);
    }
    output
}

#[test]
fn the_ablation_of_its_page_runs() {
    let (desk, page) = (Desk::new(), page("adding-an-ablation.md"));
    let files = blocks(&page, "toml");
    assert_eq!(files.len(), 1);
    std::fs::write(desk.path("dropout.toml"), &files[0]).unwrap();
    assert!(run_commands(&desk, &page, 2).contains("tenth"));
    for file in ["report.html", "report.md", "summary.json"] {
        assert!(page.contains(file) && desk.path(&format!("runs/dropout/{file}")).is_file(), "{file}");
    }
}

#[test]
fn the_videos_of_their_page_are_trained_on() {
    let (desk, page) = (Desk::new(), page("adding-a-dataset.md"));
    assert_eq!(desk.run(&["data", "synthesize", "--profile", "smoke", "--out", "world"]).code, Some(0));
    let captions = blocks(&page, "csv").pop().unwrap();
    let mut videos: Vec<&str> = captions.lines().skip(1).map(|row| row.split(',').next().unwrap()).collect();
    videos.dedup();
    for (number, video) in videos.iter().enumerate() {
        let place = desk.path("mine").join(video);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(desk.path(&format!("world/videos/video{number}.webm")), place).unwrap();
    }
    std::fs::write(desk.path("mine/captions.csv"), &captions).unwrap();
    let output = run_commands(&desk, &page, 2);
    assert!(output.contains("4 of 4 clips, 5 captions") && output.contains("concat"), "{output}");
    assert!(!output.contains("vocabulary"), "{output}");
    assert!(desk.read("runs/fusion/report.md").contains("Data: own"));

    std::fs::write(desk.path("mine/captions.csv"), captions.replace("a red cross", "two tall giraffes"))
        .unwrap();
    std::fs::remove_file(desk.path("mine/skip.json")).unwrap();
    let output = run_commands(&desk, &page, 2);
    assert!(output.contains("vocabulary: 2 of the 23 words") && output.contains("giraffes"), "{output}");
}

#[test]
fn the_model_of_its_page_is_pretrained_and_trained() {
    let (desk, page) = (Desk::new(), page("adding-a-model.md"));
    run_commands(&desk, &page, 3);
    let config: Value = serde_json::from_str(&desk.read("wide/config.json")).unwrap();
    assert_eq!((&config["num_query_tokens"], &config["text_config"]["d_model"]), (&8.into(), &96.into()));
    let trained = "runs/freeze_vit/freeze_vit/seed-1/best/config.json";
    let trained: Value = serde_json::from_str(&desk.read(trained)).unwrap();
    assert_eq!(trained["text_config"]["d_model"], 96);
}

#[test]
fn all_mistakes_of_a_file_are_listed_at_once_with_file_and_key() {
    let desk = Desk::new();
    let text = "question = \"?\"\npaper = \"-\"\n\
                [variants.a]\ndescription = \"a\"\nset.train.epoch = 3\nset.model.fusoin = \"concat\"\n\
                [variants.b]\ndescription = \"b\"\nset.train.batch_size = \"many\"\n";
    std::fs::write(desk.path("mine.toml"), text).unwrap();
    let ran = desk.run(&["ablation", "mine.toml", "--profile", "smoke"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    for word in
        ["mine.toml", "train.epoch: ", "\"epochs\"", "model.fusoin: ", "\"fusion\"", "train.batch_size: "]
    {
        assert!(ran.err.contains(word), "{word}: {}", ran.err);
    }
    std::fs::write(desk.path("mine.toml"), text.replace("description", "descripton")).unwrap();
    let ran = desk.run(&["show", "mine.toml"]);
    assert_eq!(ran.code, Some(2));
    for word in ["mine.toml", "variants.a.descripton", "variants.b.descripton"] {
        assert!(ran.err.contains(word), "{word}: {}", ran.err);
    }
}

#[test]
fn every_study_has_rows_in_reproducing_the_paper() {
    let (page, desk) = (page("reproducing.md"), Desk::new());
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/configs/ablations");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let rows =
            page.lines().filter(|line| line.starts_with('|') && line.contains(&format!("ablation {name}")));
        assert_eq!(rows.count(), 2, "{name}: one row at the paper's size, one on the tiny world");
        let header = std::fs::read_to_string(&path).unwrap();
        for word in ["# command: ", "# hardware: ", "# time: ", "# the paper: ", "# status: "] {
            assert!(header.contains(word), "{name}: {word}");
        }
        for profile in ["tiny", "smoke", "paper"] {
            let shown = desk.run(&["show", name, "--profile", profile]);
            assert_eq!(shown.code, Some(0), "{name} {profile}: {}", shown.err);
            for word in ["trainable", "weights", "activations", "steps", "work"] {
                assert!(shown.out.contains(word), "{name} {profile}: {word}");
            }
        }
    }
}
