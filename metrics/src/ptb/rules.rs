//! The rules of the tokeniser, one line each, in the order that settles ties.
//!
//! Every rule is a regular expression over the bytes of [`super::alphabet`]. At each place the longest match
//! wins, and of equally long ones the earlier rule. The lookahead *after* a token counts in the length of its
//! match but is read again; it may be in the next caption.
//!
//! The rules were found by testing the reference with millions of short texts. Where they look arbitrary
//! ("a.-b" is one word, "wow.," keeps its period), so is the reference.

/// The result of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// One token, unchanged.
    Keep,
    /// One token with brackets named (`-lrb-`), spaces made no-break spaces, soft hyphens dropped.
    Rewrite,
    /// One token, its apostrophe made a plain one.
    Clitic,
    /// One token, always the same.
    Put(&'static str),
    /// One token, its spaces made no-break spaces.
    Tag,
    /// One token with round brackets named.
    Face,
    /// A token of this many characters; the rest is read again.
    Cut(usize),
    /// All but the last character are a token; the last is read again.
    KeepPeriod,
    /// Each quotation mark becomes its ASCII form.
    Quotes,
    /// A vulgar fraction becomes its digits.
    Fraction,
    /// No token.
    Skip,
    /// The line ends.
    LineEnd,
}

pub(super) struct Rule {
    pub(super) pattern: String,
    pub(super) ahead: String,
    pub(super) action: Action,
}

/// Abbreviations whose period also ends the sentence where a sentence begins after it: a second period is put
/// in.
const ENDING: &str = "al|ala|apr|ariz|assn|aug|bhd|bldg|blvd|bros|calif|co|colo|conn|corp|cos|ct|dak|dec|esq|est|etc|ext|feb|fla|fri|ga|\
    inc|ind|intl|jan|jr|jul|jun|kan|kans|ky|ltd|mar|md|mich|minn|mo|mon|mont|neb|nev|nov|oct|okla|penn|ph\\.d|plc|ppte|\
    ppty|pte|ptes|pty|ptys|rd|rt|sep|sept|seq|sq|sr|sys|tel|tenn|thu|tue|tues|univ|va|vt|wed|wis|wisc|wyo|ed\\.d|\
    (?-i:A)(?:rk|z)|(?-i:D)el|(?-i:I)ll|(?-i:L)a|(?-i:M)(?:ass|iss)|(?-i:O)re|(?-i:P)a|(?-i:T)ex|(?-i:W)ash";

/// Abbreviations whose period never ends a sentence.
const BOUND: &str = "adj|adm|adv|alex|asst|atty|ave|brig|capt|cf|cie|cmdr|col|cpl|dept|det|drs?|elec|ens|ft|gen|govs?|hon|insp|\
    invt|jos|lt|maj|messrs|mfg|mlle|mme|mr|mrs|ms|msgr|mtg?|natl|pfc|ph|pres|prof|pvt|reps?|rev|sens?|sfc|sgt|spc|ste?|supt|\
    vs|wm";

/// Abbreviations that keep their period before a number only.
const BEFORE_NUMBER: &str = "art|ca|figs?|nos?|op|pp|prop";

/// Capitalised words that begin a sentence after a single letter and a period.
const OPENERS: &str = "A|About|According|After|An|As|At|But|Earlier|He|Her|Here|However|If|In|It|Last|Many|More|Now|Once|One|\
    Other|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|What|When|While|Yet|You|Mr\\.|Ms\\.";

/// Classes of characters, to be used inside brackets, and forms made of them. A later one may use those
/// before it.
#[rustfmt::skip]
const FORMS: [(&str, &str); 26] = [
    ("{l}", r"A-Za-z\x80\x81"), ("{upper}", r"A-Z\x81\x98\x99"), ("{d}", r"0-9\x83"),
    ("{mark}", r"\x82\x90"), ("{space}", r" \t\x95\x96"), ("{nbsp}", r"\x95"),
    ("{raised}", r"\x84"), ("{lowered}", r"\x85"), ("{sign}", r"\x86"),
    ("{symbol}", r"\x86\x87\x92\x98"), ("{gone}", r"\x88\x82\x99\x8F\x94\x00-\x08\x0E-\x1F\x7F"),
    ("{dash}", r"\x89"), ("{currency}", r"\x8A"), ("{cent}", r"\x8B"), ("{pound}", r"\x8C"),
    ("{quote}", r"\x8D\x8E\x97"), ("{hyphen}", r"\x8F"), ("{soft}", r"\x90"),
    ("{fraction}", r"\x91"), ("{slash}", r"\x92"), ("{dots}", r"\x93"), ("{decimal}", r"\x94"),
    ("{APOS}", r"(?:['\x8E]|&apos;)"), ("{ANYAPOS}", r"(?:['`\x8E\x97]|&apos;)"),
    ("{LETTER}", r"(?:[{l}{mark}]|&[aeiouAEIOU](?:acute|grave|uml);)"),
    ("{ACRONYM}", r"(?:[A-Za-z]\.(?:[A-Za-z]\.)+)"),
];

/// Whole words, made of the forms.
const WORDS: [(&str, &str); 9] = [
    (
        "{EXTENSIONS}",
        "bat|bmp|c|cgi|class|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|tar|txt|wav|x|xml|zip",
    ),
    ("{CLITIC}", r"(?:{APOS}(?:[msdMSD]|(?i:re|ve|ll)))"),
    ("{WORD}", r"(?:{RUN}(?:[.!?]{RUN})*)"),
    ("{RUN}", r"(?:{LETTER}(?:{LETTER}|[{d}])*(?:[{hyphen}](?:{LETTER}|[{d}])+)*)"),
    ("{NUMBER}", r"(?:[{d}]+|[{d}]*(?:[.:,{soft}{decimal}][{d}]+)+)"),
    ("{THING}", r"(?:(?:[dDoOlL]{ANYAPOS}[{l}{d}])?[{l}{d}]+)"),
    (
        "{TAG}",
        r#"(?:<(?:[!?][A-Za-z-][^>\r\n]*|/?{NAME}(?:[ ]+{NAME}(?:[ ]*=[ ]*(?:'[^']*'|"[^"]*"))?)*[ ]*/?[ ]*)>)"#,
    ),
    ("{NAME}", r"(?:[A-Za-z][A-Za-z0-9_:.-]*)"),
    ("{PATH}", r#"(?:/[^ \t\n\x0C\r"<>|(){}]+[^ \t\n\x0C\r"<>|.!?(){},-])"#),
];

/// The rules in the order of precedence.
pub(super) fn rules() -> Vec<Rule> {
    use Action::{Clitic, Cut, Face, Fraction, Keep, KeepPeriod, LineEnd, Put, Quotes, Rewrite, Skip, Tag};
    let mut rules = Vec::new();
    let mut rule = |pattern: &str, ahead: &str, action: Action| {
        rules.push(Rule { pattern: expand(pattern), ahead: expand(ahead), action });
    };

    // Contractions that are two tokens.
    rule("(?i:cannot)", "", Cut(3));
    rule("(?i:gonna|gotta|lemme|gimme|wanna)", "", Cut(3));
    rule("(?i:'tis|'twas)", "", Cut(2));

    rule(r"(?i:c\+\+|[cf]#)", "", Keep);
    rule("{TAG}", "", Tag);
    rule("[{dash}]|&(?i:MD|mdash|ndash);", "", Put("--"));
    rule("(?i:&amp;)", "", Put("&"));
    rule("(?i:&lt;)", "", Put("<"));
    rule("(?i:&gt;)", "", Put(">"));
    rule("&(?i:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);", "", Keep);
    rule("(?i:&nbsp;)", "", Skip);

    // Words; their clitics are separate tokens.
    rule("{WORD}", "{CLITIC}", Rewrite);
    rule("[A-Za-z{soft}]*[A-MO-Za-mo-z][{soft}]*", "[nN]{ANYAPOS}[tT]", Rewrite);
    rule("{WORD}", "", Rewrite);
    rule("{APOS}[nN]{APOS}?|[lLdDjJ]{APOS}|(?i:dunkin|somethin|ol){APOS}|{APOS}(?i:em)|(?i:c'mon)", "", Keep);
    rule(
        "{APOS}(?i:till?|cause)|{APOS}[2-9]0[sS]|(?i:ev'ry|li'l|nat'l|nor'easter|e'er|s'mores)|(?i:cap){APOS}[nN]|[oO]{ANYAPOS}[oO]",
        "",
        Keep,
    );
    rule("[{l}]+[aeiouyAEIOUY]{ANYAPOS}[aeiouA-Z][{l}]*", "", Keep);
    rule("[A-HJ-XZn]{ANYAPOS}[{l}]{2}[{l}]*", "", Keep);
    rule("[yY]{APOS}", "[{l}]", Keep);
    rule("{APOS}[0-9]{2}", r"[{space}\n]", Keep);
    rule(r#"(?i:https?)://[^ \t\n\x0C\r"<>|(){}]+[^ \t\n\x0C\r"<>|.!?(){},-]"#, "", Keep);
    rule(r#"(?i:www)\.(?:[^ \t\n\x0C\r"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}{PATH}?"#, "", Keep);
    rule(r#"(?:[^ \t\n\x0C\r"`'<>|.!?(){},-_$]+\.)+(?i:com|net|org|edu){PATH}?"#, "", Keep);
    rule(
        r#"(?:<|&lt;)?[a-zA-Z0-9][^ \t\n\x0C\r"<>|(){}{nbsp}]*@(?:[^ \t\n\x0C\r"<>|(){}.{nbsp}]+\.)*[^ \t\n\x0C\r"<>|(){}.{nbsp}]+(?:>|&gt;)?"#,
        "",
        Keep,
    );
    rule("@[a-zA-Z_][a-zA-Z_0-9]*", "", Keep);
    rule("#{LETTER}+", "", Keep);
    rule("{CLITIC}", "[^A-Za-z]", Clitic);
    rule("[nN]{ANYAPOS}[tT]", "[^A-Za-z]", Clitic);

    // Numbers.
    rule("[{d}]{1,2}[-/][{d}]{1,2}[-/][{d}]{2,4}", "", Keep);
    rule("[-+]?{NUMBER}", "", Rewrite);
    rule("[{sign}]?(?:[{raised}]+|[{lowered}]+)", "", Keep);
    rule(r"(?:[{d}]{1,4}[- {nbsp}])?[{d}]{1,4}(?:\\?/|[{slash}])[{d}]{1,4}", "", Rewrite);
    rule("[{fraction}]", "", Fraction);
    rule(
        r"(?:\([0-9]{2,3}\)[ {nbsp}]?|(?:\+\+?)?(?:[0-9]{2,4}[- {nbsp}])?[0-9]{2,4}[- {nbsp}])[0-9]{3,4}[- {nbsp}]?[0-9]{3,5}",
        "",
        Rewrite,
    );
    rule(r"(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}", "", Keep);

    // Abbreviations.
    rule(&format!(r"(?i:{ENDING})\."), r"[{space}\n](?:[{space}\n]|[{upper}]|{TAG})", KeepPeriod);
    rule(&format!(r"(?i:{ENDING})\."), r"(?s:..)", Keep);
    rule(&format!(r"(?i:{ENDING})\."), "", KeepPeriod);
    rule(&format!(r"(?i:{BOUND})\."), "", Keep);
    rule(&format!(r"(?i:{BEFORE_NUMBER})\."), r"[{space}\n]?[{d}]", Keep);
    rule(r"[A-Za-z]", &format!(r"\.[{{space}}\n]+(?:{OPENERS}|{{TAG}})[{{space}}\n]"), Keep);
    rule(r"{ACRONYM}", &format!(r"[{{space}}\n]+(?:{OPENERS}|{{TAG}})[{{space}}\n]"), KeepPeriod);
    rule(r"{ACRONYM}|[A-Za-z]\.", "", Keep);
    rule(r"(?:{WORD}|{THING}(?:[-_{hyphen}]{THING})*|[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+)\.", "[,;:]", Rewrite);

    rule(r"(?:{LETTER}|[{d}])+(?:\.(?:{LETTER}|[{d}])+)*\.(?i:{EXTENSIONS})", r"[{space}\n.,?!]", Keep);

    // Compounds.
    rule("{THING}(?:[-_{hyphen}]{THING})*", "", Rewrite);
    rule("[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+", "", Rewrite);
    rule(r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}", "", Keep);
    rule(r"[A-Za-z0-9][A-Za-z0-9.,{soft}]*(?:-(?:[A-Za-z0-9{soft}]+|{ACRONYM}))+", "", Rewrite);
    rule(r"[A-Z]*\$", "", Keep);

    // Faces.
    rule(r"[<>]?[:;=][-o*']?[()DPdpO@|\\{\[\]]", "[^A-Za-z0-9]", Face);
    rule(r"[-x^'<>=~]_[-x^'<>=~]|\([-x^'<>=~][_.]?[-x^'<>=~]\)|\([x^'<>=~]-[x^'<>=~`]\)", "", Face);

    rule(r"[\^x=~<>]\.\[\^x=~<>\]", "", Face);

    // Punctuation.
    rule("[{currency}]", "", Put("$"));
    rule("[{cent}]", "", Put("cents"));
    rule("[{pound}]", "", Put("#"));
    rule("\"|&quot;", "[A-Za-z0-9$]", Put("``"));
    rule("\"|&quot;", "", Put("''"));
    rule("'", r"[A-Za-z][^ \t\n\r{nbsp}]", Put("`"));
    rule("'|&apos;", "", Put("'"));
    rule("{CLITIC}", "", Clitic);
    rule("[nN]{ANYAPOS}[tT]", "", Clitic);
    rule("''", "", Put("''"));
    rule("``", "", Put("``"));
    rule("`", "", Put("`"));
    rule("[{quote}`]{1,2}", "", Quotes);
    rule(r"\.{3,5}|[{dots}]", "", Put("..."));
    rule(r"\.[ ]\.[ ]\.", "", Put("..."));
    rule("-{2,4}", "", Put("--"));
    rule("-+", "", Keep);
    rule(r"@+|#+|_+|\*+|[?!]+", "", Keep);
    rule(r"[(){}\[\]]", "", Rewrite);
    rule(r"<<|>>|\\\*", "", Keep);
    rule(r"[{symbol}!-/:-@\[-`{-~]", "", Keep);
    rule("[{soft}]", "", Put("-"));
    rule(r"\n", "", LineEnd);
    rule("[{space}]+|[{gone}]", "", Skip);
    rules
}

fn expand(pattern: &str) -> String {
    let mut text = pattern.to_owned();
    // words and forms refer to each other, so it takes a few rounds
    for _ in 0..4 {
        for (name, form) in WORDS.iter().chain(&FORMS) {
            text = text.replace(name, form);
        }
    }
    text
}
