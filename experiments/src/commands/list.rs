//! `experiments list`

use std::process::ExitCode;

use super::{Outcome, Usage};
use crate::config::{ablations, profiles};
use crate::text::Table;

pub(super) fn run() -> Outcome {
    let mut table = Table::new(["ablation", "variants", "paper", "question"]);
    for ablation in ablations().failure()? {
        let names: Vec<&str> = ablation.variants.iter().map(|variant| variant.name.as_str()).collect();
        table.push(vec![ablation.name, names.join(", "), ablation.paper, ablation.question]);
    }
    println!("{}\n", table.to_text());
    let mut table = Table::new(["profile", "summary"]);
    for profile in profiles().failure()? {
        table.push(vec![profile.name, profile.summary]);
    }
    println!("{}\n\nrun one: experiments ablation NAME [--profile PROFILE]", table.to_text());
    Ok(ExitCode::SUCCESS)
}
