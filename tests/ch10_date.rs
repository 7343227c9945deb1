//! Chapter 10: dates.

mod support;

use glasshouse::http::date::{DateError, HttpDate};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::bytes::eq_bytes;
use support::mutator::Mutator;

/// The example of RFC 9110, section 5.6.7: 6 November 1994, 08:49:37.
const EXAMPLE: u64 = 784_111_777;
const DAY: u64 = 86_400;

fn at(seconds: u64) -> HttpDate {
    HttpDate::from(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[test]
fn a_date_is_written_as_29_bytes() {
    let cases = [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (EXAMPLE, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
        (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ];
    for (seconds, text) in cases {
        eq_bytes(text.as_bytes(), at(seconds).to_string().as_bytes());
        assert_eq!(HttpDate::parse(text), Ok(at(seconds)));
    }
}

#[test]
fn the_three_forms_name_the_same_moment() {
    for text in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ] {
        assert_eq!(HttpDate::parse(text), Ok(at(EXAMPLE)), "{text}");
        assert_eq!(at(EXAMPLE).seconds(), EXAMPLE);
    }
    assert_eq!(HttpDate::parse("Wed Nov 16 08:49:37 1994"), Ok(at(EXAMPLE + 10 * DAY)));
}

#[test]
fn every_day_from_1970_to_2400_is_read_as_it_was_written() {
    let mut before = String::new();
    for day in 0..157_054 {
        let date = at(day * DAY + day % DAY);
        let text = date.to_string();
        assert_eq!(text.len(), 29);
        assert_ne!(text, before);
        assert_eq!(HttpDate::parse(&text), Ok(date), "{text}");
        before = text;
    }
    eq_bytes(b"Fri, 31 Dec 2399", &before.as_bytes()[..16]);
}

#[test]
fn february_has_29_days_only_in_a_leap_year() {
    for day in ["Tue 1972", "Tue 2000", "Thu 2024", "Tue 2400"] {
        let text = day.replace(' ', " Feb 29 00:00:00 ");
        assert!(HttpDate::parse(&text).is_ok(), "{text}");
    }
    for year in [1970, 2023, 2100, 2200, 2300] {
        let text = format!("Sun Feb 29 00:00:00 {year}");
        assert_eq!(HttpDate::parse(&text), Err(DateError::OutOfRange), "{year}");
    }
}

#[test]
fn a_two_digit_year_is_at_most_50_years_ahead() {
    let today = "Mon, 15 Jun 2026 12:00:00 GMT";
    let now = HttpDate::parse(today).expect("a valid date");
    let cases = [
        ("26", "2026"),
        ("27", "2027"),
        ("75", "2075"),
        ("76", "2076"),
        ("77", "1977"),
        ("99", "1999"),
        ("00", "2000"),
    ];
    for (two, four) in cases {
        let short = format!("Monday, 15-Jun-{two} 12:00:00 GMT");
        let long = format!("Mon, 15 Jun {four} 12:00:00 GMT");
        assert_eq!(HttpDate::parse_at(&short, now), HttpDate::parse(&long), "{two}");
    }
    let one_day_more = HttpDate::parse_at("Monday, 16-Jun-76 12:00:00 GMT", now);
    assert_eq!(one_day_more, HttpDate::parse("Mon, 16 Jun 1976 12:00:00 GMT"));
}

#[test]
fn a_moment_that_does_not_exist_is_out_of_range() {
    for text in [
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 32 Jan 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Wed, 31 Dec 1969 23:59:59 GMT",
        "Wed, 31 Dec 0000 23:59:59 GMT",
    ] {
        assert_eq!(HttpDate::parse(text), Err(DateError::OutOfRange), "{text}");
    }
}

#[test]
fn a_leap_second_is_taken_for_the_second_before_it() {
    let leap = HttpDate::parse("Sat, 31 Dec 2016 23:59:60 GMT");
    assert_eq!(leap, HttpDate::parse("Sat, 31 Dec 2016 23:59:59 GMT"));
}

#[test]
fn what_has_none_of_the_three_forms_is_refused() {
    for text in [
        "",
        "now",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun,06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Son, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Okt 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, +6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:3\u{661} GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
    ] {
        assert_eq!(HttpDate::parse(text), Err(DateError::Form), "{text}");
    }
}

#[test]
fn a_system_time_becomes_a_date_within_range() {
    assert_eq!(HttpDate::from(UNIX_EPOCH + Duration::from_millis(1_999)), at(1));
    assert_eq!(HttpDate::from(UNIX_EPOCH - Duration::from_secs(1)), at(0));
    assert_eq!(at(253_402_300_800), at(253_402_300_799));
    let before = HttpDate::from(SystemTime::now());
    assert!(HttpDate::now() >= before);
}

#[test]
fn every_error_names_its_rule_in_a_sentence() {
    for error in [DateError::Form, DateError::OutOfRange] {
        assert_eq!(error.rule(), "RFC 9110, section 5.6.7");
        assert!(error.to_string().contains(' '));
    }
}

#[test]
fn a_hundred_thousand_broken_dates_break_nothing() {
    let good = [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ];
    let mut mutator = Mutator::new(10);
    for round in 0..100_000 {
        let mutant = mutator.mutate(good[round % good.len()].as_bytes());
        let text = String::from_utf8_lossy(&mutant);
        if let Ok(date) = HttpDate::parse(&text) {
            assert_eq!(HttpDate::parse(&date.to_string()), Ok(date), "{text}");
        }
    }
}

#[test]
#[ignore = "exercise 10.2"]
fn exercise_10_2_a_month_may_be_in_lower_case() {
    for month in ["nov", "NOV", "Nov"] {
        let text = format!("Sun, 06 {month} 1994 08:49:37 GMT");
        assert_eq!(HttpDate::parse(&text), Ok(at(EXAMPLE)), "{text}");
    }
}

#[test]
#[ignore = "exercise 10.4"]
fn exercise_10_4_a_weekday_that_does_not_fit_is_refused() {
    assert_eq!(HttpDate::parse("Sun, 06 Nov 1994 08:49:37 GMT"), Ok(at(EXAMPLE)));
    let wrong = "Mon, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(HttpDate::parse(wrong), Err(DateError::OutOfRange));
    let wrong = "Monday, 06-Nov-94 08:49:37 GMT";
    assert_eq!(HttpDate::parse(wrong), Err(DateError::OutOfRange));
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
