//! The times in December that the crontab of a schedule misses.

use cronexpr::Crontab;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The times in December of a crontab that names a last day or a last weekday of the month (`L`, `5L`).
///
/// cronexpr 1.7 finds none there: it takes a day for the last one if the month of the next day has a greater number. A January has 31 days
/// too, so a December is looked up as a January that begins on the same weekday.
#[derive(Clone, Debug)]
pub(super) struct December(Crontab);

impl December {
    /// Years whose first day is a Monday, a Tuesday, and so on.
    const JANUARIES: [i16; 7] = [2018, 2019, 2020, 2015, 2016, 2022, 2017];

    /// `None` where the crontab has no last day, or no December.
    pub(super) fn of(cron: &str) -> Option<Self> {
        let [minute, hour, day, month, weekday] = cron.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        if ![day, weekday].iter().any(|field| field.contains(['L', 'l'])) {
            return None;
        }
        let months = cronexpr::parse_crontab(&format!("0 0 1 {month} * UTC")).ok()?;
        let first = Date::new(2018, 12, 1).ok()?;
        let before = as_utc(first.yesterday().ok()?.to_datetime(Time::midnight()))?;
        if months.find_next(before).ok()?.date() != first {
            return None;
        }
        let crontab = cronexpr::parse_crontab(&format!("{minute} {hour} {day} 1 {weekday} UTC")).ok()?;
        Some(Self(crontab))
    }

    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = TimeZone::UTC.to_datetime(after);
        let next_year = after.year().checked_add(1)?;
        [after.year(), next_year]
            .into_iter()
            .find_map(|year| self.next_of(year, after))
    }

    /// The first time after `after` in the December of a year.
    fn next_of(&self, year: i16, after: DateTime) -> Option<Timestamp> {
        let first = Date::new(year, 12, 1).ok()?;
        let weekday = usize::try_from(first.weekday().to_monday_zero_offset()).ok()?;
        let january = Date::new(*Self::JANUARIES.get(weekday)?, 1, 1).ok()?;
        let shift = first.duration_since(january);
        let before = first
            .to_datetime(Time::midnight())
            .checked_sub(SignedDuration::from_mins(1))
            .ok()?;
        let from = after.max(before).checked_sub(shift).ok()?;
        let found = self.0.find_next(as_utc(from)?).ok()?.datetime();
        let is_there = (found.year(), found.month()) == (january.year(), 1);
        is_there.then(|| as_utc(found.checked_add(shift).ok()?)).flatten()
    }
}

fn as_utc(civil: DateTime) -> Option<Timestamp> {
    TimeZone::UTC.to_timestamp(civil).ok()
}
