//! Chapter 10: dates. RFC 9110, section 5.6.7.
//!
//! Every answer says when it was made, and std counts seconds but knows no calendar. So we write
//! the calendar. Three forms of a date may arrive, only the first is ever sent:
//!
//! ```text
//!   Sun, 06 Nov 1994 08:49:37 GMT      IMF-fixdate, always 29 bytes
//!   Sunday, 06-Nov-94 08:49:37 GMT     RFC 850: the year has two digits
//!   Sun Nov  6 08:49:37 1994           asctime: the day is padded with a space
//! ```
//!
//! The trick of the calendar is to let the year begin on 1 March. Then the leap day is the last day
//! of the year, and the months before it have a regular rhythm of 31 and 30 days:
//!
//! ```text
//!   month   Mar Apr May Jun Jul Aug Sep Oct Nov Dec Jan Feb
//!   begins    0  31  61  92 122 153 184 214 245 275 306 337     = (153 * month + 2) / 5
//! ```

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment as HTTP writes it: whole seconds from 1970 to 9999, always UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpDate(u64);

/// 31 December 9999, 23:59:59: the last moment that a year of four digits can name.
const LAST_SECOND: u64 = 253_402_300_799;

impl HttpDate {
    /// This moment.
    pub fn now() -> HttpDate {
        HttpDate::from(SystemTime::now())
    }

    /// The seconds since the start of 1970.
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// Reads any of the three forms. The names in it are case-sensitive, as the RFC has them.
    pub fn parse(text: &str) -> Result<HttpDate, DateError> {
        HttpDate::parse_at(text, HttpDate::now())
    }

    /// The same, as somebody would read it at the moment `now`.
    ///
    /// The moment matters for the form with two digits of the year: it means the latest such year
    /// that is at most 50 years ahead.
    // HTTP-date = IMF-fixdate / rfc850-date / asctime-date        RFC 9110, section 5.6.7
    pub fn parse_at(text: &str, now: HttpDate) -> Result<HttpDate, DateError> {
        let (weekday, rest) = text.split_once(' ').ok_or(DateError::Form)?;
        let mut fields = Fields { rest };
        let (date, seconds) = match weekday.strip_suffix(',') {
            Some(day_name) if SHORT_WEEKDAYS.contains(&day_name) => fields.imf_fixdate()?,
            Some(day_name) if WEEKDAYS.contains(&day_name) => fields.rfc850_date(now)?,
            None if SHORT_WEEKDAYS.contains(&weekday) => fields.asctime_date()?,
            _ => return Err(DateError::Form),
        };
        if !fields.rest.is_empty() {
            return Err(DateError::Form);
        }
        let days = days_since_1970(date)?;
        Ok(HttpDate(days * SECONDS_PER_DAY + seconds))
    }
}

impl From<SystemTime> for HttpDate {
    /// Parts of a second are dropped. A time outside 1970 to 9999 becomes the nearest inside.
    fn from(time: SystemTime) -> HttpDate {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        HttpDate(since.as_secs().min(LAST_SECOND))
    }
}

impl fmt::Display for HttpDate {
    // IMF-fixdate = day-name "," SP date1 SP time-of-day SP GMT        RFC 9110, section 5.6.7
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0 / SECONDS_PER_DAY;
        let second = self.0 % SECONDS_PER_DAY;
        let Date { year, month, day } = civil(days);
        // 1 January 1970 was a Thursday.
        let weekday = name(&SHORT_WEEKDAYS, (days + 4) % 7);
        let month = name(&MONTHS, month - 1);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        // By hand, for every answer carries a date, and `write!` takes several times as long.
        let mut text = String::with_capacity(29);
        text.push_str(weekday);
        text.push_str(", ");
        push_two_digits(&mut text, day);
        text.push(' ');
        text.push_str(month);
        text.push(' ');
        push_two_digits(&mut text, year / 100);
        push_two_digits(&mut text, year % 100);
        for (mark, number) in [(' ', hour), (':', minute), (':', second)] {
            text.push(mark);
            push_two_digits(&mut text, number);
        }
        text.push_str(" GMT");
        f.write_str(&text)
    }
}

fn push_two_digits(text: &mut String, number: u64) {
    for digit in [number / 10 % 10, number % 10] {
        text.push(char::from(b'0' + digit as u8));
    }
}

const SECONDS_PER_DAY: u64 = 86_400;

const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SHORT_WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn name(names: &[&'static str], index: u64) -> &'static str {
    let index = usize::try_from(index).unwrap_or_default();
    names.get(index).copied().unwrap_or_default()
}

/// A day of the calendar; January is month 1. Later dates are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
}

/// After so many days the calendar repeats: 400 years, 97 of them leap years.
const DAYS_PER_400_YEARS: u64 = 146_097;
/// From 1 March of the year 0 to 1 January 1970.
const DAYS_TO_1970: u64 = 719_468;

/// The date that many days after 1 January 1970.
fn civil(days: u64) -> Date {
    let days = days + DAYS_TO_1970;
    let (cycle, day) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    // Without the leap days that have passed, every year has 365 days. One is taken out for every 4
    // years (1,460 days), one is given back for every 100 (36,524), and the last day of the cycle,
    // 29 February of its 400th year, is taken out again.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    let march_month = (5 * day + 2) / 153;
    let day = day - days_before(march_month) + 1;
    let (month, next_year) = match march_month {
        0..=9 => (march_month + 3, 0),
        _ => (march_month - 9, 1),
    };
    let year = cycle * 400 + year + next_year;
    Date { year, month, day }
}

/// The days of a year that begins in March before that month; March is 0.
fn days_before(march_month: u64) -> u64 {
    (153 * march_month + 2) / 5
}

/// The way back. A day that the calendar does not have, such as 30 February, is an error.
fn days_since_1970(date: Date) -> Result<u64, DateError> {
    let Date { year, month, day } = date;
    if !(1970..=9999).contains(&year) {
        return Err(DateError::OutOfRange);
    }
    let (year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + days_before(march_month) + day;
    let days = days.checked_sub(DAYS_TO_1970 + 1).ok_or(DateError::OutOfRange)?;
    // 30 February would come back as 2 March.
    if civil(days) == date { Ok(days) } else { Err(DateError::OutOfRange) }
}

/// What is left of the text; each method takes its part from the front.
struct Fields<'a> {
    rest: &'a str,
}

impl Fields<'_> {
    // date1 = day SP month SP year        ; 02 Jun 1982
    fn imf_fixdate(&mut self) -> Result<(Date, u64), DateError> {
        let day = self.digits(2)?;
        self.literal(" ")?;
        let month = self.month()?;
        self.literal(" ")?;
        let year = self.digits(4)?;
        self.literal(" ")?;
        let seconds = self.time_of_day()?;
        self.literal(" GMT")?;
        Ok((Date { year, month, day }, seconds))
    }

    // date2 = day "-" month "-" 2DIGIT        ; 02-Jun-82
    fn rfc850_date(&mut self, now: HttpDate) -> Result<(Date, u64), DateError> {
        let day = self.digits(2)?;
        self.literal("-")?;
        let month = self.month()?;
        self.literal("-")?;
        let two_digits = self.digits(2)?;
        self.literal(" ")?;
        let seconds = self.time_of_day()?;
        self.literal(" GMT")?;
        let today = civil(now.0 / SECONDS_PER_DAY);
        let latest = Date { year: today.year + 50, ..today };
        let year = latest.year - latest.year % 100 + two_digits;
        let date = Date { year, month, day };
        // RFC 9110, section 5.6.7: more than 50 years in the future means the past.
        if date > latest {
            return Ok((Date { year: year - 100, ..date }, seconds));
        }
        Ok((date, seconds))
    }

    // date3 = month SP ( 2DIGIT / ( SP 1DIGIT ) )        ; Jun  2
    fn asctime_date(&mut self) -> Result<(Date, u64), DateError> {
        let month = self.month()?;
        self.literal(" ")?;
        let day = match self.literal(" ") {
            Ok(()) => self.digits(1)?,
            Err(_) => self.digits(2)?,
        };
        self.literal(" ")?;
        let seconds = self.time_of_day()?;
        self.literal(" ")?;
        let year = self.digits(4)?;
        Ok((Date { year, month, day }, seconds))
    }

    // time-of-day = hour ":" minute ":" second        ; 00:00:00 to 23:59:60 (leap second)
    fn time_of_day(&mut self) -> Result<u64, DateError> {
        let hour = self.digits(2)?;
        self.literal(":")?;
        let minute = self.digits(2)?;
        self.literal(":")?;
        let second = self.digits(2)?;
        if hour > 23 || minute > 59 || second > 60 {
            return Err(DateError::OutOfRange);
        }
        // Computers do not count leap seconds: it is taken for the second before it.
        Ok(hour * 3600 + minute * 60 + second.min(59))
    }

    /// The number of the month, from 1.
    fn month(&mut self) -> Result<u64, DateError> {
        for (number, name) in (1..).zip(MONTHS) {
            if self.literal(name).is_ok() {
                return Ok(number);
            }
        }
        Err(DateError::Form)
    }

    fn literal(&mut self, expected: &str) -> Result<(), DateError> {
        self.rest = self.rest.strip_prefix(expected).ok_or(DateError::Form)?;
        Ok(())
    }

    fn digits(&mut self, count: usize) -> Result<u64, DateError> {
        let (digits, rest) = self.rest.split_at_checked(count).ok_or(DateError::Form)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(DateError::Form);
        }
        self.rest = rest;
        digits.parse().map_err(|_| DateError::Form)
    }
}

/// What is wrong with a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DateError {
    /// It is written in none of the three forms.
    Form,
    /// It names a moment that does not exist, or one before 1970.
    OutOfRange,
}

impl DateError {
    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        "RFC 9110, section 5.6.7"
    }
}

impl fmt::Display for DateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DateError::Form => "the date has none of the three forms of HTTP",
            DateError::OutOfRange => "there is no such moment after the start of 1970",
        })
    }
}

impl std::error::Error for DateError {}
