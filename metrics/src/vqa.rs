//! Accuracy of short answers (MSRVTT-QA, MSVD-QA) after the VQA challenge's normalisation.
//!
//! Normalised are both sides: lower case, punctuation out, number words to digits, articles out, contractions with their
//! apostrophe. The challenge normalises the annotators' answers only where they disagree; with one answer a question that
//! would compare a normalised prediction with a raw answer, so here it is always done.

/// Words the normalisation replaces: numbers, and articles, which go.
const WORDS: [(&str, &str); 14] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
    ("a", ""),
    ("an", ""),
];

/// Contractions written without their apostrophe. Those that are words of their own (its, were, well, id, ill) stay.
const CONTRACTIONS: [(&str, &str); 44] = [
    ("aint", "ain't"),
    ("arent", "aren't"),
    ("cant", "can't"),
    ("couldve", "could've"),
    ("couldnt", "couldn't"),
    ("didnt", "didn't"),
    ("doesnt", "doesn't"),
    ("dont", "don't"),
    ("hadnt", "hadn't"),
    ("hasnt", "hasn't"),
    ("havent", "haven't"),
    ("hes", "he's"),
    ("howd", "how'd"),
    ("howll", "how'll"),
    ("hows", "how's"),
    ("im", "i'm"),
    ("ive", "i've"),
    ("isnt", "isn't"),
    ("itd", "it'd"),
    ("itll", "it'll"),
    ("lets", "let's"),
    ("maam", "ma'am"),
    ("mightnt", "mightn't"),
    ("mightve", "might've"),
    ("mustnt", "mustn't"),
    ("mustve", "must've"),
    ("neednt", "needn't"),
    ("oclock", "o'clock"),
    ("shouldve", "should've"),
    ("shouldnt", "shouldn't"),
    ("somebodys", "somebody's"),
    ("someones", "someone's"),
    ("thats", "that's"),
    ("theres", "there's"),
    ("theyd", "they'd"),
    ("theyll", "they'll"),
    ("theyre", "they're"),
    ("theyve", "they've"),
    ("wasnt", "wasn't"),
    ("werent", "weren't"),
    ("whats", "what's"),
    ("wont", "won't"),
    ("wouldnt", "wouldn't"),
    ("youre", "you're"),
];

/// Punctuation that goes; between two words it becomes a space.
const PUNCTUATION: &str = ";/[]\"{}()=+\\_-><@`,?!";

/// An answer as it is compared.
pub fn normalize(answer: &str) -> String {
    let answer: Vec<char> = answer.trim().chars().collect();
    let mut text = String::with_capacity(answer.len());
    for (place, &c) in answer.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| answer.get(before)).copied().unwrap_or(' ');
        let after = answer.get(place + 1).copied().unwrap_or(' ');
        match c {
            '\n' | '\t' => text.push(' '),
            // "10,000" is one number.
            ',' if before.is_ascii_digit() && after.is_ascii_digit() => {}
            // "3.5" keeps its point, any other goes.
            '.' if before.is_ascii_digit() && after.is_ascii_digit() => text.push('.'),
            '.' => {}
            c if PUNCTUATION.contains(c) => {
                if before != ' ' && after != ' ' {
                    text.push(' ');
                }
            }
            c => text.extend(c.to_lowercase()),
        }
    }
    let find = |table: &[(&str, &'static str)], word: &str| {
        table.iter().find(|(from, _)| *from == word).map(|&(_, to)| to)
    };
    let words: Vec<&str> = text
        .split_whitespace()
        .filter(|word| *word != "the")
        .map(|word| find(&WORDS, word).or_else(|| find(&CONTRACTIONS, word)).unwrap_or(word))
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}

/// Accuracy of one answer, 0 to 1. With one reference answer it is right or wrong. With several, the VQA challenge's: the
/// mean over leaving out each of them of min(1, agreeing others / 3).
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

/// The mean accuracy over questions, 0 to 1; 0 without questions. Each question has its answer and its reference answers.
pub fn mean_accuracy<A, R, S>(questions: &[(A, R)]) -> f64
where
    A: AsRef<str>,
    R: AsRef<[S]>,
    S: AsRef<str>,
{
    let scores: Vec<f64> =
        questions.iter().map(|(answer, references)| accuracy(answer.as_ref(), references.as_ref())).collect();
    crate::ngram::numpy_mean(&scores)
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

    #[test]
    fn the_mean_over_questions() {
        assert_eq!(mean_accuracy(&[("dog", ["dog"]), ("cat", ["dog"])]), 0.5);
    }
}
