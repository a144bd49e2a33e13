//! METEOR's own tokenisation (`-norm`), applied to captions that are tokenised already.
//!
//! It changes the words of the Penn Treebank tokeniser: "man 's" becomes three words, "t-shirt" two, "u.s."
//! loses its periods. Each step replaces non-overlapping matches from left to right: "a-b-c" becomes "a b-c".
//! Character classes are explicit, since Java's `\s` and `\d` are ASCII and Rust's are not.

use std::collections::HashMap;

/// When a word keeps the period after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    /// Always.
    Any,
    /// Before a number.
    BeforeNumber,
}

/// The words that keep their period.
pub(super) type Prefixes = HashMap<String, Prefix>;

/// Reads METEOR's list: a word a line, `#` begins a comment, which may say `NUMERIC_ONLY`.
pub(super) fn read_prefixes(text: &str) -> Prefixes {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let words = lines.filter_map(|line| {
        let word = line.split('#').next().unwrap_or_default().trim();
        let kind = if line.contains("#NUMERIC_ONLY#") { Prefix::BeforeNumber } else { Prefix::Any };
        (!word.is_empty()).then(|| (word.to_owned(), kind))
    });
    words.collect()
}

/// The words METEOR compares, in lower case.
pub(super) fn normalize(line: &str, prefixes: &Prefixes) -> Vec<String> {
    let mut text: Vec<char> = Vec::with_capacity(line.len() + 16);
    text.push(' ');
    for c in line.chars() {
        if is_alphanumeric(c) || is_space(c) || matches!(c, '.' | '\'' | '`' | ',' | '-' | '‘' | '’') {
            text.push(c);
        } else {
            text.extend([' ', c, ' ']);
        }
    }
    text.push(' ');

    let mut text = hide_runs_of_periods(text);
    for (left, right) in [(false, false), (true, false), (false, true)] {
        let matches = |a: char, b: char| a.is_ascii_digit() == left && b.is_ascii_digit() == right;
        text = replace_between(&text, ',', matches, &[' ', ',', ' ']);
    }
    for c in &mut text {
        match c {
            '`' | '‘' | '’' => *c = '\'',
            _ => {}
        }
    }
    text = replace(&text, &['\'', '\''], &[' ', '"', ' ']);
    text = replace(&text, &['“'], &[' ', '"', ' ']);
    text = replace(&text, &['”'], &[' ', '"', ' ']);
    text = replace(&text, &['–'], &['-']);
    text = replace(&text, &['-', '-'], &['-']);
    text = replace_between(
        &text,
        '-',
        |left, right| (is_alphanumeric(left) || left == '.') && is_alphanumeric(right),
        &[' '],
    );
    text = split_apostrophes(&text);

    let text: String = text.into_iter().collect();
    let words: Vec<&str> =
        text.split([' ', '\t', '\n', '\r', '\u{c}']).filter(|word| !word.is_empty()).collect();
    let mut out = String::with_capacity(text.len());
    for (place, word) in words.iter().enumerate() {
        end_word(&mut out, word, words.get(place + 1).copied().unwrap_or_default(), prefixes);
        out.push(' ');
    }
    let out = show_runs_of_periods(&out).to_lowercase();
    out.split(is_collapsed_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Appends a word, with its last period kept, dropped or separated.
fn end_word(out: &mut String, word: &str, next: &str, prefixes: &Prefixes) {
    let Some(stem) = word.strip_suffix('.').filter(|stem| !stem.is_empty()) else {
        out.push_str(word);
        return;
    };
    if stem.contains('.') && stem.chars().any(is_letter) {
        // An abbreviation such as "u.s." becomes one word.
        out.extend(stem.chars().filter(|&c| c != '.'));
        return;
    }
    let prefix = prefixes.get(stem);
    let keeps = prefix == Some(&Prefix::Any)
        || next.starts_with(|c: char| c.is_ascii_lowercase())
        || prefix == Some(&Prefix::BeforeNumber) && next.starts_with(|c: char| c.is_ascii_digit());
    if keeps {
        out.push_str(word);
    } else {
        out.push_str(stem);
        out.push_str(" .");
    }
}

/// Replaces two and more periods by a word that later steps do not change.
fn hide_runs_of_periods(text: Vec<char>) -> Vec<char> {
    // the last pair is the end of the marker followed by a period
    let marker = ['I', '.'];
    if !text.windows(2).any(|pair| pair == ['.', '.'] || pair == marker) {
        return text;
    }
    let mut hidden = String::with_capacity(text.len() + 16);
    let mut place = 0;
    while place < text.len() {
        let run = text[place..].iter().take_while(|&&c| c == '.').count();
        if run >= 2 {
            // The reference takes one period at a time into the word. The text never ends with a period, but
            // with a space.
            hidden.push(' ');
            hidden.push_str(&"DOT".repeat(run - 1));
            hidden.push_str("DOTMULTI ");
            place += run;
        } else {
            hidden.push(text[place]);
            place += 1;
        }
    }
    while hidden.contains("DOTMULTI.") {
        let mut out = String::with_capacity(hidden.len() + 16);
        let mut rest = hidden.as_str();
        while let Some(found) = rest.find("DOTMULTI.") {
            out.push_str(&rest[..found]);
            rest = &rest[found + "DOTMULTI.".len()..];
            out.push_str("DOTDOTMULTI");
            if !rest.is_empty() && !rest.starts_with('.') {
                out.push(' ');
            }
        }
        out.push_str(rest);
        hidden = out;
    }
    hidden.chars().collect()
}

/// Turns the words of [`hide_runs_of_periods`] back into periods: one for "DOTMULTI", one for each "DOT"
/// before it.
fn show_runs_of_periods(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find("DOTMULTI") {
        let before = rest[..found].trim_end_matches("DOT");
        out.push_str(before);
        out.extend(std::iter::repeat_n('.', 1 + (found - before.len()) / "DOT".len()));
        rest = &rest[found + "DOTMULTI".len()..];
    }
    out.push_str(rest);
    out
}

fn split_apostrophes(text: &[char]) -> Vec<char> {
    let apart = [' ', '\'', ' '];
    let text = replace_between(text, '\'', |a, b| !is_letter(a) && !is_letter(b), &apart);
    let text =
        replace_between(&text, '\'', |a, b| !is_letter(a) && !a.is_ascii_digit() && is_letter(b), &apart);
    let text = replace_between(&text, '\'', |a, b| is_letter(a) && !is_letter(b), &apart);
    let text = replace_between(&text, '\'', |a, b| is_letter(a) && is_letter(b), &[' ', '\'']);
    replace_between(&text, '\'', |a, b| a.is_ascii_digit() && b == 's', &[' ', '\''])
}

/// Replaces `middle` between two characters that pass the test. Matches do not overlap: the right character
/// is not the left one of the next match.
fn replace_between(
    text: &[char],
    middle: char,
    matches: impl Fn(char, char) -> bool,
    by: &[char],
) -> Vec<char> {
    if !text.contains(&middle) {
        return text.to_vec();
    }
    let mut out = Vec::with_capacity(text.len() + 8);
    let mut place = 0;
    while place < text.len() {
        match text[place..] {
            [left, found, right, ..] if found == middle && matches(left, right) => {
                out.push(left);
                out.extend_from_slice(by);
                out.push(right);
                place += 3;
            }
            _ => {
                out.push(text[place]);
                place += 1;
            }
        }
    }
    out
}

fn replace(text: &[char], what: &[char], by: &[char]) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len());
    let mut place = 0;
    while place < text.len() {
        if text[place..].starts_with(what) {
            out.extend_from_slice(by);
            place += what.len();
        } else {
            out.push(text[place]);
            place += 1;
        }
    }
    out
}

/// METEOR's letters: Latin and Cyrillic.
fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic()
        || matches!(c,
            'Š' | 'Ž' | 'š' | 'ž' | 'Ÿ' | 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ž'
            | '\u{400}'..='\u{4ff}' | '\u{500}'..='\u{527}' | '\u{a640}'..='\u{a66e}'
            | '\u{a67e}'..='\u{a697}' | '\u{1d00}'..='\u{1d7f}')
}

fn is_alphanumeric(c: char) -> bool {
    c.is_ascii_digit() || is_letter(c)
}

/// Java's `\s`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

fn is_collapsed_space(c: char) -> bool {
    matches!(c, ' ' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\u{a0}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> String {
        let prefixes = read_prefixes("# a comment\nMr\nv\nvs\nrev\npp #NUMERIC_ONLY#\n");
        normalize(line, &prefixes).join(" ")
    }

    #[test]
    fn what_the_treebank_tokeniser_split_is_split_otherwise() {
        assert_eq!(words("the man 's dog does n't run"), "the man ' s dog does n 't run");
        assert_eq!(words("t-shirt at&t 1/2 1\u{a0}1/2"), "t shirt at & t 1 / 2 1 1 / 2");
    }

    #[test]
    fn a_hyphen_uses_up_its_neighbours() {
        assert_eq!(words("a-b-c"), "a b-c");
        assert_eq!(words("up-to-date"), "up to date");
    }

    #[test]
    fn periods_of_abbreviations() {
        assert_eq!(words("u.s. and p.m."), "us and pm");
        assert_eq!(words("mr. smith"), "mr. smith");
        assert_eq!(words("mr. 5"), "mr . 5");
        assert_eq!(words("rev. 5 pp. 5 pp. x"), "rev. 5 pp. 5 pp. x");
        assert_eq!(words("the end."), "the end .");
    }

    #[test]
    fn runs_of_periods_stay_together() {
        assert_eq!(words("away ... now"), "away ... now");
        assert_eq!(words("a..b"), "a .. b");
    }

    #[test]
    fn long_runs_of_periods_take_no_longer_than_their_length() {
        // One period at a time, 200,000 of them would take minutes.
        let run = ".".repeat(200_000);
        assert_eq!(words(&format!("a{run}b")), format!("a {run} b"));
    }

    #[test]
    fn the_marker_itself_in_a_caption_is_periods() {
        assert_eq!(words("a DOTMULTI b"), "a . b");
        assert_eq!(words("a DOTMULTI.b"), "a .. b");
        assert_eq!(words("xDOTDOTMULTI DOT"), "x.. dot");
    }

    #[test]
    fn commas_inside_numbers_stay() {
        assert_eq!(words("10,000 a,b 1,b"), "10,000 a , b 1 , b");
    }
}
