//! The Penn Treebank tokeniser as coco-caption runs it.
//!
//! Equal to `edu.stanford.nlp.process.PTBTokenizer -preserveLines -lowerCase` of CoreNLP 3.4.1 followed by coco-caption's
//! list of punctuation to drop. It was written from observed behaviour: rules were guessed, millions of short texts were
//! put through both, and the differences corrected the rules until none was left.
//!
//! Kept from the reference: captions are one text, so how a caption ends may depend on how the next one begins
//! ("vitamin c." before "The boy" loses its period); brackets become `-lrb-` and the like and are kept, because the list
//! of what to drop has them in capitals and the text is lower case by then; `!!`, `?!` and `/` are kept as well.

mod alphabet;
mod characters;
mod lexer;
mod rules;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::Error;
use lexer::Lexer;
use rules::Action;

/// The tokens coco-caption drops after tokenising.
const DROPPED: [&str; 18] = [
    "", "''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...",
    ";",
];

/// Captions after tokenisation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenizedCaptions {
    /// Each caption's words joined by single spaces, punctuation dropped, in the order given.
    pub captions: Vec<String>,
    /// Characters the reference deletes without a trace (emoji, controls, letters younger than it), with their counts.
    pub deleted: BTreeMap<char, usize>,
}

/// Tokenises a whole list of captions as one text, as coco-caption does.
///
/// Hypotheses and references are two separate lists. A newline inside a caption becomes a space.
///
/// # Errors
/// [`Error::LineEnd`] when a caption holds another line end: the reference would shift every caption after it by one.
pub fn tokenize_all<S: AsRef<str>>(captions: &[S]) -> Result<TokenizedCaptions, Error> {
    let raw = tokenize_raw(captions)?;
    let captions = raw.captions.iter().map(|line| drop_punctuation(line)).collect();
    Ok(TokenizedCaptions { captions, deleted: raw.deleted })
}

/// As [`tokenize_all`], with the punctuation still in.
///
/// # Errors
/// As [`tokenize_all`].
pub fn tokenize_raw<S: AsRef<str>>(captions: &[S]) -> Result<TokenizedCaptions, Error> {
    let mut text = String::new();
    for (place, caption) in captions.iter().enumerate() {
        let caption = caption.as_ref();
        if let Some(character) = line_end(caption) {
            return Err(Error::LineEnd { place: format!("caption {place}"), character });
        }
        if place > 0 {
            text.push('\n');
        }
        text.extend(caption.chars().map(|c| if c == '\n' { ' ' } else { c }));
    }
    let mut tokens = run(&text)?;
    // A text that ends in newlines has fewer lines than captions only if the last ones are empty.
    tokens.captions.resize(captions.len(), String::new());
    Ok(tokens)
}

/// The first character at which the reference would end a line, but for the newline, which becomes a space.
pub(crate) fn line_end(caption: &str) -> Option<char> {
    caption.chars().find(|c| alphabet::LINE_ENDS.contains(c))
}

fn drop_punctuation(line: &str) -> String {
    let kept: Vec<&str> = line.trim_end().split(' ').filter(|token| !DROPPED.contains(token)).collect();
    kept.join(" ")
}

static LEXER: LazyLock<Result<Lexer, String>> =
    LazyLock::new(|| Lexer::new().map_err(|error| error.to_string()));

fn run(text: &str) -> Result<TokenizedCaptions, Error> {
    let lexer =
        LEXER.as_ref().map_err(|error| Error::Bug { what: format!("the tokeniser's rules: {error}") })?;
    let mut caches = lexer.caches();
    let characters: Vec<char> = text.chars().collect();
    let symbols: Vec<u8> = characters.iter().map(|&c| alphabet::symbol(c)).collect();

    let mut output = Output::default();
    let mut place = 0;
    while place < characters.len() {
        let Some(found) = lexer.next(&mut caches, &symbols, place) else {
            output.delete(characters[place]);
            place += 1;
            continue;
        };
        let own: String = characters[place..place + found.length].iter().collect();
        place += found.length;
        match found.action {
            Action::Keep => output.push(&own.to_lowercase()),
            Action::Mend => output.push(&mend(&own)),
            Action::Tag => output.push(&own.to_lowercase().replace(' ', "\u{a0}")),
            Action::Face => output.push(&name_round_brackets(&own.to_lowercase())),
            Action::Lean => output.push(&plain_apostrophe(&own)),
            Action::Put(token) => output.push(token),
            Action::Cut(length) => {
                output.push(&own.chars().take(length).collect::<String>().to_lowercase());
                place -= found.length - length;
            }
            Action::KeepPeriod => {
                output.push(&own.to_lowercase());
                place -= 1;
            }
            Action::Quotes => output.push(&own.chars().map(ascii_quote).collect::<String>()),
            Action::Fraction => output.push(fraction(&own)),
            Action::Skip => own
                .chars()
                .filter(|&c| alphabet::is_deleted(c))
                .for_each(|character| output.delete(character)),
            Action::LineEnd => output.end_line(),
        }
    }
    output.end_line();
    Ok(output.finished)
}

/// The lines so far and the one being written.
#[derive(Default)]
struct Output {
    finished: TokenizedCaptions,
    line: String,
}

impl Output {
    fn push(&mut self, token: &str) {
        if !self.line.is_empty() {
            self.line.push(' ');
        }
        // A quoted attribute of a tag may run over the end of a caption; the reference prints that end inside it.
        for (place, part) in token.split('\n').enumerate() {
            if place > 0 {
                self.end_line();
            }
            self.line.push_str(part);
        }
    }

    fn end_line(&mut self) {
        self.finished.captions.push(std::mem::take(&mut self.line));
    }

    fn delete(&mut self, character: char) {
        *self.finished.deleted.entry(character).or_insert(0) += 1;
    }
}

fn mend(token: &str) -> String {
    let token = token.to_lowercase().replace('\u{ad}', "").replace("&amp;", "&").replace(' ', "\u{a0}");
    if token.is_empty() {
        // It was soft hyphens only.
        return "-".to_owned();
    }
    let token = name_round_brackets(&token);
    token.replace('[', "-lsb-").replace(']', "-rsb-").replace('{', "-lcb-").replace('}', "-rcb-")
}

fn name_round_brackets(token: &str) -> String {
    token.replace('(', "-lrb-").replace(')', "-rrb-")
}

fn plain_apostrophe(token: &str) -> String {
    let token = token.to_lowercase().replace("&apos;", "'");
    token.replace(['’', '\u{92}'], "'").replace(['‘', '‛', '\u{91}'], "`")
}

fn ascii_quote(mark: char) -> &'static str {
    match mark {
        '“' | '«' | '\u{93}' => "``",
        '”' | '»' | '\u{94}' => "''",
        '’' | '›' | '\u{92}' => "'",
        '‚' => "‚",
        '„' => "„",
        '‟' => "‟",
        _ => "`",
    }
}

fn fraction(character: &str) -> &'static str {
    match character {
        "¼" => "1/4",
        "½" => "1/2",
        "¾" => "3/4",
        "⅓" => "1/3",
        _ => "2/3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(captions: &[&str]) -> Vec<String> {
        tokenize_all(captions).unwrap().captions
    }

    #[test]
    fn context_crosses_the_end_of_a_caption() {
        assert_eq!(tokens(&["vitamin c.", "The boy"]), ["vitamin c", "the boy"]);
        assert_eq!(tokens(&["vitamin c.", "boys"]), ["vitamin c.", "boys"]);
        assert_eq!(tokens(&["there are no.", "2 men"]), ["there are no.", "2 men"]);
        assert_eq!(tokens(&["there are no.", "two men"]), ["there are no", "two men"]);
    }

    #[test]
    fn named_brackets_are_kept() {
        assert_eq!(tokens(&["a man (in red) {x}"]), ["a man -lrb- in red -rrb- -lcb- x -rcb-"]);
    }

    #[test]
    fn only_the_listed_punctuation_is_dropped() {
        assert_eq!(tokens(&["wow!! what?! a/b / * & - -- ; : , . ! ?"]), ["wow !! what ?! a/b / * &"]);
    }

    #[test]
    fn empty_captions_keep_their_place() {
        assert_eq!(tokens(&["", "a", "", "b", "", ""]), ["", "a", "", "b", "", ""]);
        assert_eq!(tokens(&[]), Vec::<String>::new());
        assert_eq!(tokens(&["...", "x"]), ["", "x"]);
    }

    #[test]
    fn a_newline_is_a_space_and_other_line_ends_are_refused() {
        assert_eq!(tokens(&["a\nb", "c"]), ["a b", "c"]);
        let error = tokenize_all(&["a", "b\u{2028}c"]).unwrap_err();
        assert!(matches!(error, Error::LineEnd { character: '\u{2028}', .. }), "{error}");
    }

    #[test]
    fn deleted_characters_are_counted() {
        let tokens = tokenize_all(&["a 😀 dog 😀\u{1}"]).unwrap();
        assert_eq!(tokens.captions, ["a dog"]);
        assert_eq!(tokens.deleted, BTreeMap::from([('😀', 2), ('\u{1}', 1)]));
    }

    #[test]
    fn the_end_of_the_text_is_not_a_line_end() {
        // With nothing after it, "etc." ends the sentence and a face is not one.
        assert_eq!(tokenize_raw(&["etc."]).unwrap().captions, ["etc. ."]);
        assert_eq!(tokenize_raw(&[":)"]).unwrap().captions, [": -rrb-"]);
        assert_eq!(tokenize_raw(&[":)", ""]).unwrap().captions, [":-rrb-", ""]);
    }
}
