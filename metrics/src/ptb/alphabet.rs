//! The alphabet of the rules: one byte per character.
//!
//! ASCII characters are unchanged. Every other character is replaced by the byte of its class, since the
//! rules treat all characters of a class alike. The automaton stays small, and a place in the bytes is a
//! place in the characters.

use super::characters::{DIGITS, LETTERS, MARKS, SYMBOLS};

pub(super) const LETTER: u8 = 0x80;
pub(super) const UPPER_LETTER: u8 = 0x81;
pub(super) const MARK: u8 = 0x82;
pub(super) const DIGIT: u8 = 0x83;
pub(super) const SUPERSCRIPT: u8 = 0x84;
pub(super) const SUBSCRIPT: u8 = 0x85;
pub(super) const RAISED_SIGN: u8 = 0x86;
pub(super) const SYMBOL: u8 = 0x87;
pub(super) const DELETED: u8 = 0x88;
pub(super) const DASH: u8 = 0x89;
pub(super) const CURRENCY: u8 = 0x8A;
pub(super) const CENT: u8 = 0x8B;
pub(super) const POUND: u8 = 0x8C;
pub(super) const QUOTE: u8 = 0x8D;
pub(super) const APOSTROPHE: u8 = 0x8E;
pub(super) const HYPHEN: u8 = 0x8F;
pub(super) const SOFT_HYPHEN: u8 = 0x90;
pub(super) const FRACTION: u8 = 0x91;
pub(super) const FRACTION_SLASH: u8 = 0x92;
pub(super) const ELLIPSIS: u8 = 0x93;
pub(super) const DECIMAL_MARK: u8 = 0x94;
pub(super) const NO_BREAK_SPACE: u8 = 0x95;
pub(super) const SPACE: u8 = 0x96;
pub(super) const LEFT_QUOTE: u8 = 0x97;
pub(super) const UPPER_SYMBOL: u8 = 0x98;
pub(super) const UPPER_DELETED: u8 = 0x99;

/// The byte of a character in the rules.
pub(super) fn symbol(c: char) -> u8 {
    match c {
        '\0'..='\u{7f}' => c as u8,
        '\u{91}' | '‘' | '‛' => LEFT_QUOTE,
        '\u{93}' | '\u{94}' | '‚' | '“' | '”' | '„' | '‟' | '‹' | '›' | '«' | '»' => QUOTE,
        '\u{92}' | '’' => APOSTROPHE,
        '\u{96}' | '\u{97}' | '–' | '—' | '―' => DASH,
        '\u{80}' | '¤' | '₠' | '€' => CURRENCY,
        '¢' => CENT,
        '£' => POUND,
        '\u{58a}' | '\u{2010}' | '\u{2011}' => HYPHEN,
        '\u{ad}' => SOFT_HYPHEN,
        '¼' | '½' | '¾' | '⅓' | '⅔' => FRACTION,
        '\u{2044}' => FRACTION_SLASH,
        '…' => ELLIPSIS,
        '\u{66b}' | '\u{66c}' => DECIMAL_MARK,
        '\u{a0}' => NO_BREAK_SPACE,
        '\u{2000}'..='\u{200a}' | '\u{3000}' => SPACE,
        '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' => SUPERSCRIPT,
        '₀'..='₉' => SUBSCRIPT,
        '⁺' | '⁻' | '₊' | '₋' => RAISED_SIGN,
        _ if contains(&LETTERS, c) => [LETTER, UPPER_LETTER][usize::from(is_upper(c))],
        _ if contains(&MARKS, c) => MARK,
        _ if contains(&DIGITS, c) => DIGIT,
        _ if contains(&SYMBOLS, c) => [SYMBOL, UPPER_SYMBOL][usize::from(is_upper(c))],
        _ => [DELETED, UPPER_DELETED][usize::from(is_upper(c))],
    }
}

/// Whether the reference deletes this character if it is alone, without replacing it by a space.
pub(super) fn is_deleted(c: char) -> bool {
    let symbol = symbol(c);
    symbol >= DELETED && [DELETED, UPPER_DELETED, HYPHEN, DECIMAL_MARK].contains(&symbol)
        || c.is_control() && !c.is_whitespace()
}

/// Whether a sentence may begin with this character: upper case as Unicode had it when the reference was
/// built.
fn is_upper(c: char) -> bool {
    c.is_uppercase()
        && !matches!(c, '\u{37f}' | '\u{528}'..='\u{52f}' | '\u{13a0}'..='\u{13f5}' | '\u{1c80}'..='\u{1cbf}'
            | '\u{2c2f}' | '\u{a698}'..='\u{a69b}' | '\u{a796}'..='\u{a79f}' | '\u{a7ab}'..='\u{a7ff}'
            | '\u{10000}'..)
}

fn contains(table: &[(u32, u32)], c: char) -> bool {
    let code = u32::from(c);
    let after = table.partition_point(|&(first, _)| first <= code);
    after > 0 && code <= table[after - 1].1
}

/// The characters at which the reference ends a line of its output. Inside a caption they would shift every
/// caption after it by one; only "\n" is replaced by a space beforehand.
pub(super) const LINE_ENDS: [char; 6] = ['\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];
