//! Moments of the calendar as text: RFC 3339 in UTC, and spans as people write them.

use std::time::Duration;

/// Milliseconds since 1970 as `2026-12-01T02:34:50.123Z` (RFC 3339 section 5.6). By the proleptic Gregorian calendar, in cycles of
/// 400 years.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let (seconds, milliseconds) = (unix_ms / 1_000, unix_ms % 1_000);
    // Days since 1 March of the year 0, so that a leap day ends its year.
    let days = seconds / 86_400 + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year_of_cycle = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
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
}
