//! Longest match first: the rules compiled into one automaton, and the loop that runs it.

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, MatchKind};

use super::rules::{Action, Rule, rules};

/// The compiled rules.
pub(super) struct Lexer {
    /// Every rule's pattern followed by what it wants to see next, in the order of precedence.
    whole: DFA,
    /// The pattern alone, for the rules that look ahead.
    parts: Vec<Option<(DFA, DFA)>>,
    rules: Vec<Rule>,
}

/// Caches for the lazily built states of the automata.
pub(super) struct Caches {
    whole: Cache,
    parts: Vec<Option<(Cache, Cache)>>,
}

/// One match: which rule, and how many characters are its own (what it only looked at is left out).
pub(super) struct Match {
    pub(super) action: Action,
    pub(super) length: usize,
}

impl Lexer {
    pub(super) fn new() -> Result<Self, Box<regex_automata::hybrid::BuildError>> {
        let rules = rules();
        let whole: Vec<String> =
            rules.iter().map(|rule| format!("(?:{})(?:{})", rule.pattern, rule.ahead)).collect();
        let parts = rules.iter().map(|rule| {
            if rule.ahead.is_empty() {
                return Ok(None);
            }
            Ok(Some((automaton(&[&rule.pattern])?, automaton(&[&rule.ahead])?)))
        });
        Ok(Self { whole: automaton(&whole)?, parts: parts.collect::<Result<_, Box<_>>>()?, rules })
    }

    pub(super) fn caches(&self) -> Caches {
        Caches {
            whole: self.whole.create_cache(),
            parts: self
                .parts
                .iter()
                .map(|part| part.as_ref().map(|(own, ahead)| (own.create_cache(), ahead.create_cache())))
                .collect(),
        }
    }

    /// The match at `start`, or `None` where no rule matches: the reference deletes that character.
    pub(super) fn next(&self, caches: &mut Caches, text: &[u8], start: usize) -> Option<Match> {
        let (end, rule) = longest(&self.whole, &mut caches.whole, &text[start..], |_| true)?;
        let length = match (&self.parts[rule], &mut caches.parts[rule]) {
            (Some((own, ahead)), Some((own_cache, ahead_cache))) => {
                let text = &text[start..start + end];
                // The longest own part after which the rest is exactly what the rule wants to see.
                longest(own, own_cache, text, |split| {
                    longest(ahead, ahead_cache, &text[split..], |_| true)
                        .is_some_and(|(seen, _)| split + seen == text.len())
                })?
                .0
            }
            _ => end,
        };
        Some(Match { action: self.rules[rule].action, length })
    }
}

fn automaton<P: AsRef<str>>(patterns: &[P]) -> Result<DFA, Box<regex_automata::hybrid::BuildError>> {
    DFA::builder()
        .configure(DFA::config().match_kind(MatchKind::All).skip_cache_capacity_check(true))
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .thompson(thompson::Config::new().utf8(false))
        .build_many(patterns)
        .map_err(Box::new)
}

/// The longest anchored match that passes the check: its end, and the earliest of the rules that match so
/// far.
fn longest(
    dfa: &DFA,
    cache: &mut Cache,
    text: &[u8],
    mut accept: impl FnMut(usize) -> bool,
) -> Option<(usize, usize)> {
    let mut state =
        dfa.start_state(cache, &regex_automata::util::start::Config::new().anchored(Anchored::Yes)).ok()?;
    let mut best = None;
    for place in 0..=text.len() {
        state = match text.get(place) {
            Some(&byte) => dfa.next_state(cache, state, byte).ok()?,
            None => dfa.next_eoi_state(cache, state).ok()?,
        };
        if state.is_tagged() {
            // this automaton reports a match one step late
            if state.is_match() && accept(place) {
                let rules =
                    (0..dfa.match_len(cache, state)).map(|i| dfa.match_pattern(cache, state, i).as_usize());
                best = rules.min().map(|rule| (place, rule));
            } else if state.is_dead() || state.is_quit() {
                break;
            }
        }
    }
    best
}
