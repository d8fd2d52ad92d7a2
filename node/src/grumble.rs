//! What repeats, told seldom: at most once a minute about each subject ([`Grumble`]), or so many lines a second ([`Pace`]) where each
//! line is of something else. What was kept back is counted and said with the next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long the same is not told again.
const QUIET: Duration = Duration::from_secs(60);
/// More subjects than this are not told apart: a scanner has many addresses.
const SUBJECTS_MAX: usize = 256;

/// Who was grumbled about, and when.
#[derive(Debug, Default)]
pub(crate) struct Grumble {
    told: Mutex<HashMap<(String, &'static str), Told>>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    /// How often it happened since.
    since: u64,
}

impl Grumble {
    /// Whether this may be told now: then, how often it was kept back since it was told last.
    pub(crate) fn may(&self, subject: &str, what: &'static str, now: Instant) -> Option<u64> {
        let mut told = self.told.lock();
        if let Some(known) = told.get_mut(&(subject.to_owned(), what)) {
            if now.saturating_duration_since(known.at) < QUIET {
                known.since += 1;
                return None;
            }
            known.at = now;
            return Some(std::mem::take(&mut known.since));
        }
        if told.len() >= SUBJECTS_MAX {
            told.retain(|_, known| now.saturating_duration_since(known.at) < QUIET);
        }
        let subject = if told.len() >= SUBJECTS_MAX {
            "others"
        } else {
            subject
        };
        if let Some(known) = told.get_mut(&(subject.to_owned(), what)) {
            known.since += 1;
            return None;
        }
        let first = Told { at: now, since: 0 };
        told.insert((subject.to_owned(), what), first);
        Some(0)
    }
}

/// So many lines a second: enough to see each when there are few, and what goes on when there are many.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    second: Mutex<Option<Told>>,
}

/// Lines a second that a [`Pace`] allows.
const LINES_PER_SECOND: u64 = 20;

impl Pace {
    /// Whether a line may be told now: then, how many were kept back since the last.
    pub(crate) fn may(&self, now: Instant) -> Option<u64> {
        let mut second = self.second.lock();
        let begun = |of: &Told| now.saturating_duration_since(of.at) < Duration::from_secs(1);
        let before = second.filter(begun).map_or(0, |of| of.since);
        let kept_back = second.map_or(0, |of| of.since.saturating_sub(LINES_PER_SECOND));
        let at = second.filter(begun).map_or(now, |of| of.at);
        *second = Some(Told {
            at,
            since: before + 1,
        });
        match before {
            0 => Some(kept_back),
            _ => (before < LINES_PER_SECOND).then_some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_in_part_and_counted() {
        let pace = Pace::default();
        let now = Instant::now();
        let told = (0..100).filter_map(|_| pace.may(now)).collect::<Vec<_>>();
        assert_eq!(told, [0; 20]);
        let later = now + Duration::from_secs(1);
        assert_eq!(pace.may(later), Some(80), "with what was kept back");
        assert_eq!(pace.may(later), Some(0));
        assert_eq!(pace.may(later + Duration::from_secs(5)), Some(0));
    }

    #[test]
    fn the_same_is_told_once_a_minute_with_what_was_kept_back() {
        let grumble = Grumble::default();
        let now = Instant::now();
        assert_eq!(grumble.may("10.0.0.1", "plain", now), Some(0));
        assert_eq!(grumble.may("10.0.0.1", "plain", now), None);
        assert_eq!(grumble.may("10.0.0.1", "plain", now + QUIET / 2), None);
        assert_eq!(
            grumble.may("10.0.0.1", "timeout", now),
            Some(0),
            "another thing"
        );
        assert_eq!(
            grumble.may("10.0.0.2", "plain", now),
            Some(0),
            "another subject"
        );
        assert_eq!(grumble.may("10.0.0.1", "plain", now + QUIET), Some(2));
    }

    #[test]
    fn i19_a_thousand_subjects_take_no_more_room_than_a_few_hundred() {
        let grumble = Grumble::default();
        let now = Instant::now();
        let told = (0..10_000).filter(|n| {
            grumble
                .may(&format!("10.0.{}.{}", n / 250, n % 250), "plain", now)
                .is_some()
        });
        assert!(told.count() <= SUBJECTS_MAX + 1);
        assert!(grumble.told.lock().len() <= SUBJECTS_MAX + 1);
        assert_eq!(
            grumble.may("10.9.9.9", "plain", now + QUIET * 2),
            Some(0),
            "room again"
        );
    }
}
