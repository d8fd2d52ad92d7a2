//! What every command is told beside its own arguments.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

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
    /// How work that takes longer than a second is shown: `auto` is a bar on a terminal, unless --json; `json` a line a second on stderr
    #[arg(long, global = true, value_name = "HOW", default_value = "auto")]
    pub progress: Progress,
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

/// How work that takes longer is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// A bar on a terminal, unless there is `--json`.
    #[default]
    Auto,
    /// A JSON document a second on stderr, a line each.
    Json,
    /// Not at all.
    Never,
}

/// Work may be made of other work: each bar has a line of its own.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
/// How often a script is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);

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

    /// A bar on stderr for work that may take more than a second, or lines of JSON; nothing where stderr is no terminal and
    /// nobody asked for those. A `total` of 0 is one that nobody knows yet.
    #[must_use]
    pub fn progress(&self, what: &str, total: u64) -> ProgressBar {
        let on_a_terminal = std::io::stderr().is_terminal() && !self.json;
        let bar = if self.progress == Progress::Auto && on_a_terminal {
            BARS.add(ProgressBar::new(total))
        } else {
            let bar = ProgressBar::hidden();
            bar.set_length(total);
            bar
        };
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        if self.progress == Progress::Json {
            tell(&bar);
        }
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

    /// The same for work that holds up its thread.
    pub fn during_blocking<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        let bar = self.waiting(what);
        let done = work();
        bar.finish_and_clear();
        done
    }

    /// A line on stderr that only `-v` asks for.
    pub fn note(&self, text: impl std::fmt::Display) {
        if self.verbose {
            say(text);
        }
    }
}

/// A line on stderr that stays above the bars that may be up.
pub fn say(text: impl std::fmt::Display) {
    let line = text.to_string();
    BARS.suspend(|| eprintln!("{}", confman_cli::escape::text(&line)));
}

/// Tells a script about the work for as long as it is under way. A thread, because work may hold up whoever does it.
fn tell(bar: &ProgressBar) {
    let work = bar.downgrade();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(TELL_EVERY);
            let Some(bar) = work.upgrade().filter(|bar| !bar.is_finished()) else {
                return;
            };
            eprintln!("{}", line(&bar));
        }
    });
}

fn line(bar: &ProgressBar) -> serde_json::Value {
    serde_json::json!({ "progress": {
        "what": bar.message(),
        "done": bar.position(),
        "total": bar.length().filter(|total| *total > 0),
        "seconds": bar.elapsed().as_secs(),
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_told_how_far_it_is() {
        let scripted = Global {
            json: true,
            progress: Progress::Json,
            ..Global::default()
        };
        let bar = scripted.progress("bytes", 0);
        assert!(bar.is_hidden());
        let told = line(&bar);
        assert_eq!(told["progress"]["what"], "bytes");
        assert!(told["progress"]["total"].is_null(), "nobody knows: {told}");
        bar.set_length(10);
        bar.set_position(4);
        let told = line(&bar);
        assert_eq!(told["progress"]["done"], 4, "{told}");
        assert_eq!(told["progress"]["total"], 10, "{told}");
    }

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
