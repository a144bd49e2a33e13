//! Accuracy of short answers (MSRVTT-QA, MSVD-QA) after the VQA challenge's normalisation.
//!
//! The normalisation is that of the challenge, with all quirks, as in LAVIS: a punctuation mark is replaced
//! by a space, but deleted if it is next to a space anywhere in the answer or a comma is between two digits
//! anywhere in it; the first 32 periods without a digit after them are deleted; number words become digits,
//! articles are deleted, contractions get their apostrophe.
//!
//! Both sides are always normalised. The challenge normalises the annotators' answers only if they differ;
//! with one answer per question that would compare a normalised prediction with a raw answer.

use crate::ngram::python_split;

/// Number words.
#[rustfmt::skip]
const NUMBERS: [(&str, &str); 12] = [
    ("none", "0"), ("zero", "0"), ("one", "1"), ("two", "2"), ("three", "3"), ("four", "4"),
    ("five", "5"), ("six", "6"), ("seven", "7"), ("eight", "8"), ("nine", "9"), ("ten", "10"),
];

const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// Contractions with missing apostrophes; "somebody'd" loses its apostrophe. The challenge's list also has
/// some in capitals, which never match, as the answer is in lower case.
#[rustfmt::skip]
const CONTRACTIONS: [(&str, &str); 114] = [
    ("aint", "ain't"), ("arent", "aren't"), ("cant", "can't"), ("couldve", "could've"),
    ("couldnt", "couldn't"), ("couldn'tve", "couldn't've"), ("couldnt've", "couldn't've"),
    ("didnt", "didn't"), ("doesnt", "doesn't"), ("dont", "don't"), ("hadnt", "hadn't"),
    ("hadnt've", "hadn't've"), ("hadn'tve", "hadn't've"), ("hasnt", "hasn't"), ("havent", "haven't"),
    ("hed", "he'd"), ("hed've", "he'd've"), ("he'dve", "he'd've"), ("hes", "he's"), ("howd", "how'd"),
    ("howll", "how'll"), ("hows", "how's"), ("isnt", "isn't"), ("itd", "it'd"), ("itd've", "it'd've"),
    ("it'dve", "it'd've"), ("itll", "it'll"), ("maam", "ma'am"), ("mightnt", "mightn't"),
    ("mightnt've", "mightn't've"), ("mightn'tve", "mightn't've"), ("mightve", "might've"),
    ("mustnt", "mustn't"), ("mustve", "must've"), ("neednt", "needn't"), ("notve", "not've"),
    ("oclock", "o'clock"), ("oughtnt", "oughtn't"), ("ow's'at", "'ow's'at"), ("'ows'at", "'ow's'at"),
    ("'ow'sat", "'ow's'at"), ("shant", "shan't"), ("shed've", "she'd've"), ("she'dve", "she'd've"),
    ("shouldve", "should've"), ("shouldnt", "shouldn't"), ("shouldnt've", "shouldn't've"),
    ("shouldn'tve", "shouldn't've"), ("somebody'd", "somebodyd"), ("somebodyd've", "somebody'd've"),
    ("somebody'dve", "somebody'd've"), ("somebodyll", "somebody'll"), ("somebodys", "somebody's"),
    ("someoned", "someone'd"), ("someoned've", "someone'd've"), ("someone'dve", "someone'd've"),
    ("someonell", "someone'll"), ("someones", "someone's"), ("somethingd", "something'd"),
    ("somethingd've", "something'd've"), ("something'dve", "something'd've"), ("somethingll", "something'll"),
    ("thats", "that's"), ("thered", "there'd"), ("thered've", "there'd've"), ("there'dve", "there'd've"),
    ("therere", "there're"), ("theres", "there's"), ("theyd", "they'd"), ("theyd've", "they'd've"),
    ("they'dve", "they'd've"), ("theyll", "they'll"), ("theyre", "they're"), ("theyve", "they've"),
    ("twas", "'twas"), ("wasnt", "wasn't"), ("wed've", "we'd've"), ("we'dve", "we'd've"), ("weve", "we've"),
    ("werent", "weren't"), ("whatll", "what'll"), ("whatre", "what're"), ("whats", "what's"),
    ("whatve", "what've"), ("whens", "when's"), ("whered", "where'd"), ("wheres", "where's"),
    ("whereve", "where've"), ("whod", "who'd"), ("whod've", "who'd've"), ("who'dve", "who'd've"),
    ("wholl", "who'll"), ("whos", "who's"), ("whove", "who've"), ("whyll", "why'll"), ("whyre", "why're"),
    ("whys", "why's"), ("wont", "won't"), ("wouldve", "would've"), ("wouldnt", "wouldn't"),
    ("wouldnt've", "wouldn't've"), ("wouldn'tve", "wouldn't've"), ("yall", "y'all"), ("yall'll", "y'all'll"),
    ("y'allll", "y'all'll"), ("yall'd've", "y'all'd've"), ("y'alld've", "y'all'd've"),
    ("y'all'dve", "y'all'd've"), ("youd", "you'd"), ("youd've", "you'd've"), ("you'dve", "you'd've"),
    ("youll", "you'll"), ("youre", "you're"), ("youve", "you've"),
];

/// Marks that are deleted or replaced by spaces, in this order.
const MARKS: &str = ";/[]\"{}()=+\\_-><@`,?!";

/// Number of periods that are deleted: the challenge's code passes a flag as the count.
const PERIODS: usize = 32;

/// The zeros of the decimal digits of all scripts; the other nine follow each.
#[rustfmt::skip]
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6, 0xE50,
    0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40,
    0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10, 0x104A0, 0x10D30, 0x11066,
    0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0, 0x11950,
    0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0, 0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6,
    0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

/// Normalises an answer for comparison.
pub fn normalize(answer: &str) -> String {
    let is_white = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    let answer = answer.replace(['\n', '\t'], " ");
    let text = drop_periods(&replace_marks(answer.trim_matches(is_white))).to_lowercase();
    let words = python_split(&text)
        .map(|word| find(&NUMBERS, word))
        .filter(|word| !ARTICLES.contains(word))
        .map(|word| find(&CONTRACTIONS, word));
    words.collect::<Vec<_>>().join(" ")
}

fn find<'a>(table: &[(&str, &'static str)], word: &'a str) -> &'a str {
    table.iter().find(|(from, _)| *from == word).map_or(word, |&(_, to)| to)
}

fn replace_marks(answer: &str) -> String {
    let characters: Vec<char> = answer.chars().collect();
    let comma_in_number =
        characters.windows(3).any(|near| near[1] == ',' && is_digit(near[0]) && is_digit(near[2]));
    let stands_apart =
        |mark: char| characters.windows(2).any(|near| near == [mark, ' '] || near == [' ', mark]);
    let becomes: Vec<(char, &str)> = MARKS
        .chars()
        .map(|mark| (mark, if comma_in_number || stands_apart(mark) { "" } else { " " }))
        .collect();
    let mut text = String::with_capacity(answer.len());
    for c in characters {
        match becomes.iter().find(|(mark, _)| *mark == c) {
            Some((_, by)) => text.push_str(by),
            None => text.push(c),
        }
    }
    text
}

fn drop_periods(text: &str) -> String {
    let mut dropped = 0;
    let mut kept = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '.' && dropped < PERIODS && !characters.peek().is_some_and(|&next| is_digit(next)) {
            dropped += 1;
        } else {
            kept.push(c);
        }
    }
    kept
}

fn is_digit(c: char) -> bool {
    let code = u32::from(c);
    let after = ZEROS.partition_point(|&zero| zero <= code);
    after > 0 && code - ZEROS[after - 1] < 10
}

/// Accuracy of one answer, 0 to 1. With one reference answer it is 0 or 1. With several it is that of the VQA
/// challenge: the mean, leaving out each reference in turn, of min(1, number of equal ones / 3).
pub fn accuracy<S: AsRef<str>>(answer: &str, references: &[S]) -> f64 {
    let answer = normalize(answer);
    let agree: Vec<bool> =
        references.iter().map(|reference| normalize(reference.as_ref()) == answer).collect();
    match agree[..] {
        [] => 0.0,
        [agrees] => f64::from(u8::from(agrees)),
        _ => {
            let agreeing = agree.iter().filter(|&&agrees| agrees).count();
            let scores = agree.iter().map(|&own| ((agreeing - usize::from(own)) as f64 / 3.0).min(1.0));
            scores.sum::<f64>() / agree.len() as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_normalised() {
        for (answer, expected) in [
            ("The guitar.", "guitar"),
            ("two", "2"),
            ("dont know", "don't know"),
            ("T-shirt", "t shirt"),
            ("10,000 ", "10000"),
            ("3.5", "3.5"),
            ("a\nman", "man"),
            ("yes!", "yes"),
            ("", ""),
        ] {
            assert_eq!(normalize(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn one_answer_is_right_or_wrong() {
        assert_eq!(accuracy("A dog", &["dog"]), 1.0);
        assert_eq!(accuracy("cat", &["dog"]), 0.0);
        assert_eq!(accuracy::<&str>("cat", &[]), 0.0);
    }

    #[test]
    fn ten_annotators() {
        let mut answers = vec!["dog"; 3];
        answers.extend(["cat"; 7]);
        // Three agree: leaving one of them out leaves 2/3, leaving another out leaves 1.
        assert!((accuracy("dog", &answers) - (3.0 * 2.0 / 3.0 + 7.0) / 10.0).abs() < 1e-12);
        assert_eq!(accuracy("cat", &answers), 1.0);
    }
}
