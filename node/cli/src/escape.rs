//! Text from elsewhere, made harmless for a terminal.
//!
//! Promises (X17): what is printed holds no control character but those that were asked for, so that a key or a value
//! cannot move the cursor, colour the screen or pretend to be another line.

use std::borrow::Cow;
use std::fmt::Write as _;

/// One line: every control character is shown as an escape.
pub fn text(raw: &str) -> Cow<'_, str> {
    escaped(raw, |_| false)
}

/// Several lines: line ends and tabs stay.
pub fn lines(raw: &str) -> Cow<'_, str> {
    escaped(raw, |c| matches!(c, '\n' | '\t'))
}

/// Controls, and the marks that turn the direction of text around.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(raw: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !raw.chars().any(|c| is_harmful(c) && !keep(c)) {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len() + 16);
    for c in raw.chars() {
        match c {
            _ if keep(c) || !is_harmful(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn x17_escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(text("a\u{1b}[31mred\r\nb"), "a\\u{1b}[31mred\\r\\nb");
        assert_eq!(text("\u{9b}2J\u{7f}"), "\\u{9b}2J\\u{7f}");
        assert_eq!(text("evil\u{202e}gpj.exe"), "evil\\u{202e}gpj.exe");
        assert_eq!(lines("a\n\tb\u{7}"), "a\n\tb\\u{7}");
        assert!(matches!(text("zwölf 日本"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn x17_no_control_character_is_left(raw in ".{0,40}|[\\x00-\\x9f\\u{202e}]{0,40}") {
            prop_assert!(!text(&raw).chars().any(is_harmful));
        }
    }
}
