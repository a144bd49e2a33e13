//! Runs that are split among processes, here threads.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::metrics::LOSS;
use crate::processes::ProcessGroup;
use crate::testing::{first_stage, pairs, values_of};

/// One of several threads that play processes: what they say goes round in the order of ranks.
#[derive(Debug)]
struct Party {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Mutex<Vec<Receiver<Vec<u8>>>>,
}

impl Party {
    fn of(count: usize) -> Vec<Arc<dyn ProcessGroup>> {
        let mut senders: Vec<Vec<Sender<Vec<u8>>>> = (0..count).map(|_| Vec::new()).collect();
        let mut receivers: Vec<Vec<Receiver<Vec<u8>>>> = (0..count).map(|_| Vec::new()).collect();
        for sender in &mut senders {
            for receiver in &mut receivers {
                let (to, from) = channel();
                sender.push(to);
                receiver.push(from);
            }
        }
        let party = |(rank, (to, from))| {
            Arc::new(Party { rank, to, from: Mutex::new(from) }) as Arc<dyn ProcessGroup>
        };
        senders.into_iter().zip(receivers).enumerate().map(party).collect()
    }
}

impl ProcessGroup for Party {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.to.len()
    }

    fn sum(&self, values: &mut [f64]) -> Result<(), TrainError> {
        let parts = self.gather(values.iter().flat_map(|value| value.to_le_bytes()).collect())?;
        values.fill(0.0);
        for part in parts {
            for (sum, bytes) in values.iter_mut().zip(part.chunks_exact(8)) {
                *sum += f64::from_le_bytes(bytes.try_into().unwrap());
            }
        }
        Ok(())
    }

    fn sum_floats(&self, values: &mut [f32]) -> Result<(), TrainError> {
        let parts = self.gather(values.iter().flat_map(|value| value.to_le_bytes()).collect())?;
        values.fill(0.0);
        for part in parts {
            for (sum, bytes) in values.iter_mut().zip(part.chunks_exact(4)) {
                *sum += f32::from_le_bytes(bytes.try_into().unwrap());
            }
        }
        Ok(())
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, TrainError> {
        for to in &self.to {
            to.send(bytes.clone()).unwrap();
        }
        Ok(self.from.lock().unwrap().iter().map(|from| from.recv().unwrap()).collect())
    }
}

/// Runs in each process, each in a separate folder.
fn each<R: Send>(
    count: usize,
    run: impl Fn(Arc<dyn ProcessGroup>, &Path) -> R + Sync,
) -> (Vec<tempfile::TempDir>, Vec<R>) {
    let folders: Vec<_> = (0..count).map(|_| tempfile::tempdir().unwrap()).collect();
    let run = &run;
    let results = std::thread::scope(|scope| {
        let of_process = |(processes, folder): (Arc<dyn ProcessGroup>, &tempfile::TempDir)| {
            let folder = folder.path().to_owned();
            scope.spawn(move || run(processes, &folder))
        };
        let running: Vec<_> = Party::of(count).into_iter().zip(&folders).map(of_process).collect();
        running.into_iter().map(|run| run.join().unwrap()).collect()
    });
    (folders, results)
}

/// Trains a captioner in each process.
fn runs<R: Send>(
    count: usize,
    run: impl Fn(usize, Fit<CrossEntropy>) -> R + Sync,
) -> (Vec<tempfile::TempDir>, Vec<R>) {
    each(count, |processes, folder| {
        run(processes.rank(), Fit { processes: processes.clone(), ..run_of(folder, config()) })
    })
}

/// Processes learn what one does, each from its own rows, with dropout: 1e-6 relative, as gradients are
/// summed in another order over nine steps. Batches have four rows, the last of an epoch two: of three
/// processes one has none.
#[test]
fn several_processes_learn_what_one_does() {
    let alone = tempfile::tempdir().unwrap();
    let expected = train(run_of(alone.path(), config())).unwrap();
    for count in [2, 3] {
        let (folders, outcomes) = runs(count, |_, run| train(run).unwrap());
        for outcome in &outcomes {
            assert_eq!(outcome.history.len(), expected.history.len());
            for (record, expected) in outcome.history.iter().zip(&expected.history) {
                let difference = (record.loss - expected.loss).abs() / expected.loss;
                assert!(difference < 1e-6, "{count} processes: {record:?} {expected:?}");
            }
        }
        let writes: Vec<bool> =
            folders.iter().map(|folder| folder.path().join("metrics.jsonl").is_file()).collect();
        assert!(
            writes.iter().enumerate().all(|(rank, writes)| *writes == (rank == 0)),
            "the first writes for all"
        );
        for epoch in 1..=3 {
            let file = format!("predictions/validate-epoch-{epoch}.json");
            let read = |folder: &Path| std::fs::read(folder.join(&file)).unwrap();
            assert!(read(folders[0].path()) == read(alone.path()), "{count} processes: {file} differs");
        }
    }
    assert!(expected.history[2].loss < expected.history[0].loss, "and it learns: {LOSS} falls");
}

/// Eight bits of a gradient are rounded: the losses of nine steps agree to 1 %, and differ from those of
/// gradients in f32. All processes have the same weights: evaluations are split among them, and agree.
#[test]
fn gradients_sent_in_bf16_train_nearly_the_same() {
    let losses = |bf16_transfer| {
        let (_, outcomes) = runs(3, |_, run| {
            let config = TrainConfig { bf16_transfer, ..run.config };
            let outcome = train(Fit { config, ..run }).unwrap();
            (outcome.history.iter().map(|record| record.loss).collect::<Vec<_>>(), values_of(&outcome.best))
        });
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
        outcomes[0].0.clone()
    };
    let (rounded, exact) = (losses(true), losses(false));
    assert_ne!(rounded, exact);
    for (rounded, exact) in rounded.iter().zip(&exact) {
        assert!((rounded - exact).abs() < 0.01 * exact, "{rounded} {exact}");
    }
}

/// All stop in the evaluation after an epoch. Going on, the first process evaluates and saves the state of
/// the same step again, which the others have just restored.
#[test]
fn several_processes_go_on_from_a_state_that_the_first_replaces() {
    let (_, expected) = runs(2, |_, run| train(run).unwrap().history);
    let (folders, stopped) = runs(2, |_, run| {
        let examples = Arc::new(Clips { stop_after: Some((1, run.stop.clone())), ..Clips::new(3) });
        let validation = Some(Validation { examples, ..validation(Split::Validate) });
        train(Fit { validation, ..run }).unwrap().steps
    });
    assert_eq!(stopped, [3, 3]);
    let shared = folders[0].path();
    let (_, resumed) = each(2, |processes, _| {
        train(Fit { processes: processes.clone(), ..run_of(shared, config()) }).unwrap().history
    });
    assert!(resumed == expected, "{resumed:?} {expected:?}");
}

/// Image-text pairs of noise.
struct NoisePairs;

impl Examples for NoisePairs {
    fn len(&self) -> usize {
        10
    }

    fn batch(&self, _epoch: usize, items: &[usize], own: Range<usize>) -> Result<Batch, TrainError> {
        Ok(pairs(&items[own]))
    }
}

/// The contrastive and matching losses compare the rows of all processes: their gradients are those of the
/// whole batch too. With dropout, and one process without a row at the end of an epoch, as above. Weights
/// agree to 1e-5 of a tensor's largest. Adam divides a gradient by its size: with an epsilon of 1e-8 it
/// magnifies the rounding of the smallest gradients, to 3e-5 of a weight; 1e-4 does not.
#[test]
fn several_processes_learn_to_match_images_and_texts_as_one_does() {
    let train = |processes: Arc<dyn ProcessGroup>, folder: &Path| {
        let (model, objective) = first_stage(6, 0.1);
        let config = TrainConfig { micro_batches: 1, epsilon: 1e-4, ..config() };
        let run = Fit { processes, ..fit_of(folder, config, objective, Arc::new(NoisePairs)) };
        let outcome = fit(model, run).unwrap();
        let losses: Vec<f64> = outcome.history.iter().map(|record| record.loss).collect();
        (losses, values_of(&outcome.best))
    };
    let alone = tempfile::tempdir().unwrap();
    let (expected, weights) = train(Arc::new(SingleProcess), alone.path());
    for count in [2, 3] {
        for (losses, own) in each(count, train).1 {
            for (loss, expected) in losses.iter().zip(&expected) {
                assert!((loss - expected).abs() < 1e-6 * expected, "{count} processes: {loss} {expected}");
            }
            for (name, weights) in &weights {
                let most = weights.iter().fold(1e-3, |most: f32, weight| most.max(weight.abs()));
                let apart = weights.iter().zip(&own[name]).map(|(a, b)| (a - b).abs() / most);
                let apart = apart.fold(0.0, f32::max);
                assert!(name.ends_with("key.bias") || apart < 1e-5, "{count} processes, {name}: {apart}");
            }
        }
    }
    assert_eq!(expected.len(), 3);
    assert!(weights.len() > 20 && expected[2] < expected[0], "and it learns: {expected:?}");
}

/// The number of micro-batches does not change what dropout draws either.
#[test]
fn micro_batches_learn_what_whole_batches_do() {
    let outcome = |micro_batches| {
        let folder = tempfile::tempdir().unwrap();
        train(run_of(folder.path(), TrainConfig { micro_batches, ..config() })).unwrap()
    };
    let (whole, split) = (outcome(1), outcome(4));
    for (one, other) in whole.history.iter().zip(&split.history) {
        assert!((one.loss - other.loss).abs() < 1e-6 * one.loss, "{one:?} {other:?}");
    }
}

/// All stop with an error, and the first saves the state before the step that failed.
#[test]
fn an_error_of_one_process_stops_all() {
    for failing in [0, 1] {
        let (folders, errors) = runs(2, |rank, run| {
            let gone = Clips { gone: (rank == failing).then_some(4), ..Clips::new(10) };
            train(Fit { train: Arc::new(gone), ..run }).unwrap_err().to_string()
        });
        for (rank, error) in errors.iter().enumerate() {
            assert!(error.contains("clip 4 is gone"), "{error}");
            assert_eq!(error.contains(&format!("process {failing} failed")), rank != failing, "{error}");
        }
        let (_, outcomes) = (&folders, train(run_of(folders[0].path(), config())).unwrap());
        assert_eq!((outcomes.steps, outcomes.history.len()), (9, 3), "one process goes on where two stopped");
    }
}

/// The first writes for all: what it cannot write stops all. A file is where the folder of states, of
/// predictions or of the best weights should be.
#[test]
fn a_file_that_the_first_process_cannot_write_stops_all() {
    for name in ["checkpoints", "predictions", "metrics.jsonl/x", "best"] {
        let (_, errors) = runs(3, |rank, run| {
            if rank == 0 {
                let path = run.directory.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, "in the way").unwrap();
            }
            train(run).map(|outcome| outcome.steps).unwrap_err().to_string()
        });
        for (rank, error) in errors.iter().enumerate() {
            assert_eq!(error.contains("process 0 failed"), rank > 0, "{name}: {error}");
        }
    }
}

/// Only one process gets the signal; all stop after the same step.
#[test]
fn a_stop_of_one_process_stops_all_and_another_number_of_processes_goes_on() {
    let (folders, stopped) = runs(3, |rank, run| {
        let stop_after = (rank == 2).then(|| (4, run.stop.clone()));
        let outcome = train(Fit { train: Arc::new(Clips { stop_after, ..Clips::new(10) }), ..run }).unwrap();
        (outcome.interrupted, outcome.steps)
    });
    assert!(stopped.iter().all(|one| *one == stopped[0]) && stopped[0].0, "{stopped:?}");
    let alone = tempfile::tempdir().unwrap();
    let expected = train(run_of(alone.path(), config())).unwrap();
    let outcome = train(run_of(folders[0].path(), config())).unwrap();
    for (record, expected) in outcome.history.iter().zip(&expected.history) {
        assert!((record.loss - expected.loss).abs() < 1e-6 * expected.loss, "{record:?} {expected:?}");
    }
}
