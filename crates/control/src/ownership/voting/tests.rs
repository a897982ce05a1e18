use std::{fs, path::PathBuf};

use tokio::sync::oneshot;
use vipa_transport::state::Kind;

use super::*;
use crate::admin::socket::Reply;

/// A router's file of voters, on a disk that can be taken away.
struct Bench {
    folder: PathBuf,
    voting: Voting,
}

impl Bench {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("vipa-voting-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let (file, none) = StateFile::open(&folder, Kind::Voters).unwrap();
        assert!(none.is_empty());
        Self { folder, voting: Voting::start(file, Duration::from_secs(1), voters(1), None) }
    }

    /// A reload in which the voters are these; what its client is told.
    fn reload(&mut self, version: u32) -> oneshot::Receiver<Answer> {
        let (reply, answer) = Reply::pair();
        let fresh = Fresh {
            config: Err("of no interest here".into()),
            mode: ReloadMode::Whole,
            confirm: None,
            reply: Some(reply),
        };
        self.voting.store(voters(version), fresh, Moment::ZERO);
        self.voting.flush(&voters(1));
        answer
    }

    async fn stored(&mut self) -> (Option<Fresh>, bool) {
        let outcome = self.voting.done().await;
        let stored = self.voting.stored(outcome);
        self.voting.flush(&voters(1));
        stored
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn voters(version: u32) -> Voters {
    Voters::new(version, vec!["r1".parse().unwrap()])
}

fn refusal(mut answer: oneshot::Receiver<Answer>) -> String {
    match answer.try_recv() {
        Ok(Answer::Error(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_reload_goes_on_when_its_voters_are_on_the_disk() {
    let mut bench = Bench::new("goes-on");
    let mut answer = bench.reload(2);
    let (fresh, refused) = bench.stored().await;
    assert!(fresh.is_some_and(|fresh| fresh.reply.is_some()) && !refused);
    assert!(bench.voting.has(&voters(2)));
    assert!(answer.try_recv().is_err(), "its answer is the reload's own");
}

#[tokio::test]
async fn a_reload_that_is_overtaken_is_told_so_and_the_later_one_goes_on() {
    let mut bench = Bench::new("overtaken");
    let first = bench.reload(2);
    let _second = bench.reload(3);
    let why = refusal(first);
    assert!(why.contains("nothing was changed: another reload came"), "{why}");
    let (fresh, _) = bench.stored().await;
    assert!(fresh.is_none(), "the disk has the voters of the first");
    let (fresh, refused) = bench.stored().await;
    assert!(fresh.is_some() && !refused && bench.voting.has(&voters(3)));
}

#[tokio::test]
async fn a_reload_whose_voters_the_disk_refuses_is_refused() {
    let mut bench = Bench::new("refused");
    fs::remove_dir_all(&bench.folder).unwrap();
    let answer = bench.reload(2);
    let (fresh, refused) = bench.stored().await;
    assert!(fresh.is_none() && refused && bench.voting.has(&voters(1)));
    let why = refusal(answer);
    assert!(why.contains("its voters cannot be stored"), "{why}");
}

#[tokio::test]
async fn a_reload_does_not_wait_for_ever_for_a_disk_that_says_nothing() {
    let mut bench = Bench::new("silent");
    let answer = bench.reload(2);
    assert!(!bench.voting.give_up(Moment::ZERO + STORE_LIMIT / 2));
    assert!(bench.voting.give_up(Moment::ZERO + STORE_LIMIT));
    assert!(refusal(answer).contains("not on the disk after 10 s"));
    assert!(bench.stored().await.0.is_none(), "what comes later carries nothing out");
}
