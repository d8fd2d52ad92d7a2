//! The settings table of the README, generated from the declarations.

use std::fmt::Write;

use crate::catalog::{self, Declared, FILE_SUFFIX, Fallback};

/// The line before the table.
pub const START_MARK: &str = "<!-- settings -->";
/// The line after the table.
pub const END_MARK: &str = "<!-- /settings -->";

/// The README has no place for the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("find the lines `{START_MARK}` and, after it, `{END_MARK}`, each once")]
pub struct MarksMissing;

/// The tables in Markdown: a node's settings, then a client's.
#[must_use]
pub fn readme_table() -> String {
    let mut out = String::new();
    table(&mut out, "A node:", catalog::NODE);
    out.push('\n');
    table(
        &mut out,
        "A client (`confman get`, `confman import`, ...):",
        catalog::CLIENT,
    );
    out
}

/// The readme's text with the table between the marks made what it must be.
///
/// # Errors
/// When the marks are not there once each, in order.
pub fn with_table(readme: &str) -> Result<String, MarksMissing> {
    let (before, rest) = readme.split_once(START_MARK).ok_or(MarksMissing)?;
    let (_, after) = rest.split_once(END_MARK).ok_or(MarksMissing)?;
    if before.contains(END_MARK) || after.contains(START_MARK) || after.contains(END_MARK) {
        return Err(MarksMissing);
    }
    Ok(format!(
        "{before}{START_MARK}\n{}{END_MARK}{after}",
        readme_table()
    ))
}

fn table(out: &mut String, title: &str, settings: &[&dyn Declared]) {
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{title}\n\n| variable | default | meaning | values |\n|---|---|---|---|"
    );
    for setting in settings {
        let name = setting.name();
        let file = if setting.secret() {
            format!(", `{name}{FILE_SUFFIX}`")
        } else {
            String::new()
        };
        let fallback = match setting.fallback() {
            Fallback::Text(text) => format!("`{text}`"),
            Fallback::Derived(words) => words.to_owned(),
            Fallback::Nothing(words) => format!("none: {words}"),
        };
        let _ = writeln!(
            out,
            "| `{name}`{file} | {fallback} | {} | {} |",
            setting.doc(),
            setting.expected().replace('|', "\\|")
        );
    }
}
