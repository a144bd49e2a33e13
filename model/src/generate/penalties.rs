//! Changes of scores before the choice: diversity penalty, repetition penalty, minimum length.

use super::config::{DiverseBeam, GenerateConfig, Search};

/// The changes at one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Penalties<'a> {
    diversity: f32,
    repetition: f32,
    /// Tokens that are excluded at this step.
    forbidden: &'a [u32],
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
        let forbidden = if generated < config.min_new_tokens { &config.end_tokens[..] } else { &[] };
        let diversity = match config.search {
            Search::DiverseBeam(DiverseBeam { penalty, .. }) => penalty as f32,
            Search::Beam | Search::Sample(_) => 0.0,
        };
        Self { diversity, repetition: config.repetition_penalty as f32, forbidden }
    }

    /// Collects the tokens whose scores change, sorted and without repeats: those `earlier` in the text,
    /// those `chosen` by earlier groups, the forbidden ones. Tokens outside the vocabulary are left out.
    pub(super) fn changes(
        &self,
        earlier: impl Iterator<Item = u32>,
        chosen: &[u32],
        vocabulary: usize,
        changes: &mut Vec<Change>,
    ) {
        let unchanged = |token| Change { token, chosen: 0, repeated: false, forbidden: false };
        changes.clear();
        if self.repetition != 1.0 {
            changes.extend(earlier.map(|token| Change { repeated: true, ..unchanged(token) }));
        }
        changes.extend(chosen.iter().map(|&token| Change { chosen: 1, ..unchanged(token) }));
        changes.extend(self.forbidden.iter().map(|&token| Change { forbidden: true, ..unchanged(token) }));
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
        penalties.changes(earlier.iter().copied(), chosen, 9, &mut changes);
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
}
