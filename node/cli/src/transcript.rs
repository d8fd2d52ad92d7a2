//! The help of a program as it is printed, for the tests that keep every page: a change of an option is a change that a reviewer sees.

use clap::Command;

/// How wide the pages are, in characters.
const WIDTH: usize = 100;

/// What `--help` prints for each command, with its name, such as `drtool-recover-apply`.
#[must_use]
pub fn help_pages(command: &mut Command) -> Vec<(String, String)> {
    command.build();
    let mut pages = Vec::new();
    let name = command.get_name().to_owned();
    add(&name, command, &mut pages);
    pages
}

fn add(name: &str, command: &mut Command, pages: &mut Vec<(String, String)>) {
    // What happens to be set while the test runs is not part of a page.
    let mut plain = command
        .clone()
        .term_width(WIDTH)
        .mut_args(|arg| arg.hide_env_values(true));
    pages.push((name.to_owned(), plain.render_long_help().to_string()));
    let subcommands = command.get_subcommands_mut();
    for sub in subcommands.filter(|sub| sub.get_name() != "help") {
        let name = format!("{name}-{}", sub.get_name());
        add(&name, sub, pages);
    }
}
