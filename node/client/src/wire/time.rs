//! Points in time: microseconds inside, RFC 3339 outside.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Microseconds since the Unix epoch, UTC. Prints as `2026-01-31T12:00:00.000001Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(i64);

/// Text that is no RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time: {text:?}")]
pub struct ParseTimeError {
    /// What was given.
    pub text: String,
}

/// 0001-01-01T00:00:00Z.
const US_MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-30T00:00:00Z: the last full day that every time zone can print.
const US_MAX: i64 = 253_402_128_000_000_000;

impl Time {
    /// From microseconds since the epoch; what lies outside the years 1 to 9999 becomes their first or last moment.
    pub fn from_us(us: i64) -> Self {
        Self(us.clamp(US_MIN, US_MAX))
    }

    /// Microseconds since the epoch.
    pub fn as_us(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp = jiff::Timestamp::from_microsecond(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{stamp:.6}")
    }
}

impl FromStr for Time {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>()
            .map(|stamp| Self::from_us(stamp.as_microsecond()))
            .map_err(|_| ParseTimeError {
                text: text.to_owned(),
            })
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn six_digits_even_when_zero() {
        assert_eq!(Time::from_us(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            Time::from_us(1_700_000_000_123_456).to_string(),
            "2023-11-14T22:13:20.123456Z"
        );
    }

    #[test]
    fn beyond_the_calendar_still_prints() {
        assert!(Time::from_us(i64::MAX).to_string().starts_with("9999-"));
        assert_eq!(
            Time::from_us(i64::MIN).to_string(),
            "0001-01-01T00:00:00.000000Z"
        );
        assert!(Time::default().as_us() == 0 && Time::from_us(US_MAX).as_us() == US_MAX);
    }

    proptest! {
        #[test]
        fn prints_and_parses_to_itself(us in -60_000_000_000_000_000_i64..250_000_000_000_000_000) {
            let time = Time::from_us(us);
            prop_assert_eq!(time.to_string().parse::<Time>(), Ok(time));
        }
    }
}
