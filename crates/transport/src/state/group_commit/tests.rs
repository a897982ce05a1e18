use std::sync::Mutex;

use tokio::time::sleep;

use super::*;

/// The disk's contents, and whether it takes anything.
#[derive(Clone, Default)]
struct Disk {
    entries: Arc<Mutex<Vec<u64>>>,
    refuses: Arc<Mutex<bool>>,
}

impl Disk {
    fn start(&self, takes: Duration) -> GroupCommit<u64> {
        let disk = self.clone();
        GroupCommit::start_with("votes.json".into(), Duration::from_secs(1), move |entries: &[u64]| {
            std::thread::sleep(takes);
            if *disk.refuses.lock().unwrap() {
                return Err(io::Error::other("no room"));
            }
            *disk.entries.lock().unwrap() = entries.to_vec();
            Ok(())
        })
    }
}

fn up_to(token: u64) -> (u64, Vec<u64>) {
    (token, (1..=token).collect())
}

#[tokio::test]
async fn a_thousand_requests_are_two_writes_and_none_is_refused() {
    let disk = Disk::default();
    let mut commit = disk.start(Duration::from_millis(20));
    for token in 1..=1000 {
        commit.request();
        commit.flush(|| up_to(token));
    }
    assert_eq!(commit.done().await, Outcome::Stored { token: 1 });
    commit.flush(|| up_to(1000));
    assert_eq!(commit.done().await, Outcome::Stored { token: 1000 });
    assert_eq!(disk.entries.lock().unwrap().len(), 1000);
    commit.flush(|| unreachable!("nothing is new"));
    assert_eq!(commit.writes(), Writes { stored: 2, failed: 0, slow: 0 });
}

#[tokio::test]
async fn what_a_disk_refuses_is_written_when_it_is_requested_again() {
    let disk = Disk::default();
    let mut commit = disk.start(Duration::ZERO);
    *disk.refuses.lock().unwrap() = true;
    for _ in 0..2 {
        commit.request();
        commit.flush(|| up_to(1));
        assert_eq!(commit.done().await, Outcome::Failed { why: "no room".into() });
    }
    *disk.refuses.lock().unwrap() = false;
    commit.request();
    commit.flush(|| up_to(2));
    assert_eq!(commit.done().await, Outcome::Stored { token: 2 });
    assert_eq!(commit.writes(), Writes { stored: 1, failed: 2, slow: 0 });
}

#[tokio::test]
async fn waiting_for_the_end_of_a_write_may_be_broken_off() {
    let mut commit = Disk::default().start(Duration::from_millis(30));
    commit.request();
    commit.flush(|| up_to(7));
    tokio::select! {
        biased;
        _ = sleep(Duration::from_millis(1)) => {}
        outcome = commit.done() => panic!("too early: {outcome:?}"),
    }
    assert_eq!(commit.done().await, Outcome::Stored { token: 7 });
}

#[test]
fn a_disk_in_trouble_is_one_line_in_the_log_and_one_when_it_is_over() {
    let mut report = Report::new("votes.json".into());
    let refused = || Err(io::Error::other("no room"));
    for _ in 0..100 {
        report.written(&refused());
    }
    assert_eq!(report.lines, 1);
    report.written(&Ok(()));
    report.written(&Ok(()));
    assert_eq!(report.lines, 2);
    let began = Instant::now();
    let limit = Duration::from_millis(50);
    for ms in 0..1000 {
        report.slow(began + Duration::from_millis(ms), limit);
    }
    assert_eq!(report.lines, 3);
    report.slow(began + Duration::from_secs(120), limit);
    assert_eq!(report.lines, 4);
}
