//! Rate limits: token buckets, each used by one worker alone.

use std::time::Duration;

use vipa_model::Moment;

/// Lets `per_second` events pass in a second, and at once as many as pass in a tenth of a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    /// Nanoseconds in which one token grows.
    cost: u64,
    /// Time whose tokens have been taken; never further behind than a full bucket.
    spent: Moment,
}

/// How long an empty bucket takes to fill.
const DEPTH: Duration = Duration::from_millis(100);

impl TokenBucket {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { cost: 1_000_000_000 / u64::from(per_second.max(1)), spent: Moment::ZERO }
    }

    /// Changes the rate; tokens that were taken stay taken.
    pub(crate) fn set_rate(&mut self, per_second: u32) {
        self.cost = 1_000_000_000 / u64::from(per_second.max(1));
    }

    /// Takes a token, if there is one.
    #[inline]
    pub(crate) fn take(&mut self, now: Moment) -> bool {
        // At least one token fits, however slowly they grow.
        let depth = (DEPTH.as_nanos() as u64).max(self.cost);
        let full = Moment(now.0.saturating_sub(depth));
        let spent = self.spent.max(full);
        let after = Moment(spent.0.saturating_add(self.cost));
        let there = after <= now;
        if there {
            self.spent = after;
        }
        there
    }
}

/// New connections by client: buckets by hash, so that their number is fixed and two clients may share one.
pub(crate) struct SourceLimits {
    buckets: Box<[Moment]>,
}

/// Clients that are distinguished, about.
const SOURCES: usize = 16_384;

impl SourceLimits {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![Moment::ZERO; SOURCES].into() }
    }

    /// Takes one of the `per_second` tokens of the client that hashes to `hash`, if there is one.
    pub(crate) fn take(&mut self, hash: u64, per_second: u32, now: Moment) -> bool {
        let spent = &mut self.buckets[(hash % SOURCES as u64) as usize];
        let mut bucket = TokenBucket { spent: *spent, ..TokenBucket::new(per_second) };
        let there = bucket.take(now);
        *spent = bucket.spent;
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment(5_000_000_000);

    fn taken(bucket: &mut TokenBucket, now: Moment, tries: usize) -> usize {
        (0..tries).filter(|_| bucket.take(now)).count()
    }

    #[test]
    fn a_bucket_lets_its_rate_pass_and_a_tenth_of_a_second_at_once() {
        let mut bucket = TokenBucket::new(1000);
        assert_eq!(taken(&mut bucket, START, 1000), 100);
        let mut passed = 0;
        for millisecond in 1..=2000 {
            passed += taken(&mut bucket, START + Duration::from_millis(millisecond), 10);
        }
        assert_eq!(passed, 2000);
    }

    #[test]
    fn however_slow_one_passes() {
        let mut bucket = TokenBucket::new(1);
        assert_eq!(taken(&mut bucket, START, 5), 1);
        assert_eq!(taken(&mut bucket, START + Duration::from_millis(999), 5), 0);
        assert_eq!(taken(&mut bucket, START + Duration::from_secs(1), 5), 1);
    }

    #[test]
    fn clients_have_buckets_of_their_own() {
        let mut limits = SourceLimits::new();
        assert_eq!((0..50).filter(|_| limits.take(7, 100, START)).count(), 10);
        assert!(limits.take(8, 100, START), "another client");
    }
}
