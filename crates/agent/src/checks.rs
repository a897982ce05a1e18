//! The configured checks, each in a task of its own: run at its interval, stopped at its time limit, reported when its
//! verdict changes.

use std::process::Stdio;

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{process::Command, sync::mpsc, time};
use vipa_model::{Check, Probe, Verdict};
use vipa_protocol::{CheckResult, load::MAX_CHECK_DETAIL};
use vipa_transport::probe;

/// Starts all checks. The first results are those before any answer: nothing is known.
pub(crate) fn start(checks: &[Check]) -> (Vec<CheckResult>, mpsc::Receiver<(usize, CheckResult)>) {
    let (told, news) = mpsc::channel(checks.len().max(1));
    for (index, check) in checks.iter().cloned().enumerate() {
        tokio::spawn(repeat(index, check, told.clone()));
    }
    let unknown = |check: &Check| result(check, Verdict::UNKNOWN, "not asked yet");
    (checks.iter().map(unknown).collect(), news)
}

async fn repeat(index: usize, check: Check, told: mpsc::Sender<(usize, CheckResult)>) {
    let mut verdict = Verdict::UNKNOWN;
    let mut next = time::interval(check.pace.interval);
    next.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        next.tick().await;
        let answer = ask(&check).await;
        let detail = answer.as_ref().err().map_or("", String::as_str);
        if verdict.take(answer.is_ok(), &check.pace) {
            let name = &check.name;
            match &answer {
                Ok(()) => tracing::info!(check = %name, "the check passes"),
                Err(why) => tracing::warn!(check = %name, %why, "the check fails: no new connections"),
            }
            if told.send((index, result(&check, verdict, detail))).await.is_err() {
                return;
            }
        }
    }
}

fn result(check: &Check, verdict: Verdict, detail: &str) -> CheckResult {
    CheckResult { name: check.name.clone(), port: check.port, passing: verdict.passes(), detail: shortened(detail) }
}

/// The part of a detail that is sent to routers.
pub(crate) fn shortened(detail: &str) -> String {
    let end = (0..=MAX_CHECK_DETAIL.min(detail.len())).rev().find(|&end| detail.is_char_boundary(end));
    detail[..end.unwrap_or_default()].to_owned()
}

async fn ask(check: &Check) -> Result<(), String> {
    let limit = check.pace.timeout;
    let answer = async {
        match &check.probe {
            Probe::Connect(address) => probe::connect(*address).await.map_err(|error| error.to_string()),
            Probe::Http { address, path, statuses } => {
                probe::http(*address, path, *statuses).await.map(drop).map_err(|error| error.to_string())
            }
            Probe::Command(words) => run(words).await,
        }
    };
    time::timeout(limit, answer).await.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
}

/// Runs a program in a process group of its own. When this is dropped, the whole group is killed.
async fn run(words: &[String]) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child =
        command.process_group(0).kill_on_drop(true).spawn().map_err(|error| format!("{program}: {error}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(|id| Group(Pid::from_raw(id)));
    let status = child.wait().await.map_err(|error| error.to_string())?;
    drop(group);
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// The processes that a check has started.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // A process that has ended by itself is not there any more.
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use vipa_model::Pace;

    use super::*;

    fn check(words: &[&str], timeout_ms: u64) -> Check {
        let pace =
            Pace { interval: Duration::from_millis(100), timeout: Duration::from_millis(timeout_ms), rise: 1, fall: 1 };
        let command = words.iter().map(ToString::to_string).collect();
        Check { name: "test".into(), probe: Probe::Command(command), port: None, pace }
    }

    #[tokio::test]
    async fn a_programs_end_is_its_answer() {
        assert_eq!(ask(&check(&["/bin/true"], 5_000)).await, Ok(()));
        assert_eq!(ask(&check(&["/bin/sh", "-c", "exit 3"], 5_000)).await, Err("exit status: 3".into()));
        assert!(ask(&check(&["/no/such/program"], 5_000)).await.unwrap_err().contains("No such file"));
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_killed_with_all_it_started() {
        let mark = format!("{}", 100_000 + std::process::id());
        let began = Instant::now();
        let script = format!("sleep {mark} & sleep {mark}");
        let answer = ask(&check(&["/bin/sh", "-c", &script], 200)).await;
        assert_eq!(answer, Err("no answer within 200 ms".into()));
        assert!(began.elapsed() < Duration::from_secs(5));
        let lives = || {
            std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
                let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                line.starts_with(b"sleep\0") && String::from_utf8_lossy(&line).contains(&mark)
            })
        };
        while lives() {
            assert!(began.elapsed() < Duration::from_secs(10), "what it started lives on");
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn nothing_passes_before_its_first_answer_and_every_change_is_told() {
        let folder = std::env::temp_dir().join(format!("vipa-checks-{}", std::process::id()));
        let flag = folder.to_str().unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        let (results, mut news) = start(&[check(&["/usr/bin/test", "-e", flag], 5_000)]);
        assert!(!results[0].passing && results[0].detail == "not asked yet", "{results:?}");
        assert!(news.recv().await.unwrap().1.passing);
        std::fs::remove_dir(&folder).unwrap();
        let (index, failing) = news.recv().await.unwrap();
        assert_eq!((index, failing.passing, failing.detail.as_str()), (0, false, "exit status: 1"));
    }
}
