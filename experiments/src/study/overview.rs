//! How far a study is, read from its folder: between the dashboards of its runs, and by `report --watch`.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::records::{
    CROSS_ENTROPY, Summary, TIMING, Timing, VariantSummary, read_epochs, read_json, run_folder,
};
use crate::text::Table;
use crate::text::metrics::headline;
use crate::text::numbers::{NumberFormat, seconds};

/// The state of every run of a study.
pub(crate) struct Overview {
    table: Table,
    finished: usize,
    failed: usize,
    /// Durations of finished runs, seconds.
    durations: Vec<f64>,
}

impl Overview {
    /// Reads a study's folder.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let summary = Summary::read(folder)?;
        let table = Table::new(["variant", "seed", "state", "epochs", "best validation", "test", "time"]);
        let mut overview = Self { table, finished: 0, failed: 0, durations: Vec::new() };
        for variant in &summary.variants {
            for seed in 1..=summary.seeds.unwrap_or(1) {
                overview.add(variant, seed, &run_folder(folder, &variant.name, seed))?;
            }
        }
        Ok(overview)
    }

    fn add(&mut self, variant: &VariantSummary, seed: u64, place: &Path) -> anyhow::Result<()> {
        let run = variant.runs.iter().find(|run| run.seed == seed);
        let has_failed = variant.failures.iter().any(|failure| failure.seed == seed);
        let (stage, history) = match (read_epochs(place)?, read_epochs(&place.join(CROSS_ENTROPY))?) {
            (epochs, before) if epochs.is_empty() && !before.is_empty() => (", cross-entropy", before),
            (epochs, _) => ("", epochs),
        };
        let timing: Option<Timing> = run.and(read_json(&place.join(TIMING))?);
        let time = timing.and_then(|timing| timing.seconds);
        let state = match run {
            Some(_) => "finished".to_owned(),
            None if has_failed => "failed".to_owned(),
            None if history.is_empty() && !place.exists() => "waiting".to_owned(),
            None => format!("started{stage}"),
        };
        self.finished += usize::from(run.is_some());
        self.failed += usize::from(run.is_none() && has_failed);
        self.durations.extend(time);
        let best = history
            .iter()
            .filter_map(|epoch| headline(epoch.validation.iter()))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let test = run.and_then(|run| headline(run.test.iter()));
        let print = |(name, value)| format!("{name} {}", NumberFormat::of(name).print(value));
        self.table.push(vec![
            variant.name.clone(),
            seed.to_string(),
            state,
            history.len().to_string(),
            best.map_or_else(String::new, print),
            test.map_or_else(String::new, print),
            time.map_or_else(String::new, seconds),
        ]);
        Ok(())
    }

    fn left(&self) -> usize {
        self.table.rows().len() - self.finished - self.failed
    }

    /// Whether every run has ended.
    pub(crate) fn is_complete(&self) -> bool {
        self.left() == 0
    }

    /// A table of all runs, and an estimate of the remaining time.
    pub(crate) fn text(&self) -> String {
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let mut line = format!("{} of {} runs finished{failed}", self.finished, self.table.rows().len());
        let left = self.left();
        if left > 0 && !self.durations.is_empty() {
            let each = self.durations.iter().sum::<f64>() / self.durations.len() as f64;
            line += &format!("; about {} left, if the others take as long", seconds(each * left as f64));
        }
        format!("{}\n\n{line}", self.table.to_text())
    }
}

/// Prints the overview whenever it changes, until every run has ended.
pub(crate) fn watch(folder: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let mut before = String::new();
    loop {
        let overview = Overview::read(folder)?;
        let text = overview.text();
        if text != before {
            // a terminal shows it in place; a file gets every change
            let clear = if out.is_terminal() { "\x1b[2J\x1b[H" } else { "" };
            writeln!(out, "{clear}{text}\n").and_then(|()| out.flush()).context("cannot print")?;
            before = text;
        }
        if overview.is_complete() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_run_is_shown_as_far_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: String| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let error = Overview::read(folder.path()).err().unwrap().to_string();
        assert!(error.contains("no summary.json"), "{error}");
        write(
            "summary.json",
            json!({ "ablation": "a", "seeds": 1e15 as u64, "variants": [{ "name": "one" }] }).to_string(),
        );
        let error = format!("{:#}", Overview::read(folder.path()).err().unwrap());
        assert!(error.contains("1000000000000000 seeds"), "{error}");
        let epoch = |cider: f64| {
            json!({ "epoch": 1, "loss": 2.0, "validation": { "CIDEr": cider } }).to_string() + "\n"
        };
        let run = json!({ "seed": 1, "test": { "BLEU-4": 0.5, "CIDEr": 1.914 } });
        let failure = json!({ "seed": 1, "reason": "the disk is full" });
        let summary = json!({ "ablation": "a", "seeds": 2, "variants": [
            { "name": "one", "runs": [run] }, { "name": "two", "failures": [failure] },
        ]});
        write("summary.json", summary.to_string());
        write("one/seed-1/metrics.jsonl", epoch(1.5) + &epoch(1.9) + &epoch(1.8));
        write("one/seed-1/timing.json", json!({ "seconds": 40.0 }).to_string());
        write("one/seed-2/cross_entropy/metrics.jsonl", epoch(0.7));
        let overview = Overview::read(folder.path()).unwrap();
        let text = overview.text();
        let row = |number: usize| {
            text.lines().nth(number + 2).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row(0), "one 1 finished 3 CIDEr 190.0 CIDEr 191.4 40.0 s");
        assert_eq!(row(1), "one 2 started, cross-entropy 1 CIDEr 70.0");
        assert_eq!(row(2), "two 1 failed 0");
        assert_eq!(row(3), "two 2 waiting 0");
        assert!(
            text.ends_with("1 of 4 runs finished, 1 failed; about 80.0 s left, if the others take as long"),
            "{text}"
        );
        assert!(!overview.is_complete());
        write("one/seed-2/metrics.jsonl", "{ half".to_owned());
        assert!(format!("{:#}", Overview::read(folder.path()).err().unwrap()).contains("damaged"));
    }
}
