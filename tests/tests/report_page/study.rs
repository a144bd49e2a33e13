//! A study's folder as a runner leaves it, small and made here: two variants, two seeds, one run missing,
//! three clips.

use std::path::{Path, PathBuf};

use data::video::encode;
use metrics::{Corpus, Options, Video};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The third has markup in its captions.
pub(crate) const CLIPS: [(&str, [&str; 2]); 3] = [
    ("video7", ["a red ball rolls to the left", "the ball moves left"]),
    ("video8", ["a dog runs on the beach", "a brown dog runs"]),
    ("video9", ["two women slice an onion", "<script>window.hacked = 1</script> they cook"]),
];

/// Captions of a variant's seed.
const CAPTIONS: [(&str, u64, [&str; 3]); 3] = [
    ("plain", 1, ["a red ball rolls to the left", "a cat sleeps", "two women slice an onion"]),
    ("plain", 2, ["a red ball rolls", "a cat sleeps on the beach", "two women slice an onion"]),
    (
        "fancy_fusion",
        1,
        ["a ball", "a dog runs on the beach", "<script>window.hacked = 2</script> women & onion"],
    ),
];

/// A folder of its own.
pub(crate) struct Study {
    place: TempDir,
}

impl Study {
    /// Writes all of it.
    pub(crate) fn new() -> Self {
        let study = Self { place: TempDir::new().unwrap() };
        std::fs::create_dir_all(study.place.path().join("clips")).unwrap();
        for (number, (id, _)) in CLIPS.iter().enumerate() {
            video(&study.place.path().join("clips").join(format!("{id}.webm")), number);
        }
        let clips = CLIPS.map(|(id, references)| {
            json!({ "id": id, "references": references, "video": format!("../../clips/{id}.webm") })
        });
        study.write("clips.json", &json!(clips));
        let mut runs: Vec<(&str, Value)> = Vec::new();
        for (variant, seed, captions) in CAPTIONS {
            let run = run(variant, seed, &captions);
            let place = format!("{variant}/seed-{seed}");
            study.write(&format!("{place}/result.json"), &run);
            let timing =
                json!({ "seconds_per_epoch": 1.5, "seconds": 200.0, "peak_memory": 1_500_000_000_u64 });
            study.write(&format!("{place}/timing.json"), &timing);
            let provenance =
                json!({ "command": "experiments ablation fusion", "commit": "abc", "seed": seed });
            study.write(&format!("{place}/provenance.json"), &provenance);
            let rows: Vec<Value> = CLIPS
                .iter()
                .zip(captions)
                .map(|((id, _), caption)| json!({ "image_id": id, "caption": caption }))
                .collect();
            study.write(&format!("{place}/predictions/test.json"), &json!(rows));
            study.write_text(&format!("{place}/config.toml"), &format!("[model]\nfusion = \"{variant}\"\n"));
            runs.push((variant, run));
        }
        let of = |name: &str| -> Vec<&Value> {
            runs.iter().filter(|(variant, _)| *variant == name).map(|(_, run)| run).collect()
        };
        let variant =
            |name: &str| json!({ "name": name, "description": format!("what {name} is"), "runs": of(name) });
        let summary = json!({
            "ablation": "fusion",
            "question": "How should frames be joined?",
            "paper": "Fig. 3a, Fig. 8",
            "profile": "tiny",
            "world": "0123456789abcdef",
            "clips": [10, 4, 3],
            "seeds": 2,
            "baselines": { "constant_caption": "a dog", "constant": { "CIDEr": 0.1 } },
            "variants": [variant("plain"), variant("fancy_fusion"), variant("third")],
            "published": [{
                "figure": "Fig. 3a", "metric": "CIDEr", "label": "concatenation", "variant": "plain", "value": 73.6,
                "data_set": "MSR-VTT", "model": "FLAN-T5-XL",
            }],
        });
        study.write("summary.json", &summary);
        study
    }

    /// The study's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.place.path().join("runs").join("fusion")
    }

    /// Puts a file there.
    pub(crate) fn write(&self, inside: &str, value: &Value) {
        self.write_text(inside, &value.to_string());
    }

    /// Puts a file there.
    pub(crate) fn write_text(&self, inside: &str, text: &str) {
        let path = self.folder().join(inside);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A file's text.
    pub(crate) fn read(&self, inside: &str) -> String {
        std::fs::read_to_string(self.folder().join(inside)).unwrap()
    }

    /// A file's JSON.
    pub(crate) fn json(&self, inside: &str) -> Value {
        serde_json::from_str(&self.read(inside)).unwrap()
    }
}

fn run(variant: &str, seed: u64, captions: &[&str; 3]) -> Value {
    let videos = CLIPS.iter().zip(captions).map(|((id, references), caption)| Video {
        id: (*id).to_owned(),
        hypothesis: (*caption).to_owned(),
        references: references.map(str::to_owned).to_vec(),
    });
    let scores = metrics::score(&Corpus::new(videos.collect()).unwrap(), &Options::default()).unwrap();
    let epoch = |epoch: u32, loss: f64, cider: f64| {
        json!({ "epoch": epoch, "step": epoch * 5, "learning_rate": 1e-3, "loss": loss, "is_best": epoch == 2,
                "validation": { "CIDEr": cider } })
    };
    json!({
        "config_hash": format!("{variant}{seed}"),
        "seed": seed,
        "trainable": 188_672,
        "parameters": 577_600,
        "best_epoch": 2,
        "history": [epoch(1, 2.5, 0.5), epoch(2, 1.5, 1.2 + 0.1 * seed as f64), epoch(3, 1.0, 0.9)],
        "test": { "CIDEr": scores.cider, "BLEU-4": scores.bleu[3], "ROUGE-L": scores.rouge_l },
    })
}

/// Two seconds of a square that crosses a grey field.
fn video(path: &Path, row: usize) {
    const SIZE: usize = 64;
    let frames: Vec<Vec<u8>> = (0..20)
        .map(|time| {
            let mut frame = vec![90; SIZE * SIZE * 3];
            for y in 4 + row * 20..16 + row * 20 {
                for x in time * 2..time * 2 + 12 {
                    frame[(y * SIZE + x) * 3..][..3].copy_from_slice(&[220, 60, 60]);
                }
            }
            frame
        })
        .collect();
    encode::write(path, (SIZE as u32, SIZE as u32), 10, &frames, encode::WEBM_VP8).unwrap();
}
