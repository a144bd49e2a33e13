//! Sequences of `generate` against those of transformers with the same language models, token for token.
//!
//! The fixture is made by `scripts/reference/generation.py`, whose header has the commands. Scores s are
//! compared to 1e-5·(1 + |s|): theirs are sums in f32 of log-probabilities with errors near 1e-6, and a
//! length penalty of -1 multiplies them by the length.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use model::generate::{
    EarlyStopping, GenerateConfig, Generated, NextToken, PromptInfo, Request, Sample, Search, generate,
};
use serde::Deserialize;

const TOLERANCE: f32 = 1e-5;

/// Cases by the search that they are for.
#[derive(Deserialize)]
struct Fixture {
    greedy: Vec<Case>,
    beam: Vec<Case>,
    #[serde(default)]
    diverse: Vec<Case>,
    /// Greedy and beam search with excluded and forced tokens.
    constrained: Vec<Case>,
}

/// A model, a request and the answer.
#[derive(Deserialize, Clone, Debug)]
struct Case {
    v: usize,
    seed: u32,
    kind: Kind,
    scale: f32,
    end_bias: f32,
    prompts: Vec<Vec<u32>>,
    /// What the encoder reads.
    #[serde(default)]
    encoder: Vec<Vec<u32>>,
    config: GenerateConfig,
    ids: Vec<Vec<Vec<u32>>>,
    #[serde(default)]
    scores: Vec<Vec<f32>>,
}

#[derive(Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Random,
    Ties,
    Endless,
    Certain,
    LastImpossible,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/generation.json")).unwrap()
}

fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// A language model that is a formula, the same as the script's.
struct Table<'a> {
    case: &'a Case,
    /// For each row: its prompt, the last token but one, and the last.
    rows: Vec<(u32, u32, u32)>,
    step: u32,
    /// How many rows each step had.
    counts: Vec<usize>,
}

impl<'a> Table<'a> {
    fn new(case: &'a Case) -> Self {
        Self { case, rows: Vec::new(), step: 0, counts: Vec::new() }
    }

    fn logits(&self, (prompt, second, last): (u32, u32, u32), step: u32) -> Vec<f32> {
        let Case { v, seed, kind, scale, end_bias, .. } = *self.case;
        let key = mix(mix(mix(mix(seed.wrapping_add(prompt)).wrapping_add(last)).wrapping_add(second))
            .wrapping_add(step));
        let logit = |token: u32| {
            let cell = mix(key.wrapping_add(token.wrapping_mul(0x9e37_79b9)));
            let logit = ((cell >> 8) as f32 / 16_777_216.0 - 0.5) * scale;
            let end = self.case.config.end_tokens.contains(&token);
            let possible = match kind {
                Kind::Random => true,
                Kind::Ties => (u64::from(token) + u64::from(key)) % (v as u64) < 1 << ((key >> 20) % 3),
                Kind::Endless => !end,
                Kind::Certain => end == (step >= 3),
                Kind::LastImpossible => token as usize != v - 1,
            };
            match kind {
                _ if !possible => f32::NEG_INFINITY,
                Kind::Ties => 0.0,
                Kind::Random | Kind::LastImpossible if end => logit + end_bias,
                _ => logit,
            }
        };
        (0..v as u32).map(logit).collect()
    }

    fn all(&self) -> Vec<f32> {
        self.rows.iter().flat_map(|&row| self.logits(row, self.step)).collect()
    }

    /// Sum of the tokens' log-probabilities in f64, and the logits' own rounding aside exact.
    fn log_probability(&self, prompt: usize, ids: &[u32]) -> f64 {
        let mut row = first_row(prompt, &self.case.prompts[prompt]);
        let mut sum = 0.0;
        for (step, &token) in (0..).zip(ids) {
            let logits = self.logits(row, step);
            let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            sum += f64::from(logits[token as usize]) - total.ln();
            row = (row.0, row.2, token);
        }
        sum
    }
}

fn first_row(prompt: usize, history: &[u32]) -> (u32, u32, u32) {
    let back = |n: usize| history.len().checked_sub(n).map_or(0, |place| history[place]);
    (prompt as u32, back(2), back(1))
}

impl NextToken for Table<'_> {
    type Error = std::convert::Infallible;

    fn start(&mut self) -> Result<Vec<f32>, Self::Error> {
        let prompts = self.case.prompts.iter().enumerate();
        self.rows = prompts.map(|(prompt, history)| first_row(prompt, history)).collect();
        Ok(self.all())
    }

    fn advance(&mut self, tokens: &[u32], parents: &[usize]) -> Result<Vec<f32>, Self::Error> {
        let rows = tokens.iter().zip(parents);
        let next = rows.map(|(&token, &parent)| (self.rows[parent].0, self.rows[parent].2, token));
        self.rows = next.collect();
        self.step += 1;
        self.counts.push(tokens.len());
        assert!((self.step as usize) < self.case.config.max_new_tokens, "asked for more than the limit");
        let prompts: Vec<u32> = self.rows.iter().map(|row| row.0).collect();
        assert!(prompts.is_sorted(), "the rows of a prompt stay together and in order");
        let counts: Vec<usize> = prompts.chunk_by(|a, b| a == b).map(<[u32]>::len).collect();
        assert!(counts.iter().all(|count| count == &counts[0]), "all prompts have as many rows");
        Ok(self.all())
    }
}

fn run(case: &Case) -> Vec<Vec<Generated>> {
    run_with(&mut Table::new(case))
}

fn run_with(table: &mut Table<'_>) -> Vec<Vec<Generated>> {
    let case = table.case;
    let prompts: Vec<PromptInfo> = case
        .prompts
        .iter()
        .zip(0..)
        .map(|(history, stream)| PromptInfo {
            history: history.clone(),
            encoder: case.encoder.get(stream as usize).cloned().unwrap_or_default(),
            stream,
        })
        .collect();
    let request = Request { prompts: &prompts, vocabulary: case.v, config: &case.config };
    generate(table, request).unwrap()
}

fn ids(generated: &[Vec<Generated>]) -> Vec<Vec<Vec<u32>>> {
    generated.iter().map(|prompt| prompt.iter().map(|sequence| sequence.ids.clone()).collect()).collect()
}

/// The greater of two differences; one that is not a number is the greatest.
fn worst(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// Runs all cases and says at the end which differ.
fn compare(cases: &[Case], cut_ends: bool) {
    let mut differ = Vec::new();
    let mut largest = 0.0f32;
    for (number, case) in cases.iter().enumerate() {
        let generated = run(case);
        let mut ours = ids(&generated);
        if cut_ends {
            for sequence in ours.iter_mut().flatten() {
                if sequence.last().is_some_and(|last| case.config.end_tokens.contains(last)) {
                    sequence.pop();
                }
            }
        }
        let scores = case.scores.iter().flatten().zip(generated.iter().flatten());
        let difference =
            scores.map(|(theirs, ours)| (theirs - ours.score).abs() / (1.0 + theirs.abs())).fold(0.0, worst);
        largest = largest.max(difference);
        if ours != case.ids || difference.is_nan() || difference >= TOLERANCE {
            let config = serde_json::to_string(&case.config).unwrap();
            differ.push(format!(
                "{number} {:?} {config}\n  ours   {ours:?}\n  theirs {:?}\n  {difference:e}",
                case.kind, case.ids
            ));
        }
        let table = Table::new(case);
        for (prompt, sequence) in
            generated.iter().enumerate().flat_map(|(prompt, all)| all.iter().map(move |s| (prompt, s)))
        {
            let exact = table.log_probability(prompt, &sequence.ids);
            assert!((exact - f64::from(sequence.log_probability)).abs() < 1e-5, "{number}: {exact}");
        }
        assert!(generated.iter().all(|all| all.is_sorted_by(|a, b| a.score >= b.score)));
    }
    println!("{} cases, largest difference of scores, over 1 + |score|: {largest:e}", cases.len());
    assert!(differ.is_empty(), "{} of {} differ:\n{}", differ.len(), cases.len(), differ.join("\n"));
}

#[test]
fn greedy_search_writes_what_transformers_writes() {
    compare(&fixture().greedy, false);
}

#[test]
fn beam_search_writes_what_transformers_writes() {
    compare(&fixture().beam, false);
}

#[test]
fn diverse_beam_search_writes_what_transformers_4_writes() {
    compare(&fixture().diverse, true);
}

#[test]
fn excluded_and_forced_tokens_are_those_of_transformers() {
    let cases = fixture().constrained;
    let count = |wanted: &dyn Fn(&GenerateConfig) -> bool| {
        let both = cases.iter().filter(|case| wanted(&case.config));
        let (beam, greedy): (Vec<_>, Vec<_>) = both.partition(|case| case.config.num_beams > 1);
        beam.len().min(greedy.len())
    };
    for n in 1..=3 {
        assert!(count(&|config| config.no_repeat_ngram_size == n) > 5);
        assert!(count(&|config| config.encoder_no_repeat_ngram_size == n) > 5);
    }
    let word =
        |config: &GenerateConfig, wanted: &dyn Fn(&Vec<u32>) -> bool| config.bad_words_ids.iter().any(wanted);
    assert!(count(&|config| word(config, &|word| word.len() == 1)) > 10);
    assert!(count(&|config| word(config, &|word| word.len() > 1)) > 10);
    assert!(count(&|config| word(config, &|word| config.end_tokens.iter().any(|end| word == &[*end]))) > 3);
    assert!(count(&|config| config.forced_bos_token_id.is_some()) > 10);
    compare(&cases, false);
}

/// The settings of the fixture do something: without them most answers differ.
#[test]
fn the_constraints_of_the_fixture_change_its_answers() {
    let cases = fixture().constrained;
    let changed = cases.iter().filter(|case| {
        let config = GenerateConfig {
            no_repeat_ngram_size: 0,
            encoder_no_repeat_ngram_size: 0,
            bad_words_ids: Vec::new(),
            forced_bos_token_id: None,
            ..case.config.clone()
        };
        let free = Case { config, ..(*case).clone() };
        ids(&run(&free)) != case.ids
    });
    assert!(changed.count() * 2 > cases.len());
}

#[test]
fn a_prompt_is_answered_alike_in_any_batch() {
    let fixture = fixture();
    let all = [&fixture.greedy, &fixture.beam, &fixture.diverse, &fixture.constrained];
    for case in all.into_iter().flatten() {
        let together = run(case);
        // the table is indexed by prompt, so the last one is removed
        let mut fewer = case.clone();
        fewer.prompts.pop();
        assert_eq!(run(&fewer), together[..fewer.prompts.len()]);
    }
}

#[test]
fn prompts_that_are_finished_are_dropped() {
    let fixture = fixture();
    for (cases, least) in [(&fixture.greedy, 10), (&fixture.beam, 50), (&fixture.diverse, 10)] {
        let mut dropping = 0;
        for case in cases {
            let mut table = Table::new(case);
            run_with(&mut table);
            assert!(table.counts.is_sorted_by(|before, after| before >= after), "{:?}", table.counts);
            let all = case.prompts.len() * case.config.num_beams;
            assert!(table.counts.first().is_none_or(|&count| count <= all));
            dropping += usize::from(table.counts.last().is_some_and(|&count| count < all));
        }
        assert!(dropping >= least, "{dropping}");
    }
}

#[test]
fn the_fixture_has_what_it_is_meant_to_have() {
    let fixture = fixture();
    let beam = &fixture.beam;
    let count = |wanted: &dyn Fn(&Case) -> bool| beam.iter().filter(|case| wanted(case)).count();
    assert!(beam.len() >= 300);
    for beams in 2..=6 {
        assert!(count(&|case| case.config.num_beams == beams) > 10);
    }
    for penalty in [-1.0, 0.0, 1.0, 1.5] {
        assert!(count(&|case| case.config.length_penalty == penalty) > 10);
    }
    for stopping in [EarlyStopping::No, EarlyStopping::Yes, EarlyStopping::Never] {
        assert!(count(&|case| case.config.early_stopping == stopping) > 10);
    }
    assert!(count(&|case| case.config.end_tokens.len() > 1) > 10);
    assert!(count(&|case| case.config.end_tokens.is_empty()) > 10);
    assert!(count(&|case| case.config.repetition_penalty != 1.0) > 10);
    assert!(count(&|case| case.config.min_new_tokens > 1) > 10);
    assert!(count(&|case| case.kind == Kind::Ties) > 10);
    let ended_early = |ids: &Vec<u32>, case: &Case| ids.len() < case.config.max_new_tokens;
    assert!(count(&|case| case.ids.iter().flatten().any(|ids| ended_early(ids, case))) > 50);
    assert!(count(&|case| case.ids.iter().flatten().any(|ids| !ended_early(ids, case))) > 50);
}

#[test]
fn samples_depend_on_seed_stream_and_number_and_not_on_the_batch() {
    let case = &fixture().beam[0];
    let sample = |seed| Search::Sample(Sample { seed, ..Sample::default() });
    let config = |seed, n| GenerateConfig {
        max_new_tokens: 12,
        num_return_sequences: n,
        search: sample(seed),
        ..GenerateConfig::default()
    };
    let write = |seed: u64, n: usize, streams: &[u64]| {
        let case = Case { config: config(seed, n), prompts: vec![vec![1, 2]; streams.len()], ..case.clone() };
        let prompts: Vec<PromptInfo> = streams
            .iter()
            .map(|&stream| PromptInfo { history: vec![1, 2], stream, ..PromptInfo::default() })
            .collect();
        let request = Request { prompts: &prompts, vocabulary: case.v, config: &case.config };
        generate(&mut Table::new(&case), request).unwrap()
    };
    let alone = write(1, 3, &[9]);
    assert_eq!(alone, write(1, 3, &[9]));
    assert_eq!(alone[0], write(1, 3, &[9, 4, 2, 7])[0]);
    assert_ne!(ids(&alone), ids(&write(2, 3, &[9])));
    assert_ne!(ids(&alone), ids(&write(1, 3, &[8])));
    // of more samples, the first are the same
    let more = write(1, 5, &[9]);
    assert!(alone[0].iter().all(|sequence| more[0].contains(sequence)));
    assert_ne!(alone[0][0].ids, alone[0][1].ids);
}
