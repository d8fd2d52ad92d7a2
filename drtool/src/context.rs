//! What every command is told beside its own arguments.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct Global {
    /// Print one JSON document on stdout and everything else on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// Colours: a terminal gets them, a file does not
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// Say on stderr what is asked and who answers
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// The directory of a `confman dev` cluster, when `--dev` names one: those who ask nodes and those who ask a store
    /// mean the same cluster. Put here from whichever command has the option.
    #[arg(skip)]
    pub dev: Option<PathBuf>,
}

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Global {
    /// Whether what goes to stdout may be coloured.
    #[must_use]
    pub fn colored(&self) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                std::io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }

    /// A bar on stderr for work that may take more than a second; nothing where stderr is no terminal.
    #[must_use]
    pub fn progress(&self, what: &str, total: u64) -> ProgressBar {
        let bar = if std::io::stderr().is_terminal() && !self.json {
            ProgressBar::new(total)
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// The same for work of which nobody knows how much there is.
    #[must_use]
    pub fn waiting(&self, what: &str) -> ProgressBar {
        let bar = self.progress(what, 0);
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        bar.set_style(style);
        bar
    }

    /// Does the work with that on the terminal, so that nobody takes a copy of gigabytes for a program that hangs.
    pub async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let bar = self.waiting(what);
        let done = work.await;
        bar.finish_and_clear();
        done
    }

    /// A line on stderr that only `-v` asks for.
    pub fn note(&self, text: impl std::fmt::Display) {
        if self.verbose {
            eprintln!("{}", confman_cli::escape::text(&text.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_moves_where_nobody_looks() {
        let scripted = Global {
            json: true,
            ..Global::default()
        };
        assert!(scripted.waiting("it is copied").is_hidden());
        assert_eq!(scripted.during("it is copied", async { 7 }).await, 7);
    }
}
