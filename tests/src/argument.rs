//! Numbers on the command line of a benchmark.

use anyhow::Context as _;

/// What follows `name` among the arguments of this process; `default` where it is not there.
///
/// # Errors
/// No number follows.
pub fn argument(name: &str, default: usize) -> anyhow::Result<usize> {
    let mut arguments = std::env::args();
    while let Some(argument) = arguments.next() {
        if argument == name {
            let value = arguments
                .next()
                .with_context(|| format!("{name} needs a number"))?;
            return value.parse().with_context(|| format!("{name} {value}"));
        }
    }
    Ok(default)
}
