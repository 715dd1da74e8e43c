//! Texts of others, made fit for a terminal: every character that a terminal obeys or that changes the order of a line is
//! written as an escape.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether line ends are part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// The text is one line; a line end in it is escaped too.
    One,
    /// The text has lines, and they may be indented with tabs.
    Many,
}

/// A text without control characters: C0, C1, DEL, bidirectional controls (Unicode Standard Annex 9), line and paragraph
/// separators, and the marks that are not seen are written as in `\u{202e}`, and as `\n`, `\r` and `\t`.
pub fn escape(text: &str, lines: Lines) -> Cow<'_, str> {
    if !text.chars().any(|character| is_escaped(character, lines)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            plain if !is_escaped(plain, lines) => escaped.push(plain),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            other if u32::from(other) < 256 => {
                let _ = write!(escaped, "\\x{:02x}", u32::from(other));
            }
            other => {
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(other));
            }
        }
    }
    Cow::Owned(escaped)
}

/// Whether a terminal obeys a character, or it changes what stands around it.
pub fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn is_escaped(character: char, lines: Lines) -> bool {
    is_control(character) && !(lines == Lines::Many && matches!(character, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Lines, escape};

    #[rstest]
    #[case::plain("a b: é 漢 👍", "a b: é 漢 👍")]
    #[case::color("\u{1b}[31mred", "\\x1b[31mred")]
    #[case::c1("\u{9b}31m", "\\x9b31m")]
    #[case::bell("\u{7}\u{7f}", "\\x07\\x7f")]
    #[case::bidirectional("user\u{202e}txt.exe", "user\\u{202e}txt.exe")]
    #[case::forged_line("a\r\nPASSED", "a\\r\\nPASSED")]
    #[case::separator("a\u{2028}b", "a\\u{2028}b")]
    #[case::invisible("a\u{200b}\u{feff}b", "a\\u{200b}\\u{feff}b")]
    fn a_terminal_obeys_nothing(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(escape(text, Lines::One), expected);
    }

    #[test]
    fn a_text_of_many_lines_keeps_them() {
        assert_eq!(escape("a\n\tb\r\u{1b}c", Lines::Many), "a\n\tb\\r\\x1bc");
    }
}
