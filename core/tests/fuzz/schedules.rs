//! Schedules beside a plain second implementation, which knows every minute around a change of the clocks.

use std::fmt::Write as _;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;
use tokenscope_core::Schedule;

use crate::{all, any_text, corpus, fuzz, in_time};

/// Zones, and the days of their changes: an hour, half an hour and two hours, at night and at midnight, back and forth.
///
/// No change is longer than three hours: the date line has moved over a place by a day, last in 2011, and openings on the day
/// that there never was are passed over then. Two days are those of a year's end, which has no change.
const CHANGES: [(&str, &str); 20] = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("Europe/Dublin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("America/St_Johns", "2026-03-08"),
    ("America/Santiago", "2026-04-05"),
    ("America/Santiago", "2026-09-06"),
    ("Africa/Cairo", "2026-04-24"),
    ("Africa/Cairo", "2026-10-30"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Africa/Casablanca", "2026-03-22"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("Antarctica/Troll", "2026-03-29"),
    ("Antarctica/Troll", "2026-10-25"),
    ("Asia/Kathmandu", "2026-02-28"),
    ("UTC", "2028-02-29"),
    ("UTC", "2027-12-31"),
    ("Europe/Berlin", "2026-12-31"),
];

const DAY: i64 = 24 * 60;

/// A part of a field between commas: its text, and the values that it stands for.
type Item = (String, Vec<i8>);

/// A field: its text, and the values that it stands for.
#[derive(Clone, Debug)]
struct Field {
    text: String,
    values: Vec<i8>,
    /// The last day of the month, `L`.
    last: bool,
}

fn any_item(from: i8, to: i8, most: i8) -> impl Strategy<Value = Item> {
    let step = 1..=(to - from).max(1);
    let every = move |start: i8, end: i8, step: i8| (start..=end).step_by(step as usize).collect::<Vec<_>>();
    prop_oneof![
        4 => (from..=to).prop_map(|value| (value.to_string(), vec![value])),
        2 => (from..=to, from..=to).prop_map(move |(one, other)| {
            let (start, end) = (one.min(other), one.max(other));
            (format!("{start}-{end}"), every(start, end, 1))
        }),
        1 => (from..=to, from..=to, step.clone()).prop_map(move |(one, other, step)| {
            let (start, end) = (one.min(other), one.max(other));
            (format!("{start}-{end}/{step}"), every(start, end, step))
        }),
        1 => step.prop_map(move |step| (format!("*/{step}"), every(from, most, step))),
        1 => Just(("*".to_owned(), every(from, most, 1))),
    ]
}

/// Values up to `to`; a `*` stands for all up to `most`.
fn any_field(from: i8, to: i8, most: i8) -> impl Strategy<Value = Field> {
    prop::collection::vec(any_item(from, to, most), 1..4).prop_map(|items| Field {
        text: items.iter().map(|item| item.0.as_str()).collect::<Vec<_>>().join(","),
        values: items.into_iter().flat_map(|item| item.1).collect(),
        last: false,
    })
}

fn every(from: i8, to: i8) -> impl Strategy<Value = Field> {
    let text = "*".to_owned();
    Just(Field {
        text,
        values: (from..=to).collect(),
        last: false,
    })
}

fn last_day() -> impl Strategy<Value = Field> {
    Just(Field {
        text: "L".to_owned(),
        values: vec![],
        last: true,
    })
}

#[derive(Clone, Debug)]
struct Cron {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Cron {
    fn text(&self) -> String {
        let mut text = self.minute.text.clone();
        for field in [&self.hour, &self.day, &self.month, &self.weekday] {
            write!(text, " {}", field.text).unwrap();
        }
        text
    }

    fn takes(&self, time: DateTime) -> bool {
        if !self.minute.values.contains(&time.minute())
            || !self.hour.values.contains(&time.hour())
            || !self.month.values.contains(&time.month())
        {
            return false;
        }
        let is_last = self.day.last && time.day() == time.date().last_of_month().day();
        let day = self.day.values.contains(&time.day()) || is_last;
        let sunday_first = time.weekday().to_sunday_zero_offset();
        let weekday = self.weekday.values.iter().any(|value| value % 7 == sunday_first);
        // The manual of cron: with both restricted, one of them is enough.
        if self.day.text.starts_with('*') || self.weekday.text.starts_with('*') {
            day && weekday
        } else {
            day || weekday
        }
    }
}

/// Mostly at night, when clocks change, and on most days.
fn any_cron() -> impl Strategy<Value = Cron> {
    let hour = prop_oneof![2 => any_field(0, 4, 23), 1 => any_field(0, 23, 23)];
    let day = prop_oneof![3 => every(1, 31), 2 => any_field(1, 31, 31), 1 => last_day()];
    let month = prop_oneof![4 => every(1, 12), 1 => any_field(1, 12, 12)];
    let weekday = prop_oneof![3 => every(0, 7), 1 => any_field(0, 7, 7)];
    (any_field(0, 59, 59), hour, day, month, weekday).prop_map(|(minute, hour, day, month, weekday)| Cron {
        minute,
        hour,
        day,
        month,
        weekday,
    })
}

/// What a zone's clocks show around a day, and when. Times are minutes since 1970.
struct Days {
    zone: &'static str,
    /// Each civil time, and the minute when a window opens that is to open then.
    openings: Vec<(DateTime, i64)>,
    /// The minute of the change; noon where there is none.
    change: i64,
    end: i64,
}

fn minutes(time: Timestamp) -> i64 {
    time.as_second().div_euclid(60)
}

fn moment(minutes: i64) -> Timestamp {
    Timestamp::from_second(minutes * 60).unwrap()
}

impl Days {
    fn around((zone, day): (&'static str, &'static str)) -> Self {
        let date: Date = day.parse().unwrap();
        let clock = TimeZone::get(zone).unwrap();
        let midnight = minutes(
            TimeZone::UTC
                .to_timestamp(date.to_datetime(jiff::civil::Time::midnight()))
                .unwrap(),
        );
        let offset = |minute| i64::from(clock.to_offset(moment(minute)).seconds()) / 60;
        let shown: Vec<(i64, i64)> = (midnight - 5 * DAY..midnight + 6 * DAY)
            .map(|minute| (minute, minute + offset(minute)))
            .collect();
        let step = shown.windows(2).find(|pair| pair[1].1 != pair[0].1 + 1);
        let mut at = 0;
        let mut opens = |civil: i64| {
            // The first time that the clocks show it; where they skip it, as if they went on as before.
            while shown[at].1 < civil {
                at += 1;
            }
            match shown[at] {
                (minute, shows) if shows == civil => minute,
                _ => shown[at - 1].0 + (civil - shown[at - 1].1),
            }
        };
        let start = date
            .to_datetime(jiff::civil::Time::midnight())
            .checked_sub(4.days())
            .unwrap();
        let openings = (0..8 * DAY).map(|minute| {
            let time = start.checked_add(minute.minutes()).unwrap();
            (time, opens(midnight - 4 * DAY + minute))
        });
        Self {
            zone,
            openings: openings.collect(),
            change: step.map_or(midnight + DAY / 2, |pair| pair[1].0),
            end: midnight + 3 * DAY,
        }
    }
}

fn agrees(days: &Days, cron: &Cron, duration: i64, begin: i64) -> TestCaseResult {
    let (text, length) = (cron.text(), format!("{duration}m"));
    let schedule = Schedule::parse(&text, &length, days.zone);
    let Ok(schedule) = schedule else {
        return Err(TestCaseError::fail(format!("{text} is refused: {schedule:?}")));
    };
    let taken = days.openings.iter().filter(|(time, _)| cron.takes(*time));
    let mut openings: Vec<i64> = taken.map(|(_, minute)| *minute).collect();
    openings.sort_unstable();
    for now in days.change + begin..days.change + begin + 8 {
        let told = format!("{text} for {length} in {} at {}", days.zone, moment(now));
        let open = openings
            .iter()
            .copied()
            .find(|opening| (*opening..opening + duration).contains(&now));
        prop_assert_eq!(schedule.is_active(moment(now)), open.is_some(), "{}", told);
        let next = openings.iter().copied().find(|opening| *opening > now);
        let found = schedule.next_opening(moment(now)).map(minutes);
        match next {
            Some(_) => prop_assert_eq!(found, next, "{}", told),
            None => prop_assert!(found.is_none_or(|found| found >= days.end), "{told}: {found:?}"),
        }
        let change = open.map(|opening| opening + duration).into_iter().chain(next).min();
        if change.is_some() {
            prop_assert_eq!(schedule.next_change(moment(now)).map(minutes), change, "{}", told);
        }
    }
    Ok(())
}

#[test]
fn schedules_are_open_in_every_minute_in_which_a_plain_implementation_says_so() {
    let days: Vec<Days> = CHANGES.into_iter().map(Days::around).collect();
    let inputs = (
        0..days.len(),
        any_cron(),
        prop_oneof![1..200_i64, 1..2 * DAY],
        -240..360_i64,
    );
    fuzz(&inputs, |(index, cron, duration, begin)| {
        agrees(&days[index], &cron, duration, begin)
    });
}

const PIECES: &[&str] = &[
    " ",
    "  ",
    "\t",
    "\u{a0}",
    "*",
    "/",
    "-",
    ",",
    "#",
    "L",
    "W",
    "?",
    "0",
    "00",
    "1",
    "5",
    "7",
    "8",
    "12",
    "31",
    "59",
    "60",
    "99999999999999999999",
    "-1",
    "MON",
    "Jan",
    "UTC",
    "CRON_TZ=",
    "@daily",
    "ä",
    "*/0",
    "5-1",
    "1-5/2",
    "0 8 * * ",
];

#[test]
fn no_text_of_a_schedule_makes_it_fail_otherwise_than_with_an_error_or_takes_long() {
    let check = |cron: &str, duration: &str, zone: &str| {
        in_time(|| match Schedule::parse(cron, duration, zone) {
            Ok(schedule) => {
                let now = moment(30_000_000);
                let next = schedule.next_opening(now);
                assert!(next.is_none_or(|next| next > now));
                assert!(schedule.next_change(now).is_none_or(|next| next > now));
                let _ = schedule.is_active(now);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        })
    };
    all(&corpus("schedules"), |cron| check(cron, "1h", "Europe/Berlin"));
    let durations = prop_oneof![
        "[0-9]{1,3}[smhd]([0-9]{1,2}m)?",
        "PT[0-9]{1,4}[MH]",
        Just("744h".to_owned()),
        any::<String>()
    ];
    let zones = prop_oneof![
        8 => select(&["UTC", "Europe/Berlin", "Pacific/Apia", "posixrules", "Etc/GMT+12"][..]).prop_map(str::to_owned),
        1 => "[A-Za-z/.]{0,20}",
        1 => any::<String>(),
    ];
    let inputs = (any_text(corpus("schedules"), PIECES), durations, zones);
    fuzz(&inputs, |(cron, duration, zone)| check(&cron, &duration, &zone));
}
