//! Moments of the calendar as text: RFC 3339 in UTC, and spans as people write them.

use std::time::Duration;

/// Milliseconds since 1970 as `2026-12-01T02:34:50.123Z` (RFC 3339 §5.6).
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let seconds = rfc3339_seconds(i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX));
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), unix_ms % 1_000)
}

/// Seconds.
const DAY: i64 = 24 * 60 * 60;

/// The moment so many seconds after 1970-01-01T00:00:00Z, as `2026-12-01T04:25:00Z` (RFC 3339 §5.6, without fractions). Years before
/// 0 and after 9999, which the format does not know, are shown as the nearest that it knows.
#[must_use]
pub fn rfc3339_seconds(unix_seconds: i64) -> String {
    const FIRST: i64 = -62_167_219_200;
    const LAST: i64 = 253_402_300_799;
    let seconds = unix_seconds.clamp(FIRST, LAST);
    let (day, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// The date of a day counted from 1970-01-01 in the Gregorian calendar. Years are counted from March, so that the leap day is the last one.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097; // days of 400 years
    const FROM_MARCH_OF_YEAR_0: i64 = 719_468;
    let days = days + FROM_MARCH_OF_YEAR_0;
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day_of_month)
}

/// A span in its two largest units, as in `1 h 5 min`.
#[must_use]
pub fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    match seconds {
        0 if milliseconds > 0 => format!("{milliseconds} ms"),
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A span as an operator types it: a number and `ms`, `s`, `m`, `h` or `d`, as in `90s` or `1h`. At most 10 years.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    const LONGEST_S: u64 = 10 * 366 * 86_400;
    let wrong = || format!("{text:?} is no span of time; write 500ms, 30s, 10m, 1h or 7d");
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let milliseconds = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let span = number.checked_mul(milliseconds).map(Duration::from_millis);
    span.filter(|span| span.as_secs() <= LONGEST_S).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let times = [0, 951_782_399_007, 951_782_400_000, 1_709_210_096_789, 4_102_444_800_000].map(rfc3339);
        let expected = [
            "1970-01-01T00:00:00.000Z",
            "2000-02-28T23:59:59.007Z",
            "2000-02-29T00:00:00.000Z",
            "2024-02-29T12:34:56.789Z",
            "2100-01-01T00:00:00.000Z",
        ];
        assert_eq!(times, expected);
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let texts = [0, 900, 59_000, 61_000, 3_660_000, 90_000_000].map(span);
        assert_eq!(texts, ["0 s", "900 ms", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn spans_are_read_with_their_unit_and_nothing_else_is() {
        let seconds = |text| parse_span(text).map(|span| span.as_millis());
        assert_eq!(seconds("500ms"), Ok(500));
        assert_eq!(seconds("90s"), Ok(90_000));
        assert_eq!(seconds("10m"), seconds("10min"));
        assert_eq!(seconds("1h"), Ok(3_600_000));
        assert_eq!(seconds("7d"), Ok(604_800_000));
        for wrong in ["", "1", "h", "-1h", "1.5h", "1 h", "1w", "99999999999999999999d", "9999999d", "1ü"] {
            assert!(parse_span(wrong).unwrap_err().contains("write 500ms"), "{wrong}");
        }
    }

    #[test]
    fn moments_are_shown_as_date_dash_f_shows_them() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_796_099_100, "2026-12-01T04:25:00Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
            (i64::MIN, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339_seconds(seconds), shown);
        }
    }

    #[test]
    fn every_day_of_eight_centuries_follows_the_one_before() {
        let mut before = civil(-150_000);
        for day in -149_999..150_000 {
            let (year, month, date) = civil(day);
            let follows = match before {
                (y, m, d) if (year, month, date) == (y, m, d + 1) => true,
                (y, m, d) => {
                    d >= 28 && date == 1 && ((year, month) == (y, m + 1) || (year, month, m) == (y + 1, 1, 12))
                }
            };
            assert!(follows && date <= 31, "{before:?} {:?}", (year, month, date));
            before = (year, month, date);
        }
    }
}
