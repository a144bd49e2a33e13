//! Byte-order marks: text files of other programs in UTF-8 or UTF-16, and what is readable in a message.

const UTF_8: &[u8] = b"\xef\xbb\xbf";

/// Text in UTF-8 without byte-order marks at its start. UTF-16 with a mark, as spreadsheets and Windows
/// write it, is converted; bytes without a mark stay as they are.
///
/// # Errors
/// The reason: UTF-32, or broken UTF-16.
pub(crate) fn unmarked(mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    match bytes.as_slice() {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            Err("the text is in UTF-32; save it as UTF-8".into())
        }
        [0xff, 0xfe, text @ ..] => utf_8(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => utf_8(text, u16::from_be_bytes),
        _ => {
            let start = bytes.len() - without_marks(&bytes).len();
            bytes.drain(..start);
            Ok(bytes)
        }
    }
}

/// A line or text without UTF-8's byte-order marks: a file that was put together from several has them in
/// its middle.
pub(crate) fn without_marks(mut text: &[u8]) -> &[u8] {
    while let Some(rest) = text.strip_prefix(UTF_8) {
        text = rest;
    }
    text
}

fn utf_8(text: &[u8], unit: impl Fn([u8; 2]) -> u16) -> Result<Vec<u8>, String> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(format!("the text is in UTF-16 and its {} bytes are an odd number", text.len()));
    }
    let units = pairs.iter().map(|pair| unit(*pair));
    let decoded = char::decode_utf16(units).collect::<Result<String, _>>();
    let decoded = decoded.map_err(|error| format!("the text is in UTF-16 and broken: {error}"))?;
    Ok(without_marks(decoded.as_bytes()).to_vec())
}

/// A text for a message: control characters and what is not UTF-8 are escaped, and it ends after 1,000
/// characters.
pub(crate) fn readable(text: &str) -> String {
    const MAX: usize = 1000;
    let mut shown = String::with_capacity(text.len());
    for character in text.chars().take(MAX) {
        match character {
            '\u{fffd}' => shown.push('?'),
            '\n' | '\t' => shown.push(character),
            character if character.is_control() => shown.extend(character.escape_unicode()),
            character => shown.push(character),
        }
    }
    if text.chars().nth(MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf_16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(unit).collect()
    }

    #[test]
    fn a_byte_order_mark_tells_the_encoding() {
        let read = |bytes: &[u8]| unmarked(bytes.to_vec());
        assert_eq!(read("é 𝄞".as_bytes()).unwrap(), "é 𝄞".as_bytes());
        assert_eq!(read("\u{feff}\u{feff}é 𝄞".as_bytes()).unwrap(), "é 𝄞".as_bytes());
        for unit in [u16::to_le_bytes, u16::to_be_bytes] {
            assert_eq!(read(&utf_16("é 𝄞", unit)).unwrap(), "é 𝄞".as_bytes());
        }
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(b"\xff\xfe").unwrap(), b"");
        assert_eq!(read(b"\xff\x01").unwrap(), b"\xff\x01", "no mark: the reader decides");
    }

    #[test]
    fn text_that_cannot_be_converted_is_named() {
        let reason = |bytes: &[u8]| unmarked(bytes.to_vec()).unwrap_err();
        assert!(reason(b"\xff\xfe\0\0a\0\0\0").contains("UTF-32"));
        assert!(reason(b"\0\0\xfe\xff").contains("UTF-32"));
        assert!(reason(b"\xff\xfea").contains("odd"));
        assert!(reason(b"\xff\xfe\x00\xd8a\0").contains("broken"));
    }

    #[test]
    fn messages_have_no_binary_bytes() {
        assert_eq!(readable("a\0\u{1b}\u{fffd}é"), "a\\u{0}\\u{1b}?é");
        assert_eq!(readable(&"x".repeat(1200)).chars().count(), 1001);
    }
}
