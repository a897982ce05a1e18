//! One piece of code, compiled for each kind of vector instructions that processors have; which one runs is detected at
//! the start.
//!
//! The compiler turns a loop over columns into vector instructions, four or eight rows at a time, but only into those
//! of the processor that it compiles for: on x86-64 the first ones, of 2003. Code that is inlined into [`Vectors::run`]
//! is compiled again for AVX2 and for AVX-512. The lookup of a burst's connections runs in here, so this module is
//! beside the table.
//!
//! ```
//! use vipa_flow::vectors::{Vectors, Work};
//!
//! struct Sum<'a>(&'a [u64; 32]);
//!
//! impl Work for Sum<'_> {
//!     type Output = u64;
//!     #[inline(always)]
//!     fn run(self) -> u64 {
//!         self.0.iter().sum()
//!     }
//! }
//! assert_eq!(Vectors::of_this_processor().run(Sum(&[2; 32])), 64);
//! ```

use std::fmt;

/// A piece of work for [`Vectors::run`]. Its `run`, and everything that `run` calls and that must be compiled the same
/// way, needs `#[inline(always)]`.
pub trait Work {
    type Output;
    fn run(self) -> Self::Output;
}

/// The widest vector instructions that may be used. A value for instructions that this processor lacks cannot be made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Vectors(Width);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// Those that every processor of the architecture has.
    Common,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Vectors {
    /// Those that need no detection.
    pub const COMMON: Self = Self(Width::Common);

    #[must_use]
    pub fn of_this_processor() -> Self {
        Self::all().last().unwrap_or(Self::COMMON)
    }

    /// All that this processor has, the narrowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let wider = {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("bmi1") && has!("bmi2") && has!("popcnt");
            let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            [avx2.then_some(Width::Avx2), avx512.then_some(Width::Avx512)]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let wider = [None; 2];
        [Some(Width::Common)].into_iter().chain(wider).flatten().map(Self)
    }

    #[inline(always)]
    pub fn run<W: Work>(self, work: W) -> W::Output {
        match self.0 {
            Width::Common => work.run(),
            // SAFETY: only all() makes this value, after it has detected that the processor has these instructions.
            #[cfg(target_arch = "x86_64")]
            Width::Avx2 => unsafe { on_avx2(work) },
            // SAFETY: likewise.
            #[cfg(target_arch = "x86_64")]
            Width::Avx512 => unsafe { on_avx512(work) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
fn on_avx2<W: Work>(work: W) -> W::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
fn on_avx512<W: Work>(work: W) -> W::Output {
    work.run()
}

impl fmt::Debug for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Differences<'a>([&'a [u32; 32]; 2]);

    impl Work for Differences<'_> {
        type Output = u32;
        #[inline(always)]
        fn run(self) -> u32 {
            let [a, b] = self.0;
            (0..32).fold(0, |bits, at| bits | u32::from(a[at] != b[at]) << at)
        }
    }

    #[test]
    fn all_kinds_come_to_the_same() {
        let a = std::array::from_fn(|at| at as u32);
        let b = std::array::from_fn(|at| (at / 3 * 3) as u32);
        let expected: u32 = (0..32).filter(|at| at % 3 != 0).map(|at| 1 << at).sum();
        assert_eq!(Vectors::all().next(), Some(Vectors::COMMON));
        for vectors in Vectors::all() {
            assert_eq!(vectors.run(Differences([&a, &b])), expected, "{vectors:?}");
        }
    }
}
