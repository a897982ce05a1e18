use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use vipa_model::config::{Announce, Hooks};

use super::*;
use crate::network::advertiser::Advertiser;

const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

struct Bench {
    folder: PathBuf,
}

impl Bench {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("vipa-hooks-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    /// A program that runs `script` with `log` as its place to write.
    fn hooks(&self, script: &str, timeout: Duration) -> Hooks {
        let program = self.folder.join(format!("hook{}", script.len()));
        fs::write(&program, format!("#!/bin/sh\nlog={}\n{script}\n", self.log().display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let command = Some(vec![program.display().to_string(), "-q".into()]);
        Hooks { owned: command.clone(), released: command, timeout }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn start(&self, hooks: &Hooks) -> Advertiser {
        let announce = Announce { repeat: Vec::new(), refresh: None, interface: None, table: 7_400 };
        Advertiser::start("r1".parse().unwrap(), hooks, &announce)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(String::from).collect()
}

async fn until(what: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < limit, "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn count(advertiser: &Advertiser, name: &str) -> u64 {
    advertiser.counts().iter().find(|(known, _)| known == name).map(|(_, count)| *count).unwrap()
}

#[tokio::test]
async fn a_program_is_told_of_each_vipa_that_comes_and_goes_and_the_last_before_the_end() {
    let bench = Bench::new("told");
    let advertiser = bench.start(&bench.hooks("echo \"$@ by $VIPA_NODE\" >> $log", Duration::from_secs(5)));
    advertiser.own(VIPA, Epoch(4));
    until(|| count(&advertiser, "hook.run") == 1).await;
    advertiser.release(VIPA);
    advertiser.release(VIPA);
    until(|| count(&advertiser, "hook.run") == 2).await;
    advertiser.own(VIPA, Epoch(6));
    until(|| count(&advertiser, "hook.run") == 3).await;
    assert_eq!(count(&advertiser, "hook.failed"), 0);
    advertiser.finish().await;
    let told = [
        "-q owned 192.0.2.10 4 by r1",
        "-q released 192.0.2.10 4 by r1",
        "-q owned 192.0.2.10 6 by r1",
        "-q released 192.0.2.10 6 by r1",
    ];
    assert_eq!(lines(&bench.log()), told);
}

#[tokio::test]
async fn what_came_and_went_while_a_hook_ran_is_left_out_and_the_last_word_is_the_truth() {
    let bench = Bench::new("coalesced");
    let script =
        "echo \"$2 $4\" >> $log; [ -e $log.go ] || { touch $log.on; while [ ! -e $log.go ]; do sleep 0.01; done; }";
    let advertiser = bench.start(&bench.hooks(script, Duration::from_secs(20)));
    advertiser.own(VIPA, Epoch(1));
    let on = bench.folder.join("log.on");
    until(|| on.exists()).await;
    for epoch in 2..50 {
        advertiser.release(VIPA);
        advertiser.own(VIPA, Epoch(epoch));
    }
    fs::write(bench.folder.join("log.go"), "").unwrap();
    until(|| count(&advertiser, "hook.run") == 2).await;
    advertiser.finish().await;
    assert_eq!(lines(&bench.log()), ["owned 1", "owned 49", "released 49"]);
}

#[tokio::test]
async fn a_hook_that_fails_hangs_or_is_not_there_is_counted_and_holds_up_nothing() {
    let bench = Bench::new("bad");
    for (hooks, limit) in [
        (bench.hooks("exit 3", Duration::from_secs(5)), 10),
        (bench.hooks("exec sleep 60", Duration::from_millis(50)), 10),
        (Hooks { owned: Some(vec!["/nowhere/hook".into()]), released: None, timeout: Duration::from_secs(5) }, 10),
    ] {
        let began = Instant::now();
        let advertiser = bench.start(&hooks);
        advertiser.own(VIPA, Epoch(1));
        until(|| count(&advertiser, "hook.failed") == 1).await;
        advertiser.finish().await;
        assert!(began.elapsed() < Duration::from_secs(limit), "{hooks:?}");
    }
}

#[tokio::test]
async fn a_hook_that_is_killed_takes_along_what_it_started_and_one_that_ends_does_not() {
    let bench = Bench::new("group");
    // `owned` hangs beside a sleeper, `released` leaves one behind.
    let script = "sleep 61 & echo \"$2 $!\" >> $log; [ $2 = released ] || wait";
    let advertiser = bench.start(&bench.hooks(script, Duration::from_millis(500)));
    advertiser.own(VIPA, Epoch(1));
    until(|| count(&advertiser, "hook.failed") == 1).await;
    advertiser.release(VIPA);
    until(|| count(&advertiser, "hook.run") == 2).await;
    advertiser.finish().await;
    let sleeper = |line: &String| line.split_once(' ').and_then(|(_, id)| id.parse().ok()).expect("a process");
    let sleepers: Vec<i32> = lines(&bench.log()).iter().map(sleeper).collect();
    // It may not have become a sleeper yet.
    let is_running = |id: i32| {
        let state = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        state.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
    };
    until(|| !is_running(sleepers[0])).await;
    assert!(is_running(sleepers[1]), "a hook may start a service");
    nix::sys::signal::kill(Pid::from_raw(sleepers[1]), Signal::SIGKILL).expect("it is this test's own");
}

#[tokio::test]
async fn without_hooks_nothing_runs() {
    let bench = Bench::new("none");
    let advertiser = bench.start(&Hooks { owned: None, released: None, timeout: Duration::from_secs(5) });
    advertiser.own(VIPA, Epoch(1));
    advertiser.release(VIPA);
    advertiser.finish().await;
    assert!(lines(&bench.log()).is_empty());
}

#[tokio::test]
async fn a_task_that_breaks_off_leaves_its_vipa_to_the_next_hook() {
    let bench = Bench::new("panic");
    let (_settings, settings) = watch::channel(bench.hooks("exit 0", Duration::from_secs(5)));
    let (owned, changes) = watch::channel(Owned::from([(VIPA, Epoch(1))]));
    let (counts_in, counts) = watch::channel(Counts::default());
    let program = |hook: Hook, _: NodeName| async move {
        assert!(hook.epoch != Epoch(1), "the first one breaks off");
        true
    };
    let running = tokio::spawn(run_with(program, "r1".parse().unwrap(), settings, changes, counts_in));
    until(|| counts.borrow().failed == 1).await;
    owned.send_replace(Owned::from([(VIPA, Epoch(2))]));
    until(|| counts.borrow().run == 2).await;
    owned.send_replace(Owned::new());
    drop(owned);
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("it ends").unwrap();
    assert_eq!((counts.borrow().run, counts.borrow().failed), (3, 1));
}
