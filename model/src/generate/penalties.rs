//! Changes of scores before the choice: diversity penalty, repetition penalty, excluded tokens, minimum
//! length, forced tokens.

use super::config::{DiverseBeam, GenerateConfig, Search};
use super::exclusions;

/// The changes at one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Penalties<'a> {
    config: &'a GenerateConfig,
    diversity: f32,
    repetition: f32,
    /// Number of new tokens before this one.
    generated: usize,
    /// Ends that come too early at this step.
    early: &'a [u32],
}

/// What the changes depend on besides the settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// The text so far, with the tokens before the new ones; may be empty unless
    /// [`Penalties::read_text`].
    pub(super) text: &'a [u32],
    /// [`PromptInfo::encoder`](super::PromptInfo::encoder).
    pub(super) encoder: &'a [u32],
    /// Tokens that beams of earlier groups chose at this step.
    pub(super) chosen: &'a [u32],
}

/// A token whose score changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) token: u32,
    /// Beams of earlier groups that chose the token at this step.
    chosen: u32,
    /// The text contains the token.
    repeated: bool,
    forbidden: bool,
}

impl<'a> Penalties<'a> {
    /// The penalties of the token after `generated` new ones.
    pub(super) fn new(config: &'a GenerateConfig, generated: usize) -> Self {
        let early = if generated < config.min_new_tokens { &config.end_tokens[..] } else { &[] };
        let diversity = match config.search {
            Search::DiverseBeam(DiverseBeam { penalty, .. }) => penalty as f32,
            Search::Beam | Search::Sample(_) => 0.0,
        };
        Self { config, diversity, repetition: config.repetition_penalty as f32, generated, early }
    }

    /// The only token that is possible at this step after `before` tokens and the new ones, if there is one.
    /// Its score is then 0, whatever the other settings make of it.
    pub(super) fn forced(&self, before: usize) -> Option<u32> {
        self.config.forced_bos_token_id.filter(|_| before + self.generated == 1)
    }

    /// Whether the changes depend on the text.
    pub(super) fn read_text(&self) -> bool {
        self.repetition != 1.0 || exclusions::read_text(self.config)
    }

    /// Collects the tokens whose scores change, sorted and without repeats: those of the text, those chosen
    /// by earlier groups, the forbidden ones. Tokens outside the vocabulary are left out.
    pub(super) fn changes(&self, context: Context<'_>, vocabulary: usize, changes: &mut Vec<Change>) {
        let Context { text, encoder, chosen } = context;
        let unchanged = |token| Change { token, chosen: 0, repeated: false, forbidden: false };
        let forbidden = |token| Change { forbidden: true, ..unchanged(token) };
        changes.clear();
        if self.repetition != 1.0 {
            changes.extend(text.iter().map(|&token| Change { repeated: true, ..unchanged(token) }));
        }
        changes.extend(chosen.iter().map(|&token| Change { chosen: 1, ..unchanged(token) }));
        changes.extend(self.early.iter().map(|&token| forbidden(token)));
        exclusions::for_each(self.config, text, encoder, |token| changes.push(forbidden(token)));
        changes.retain(|change| (change.token as usize) < vocabulary);
        changes.sort_unstable_by_key(|change| change.token);
        changes.dedup_by(|next, first| {
            let same = next.token == first.token;
            if same {
                first.chosen += next.chosen;
                first.repeated |= next.repeated;
                first.forbidden |= next.forbidden;
            }
            same
        });
    }

    /// The changed score, in the order in which Hugging Face applies its processors.
    pub(super) fn apply(&self, change: &Change, score: f32) -> f32 {
        if change.forbidden {
            return f32::NEG_INFINITY;
        }
        let score = if change.chosen > 0 { score - self.diversity * change.chosen as f32 } else { score };
        match change.repeated {
            false => score,
            true if score < 0.0 => score * self.repetition,
            true => score / self.repetition,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GenerateConfig {
        GenerateConfig {
            repetition_penalty: 2.0,
            min_new_tokens: 3,
            end_tokens: vec![1, 4],
            search: Search::DiverseBeam(DiverseBeam { groups: 2, penalty: 0.5 }),
            ..GenerateConfig::default()
        }
    }

    fn scores(written: usize, earlier: &[u32], chosen: &[u32], score: f32) -> Vec<(u32, f32)> {
        let config = config();
        let penalties = Penalties::new(&config, written);
        let mut changes = Vec::new();
        penalties.changes(Context { text: earlier, encoder: &[], chosen }, 9, &mut changes);
        changes.iter().map(|change| (change.token, penalties.apply(change, score))).collect()
    }

    #[test]
    fn a_repeated_token_is_penalised_once_and_on_the_side_of_its_sign() {
        assert_eq!(scores(3, &[5, 2, 5, 9], &[], -3.0), [(2, -6.0), (5, -6.0)]);
        assert_eq!(scores(3, &[5, 2, 5], &[], 3.0), [(2, 1.5), (5, 1.5)]);
    }

    #[test]
    fn diversity_counts_the_beams_and_comes_before_repetition() {
        assert_eq!(scores(3, &[5], &[5, 6, 5], -3.0), [(5, -8.0), (6, -3.5)]);
    }

    #[test]
    fn ends_are_impossible_until_the_least_length() {
        assert_eq!(scores(2, &[4], &[], -3.0), [(1, f32::NEG_INFINITY), (4, f32::NEG_INFINITY)]);
        assert_eq!(scores(3, &[], &[], -3.0), []);
    }
    #[test]
    fn excluded_tokens_are_impossible_whatever_the_penalties() {
        let config = GenerateConfig { no_repeat_ngram_size: 1, bad_words_ids: vec![vec![7]], ..config() };
        let penalties = Penalties::new(&config, 3);
        let mut changes = Vec::new();
        penalties.changes(Context { text: &[5, 8, 20], encoder: &[], chosen: &[5] }, 9, &mut changes);
        let excluded: Vec<u32> = changes.iter().map(|change| change.token).collect();
        assert_eq!(excluded, [5, 7, 8]);
        assert!(changes.iter().all(|change| penalties.apply(change, 1.0) == f32::NEG_INFINITY));
    }

    #[test]
    fn a_token_is_forced_after_the_first_of_the_text() {
        let config = GenerateConfig { forced_bos_token_id: Some(6), ..config() };
        let forced = |before, generated| Penalties::new(&config, generated).forced(before);
        assert_eq!([forced(1, 0), forced(0, 1)], [Some(6), Some(6)]);
        assert_eq!([forced(0, 0), forced(1, 1), forced(2, 0)], [None, None, None]);
    }
}
