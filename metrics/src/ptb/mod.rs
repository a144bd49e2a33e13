//! The Penn Treebank tokeniser as coco-caption runs it.
//!
//! Equal to `edu.stanford.nlp.process.PTBTokenizer -preserveLines -lowerCase` of CoreNLP 3.4.1 followed by
//! coco-caption's list of punctuation to drop. It was derived from observed behaviour: the rules were
//! corrected until millions of short texts gave equal results.
//!
//! Kept from the reference: captions are one text, so how a caption ends may depend on how the next one
//! begins ("vitamin c." before "The boy" loses its period); brackets become `-lrb-` and the like and are
//! kept, because the list of dropped tokens has them in capitals and the text is in lower case; `!!`, `?!`
//! and `/` are kept as well.

mod alphabet;
mod characters;
mod lexer;
mod rules;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::LazyLock;

use rayon::prelude::*;

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
    /// Characters that the reference deletes (emoji, controls, newer letters), with their counts.
    pub deleted: BTreeMap<char, usize>,
}

/// Tokenises a whole list of captions as one text, as coco-caption does.
///
/// Hypotheses and references are two separate lists. A newline inside a caption becomes a space.
///
/// # Errors
/// [`Error::LineEnd`] when a caption holds another line end: the reference would shift every caption after it
/// by one.
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
    // the first bytes of such characters; few captions have one
    let may_be = |byte: u8| matches!(byte, b'\r' | 0x0b | 0x0c | 0xc2 | 0xe2);
    if !caption.bytes().any(may_be) {
        return None;
    }
    caption.chars().find(|c| alphabet::LINE_ENDS.contains(c))
}

fn drop_punctuation(line: &str) -> String {
    let mut kept = String::with_capacity(line.len());
    for token in line.trim_end().split(' ') {
        // most tokens are words, and no dropped token is a word
        if !token.starts_with(|c: char| c.is_ascii_alphanumeric()) && DROPPED.contains(&token) {
            continue;
        }
        if !kept.is_empty() {
            kept.push(' ');
        }
        kept.push_str(token);
    }
    kept
}

static LEXER: LazyLock<Result<Lexer, String>> =
    LazyLock::new(|| Lexer::new().map_err(|error| error.to_string()));

/// Tokenises a text in pieces of whole lines, in parallel.
///
/// A token depends only on the text after it, so a piece that begins with a line gives the same tokens as in
/// the whole text, unless a token of the previous piece continues over the line's end. Then the whole text is
/// read sequentially.
fn run(text: &str) -> Result<TokenizedCaptions, Error> {
    let lexer =
        LEXER.as_ref().map_err(|error| Error::Bug { what: format!("the tokeniser's rules: {error}") })?;
    let characters: Vec<char> = text.chars().collect();
    let symbols: Vec<u8> = characters.iter().map(|&c| alphabet::symbol(c)).collect();
    let reading = Reading { lexer, characters: &characters, symbols: &symbols };

    let pieces = pieces(&symbols, 4 * rayon::current_num_threads());
    if pieces.len() > 1 {
        let outputs: Vec<Option<Output>> =
            pieces.par_iter().map(|piece| reading.read_lines(piece.clone())).collect();
        if let Some(outputs) = outputs.into_iter().collect::<Option<Vec<Output>>>() {
            let mut whole = TokenizedCaptions::default();
            for output in outputs {
                whole.captions.extend(output.finished.captions);
                for (character, count) in output.finished.deleted {
                    *whole.deleted.entry(character).or_insert(0) += count;
                }
            }
            return Ok(whole);
        }
    }
    Ok(reading.read(0..characters.len()).0.finished)
}

/// Cuts a text after ends of lines into at most `max` pieces of about the same size, none of them small.
fn pieces(symbols: &[u8], max: usize) -> Vec<Range<usize>> {
    let size = symbols.len().div_ceil(max).max(SMALLEST_PIECE);
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < symbols.len() {
        let after = (start + size).min(symbols.len());
        let line = symbols[after..].iter().position(|&symbol| symbol == b'\n');
        let end = line.map_or(symbols.len(), |line| after + line + 1);
        pieces.push(start..end);
        start = end;
    }
    pieces
}

/// Minimum size of a piece in characters, as each piece fills its own caches.
const SMALLEST_PIECE: usize = 20_000;

/// A text that is being read.
struct Reading<'a> {
    lexer: &'a Lexer,
    characters: &'a [char],
    symbols: &'a [u8],
}

impl Reading<'_> {
    /// Reads a piece that ends with a line; `None` when its tokens don't.
    fn read_lines(&self, piece: Range<usize>) -> Option<Output> {
        let is_last = piece.end == self.symbols.len();
        let lines = self.symbols[piece.clone()].iter().filter(|&&symbol| symbol == b'\n').count();
        let (mut output, end) = self.read(piece.clone());
        // The line after the last line end is the next piece's.
        if !is_last && output.finished.captions.pop().is_none_or(|line| !line.is_empty()) {
            return None;
        }
        let expected = lines + usize::from(is_last);
        (end == piece.end && output.finished.captions.len() == expected).then_some(output)
    }

    /// Reads tokens from the start of a range until its end is reached; also returns where the last token
    /// ends.
    fn read(&self, range: Range<usize>) -> (Output, usize) {
        let Self { lexer, characters, symbols } = *self;
        let mut caches = lexer.caches();
        let mut output = Output::default();
        let mut place = range.start;
        while place < range.end {
            if symbols[place] == b' ' {
                place += 1; // no token begins with a space
                continue;
            }
            let Some(found) = lexer.next(&mut caches, symbols, place) else {
                output.delete(characters[place]);
                place += 1;
                continue;
            };
            let own = &characters[place..place + found.length];
            let is_plain = |&c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '\'');
            place += found.length;
            if matches!(found.action, Action::Keep | Action::Rewrite | Action::Clitic)
                && own.iter().all(is_plain)
            {
                output.push_plain(own);
                continue;
            }
            let own: String = own.iter().collect();
            match found.action {
                Action::Keep => output.push(&own.to_lowercase()),
                Action::Rewrite => output.push(&rewrite(&own)),
                Action::Tag => output.push(&own.to_lowercase().replace(' ', "\u{a0}")),
                Action::Face => output.push(&name_round_brackets(&own.to_lowercase())),
                Action::Clitic => output.push(&plain_apostrophe(&own)),
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
        (output, place)
    }
}

/// The finished lines and the current one.
#[derive(Default)]
struct Output {
    finished: TokenizedCaptions,
    line: String,
}

impl Output {
    /// A token whose characters need no mending.
    fn push_plain(&mut self, token: &[char]) {
        if !self.line.is_empty() {
            self.line.push(' ');
        }
        self.line.extend(token.iter().map(char::to_ascii_lowercase));
    }

    fn push(&mut self, token: &str) {
        if !self.line.is_empty() {
            self.line.push(' ');
        }
        // A quoted attribute of a tag may run over the end of a caption; the reference prints that end inside
        // it.
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

fn rewrite(token: &str) -> String {
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

    #[test]
    fn a_long_text_is_read_as_a_short_one() {
        // Long enough for several pieces; the contexts that cross line ends come up at their seams, too.
        let lines =
            ["vitamin c.", "The boy", "there are no.", "2 men", "etc.", "a <b c='", "x'> y", "don't :)", ""];
        let captions: Vec<&str> = (0..12_000_usize).map(|i| lines[(i * i / 3 + i) % lines.len()]).collect();
        let text = captions.join("\n");
        let characters: Vec<char> = text.chars().collect();
        let symbols: Vec<u8> = characters.iter().map(|&c| alphabet::symbol(c)).collect();
        assert!(pieces(&symbols, 8).len() > 3);
        let lexer = LEXER.as_ref().unwrap();
        let reading = Reading { lexer, characters: &characters, symbols: &symbols };
        let whole = reading.read(0..characters.len()).0.finished;
        for threads in 1..9 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| run(&text)).unwrap(), whole);
        }
    }

    #[test]
    fn a_token_over_the_seam_of_two_pieces_is_seen() {
        let text = "a <b c='\n\nx'> y\nz\n";
        let characters: Vec<char> = text.chars().collect();
        let symbols: Vec<u8> = characters.iter().map(|&c| alphabet::symbol(c)).collect();
        let lexer = LEXER.as_ref().unwrap();
        let reading = Reading { lexer, characters: &characters, symbols: &symbols };
        let seam = text.find('\n').unwrap() + 1;
        assert!(reading.read_lines(0..seam).is_none(), "the tag runs over it");
        let seam = text.find('z').unwrap();
        assert!(reading.read_lines(0..seam).is_some());
    }
}
