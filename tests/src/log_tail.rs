//! The end of a node's log, short enough that a report of a failed test still holds all of it.

use std::collections::VecDeque;
use std::fmt::Write as _;

/// Lines shown of one node.
const LINES_MAX: usize = 40;
/// Characters shown of a line: addresses and errors are nested, and said by their beginning.
const LINE_CHARS_MAX: usize = 240;
/// A line is left out when one of this many shown before it says the same: who cannot reach a node says so in turns, many times a second.
const KINDS_REMEMBERED: usize = 6;

/// The last lines of a log under its name. Of lines that differ in nothing but times and other numbers the first is shown; the rest are
/// counted, up to when.
pub(crate) fn log_tail(name: &str, log: &str) -> String {
    let mut shown: Vec<(String, usize, &str)> = Vec::new();
    let mut kinds: VecDeque<String> = VecDeque::new();
    for line in log.lines() {
        let words = line.split(' ').filter(|word| !is_number(word));
        let kind = words.collect::<Vec<_>>().join(" ");
        match shown.last_mut() {
            Some((_, alike, until)) if kinds.contains(&kind) => {
                *alike += 1;
                *until = line.split(' ').next().unwrap_or_default();
            }
            _ => {
                kinds.push_back(kind);
                if kinds.len() > KINDS_REMEMBERED {
                    kinds.pop_front();
                }
                shown.push((line.chars().take(LINE_CHARS_MAX).collect(), 0, ""));
            }
        }
    }
    let skipped = shown.len().saturating_sub(LINES_MAX);
    let mut text = format!("---- {name} ({} lines) ----\n", log.lines().count());
    for (line, alike, until) in &shown[skipped..] {
        text.push_str(line);
        text.push('\n');
        if *alike > 0 {
            let _ = writeln!(text, "    and {alike} more like those above until {until}");
        }
    }
    text
}

/// A number by itself, or a time; not the number in a name.
fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
        && word
            .chars()
            .all(|c| c.is_ascii_digit() || ".:-TZ".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_and_again_is_counted_and_of_another_node_shown() {
        let mut log = String::from("00:00 starting\n");
        for second in 10..60 {
            let _ = writeln!(log, "00:{second} cannot reach node2\n00:{second} no vote");
        }
        log += "01:00 cannot reach node3\n";
        assert_eq!(
            log_tail("node1", &log),
            "---- node1 (102 lines) ----\n00:00 starting\n00:10 cannot reach node2\n00:10 no vote\n    and 98 more like those above until 00:59\n01:00 cannot reach node3\n"
        );
    }

    #[test]
    fn the_end_is_shown_and_long_lines_by_their_beginning() {
        let words = ('a'..='z').flat_map(|a| ('a'..='z').map(move |b| format!("{a}{b}")));
        let log: String = words.map(|word| word.repeat(200) + "\n").collect();
        let tail = log_tail("node1", &log);
        let lines: Vec<&str> = tail.lines().skip(1).collect();
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(
            *lines.last().unwrap(),
            "zz".repeat(200)[..LINE_CHARS_MAX].to_owned()
        );
    }
}
