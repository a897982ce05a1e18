//! Dates for people and machines: RFC 3339 in UTC.

const DAY: i64 = 24 * 60 * 60;

/// The moment so many seconds after 1970-01-01T00:00:00Z, as `2026-12-01T04:25:00Z` (RFC 3339 §5.6, without fractions). Years before
/// 0 and after 9999, which the format does not know, are shown as the nearest that it knows.
#[must_use]
pub fn rfc3339(unix_seconds: i64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(rfc3339(seconds), shown);
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
