//! Times training steps, captioning and pretraining of a mid-size BLIP-2 on the CPU, and measures what the
//! machine could do at most. `scripts/bench/blip2.sh` makes the model and its inputs, runs PyTorch on the
//! same in turns and prints the tables.
//!
//!     cargo bench -p train --bench blip2                              the machine's rates
//!     cargo bench -p train --bench blip2 -- --scaling                 time against sizes
//!     cargo bench -p train --bench blip2 -- DIR [--rounds N] [--only CASE] [--breakdown]

mod cases;
mod machine;
mod scaling;

use std::path::PathBuf;
use std::time::Instant;

use cases::{Case, Inputs, Round};
use model::cores::Lanes;
use model::profile::{Kind, record};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    train::memory::keep_freed();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if words.iter().any(|word| word == "--scaling") {
        return scaling::print();
    }
    let Some(folder) = words.first().filter(|word| !word.starts_with('-')).map(PathBuf::from) else {
        for threads in [1, rayon::current_num_threads()] {
            println!("{threads} threads");
            machine::Machine::measure(threads).print();
        }
        println!("for the times of a model beside PyTorch's: scripts/bench/blip2.sh");
        return Ok(());
    };
    let option = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let rounds: usize = option("--rounds").map_or(Ok(5), |rounds| rounds.parse())?;
    let is_breakdown = words.iter().any(|word| word == "--breakdown");
    for case in Case::ALL {
        if option("--only").is_some_and(|only| only != case.name()) {
            continue;
        }
        let inputs = Inputs::read(&folder, case)?;
        if is_breakdown {
            break_down(case, &inputs)?;
        } else {
            time(case, &inputs, rounds)?;
        }
    }
    Ok(())
}

/// A warm-up and so many rounds, on all cores.
fn time(case: Case, inputs: &Inputs, rounds: usize) -> Result<(), Failure> {
    let mut round = case.prepare(inputs, rayon::current_num_threads())?;
    let mut losses = vec![round()?];
    let mut seconds = Vec::new();
    let mut operations = 0.0;
    for index in 0..rounds.max(1) {
        let start = Instant::now();
        // the first round counts operations, which costs a millisecond
        let loss = if index == 0 {
            let (loss, totals) = record(&mut round);
            operations = totals[Kind::Product as usize].operations;
            loss
        } else {
            round()
        };
        seconds.push(start.elapsed().as_secs_f64());
        losses.push(loss?);
    }
    seconds.sort_by(f64::total_cmp);
    let (least, median) = (seconds[0], seconds[seconds.len() / 2]);
    let peak = peak_megabytes();
    println!(
        "{{\"side\": \"recap\", \"case\": \"{}\", \"seconds_min\": {least:.4}, \"seconds_median\": {median:.4}, \
         \"gflop\": {:.1}, \"peak_mb\": {peak:.0}, \"losses\": {:?}}}",
        case.name(),
        operations / 1e9,
        losses.iter().flatten().take(3).collect::<Vec<_>>()
    );
    Ok(())
}

/// Seconds of each kind of operation, on one core.
fn break_down(case: Case, inputs: &Inputs) -> Result<(), Failure> {
    let (seconds, totals) = Lanes::new(rayon::current_num_threads()).run(0, || {
        let mut round: Round<'_> = case.prepare(inputs, 1).map_err(|error| error.to_string())?;
        round().map_err(|error| error.to_string())?;
        let mut best: Option<(f64, _)> = None;
        for _ in 0..3 {
            let start = Instant::now();
            let (result, totals) = record(&mut round);
            result.map_err(|error| error.to_string())?;
            let seconds = start.elapsed().as_secs_f64();
            if best.as_ref().is_none_or(|(least, _)| seconds < *least) {
                best = Some((seconds, totals));
            }
        }
        best.ok_or_else(|| "no round".to_owned())
    })?;
    let rate = totals[Kind::Product as usize].operations / totals[Kind::Product as usize].seconds / 1e9;
    let rest = seconds - totals.iter().map(|total| total.seconds).sum::<f64>();
    let share = |part: f64| format!("{:.0} %", 100.0 * part / seconds);
    let mut cells = vec![case.name().to_owned(), format!("{seconds:.2}"), format!("{rate:.0}")];
    cells.extend(totals.iter().map(|total| share(total.seconds)));
    cells.push(share(rest));
    println!("| {} |", cells.join(" | "));
    Ok(())
}

/// Largest memory of this process so far, as the system counts it.
fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
    kilobytes.unwrap_or_default() / 1e3
}
