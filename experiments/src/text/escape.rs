//! Text that people or models wrote, put into HTML, Markdown, URLs and scripts without becoming part of them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// For HTML and SVG, in text and in quoted attributes.
pub(crate) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML 1.0 has no way to write these; an SVG file with one does not open
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                escaped.push('\u{fffd}');
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

/// For a line of Markdown or a table's cell. An underscore inside a word, as names have it, means nothing and
/// stays.
pub(crate) fn markdown(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let is_word = |at: Option<usize>| {
        at.and_then(|at| characters.get(at)).is_some_and(|character| character.is_alphanumeric())
    };
    let mut escaped = String::with_capacity(text.len());
    for (at, &character) in characters.iter().enumerate() {
        match character {
            '\n' | '\r' => escaped.push(' '),
            '_' if is_word(at.checked_sub(1)) && is_word(Some(at + 1)) => escaped.push('_'),
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '!' | '&' => {
                escaped.extend(['\\', character]);
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Every byte that a URL's path may not contain as it is.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A relative or absolute path as a URL.
pub(crate) fn url(path: &str) -> String {
    utf8_percent_encode(path, IN_PATH).to_string()
}

/// JSON inside a `<script>` element: no `<` may be seen there, as `</script>` ends it and `<!--` changes how
/// it is read.
pub(crate) fn script(json: &str) -> String {
    json.replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_shown_and_not_obeyed() {
        assert_eq!(html("<script>\"a\" & 'b'"), "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;");
        assert_eq!(html("a\u{1}b"), "a\u{fffd}b");
        assert_eq!(script(r#"{"a":"</script><!--"}"#), r#"{"a":"\u003c/script>\u003c!--"}"#);
        let read: serde_json::Value = serde_json::from_str(&script(r#"{"a":"</script>"}"#)).unwrap();
        assert_eq!(read["a"], "</script>");
    }

    #[test]
    fn markdown_keeps_names_and_disarms_the_rest() {
        assert_eq!(markdown("all_trainable"), "all_trainable");
        assert_eq!(markdown("_so_ a|b <b>*c*</b>\n[d](e)"), r"\_so\_ a\|b \<b\>\*c\*\</b\> \[d\](e)");
    }

    #[test]
    fn paths_become_urls() {
        assert_eq!(url("../cache/a b#1?.webm"), "../cache/a%20b%231%3F.webm");
        assert_eq!(url("è"), "%C3%A8");
    }
}
