//! Data sets as users have them: file names of other systems, marks of other programs, missing captions.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use serde_json::Value;
use tests::Desk;

/// A GIF of one pixel in a shade of grey. The content decides how a file is decoded.
fn gif(shade: u8) -> Vec<u8> {
    let mut bytes = b"GIF89a\x01\x00\x01\x00\x80\x00\x00".to_vec();
    bytes.extend([shade, shade, shade, 0, 0, 0]);
    bytes.extend(b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b");
    bytes
}

fn write(desk: &Desk, name: &str, bytes: impl AsRef<[u8]>) {
    let path = desk.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn tiny() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/checkpoints/tiny");
    path.display().to_string()
}

#[test]
fn clips_are_found_whatever_their_extension_and_form_of_unicode() {
    let desk = Desk::new();
    let names = ["a.3gp", "b.m2ts", "c.asf", "d.ogv", "e.VOB", "f", "cafe\u{301}.webp", "g/caf\u{e9}.xyz"];
    let mut captions = "video,caption,split\n".to_owned();
    for (name, shade) in names.iter().zip(0..) {
        write(&desk, &format!("mine/{name}"), gif(shade));
        // the table has the other form of Unicode
        let listed = match *name {
            "cafe\u{301}.webp" => "caf\u{e9}.webp",
            "g/caf\u{e9}.xyz" => "g/cafe\u{301}.xyz",
            name => name,
        };
        captions += &format!("{listed},a dog,train\n");
    }
    let utf_16: Vec<u8> =
        std::iter::once(0xfeff).chain(captions.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    for table in [captions.clone().into_bytes(), format!("\u{feff}{captions}").into_bytes(), utf_16] {
        write(&desk, "mine/captions.csv", table);
        let ran = desk.run(&["data", "check", "mine", "--dataset", "own"]);
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
        assert!(ran.out.contains("8 of 8 clips"), "{}", ran.out);
    }
}

#[test]
fn vatex_with_its_private_test_set_is_read_and_says_what_is_not_used() {
    let desk = Desk::new();
    for (name, shade) in [("t", 1), ("p", 2), ("x", 3), ("y", 4)] {
        write(&desk, &format!("vatex/{name}.mp4"), gif(shade));
    }
    let captioned = |id: &str| format!(r#"[{{"videoID": "{id}", "enCap": ["a dog runs", "a cat"]}}]"#);
    write(&desk, "vatex/vatex_training_v1.0.json", captioned("t"));
    write(&desk, "vatex/vatex_public_test_english_v1.1.json", captioned("p"));
    let private = "vatex/vatex_private_test_without_annotations.json";
    write(&desk, private, r#"[{"videoID": "x"}, {"videoID": "y"}]"#);
    let check = |more: &[&str]| {
        let command = ["data", "check", "vatex", "--dataset", "vatex", "--own-split"];
        let ran = desk.run(&[&command[..], more].concat());
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
        ran
    };
    let whole = check(&[]);
    assert!(whole.err.contains("2 clips of the private test set"), "{}", whole.err);
    let alone = check(&["--annotations", private]);
    assert!(
        alone.out.contains("2 of 2 clips") && !alone.err.contains("private"),
        "{}{}",
        alone.out,
        alone.err
    );

    let sets = [
        "dataset.own_split=true".to_owned(),
        format!("dataset.annotations={}", desk.path(private).display()),
    ];
    let tiny = tiny();
    let mut command =
        vec!["evaluate", "--checkpoint", &tiny, "--dataset", "vatex=vatex", "--profile", "smoke"];
    command.extend(["--predictions", "captions.json", "--json"]);
    command.extend(sets.iter().flat_map(|set| ["--set", set.as_str()]));
    let ran = desk.run(&command);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    let metrics: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(metrics["different"].is_number() && metrics["CIDEr"].is_null(), "{metrics}");
    let predictions: Value = serde_json::from_str(&desk.read("captions.json")).unwrap();
    let ids: Vec<&str> =
        predictions.as_array().unwrap().iter().map(|one| one["image_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["x", "y"]);
}

#[test]
fn coco_results_have_each_id_once() {
    let desk = Desk::new();
    for (name, shade) in [("in/one.gif", 1), ("in/one.webm", 2), ("in/deep/two.gif", 3)] {
        write(&desk, name, gif(shade));
    }
    let tiny = tiny();
    let command = ["caption", "--checkpoint", &tiny, "--frames", "1", "--beams", "1", "--format", "coco"];
    let ran = desk.run(&[&command[..], &["in/one.gif", "in/one.webm", "in/deep/two.gif"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let results: Value = serde_json::from_str(&ran.out).unwrap();
    let ids: Vec<&str> =
        results.as_array().unwrap().iter().map(|one| one["image_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["one.gif", "one.webm", "two"]);

    for (more, words) in [
        (&["--captions", "2", "in/one.gif"][..], &["--captions is 2", "jsonl"][..]),
        (&["in/one.gif", "in/./one.gif"], &["same file"]),
    ] {
        let ran = desk.run(&[&command[..], more].concat());
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(ran.out.is_empty() && words.iter().all(|word| ran.err.contains(word)), "{}", ran.err);
    }
}

#[test]
fn constraints_of_generation_come_from_the_checkpoint_and_the_command_line() {
    let desk = Desk::new();
    write(&desk, "one.gif", gif(7));
    for file in std::fs::read_dir(tiny()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        write(&desk, &format!("checkpoint/{name}"), std::fs::read(&path).unwrap());
    }
    let caption = |more: &[&str]| {
        let command = ["caption", "--checkpoint", "checkpoint", "--frames", "1", "--format", "jsonl"];
        let length = ["--beams", "2", "--max-new-tokens", "24", "--min-new-tokens", "24", "one.gif"];
        let ran = desk.run(&[&command[..], &length, more].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let line: Value = serde_json::from_str(&ran.out).unwrap();
        let ids: Vec<u64> = line["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        (ids, ran.err)
    };
    let repeats = |ids: &[u64]| {
        let pairs: Vec<&[u64]> = ids.windows(2).collect();
        (1..pairs.len()).any(|place| pairs[..place].contains(&pairs[place]))
    };
    let (free, _) = caption(&[]);
    assert!(repeats(&free), "{free:?}");
    let (own, _) = caption(&["--no-repeat-ngram-size", "2"]);
    assert!(!repeats(&own), "{own:?}");
    let banned = free[1].to_string();
    let (without, _) = caption(&["--bad-words-ids", &banned]);
    assert!(!without.contains(&free[1]), "{without:?}");
    write(&desk, "checkpoint/generation_config.json", r#"{"no_repeat_ngram_size": 2, "eos_token_id": 1}"#);
    assert_eq!(caption(&[]).0, own, "as the checkpoint says");
    assert!(repeats(&caption(&["--no-repeat-ngram-size", "0"]).0), "the command line comes first");
    let (forced, said) = caption(&["--forced-bos-token-id", &banned, "--encoder-no-repeat-ngram-size", "2"]);
    assert!(forced[0] == free[1] || forced[1] == free[1], "{forced:?}");
    assert!(said.contains("encoder_no_repeat_ngram_size has no effect"), "{said}");
}
