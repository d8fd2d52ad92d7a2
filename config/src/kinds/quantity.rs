//! Kinds of value that say how much or how long: whole numbers within bounds, and parts of a whole.

use std::time::Duration;

use super::{Kind, Parsed};

/// A whole number within bounds, both included.
pub struct Number {
    /// The least value.
    pub min: u64,
    /// The greatest value.
    pub max: u64,
    /// What is counted, in the plural; empty for a bare number.
    pub unit: &'static str,
}

impl Kind for Number {
    type Value = u64;

    fn expected(&self) -> String {
        let of = if self.unit.is_empty() { "" } else { " of " };
        format!(
            "a whole number{of}{} from {} to {}",
            self.unit, self.min, self.max
        )
    }

    fn parse(&self, text: &str) -> Parsed<u64> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(None);
        }
        match text.parse() {
            Ok(number) if (self.min..=self.max).contains(&number) => Ok(number),
            _ => Err(None),
        }
    }

    fn show(&self, value: &u64) -> String {
        value.to_string()
    }
}

/// A duration given as a whole number of seconds.
pub struct Seconds {
    /// The least value.
    pub min: u64,
    /// The greatest value.
    pub max: u64,
}

impl Seconds {
    fn number(&self) -> Number {
        Number {
            min: self.min,
            max: self.max,
            unit: "seconds",
        }
    }
}

impl Kind for Seconds {
    type Value = Duration;

    fn expected(&self) -> String {
        self.number().expected()
    }

    fn parse(&self, text: &str) -> Parsed<Duration> {
        self.number().parse(text).map(Duration::from_secs)
    }

    fn show(&self, value: &Duration) -> String {
        value.as_secs().to_string()
    }
}

/// A duration given as a whole number of milliseconds.
pub struct Millis {
    /// The least value.
    pub min: u64,
    /// The greatest value.
    pub max: u64,
}

impl Millis {
    fn number(&self) -> Number {
        Number {
            min: self.min,
            max: self.max,
            unit: "milliseconds",
        }
    }
}

impl Kind for Millis {
    type Value = Duration;

    fn expected(&self) -> String {
        self.number().expected()
    }

    fn parse(&self, text: &str) -> Parsed<Duration> {
        self.number().parse(text).map(Duration::from_millis)
    }

    fn show(&self, value: &Duration) -> String {
        value.as_millis().to_string()
    }
}

/// A part of a whole: a decimal number from 0 to 1.
pub struct Ratio;

impl Kind for Ratio {
    type Value = f64;

    fn expected(&self) -> String {
        "a number from 0 to 1, such as `0.25`".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<f64> {
        // Neither signs and exponents nor `inf` and `NaN`, which Rust would read.
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
        {
            return Err(None);
        }
        match text.parse() {
            Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
            _ => Err(None),
        }
    }

    fn show(&self, value: &f64) -> String {
        value.to_string()
    }
}
