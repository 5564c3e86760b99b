//! The times when a policy is in force: a cron expression that opens a window, and how long it stays open.

mod december;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cronexpr::Crontab;
use december::December;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Windows that open at the times of a cron expression in a time zone and stay open for a duration.
///
/// The duration is elapsed time: across a change of the clocks a window of ten hours still lasts ten hours. Opening
/// times are civil times of the zone. One that the spring change skips opens its window at the moment that the skipped
/// time would have been without the change (02:30 becomes 03:30); one that the autumn change repeats opens at its
/// first occurrence.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Parsed as if for UTC: its times are civil times, which `time_zone` then places.
    crontab: Crontab,
    /// The times in December that the crontab misses.
    december: Option<December>,
    time_zone: TimeZone,
    duration: SignedDuration,
    text: Box<str>,
    /// The last answer of [`Self::is_active`], which every pod asks for. To find one takes a millisecond where days of the month and of the
    /// week hardly ever meet. Clones share it.
    known: Arc<Mutex<Option<KnownAnswer>>>,
}

/// Whether a window is open, and from when until when that is known.
#[derive(Clone, Copy, Debug)]
struct KnownAnswer {
    from: Timestamp,
    until: Timestamp,
    is_active: bool,
}

/// How long it is remembered that a schedule has no next opening. cronexpr looks for one in the next four years.
const CLOSED: SignedDuration = SignedDuration::from_hours(24);

impl Schedule {
    /// The shortest window: a minute.
    pub const MIN: SignedDuration = SignedDuration::from_mins(1);
    /// The longest window: 31 days.
    pub const MAX: SignedDuration = SignedDuration::from_hours(31 * 24);

    /// Parses cron (`0 8 * * 1-5`: minute, hour, day of month, month, day of week), duration (`10h`, `1h30m`) and an IANA
    /// time zone (`Europe/Berlin`).
    pub fn parse(cron: &str, duration: &str, time_zone: &str) -> Result<Self, InvalidSchedule> {
        let zone = TimeZone::get(time_zone).map_err(|_| InvalidSchedule::TimeZone { text: time_zone.into() })?;
        let invalid_cron = |reason: &str| InvalidSchedule::Cron {
            text: cron.into(),
            reason: reason.into(),
        };
        if cron.split_whitespace().count() != 5 {
            return Err(invalid_cron("it does not have five fields"));
        }
        let crontab = cronexpr::parse_crontab(&format!("{cron} UTC")).map_err(|error| {
            invalid_cron(
                error
                    .to_string()
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches([' ', '^', '-']),
            )
        })?;
        let parsed: SignedDuration = duration
            .parse()
            .map_err(|_| InvalidSchedule::Duration { text: duration.into() })?;
        if parsed < Self::MIN || parsed > Self::MAX {
            return Err(InvalidSchedule::Duration { text: duration.into() });
        }
        Ok(Self {
            december: December::of(cron),
            crontab,
            time_zone: zone,
            duration: parsed,
            text: format!("{cron:?} for {duration} in {time_zone}").into(),
            known: Arc::default(),
        })
    }

    /// True if a window is open at `now`. A window includes its first moment and excludes its last.
    pub fn is_active(&self, now: Timestamp) -> bool {
        let known = *self.known();
        if let Some(known) = known.filter(|known| known.from <= now && now < known.until) {
            return known.is_active;
        }
        let opened = self.opened(now);
        let until = match opened {
            Some(opened) => opened.checked_add(self.duration).ok(),
            None => self.next_opening(now).or_else(|| now.checked_add(CLOSED).ok()),
        };
        let is_active = opened.is_some();
        let mut last = self.known();
        // A question about the past, as drift asks it, does not displace the answer about the present.
        if let Some(until) = until
            && last.is_none_or(|last| last.until <= now)
        {
            *last = Some(KnownAnswer {
                from: now,
                until,
                is_active,
            });
        }
        is_active
    }

    fn known(&self) -> MutexGuard<'_, Option<KnownAnswer>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time after `now` when the answer of [`Self::is_active`] may change next.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let closes = self
            .opened(now)
            .and_then(|opened| opened.checked_add(self.duration).ok());
        let opens = self.next_opening(now);
        closes.into_iter().chain(opens).min()
    }

    /// The time after `now` when a window opens next.
    pub fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        /// More than any change of the clocks: an opening this much earlier by the clock may still lie ahead.
        const CLOCK_CHANGE: SignedDuration = SignedDuration::from_hours(3);
        let civil = self.time_zone.to_datetime(now).checked_sub(CLOCK_CHANGE).ok()?;
        let mut civil = TimeZone::UTC.to_timestamp(civil).ok()?;
        let mut first: Option<Timestamp> = None;
        loop {
            civil = match self.next_civil(civil) {
                Some(next) => next,
                None => return first,
            };
            let shown = TimeZone::UTC.to_datetime(civil);
            // A time that the clocks skip opens its window after some that follow it by the clock.
            if first.is_some_and(|first| self.time_zone.to_datetime(first) <= shown) {
                return first;
            }
            let opening = self.time_zone.to_timestamp(shown).ok()?;
            if opening > now {
                if self.time_zone.to_datetime(opening) == shown {
                    return first.into_iter().chain([opening]).min();
                }
                first = first.into_iter().chain([opening]).min();
            }
        }
    }

    /// The next time of the crontab after `civil`, both of them civil times as if for UTC.
    fn next_civil(&self, civil: Timestamp) -> Option<Timestamp> {
        let found = self.crontab.find_next(civil).ok().map(|next| next.timestamp());
        let in_december = self.december.as_ref().and_then(|december| december.next(civil));
        found.into_iter().chain(in_december).min()
    }

    /// The oldest opening whose window still is open at `now`.
    fn opened(&self, now: Timestamp) -> Option<Timestamp> {
        let earliest = now.checked_sub(self.duration).ok()?;
        self.next_opening(earliest).filter(|&opened| opened <= now)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schedule {}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The reason why there is no such schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// Not five cron fields, or one out of range.
    #[error(
        "cron {text:?}: {reason}; it should have five fields: minute, hour, day of month, month, day of week, such as 0 8 * * 1-5"
    )]
    Cron {
        /// The given value.
        text: Box<str>,
        /// The parser's message.
        reason: Box<str>,
    },
    /// Not a duration, or out of bounds.
    #[error("duration {text:?} should be from 1m to 744h, such as 10h or 1h30m")]
    Duration {
        /// The given value.
        text: Box<str>,
    },
    /// Not in the IANA time zone database.
    #[error("timeZone {text:?} is not an IANA time zone such as Europe/Berlin or UTC")]
    TimeZone {
        /// The given value.
        text: Box<str>,
    },
}

#[cfg(test)]
mod tests {
    use tokenscope_fixtures::ProcessorTime;

    use super::*;

    fn berlin(cron: &str, duration: &str) -> Schedule {
        Schedule::parse(cron, duration, "Europe/Berlin").unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_known_already_is_the_same_answer_in_whatever_order_it_is_asked_for() {
        let parsed = || berlin("0 8 * * 1-5", "10h");
        let known = parsed();
        for moment in [
            "2026-11-23T12:00:00+01:00",
            "2026-11-23T17:59:59+01:00",
            "2026-11-23T18:00:00+01:00",
            "2026-11-24T07:59:59+01:00",
            "2026-11-24T08:00:00+01:00",
            "2026-11-20T19:00:00+01:00",
            "2026-11-23T12:00:00+01:00",
            "2026-11-28T12:00:00+01:00",
            "2026-11-24T12:00:00+01:00",
        ] {
            let moment = at(moment);
            assert_eq!(known.is_active(moment), parsed().is_active(moment), "{moment}");
        }
    }

    #[test]
    fn what_is_known_already_is_not_looked_for_again() {
        let now = at("2026-11-23T12:00:00Z");
        let took = |schedules: &[Schedule]| {
            let began = ProcessorTime::now();
            assert!(schedules.iter().all(|schedule| !schedule.is_active(now)));
            began.elapsed()
        };
        let schedules: Vec<_> = (0..50).map(|_| berlin("0 0 30 2 *", "1m")).collect();
        let first = took(&schedules);
        let again = (0..5).map(|_| took(&schedules)).min().unwrap();
        assert!(again * 4 < first, "{again:?} after {first:?}");
    }

    #[test]
    fn a_window_opens_at_its_first_moment_and_closes_at_its_last() {
        let schedule = berlin("0 8 * * 1-5", "10h");

        assert!(!schedule.is_active(at("2026-11-23T07:59:59+01:00")));
        assert!(schedule.is_active(at("2026-11-23T08:00:00+01:00")));
        assert!(schedule.is_active(at("2026-11-23T17:59:59+01:00")));
        assert!(!schedule.is_active(at("2026-11-23T18:00:00+01:00")));
        assert!(!schedule.is_active(at("2026-11-22T12:00:00+01:00")), "a Sunday");
    }

    #[test]
    fn the_next_change_is_the_close_of_an_open_window_or_the_next_opening() {
        let schedule = berlin("0 8 * * 1-5", "10h");

        assert_eq!(
            schedule.next_change(at("2026-11-23T09:00:00+01:00")),
            Some(at("2026-11-23T18:00:00+01:00"))
        );
        assert_eq!(
            schedule.next_change(at("2026-11-23T19:00:00+01:00")),
            Some(at("2026-11-24T08:00:00+01:00"))
        );
    }

    #[test]
    fn a_window_across_the_spring_change_keeps_its_length() {
        // 2026-03-29: at 02:00 the clocks go to 03:00.
        let schedule = berlin("0 1 * * *", "2h");

        assert!(schedule.is_active(at("2026-03-29T01:00:00+01:00")));
        assert!(schedule.is_active(at("2026-03-29T03:59:59+02:00")));
        assert!(!schedule.is_active(at("2026-03-29T04:00:00+02:00")));
    }

    #[test]
    fn an_opening_that_the_spring_change_skips_happens_after_the_gap() {
        let schedule = berlin("30 2 * * *", "1h");

        assert!(!schedule.is_active(at("2026-03-29T03:29:59+02:00")));
        assert!(schedule.is_active(at("2026-03-29T03:30:00+02:00")));
        assert!(!schedule.is_active(at("2026-03-29T04:30:00+02:00")));
    }

    #[test]
    fn an_opening_after_the_gap_is_not_missed_for_a_skipped_one_that_happens_later() {
        // 2026-03-29: at 01:00 the clocks go to 03:00, so 02:00 happens at 04:00.
        let schedule = Schedule::parse("0 2-3 * * *", "30m", "Antarctica/Troll").unwrap();

        assert_eq!(
            schedule.next_opening(at("2026-03-29T00:30:00Z")),
            Some(at("2026-03-29T01:00:00Z"))
        );
        assert!(schedule.is_active(at("2026-03-29T01:00:00Z")));
        assert_eq!(
            schedule.next_opening(at("2026-03-29T01:00:00Z")),
            Some(at("2026-03-29T02:00:00Z"))
        );
    }

    #[test]
    fn an_opening_that_the_autumn_change_repeats_happens_once_at_its_first_occurrence() {
        // 2026-10-25: at 03:00 the clocks go back to 02:00.
        let schedule = berlin("30 2 * * *", "30m");

        assert!(schedule.is_active(at("2026-10-25T02:30:00+02:00")));
        assert!(!schedule.is_active(at("2026-10-25T02:30:00+01:00")));
    }

    #[test]
    fn the_last_day_and_the_last_weekday_of_a_month_are_found_in_each_month() {
        for (cron, after, next) in [
            ("0 8 L * *", "2026-12-01T00:00:00+01:00", "2026-12-31T08:00:00+01:00"),
            ("0 8 L * *", "2026-12-31T08:00:00+01:00", "2027-01-31T08:00:00+01:00"),
            ("0 8 L * *", "2026-11-01T00:00:00+01:00", "2026-11-30T08:00:00+01:00"),
            ("0 8 L 12 *", "2026-12-31T08:00:00+01:00", "2027-12-31T08:00:00+01:00"),
            (
                "0 8 1,L 11-12 *",
                "2026-11-30T08:00:00+01:00",
                "2026-12-01T08:00:00+01:00",
            ),
            ("0 8 * * 5L", "2026-11-28T00:00:00+01:00", "2026-12-25T08:00:00+01:00"),
            ("0 8 * * 5L", "2026-12-25T08:00:00+01:00", "2027-01-29T08:00:00+01:00"),
            ("0 8 * 12 4L", "2026-01-01T00:00:00+01:00", "2026-12-31T08:00:00+01:00"),
            ("0 8 L JUL *", "2026-12-01T00:00:00+01:00", "2027-07-31T08:00:00+02:00"),
        ] {
            assert_eq!(
                berlin(cron, "1h").next_opening(at(after)),
                Some(at(next)),
                "{cron} after {after}"
            );
        }
        let year_end = berlin("0 0 L * *", "24h");
        assert!(year_end.is_active(at("2026-12-31T12:00:00+01:00")));
        assert!(!year_end.is_active(at("2027-01-01T00:00:00+01:00")));
    }

    #[test]
    fn each_fault_is_named() {
        for (cron, duration, zone, part) in [
            ("0 8 * *", "10h", "UTC", "five fields"),
            ("0 8 * * 1-5 UTC", "10h", "UTC", "five fields"),
            ("61 8 * * *", "10h", "UTC", "cron \"61 8 * * *\""),
            ("0 8 * * *", "ten hours", "UTC", "duration \"ten hours\""),
            ("0 8 * * *", "0m", "UTC", "1m to 744h"),
            ("0 8 * * *", "-1h", "UTC", "1m to 744h"),
            ("0 8 * * *", "745h", "UTC", "1m to 744h"),
            ("0 8 * * *", "10h", "Europe/Bonn", "timeZone \"Europe/Bonn\""),
        ] {
            let error = Schedule::parse(cron, duration, zone).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
