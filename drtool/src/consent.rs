//! Consent as a value (I16): a function that destroys takes a [`Consent`], and only [`ask`] makes one, from a plan that
//! was shown and an operator who agreed to it.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use confman_cli::failure::Failure;

use crate::codes;

/// A plan that was printed to the operator.
#[derive(Debug)]
pub struct Shown<'a, P> {
    plan: &'a P,
}

/// The operator agreed to this plan. There is no other way to make one than [`ask`].
#[derive(Debug)]
pub struct Consent<'a, P> {
    plan: &'a P,
}

impl<'a, P> Consent<'a, P> {
    /// What was agreed to.
    #[must_use]
    pub fn plan(&self) -> &'a P {
        self.plan
    }
}

/// Prints a plan on stderr, so that `--json` keeps stdout for itself.
///
/// # Errors
/// stderr cannot be written: what was not shown cannot be agreed to.
pub fn show<P: std::fmt::Display>(plan: &P) -> Result<Shown<'_, P>, Failure> {
    let text = plan.to_string();
    let mut err = std::io::stderr().lock();
    writeln!(err, "{}", confman_cli::escape::lines(&text))
        .and_then(|()| err.flush())
        .map_err(|error| {
            // Not shown is not agreed to.
            codes::usage(
                "CONSENT_NEEDED",
                format!("nothing was done: show the plan on stderr: {error}"),
            )
        })?;
    Ok(Shown { plan })
}

/// Takes `--yes`, or asks on the terminal for `word` (the first eight characters of the cluster's uuid, where there is
/// a cluster).
///
/// # Errors
/// `CONSENT_NEEDED` when neither was given: nothing hangs on a prompt that nobody sees.
pub fn ask<'a, P>(shown: Shown<'a, P>, yes: bool, word: &str) -> Result<Consent<'a, P>, Failure> {
    let agreed = Consent { plan: shown.plan };
    if yes {
        return Ok(agreed);
    }
    let refused = |why: &str| {
        codes::usage("CONSENT_NEEDED", format!("nothing was done: {why}"))
            .with_hint("read the plan above and run the command again with --yes")
    };
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(refused("there is no terminal to ask on, and no --yes"));
    }
    eprint!("Type {word} to do this, anything else to stop: ");
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| refused(&format!("read the answer: {error}")))?;
    if answer.trim() == word {
        Ok(agreed)
    } else {
        Err(refused("the answer was another one"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i16_consent_needs_a_shown_plan_and_an_answer() {
        let plan = "delete nothing".to_owned();
        let agreed = ask(show(&plan).unwrap(), true, "word").unwrap();
        assert_eq!(agreed.plan(), &plan);
        // Tests have no terminal.
        if !std::io::stdin().is_terminal() {
            let refused = ask(show(&plan).unwrap(), false, "word").unwrap_err();
            assert!(
                refused.to_string().contains("nothing was done"),
                "{refused}"
            );
        }
    }
}
