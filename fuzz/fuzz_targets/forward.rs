//! A whole worker with its tables, and whatever arrives and happens: every packet has one fate, what leaves can be read.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: vipa_fuzz::plant("forward", vipa_dataplane::bench::seeds()), |input: &[u8]| {
    vipa_dataplane::bench::fuzz(input);
});
