//! `experiments import`, `export` and `verify` as a user runs them, on files of LAVIS, transformers and
//! torch.onnx.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::path::{Path, PathBuf};

use tests::{Desk, Ran};

fn fixture(inside: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    folder.join(inside).display().to_string()
}

/// The sizes of the tiny models, which no name implies.
fn tiny_config(desk: &Desk, adapt: impl FnOnce(&mut serde_json::Value)) -> String {
    let text = std::fs::read_to_string(fixture("parity/t5-flan/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    // what LAVIS computes with
    config["text_config"]["dense_act_fn"] = "gelu".into();
    config["vision_config"]["post_layernorm_eps"] = 1e-5.into();
    adapt(&mut config);
    let path = desk.path("sizes.json");
    std::fs::write(&path, config.to_string()).unwrap();
    path.display().to_string()
}

fn ok(ran: Ran) -> String {
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    ran.out
}

fn verify(desk: &Desk, checkpoint: &str, reference: &str) -> Ran {
    desk.run(&["verify", "--checkpoint", checkpoint, "--reference", &fixture(reference)])
}

#[test]
fn the_parts_that_lavis_keeps_apart_become_one_checkpoint_that_computes_what_lavis_does() {
    let desk = Desk::new();
    let config = tiny_config(&desk, |_| {});
    let parts = [
        fixture("parity/lavis/stage2_t5.pth"),
        fixture("parity/lavis/eva_vit_g.pth"),
        fixture("parity/lavis/t5"),
    ];
    let [stage, vision, language_model] = &parts;
    let out = ok(desk.run(&[
        "import",
        stage,
        "--vision",
        vision,
        "--language-model",
        language_model,
        "--config",
        &config,
        "--out",
        "ckpt",
    ]));
    assert!(out.contains("tensors") && out.contains("EVA"), "{out}");
    let output = ok(verify(&desk, "ckpt", "parity/lavis/t5.safetensors"));
    assert!(output.contains("within tolerance"), "{output}");
}

#[test]
fn a_vit_tuned_on_larger_images_keeps_its_positions() {
    let desk = Desk::new();
    let config = tiny_config(&desk, |_| {});
    let (whole, language_model) = (fixture("parity/lavis/coco_t5.pth"), fixture("parity/lavis/t5"));
    ok(desk.run(&[
        "import",
        &whole,
        "--language-model",
        &language_model,
        "--config",
        &config,
        "--out",
        "ckpt",
    ]));
    ok(verify(&desk, "ckpt", "parity/lavis/coco_t5.safetensors"));
    let written = desk.read("ckpt/config.json");
    assert!(!written.contains("\"image_size\": 21"), "the size comes from the weights: {written}");
}

#[test]
fn a_directory_of_transformers_is_imported_and_exported_without_a_change() {
    let desk = Desk::new();
    for (source, reference) in [
        ("opt", "frames1"),
        ("llama-grouped", "frames1"),
        ("t5-flan", "frames3-average"),
        ("t5-three-tables", "frames3-concat-prompt"),
        ("instructblip-t5", "reference"),
    ] {
        let from = fixture(&format!("parity/{source}"));
        let (imported, exported) = (format!("{source}-in"), format!("{source}-out"));
        ok(desk.run(&["import", &from, "--out", &imported]));
        ok(desk.run(&["export", "--checkpoint", &imported, "--out", &exported]));
        let reference = format!("parity/{source}/{reference}.safetensors");
        ok(verify(&desk, &imported, &reference));
        ok(verify(&desk, &exported, &reference));
        assert!(desk.path(&exported).join("generation_config.json").exists());
    }
}

#[test]
fn a_checkpoint_that_computes_something_else_fails_verification() {
    let desk = Desk::new();
    let other = verify(&desk, &fixture("parity/llama"), "parity/llama-grouped/frames1.safetensors");
    assert_eq!(other.code, Some(1), "{}", other.out);
    assert!(other.out.contains("FAILED") && other.out.contains("over tolerance"), "{}", other.out);
    let json = desk.run(&[
        "verify",
        "--json",
        "--checkpoint",
        &fixture("parity/llama"),
        "--reference",
        &fixture("parity/llama/frames1.safetensors"),
    ]);
    let output: serde_json::Value = serde_json::from_str(&ok(json)).unwrap();
    assert_eq!(output["passed"], true);
    assert!(output["tensors"].as_array().unwrap().len() > 8);
}

/// What a user may get wrong, and a word that the message must have.
#[test]
fn wrong_sources_are_errors_that_say_what_is_wrong() {
    let desk = Desk::new();
    let config = tiny_config(&desk, |_| {});
    let wider = tiny_config_at(&desk, "wider.json", |config| config["text_config"]["d_ff"] = 99.into());
    let (stage, vision, t5) = (
        fixture("parity/lavis/stage2_t5.pth"),
        fixture("parity/lavis/eva_vit_g.pth"),
        fixture("parity/lavis/t5"),
    );
    std::fs::write(desk.path("broken.pth"), &std::fs::read(&stage).unwrap()[..3000]).unwrap();
    let opt = fixture("parity/lavis/stage2_opt.pth");
    for (words, expected) in [
        (vec!["import", "--out", "x"], "nothing to import"),
        (vec!["import", "absent.pth", "--out", "x"], "does not exist"),
        (vec!["import", "broken.pth", "--config", &config, "--out", "x"], "broken.pth"),
        (vec!["import", &stage, "--out", "x"], "--config"),
        // without the ViT: all of it is missing, and the message names it
        (
            vec!["import", &stage, "--language-model", &t5, "--config", &config, "--out", "x"],
            "missing vision_model.",
        ),
        (
            vec![
                "import",
                &stage,
                "--vision",
                &vision,
                "--language-model",
                &t5,
                "--config",
                &wider,
                "--out",
                "x",
            ],
            "expected [99, 18]",
        ),
        (
            vec![
                "import",
                &opt,
                "--vision",
                &vision,
                "--language-model",
                &t5,
                "--config",
                &config,
                "--out",
                "x",
            ],
            "language_projection.weight: expected [18, 15], got [22, 15]",
        ),
        (
            vec!["import", &vision, "--language-model", &vision, "--config", &config, "--out", "x"],
            "LanguageModel",
        ),
        (vec!["import", "nobody/nothing-at-all", "--out", "x"], "cannot download nobody/nothing-at-all"),
    ] {
        let ran = desk
            .command(&words)
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env("HF_HOME", desk.path("hub"))
            .output();
        let ran = Ran::from(ran.unwrap());
        assert_eq!(ran.code, Some(1), "{words:?}\n{}", ran.out);
        assert!(ran.err.contains(expected), "{words:?}\n{}", ran.err);
        assert!(!desk.path("x/model.safetensors").exists(), "{words:?} left a model behind");
    }
}

fn tiny_config_at(desk: &Desk, name: &str, adapt: impl FnOnce(&mut serde_json::Value)) -> String {
    let from = tiny_config(desk, adapt);
    let to: PathBuf = desk.path(name);
    std::fs::copy(from, &to).unwrap();
    tiny_config(desk, |_| {});
    to.display().to_string()
}

/// A hub of our own: the files of one repository over HTTP, as the hub's clients ask for them.
#[test]
fn a_name_on_the_hub_is_downloaded_once() {
    let desk = Desk::new();
    let served = desk.path("served");
    std::fs::create_dir_all(served.join("qformer_tokenizer")).unwrap();
    std::fs::create_dir_all(served.join("other")).unwrap();
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        std::fs::copy(fixture(&format!("parity/opt/{file}")), served.join(file)).unwrap();
    }
    std::fs::write(served.join("qformer_tokenizer/vocab.txt"), "[UNK]\n[CLS]\n[SEP]\n").unwrap();
    std::fs::write(served.join("other/model.safetensors"), "not wanted").unwrap();
    let hub = hub::Hub::serve("someone/tiny-blip2", &served.display().to_string());
    let import = |out: &str| {
        let ran = desk
            .command(&["import", "someone/tiny-blip2", "--out", out])
            .env("HF_ENDPOINT", &hub.address)
            .env("HF_HOME", desk.path("cache"))
            .output();
        ok(Ran::from(ran.unwrap()))
    };
    import("first");
    let downloads = hub.downloads();
    assert!(downloads > 0);
    assert_eq!(desk.read("first/qformer_tokenizer/vocab.txt"), "[UNK]\n[CLS]\n[SEP]\n");
    import("second");
    assert_eq!(hub.downloads(), downloads, "the cache holds what was downloaded");
    ok(verify(&desk, "second", "parity/opt/frames1.safetensors"));
}

mod hub {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub(super) struct Hub {
        pub(super) address: String,
        downloads: Arc<AtomicUsize>,
    }

    impl Hub {
        pub(super) fn serve(repository: &str, folder: &str) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            let downloads = Arc::new(AtomicUsize::new(0));
            let (repository, folder, counter) =
                (repository.to_owned(), PathBuf::from(folder), downloads.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    answer(stream, &repository, &folder, &counter);
                }
            });
            Self { address, downloads }
        }

        pub(super) fn downloads(&self) -> usize {
            self.downloads.load(Ordering::SeqCst)
        }
    }

    fn answer(mut stream: TcpStream, repository: &str, folder: &std::path::Path, counter: &AtomicUsize) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let request = lines.next().unwrap_or_default();
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let path = request.split(' ').nth(1).unwrap_or_default();
        let (body, status) = if path == format!("/api/models/{repository}/revision/main")
            || path == format!("/api/models/{repository}")
        {
            let mut files: Vec<PathBuf> = Vec::new();
            for entry in std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
                if entry.is_dir() {
                    files.extend(std::fs::read_dir(entry).unwrap().flatten().map(|file| file.path()));
                } else {
                    files.push(entry);
                }
            }
            let name = |file: &PathBuf| file.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            let siblings: Vec<_> =
                files.iter().map(|file| serde_json::json!({"rfilename": name(file)})).collect();
            (
                serde_json::json!({"siblings": siblings, "sha": "0123456789abcdef"}).to_string().into_bytes(),
                200,
            )
        } else if let Some(name) = path.strip_prefix(&format!("/{repository}/resolve/main/")) {
            counter.fetch_add(1, Ordering::SeqCst);
            (std::fs::read(folder.join(name)).unwrap(), 200)
        } else {
            (Vec::new(), 404)
        };
        let range = headers
            .iter()
            .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
        let total = body.len();
        let (body, status, part) = match range.and_then(|range| {
            let (start, end) = range.split_once('-')?;
            Some((
                start.parse::<usize>().ok()?,
                end.parse::<usize>().map_or(total, |end| (end + 1).min(total)),
            ))
        }) {
            Some((start, end)) if status == 200 && start <= end => (
                body[start..end].to_vec(),
                206,
                format!("Content-Range: bytes {start}-{}/{total}\r\n", end.max(1) - 1),
            ),
            _ => (body, status, String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n{part}ETag: \"etag-{total}\"\r\nx-repo-commit: 0123456789abcdef\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    }
}

/// Exports of torch.onnx in the places of ViT, Q-Former and language model; what no export holds (queries,
/// projection, the norm behind the ViT lies with the ViT) comes from a safetensors file.
#[test]
fn exports_of_torch_onnx_become_a_checkpoint_bit_for_bit() {
    let desk = Desk::new();
    let onnx = |name: &str| fixture(&format!("checkpoints/onnx/{name}"));
    let rest: Vec<(&str, Vec<usize>)> = vec![
        ("query_tokens", vec![1, 3, 8]),
        ("language_projection.weight", vec![8, 8]),
        ("language_projection.bias", vec![8]),
    ];
    let values: Vec<Vec<u8>> = rest
        .iter()
        .map(|(_, shape)| {
            (0..shape.iter().product::<usize>()).flat_map(|i| (i as f32).sin().to_le_bytes()).collect()
        })
        .collect();
    let views = rest.iter().zip(&values).map(|((name, shape), bytes)| {
        (*name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    std::fs::write(desk.path("rest.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let vision = r#"{"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 8, "patch_size": 4}"#;
    let qformer = r#"{"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
        "encoder_hidden_size": 8}"#;
    let t5 = r#"{"model_type": "t5", "vocab_size": 19, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_heads": 2,
        "num_layers": 1, "num_decoder_layers": 1, "relative_attention_num_buckets": 8,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "decoder_start_token_id": 0}"#;
    let opt = r#"{"model_type": "opt", "vocab_size": 19, "hidden_size": 8, "ffn_dim": 12, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 16, "word_embed_proj_dim": 8}"#;
    let llama = r#"{"model_type": "llama", "vocab_size": 19, "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16}"#;
    for (name, text) in [("t5", t5), ("opt", opt), ("llama", llama)] {
        let sizes = format!(
            r#"{{"model_type": "blip-2", "num_query_tokens": 3, "vision_config": {vision}, "qformer_config": {qformer},
            "text_config": {text}}}"#
        );
        std::fs::write(desk.path("sizes.json"), sizes).unwrap();
        for exporter in ["torchscript", "dynamo"] {
            let out = format!("{name}-{exporter}");
            let export = |part: &str| onnx(&format!("{part}.{exporter}.onnx"));
            ok(desk.run(&[
                "import",
                "rest.safetensors",
                "--vision",
                &export("vit"),
                "--qformer",
                &export("qformer"),
                "--language-model",
                &export(name),
                "--config",
                "sizes.json",
                "--out",
                &out,
            ]));
            let written = std::fs::read(desk.path(&format!("{out}/model.safetensors"))).unwrap();
            let written = safetensors::SafeTensors::deserialize(&written).unwrap();
            let mut compared = 0;
            for (part, front) in
                [("vit", "vision_model."), ("qformer", "qformer."), (name, "language_model.")]
            {
                let bytes = std::fs::read(onnx(&format!("{part}.safetensors"))).unwrap();
                for (tensor, expected) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
                    let Ok(got) = written.tensor(&format!("{front}{tensor}")) else { continue };
                    assert_eq!(
                        (got.shape(), got.data()),
                        (expected.shape(), expected.data()),
                        "{out}: {tensor}"
                    );
                    compared += 1;
                }
            }
            assert_eq!(compared + rest.len(), written.names().len(), "{out}: every tensor is accounted for");
        }
    }
}
