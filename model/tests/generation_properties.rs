//! Properties of `generate` on models that return any logits, and its errors.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use model::generate::{
    DiverseBeam, EarlyStopping, GenerateConfig, GenerateError, Generated, NextToken, PromptInfo, Request,
    Sample, Search, generate,
};
use proptest::prelude::*;

/// A model that returns given logits for any tokens.
struct Scripted<'a> {
    values: &'a [f32],
    vocabulary: usize,
    prompts: usize,
    steps: usize,
}

impl Scripted<'_> {
    fn rows(&mut self, rows: usize) -> Vec<f32> {
        let place = self.steps * 7;
        self.steps += 1;
        (0..rows * self.vocabulary).map(|i| self.values[(place + i) % self.values.len()]).collect()
    }
}

impl NextToken for Scripted<'_> {
    type Error = &'static str;

    fn start(&mut self) -> Result<Vec<f32>, Self::Error> {
        Ok(self.rows(self.prompts))
    }

    fn advance(&mut self, tokens: &[u32], parents: &[usize]) -> Result<Vec<f32>, Self::Error> {
        assert_eq!(tokens.len(), parents.len());
        if self.steps > 40 {
            return Err("out of order");
        }
        Ok(self.rows(tokens.len()))
    }
}

type Outcome = Result<Vec<Vec<Generated>>, GenerateError<&'static str>>;

fn scripted(values: &[f32], vocabulary: usize, prompts: usize, config: &GenerateConfig) -> Outcome {
    let history = if config.forced_bos_token_id.is_some() { vec![70_000] } else { vec![0, 70_000] };
    let known = vec![PromptInfo { history, encoder: vec![0, 3, 70_000, 3], stream: 0 }; prompts];
    let mut model = Scripted { values, vocabulary, prompts, steps: 0 };
    generate(&mut model, Request { prompts: &known, vocabulary, config })
}

fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -30.0f32..30.0,
        1 => prop_oneof![Just(f32::NEG_INFINITY), Just(0.0), Just(-0.0), Just(f32::MIN), Just(f32::MAX)],
        1 => any::<f32>(),
    ]
}

fn any_config() -> impl Strategy<Value = GenerateConfig> {
    let search = prop_oneof![
        3 => Just(Search::Beam),
        1 => (0usize..5, -0.5f64..3.0)
            .prop_map(|(groups, penalty)| Search::DiverseBeam(DiverseBeam { groups, penalty })),
        1 => (prop_oneof![0.05f64..3.0, any::<f64>()], 0usize..9, 0.01f64..1.1, any::<u64>()).prop_map(
            |(temperature, top_k, top_p, seed)| Search::Sample(Sample { temperature, top_k, top_p, seed })
        ),
    ];
    let stopping = prop_oneof![Just(EarlyStopping::No), Just(EarlyStopping::Yes), Just(EarlyStopping::Never)];
    let limits = (0usize..8, 0usize..5, prop::collection::vec(0u32..6, 0..3), 0usize..7, 0usize..4);
    let penalty = || prop_oneof![3 => 0.1f64..3.0, 1 => Just(1.0), 1 => any::<f64>()];
    let words = prop::collection::vec(prop::collection::vec(0u32..6, 0..3), 0..3);
    let constraints = (0usize..4, 0usize..4, words, prop::option::of(0u32..6));
    (limits, penalty(), stopping, penalty(), search, constraints).prop_map(
        |(
            (max, min, end_tokens, num_beams, sequences),
            length_penalty,
            early_stopping,
            repetition,
            search,
            (no_repeat_ngram_size, encoder_no_repeat_ngram_size, bad_words_ids, forced_bos_token_id),
        )| {
            GenerateConfig {
                max_new_tokens: max,
                min_new_tokens: min,
                end_tokens,
                num_beams: if matches!(search, Search::Sample(_)) { 1 } else { num_beams },
                num_return_sequences: sequences,
                length_penalty,
                early_stopping,
                repetition_penalty: repetition,
                no_repeat_ngram_size,
                encoder_no_repeat_ngram_size,
                bad_words_ids,
                forced_bos_token_id,
                search,
            }
        },
    )
}

/// Settings that fit each other. Only the first new token is written where `one`.
fn valid_config(one: bool) -> impl Strategy<Value = GenerateConfig> {
    any_config()
        .prop_map(move |config| match one {
            true => GenerateConfig { max_new_tokens: 1, min_new_tokens: 0, ..config },
            false => config,
        })
        .prop_filter("the settings do not fit", |config| config.validate().is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_there_is_an_answer_that_makes_sense_or_an_error(
        config in prop_oneof![any_config(), valid_config(false), valid_config(true)],
        values in prop::collection::vec(logit(), 1..60),
        vocabulary in 0usize..12,
        prompts in 0usize..4,
    ) {
        let Ok(generated) = scripted(&values, vocabulary, prompts, &config) else { return Ok(()) };
        prop_assert_eq!(generated.len(), prompts);
        prop_assert!(config.validate().is_ok());
        for sequences in &generated {
            prop_assert!((1..=config.num_return_sequences).contains(&sequences.len()));
            prop_assert!(sequences.is_sorted_by(|a, b| a.score >= b.score));
            for Generated { ids, log_probability, score } in sequences {
                prop_assert!(!log_probability.is_nan() && !score.is_nan());
                prop_assert!(ids.iter().all(|&id| (id as usize) < vocabulary));
                prop_assert!((1..=config.max_new_tokens).contains(&ids.len()));
                let end = ids.iter().position(|id| config.end_tokens.contains(id));
                prop_assert_eq!(end.map_or(config.max_new_tokens, |place| place + 1), ids.len());
                let forced = config.forced_bos_token_id;
                prop_assert!(forced.is_none_or(|forced| ids[0] == forced));
                prop_assert!(end.is_none_or(|place| place >= config.min_new_tokens || forced.is_some()));
                let words = config.bad_words_ids.iter().filter(|word| word.len() > 1);
                for word in words {
                    prop_assert!(!ids.windows(word.len()).any(|window| window == word));
                }
            }
        }
    }

    #[test]
    fn a_row_with_one_nan_is_an_error_that_names_it(
        config in valid_config(true),
        values in prop::collection::vec(-9.0f32..9.0, 40),
        place in 0usize..33,
    ) {
        let mut values = values;
        values[place] = f32::NAN;
        let error = scripted(&values[..33], 11, 3, &config).unwrap_err().to_string();
        let expected = format!(
            "the logits for new token 1 of prompt {} (its row 0) are unusable: the score of token {} is not a number",
            place / 11,
            place % 11
        );
        prop_assert_eq!(error, expected);
    }
}

#[test]
fn a_nan_in_a_later_row_is_named_by_prompt_and_beam() {
    /// Good logits at first; then NaN in one row.
    struct Spoilt(usize);
    impl NextToken for Spoilt {
        type Error = &'static str;
        fn start(&mut self) -> Result<Vec<f32>, Self::Error> {
            Ok(vec![0.5; 2 * 5])
        }
        fn advance(&mut self, tokens: &[u32], _: &[usize]) -> Result<Vec<f32>, Self::Error> {
            let mut logits = vec![0.5; tokens.len() * 5];
            logits[self.0 * 5 + 2] = f32::NAN;
            Ok(logits)
        }
    }
    let prompts = [PromptInfo::default(), PromptInfo::default()];
    for (search, num_beams, sequences) in
        [(Search::Beam, 3, 1), (Search::Sample(Sample { seed: 1, ..Sample::default() }), 1, 3)]
    {
        let config = GenerateConfig {
            num_beams,
            search,
            num_return_sequences: sequences,
            ..GenerateConfig::default()
        };
        let request = Request { prompts: &prompts, vocabulary: 5, config: &config };
        let error = generate(&mut Spoilt(4), request).unwrap_err();
        let GenerateError::Logits { step: 2, prompt: 1, row: 1, .. } = error else { panic!("{error}") };
    }
}

#[test]
fn one_token_is_a_vocabulary() {
    let config = GenerateConfig { max_new_tokens: 3, num_beams: 2, ..GenerateConfig::default() };
    let generated = scripted(&[4.0], 1, 2, &config).unwrap();
    let only = Generated { ids: vec![0, 0, 0], log_probability: 0.0, score: 0.0 };
    assert_eq!(generated, vec![vec![only]; 2]);
    // a second sequence is not possible and must not be made up
    let config = GenerateConfig { num_return_sequences: 2, ..config };
    assert_eq!(scripted(&[4.0], 1, 2, &config).unwrap()[0].len(), 1);
}

#[test]
fn where_only_ends_are_possible_before_the_least_length_nothing_is_written() {
    let config = GenerateConfig { end_tokens: vec![0], min_new_tokens: 1, ..GenerateConfig::default() };
    for num_beams in [1, 4] {
        let config = GenerateConfig { num_beams, ..config.clone() };
        assert_eq!(
            scripted(&[4.0], 1, 1, &config),
            Err(GenerateError::NothingLeft { step: 1, prompt: 0 }),
            "{num_beams} beams"
        );
    }
    let config = GenerateConfig { search: Search::Sample(Sample::default()), ..config };
    assert_eq!(scripted(&[4.0], 1, 1, &config), Err(GenerateError::NothingLeft { step: 1, prompt: 0 }));
}

#[test]
fn an_end_outside_the_vocabulary_and_a_wrong_count_of_logits_are_errors() {
    let config = GenerateConfig { end_tokens: vec![5], ..GenerateConfig::default() };
    let error = scripted(&[1.0], 5, 1, &config).unwrap_err().to_string();
    assert_eq!(error, "end_tokens names 5, but the language model's vocabulary ends at 5");
    let config = GenerateConfig::default();
    let request = Request { prompts: &[PromptInfo::default()], vocabulary: 4, config: &config };
    let mut model = Scripted { values: &[1.0], vocabulary: 5, prompts: 1, steps: 0 };
    let error = generate(&mut model, request).unwrap_err().to_string();
    assert_eq!(error, "the language model gave 5 logits at new token 1, expected 1 rows of 4");
    let config = GenerateConfig { max_new_tokens: 100, ..GenerateConfig::default() };
    let error = scripted(&[1.0, 2.0], 2, 1, &config).unwrap_err().to_string();
    assert_eq!(error, "the language model failed at new token 42: \"out of order\"");
}
