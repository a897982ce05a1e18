//! DPDK's own log: warnings go to a sink, or, while something is being tried, into the error that comes of it.

use std::cell::RefCell;
use std::ffi::c_char;
use std::sync::Mutex;

/// How bad a message of DPDK is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warning,
}

type Sink = fn(Level, &str);

/// DPDK's numbers: 1 emergency … 4 error, 5 warning, 6 notice, 7 information, 8 debug.
const ERROR: u32 = 4;
const WARNING: u32 = 5;

/// Messages that an error quotes at most; the last ones, where the reason is.
const QUOTED: usize = 4;

static SINK: Mutex<Sink> = Mutex::new(to_stderr);

thread_local! {
    /// `Some` while this thread tries something.
    static COLLECTED: RefCell<Option<Vec<(Level, String)>>> = const { RefCell::new(None) };
}

/// Where warnings and errors of DPDK go from now on; stderr before. Called by whichever thread caused the message.
pub fn set_sink(sink: Sink) {
    *SINK.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = sink;
}

/// Sends DPDK's log here.
pub(crate) fn capture() -> Result<(), i32> {
    // SAFETY: `receive` has the signature asked for and lives as long as the process.
    match unsafe { vipa_dpdk_sys::vipa_log_to(Some(receive)) } {
        0 => Ok(()),
        error => Err(error),
    }
}

/// Does `work`. When it fails, what DPDK said meanwhile is made part of the error; else it goes to the sink.
pub(crate) fn explain<T, E>(
    work: impl FnOnce() -> Result<T, E>,
    explained: impl FnOnce(E, String) -> crate::Error,
) -> Result<T, crate::Error> {
    COLLECTED.set(Some(Vec::new()));
    let result = work();
    let said = COLLECTED.take().unwrap_or_default();
    match result {
        Ok(value) => {
            said.iter().for_each(|(level, line)| forward(*level, line));
            Ok(value)
        }
        Err(error) => Err(explained(error, quote(&said))),
    }
}

fn quote(said: &[(Level, String)]) -> String {
    let lines: Vec<&str> = said.iter().map(|(_, line)| line.as_str()).collect();
    match lines.as_slice() {
        [] => "DPDK gives no reason".to_owned(),
        lines => lines[lines.len().saturating_sub(QUOTED)..].join("; "),
    }
}

fn forward(level: Level, line: &str) {
    let sink = *SINK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    sink(level, line);
}

fn to_stderr(_: Level, line: &str) {
    eprintln!("DPDK: {line}");
}

/// DPDK calls this once for each message.
unsafe extern "C" fn receive(level: u32, text: *const c_char, length: usize) {
    let level = match level {
        ..=ERROR => Level::Error,
        WARNING => Level::Warning,
        _ => return,
    };
    // SAFETY: stdio hands its write function `length` readable bytes, which nobody changes until it returns.
    let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    let text = String::from_utf8_lossy(text);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let collected = COLLECTED.with_borrow_mut(|collected| {
            collected.as_mut().map(|lines| lines.push((level, line.to_owned()))).is_some()
        });
        if !collected {
            forward(level, line);
        }
    }
}
