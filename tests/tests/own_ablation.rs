//! What `docs/adding-an-ablation.md` says, followed to the letter.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use tests::Desk;

fn page(name: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name))
        .unwrap()
}

/// The texts between a page's fences of a kind.
fn blocks(page: &str, kind: &str) -> Vec<String> {
    let start = format!("```{kind}\n");
    let after = page.split(start.as_str()).skip(1);
    after.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_pages_file_and_commands_run_as_they_stand() {
    let (desk, page) = (Desk::new(), page("adding-an-ablation.md"));
    let files = blocks(&page, "toml");
    assert_eq!(files.len(), 1);
    std::fs::write(desk.path("dropout.toml"), &files[0]).unwrap();
    let commands = blocks(&page, "sh");
    assert_eq!(commands.len(), 2);
    for command in &commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(words[0], "experiments");
        let ran = desk.run(&words[1..]);
        assert_eq!(ran.code, Some(0), "{command}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains("tenth"), "{}", ran.out);
    }
    for file in ["report.html", "report.md", "summary.json"] {
        assert!(page.contains(file) && desk.path(&format!("runs/dropout/{file}")).is_file(), "{file}");
    }
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
fn every_study_has_a_row_on_the_page_of_the_papers_figures() {
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
