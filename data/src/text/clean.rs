//! LAVIS's normalisation of captions and questions, and its prompt for questions.

/// Maximum number of words of a cleaned caption or question.
pub const MAX_WORDS: usize = 50;

/// The language model's prompt for questions: LAVIS's prompt of InstructBLIP on MSRVTT-QA.
pub const QUESTION_PROMPT: &str = "Question: {} Short Answer:";

const MARKS: &str = r#".!"()*#:;~"#;

/// White space in Python's regular expressions, which LAVIS uses: Unicode's and four control characters.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// A caption as LAVIS's `blip_caption` processor returns it: lower case, `.!"()*#:;~` replaced by spaces,
/// several white spaces replaced by one space, none at the ends, at most [`MAX_WORDS`] words. As in LAVIS, a
/// single tab or line feed inside a caption is not replaced.
#[must_use]
pub fn clean_caption(caption: &str) -> String {
    let lower = caption.to_lowercase();
    let mut spaced = String::with_capacity(lower.len());
    let mut chars = lower.chars().map(|c| if MARKS.contains(c) { ' ' } else { c }).peekable();
    while let Some(c) = chars.next() {
        let mut is_run = false;
        while is_space(c) && chars.next_if(|next| is_space(*next)).is_some() {
            is_run = true;
        }
        spaced.push(if is_run { ' ' } else { c });
    }
    first_words(spaced.trim_end_matches('\n').trim_matches(' '))
}

/// A question as LAVIS's `blip_question` processor returns it: lower case, without `.!"()*#:;~` and spaces at
/// the end, at most [`MAX_WORDS`] words.
#[must_use]
pub fn clean_question(question: &str) -> String {
    let kept: String = question.to_lowercase().chars().filter(|c| !MARKS.contains(*c)).collect();
    first_words(kept.trim_end_matches(' '))
}

/// A prompt such as [`QUESTION_PROMPT`] with its `{}` replaced by a question.
#[must_use]
pub fn ask(prompt: &str, question: &str) -> String {
    prompt.replacen("{}", question, 1)
}

fn first_words(text: &str) -> String {
    text.splitn(MAX_WORDS + 1, ' ').take(MAX_WORDS).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn captions_are_cleaned_as_lavis_does() {
        assert_eq!(
            clean_caption("A man, (in red) says: \"Hello!\"  twice..."),
            "a man, in red says hello twice"
        );
        assert_eq!(clean_caption("it's a #1 *star* ~ 2;3"), "it's a 1 star 2 3");
        let long = "word ".repeat(60);
        assert_eq!(clean_caption(&long).split(' ').count(), 50);
        assert_eq!(clean_caption(""), "");
        assert_eq!(clean_caption("one\ttwo \n three\n"), "one\ttwo three");
    }

    #[test]
    fn questions_lose_their_marks() {
        assert_eq!(clean_question("What is #1 (here)?  "), "what is 1 here?");
        assert_eq!(clean_question("Who; what"), "who what");
        assert_eq!(ask(QUESTION_PROMPT, "who?"), "Question: who? Short Answer:");
    }

    proptest! {
        #[test]
        fn cleaning_twice_changes_nothing(text in "\\PC{0,200}") {
            let cleaned = clean_caption(&text);
            prop_assert!(cleaned.split(' ').count() <= MAX_WORDS);
            prop_assert_eq!(clean_caption(&cleaned), cleaned);
        }
    }
}
