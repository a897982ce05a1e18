//! The agent among routers that come and go.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use vipa_model::{ConnectionState::Established, Epoch, PortRange};
use vipa_protocol::{Ballot, Claim, Claims, Message, Refusal, Vote, Votes};

use crate::{
    host::on_a_host,
    router::{HERE, Router, VIPA},
    sockets::{open, serve},
};

fn claim(epoch: u64) -> Message {
    let claim = Claim { vipa: VIPA.into(), epoch: Epoch(epoch), ballot: Ballot::Real { round: 0 } };
    Message::Claims(Claims { claims: vec![claim] })
}

/// The votes of the only message there is.
fn votes(messages: &[Message]) -> &[Vote] {
    match messages {
        [Message::Votes(Votes { votes })] => votes,
        _ => &[],
    }
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_router_that_restarts_is_found_again_and_told_everything() {
    on_a_host(|host| {
        let _agent = host.start_agent();
        let router = Router::take_over(host);
        let listener = serve();
        let pair = open(&listener);
        drop(router);
        let mut router = Router::start(host, "r1");
        router.until_linked();
        router.distribute(2, PortRange::one(80), &[HERE]);
        router.associate(2);
        assert_eq!(router.view.live.iter().collect::<Vec<_>>(), [(&pair.connection, &Established)]);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn an_agent_that_restarts_tells_what_the_host_holds_in_a_new_life() {
    on_a_host(|host| {
        let agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let pair = open(&listener);
        router.until("it is open", |view| view.live.contains_key(&pair.connection));
        let before = router.view.position.expect("a report came");
        agent.crash();
        router.until("the link is lost", |view| !view.linked);

        let _agent = host.start_agent();
        router.until_linked();
        router.distribute(1, PortRange::one(80), &[HERE]);
        router.view.answered.clear();
        router.associate(1);
        let after = router.view.position.expect("a report came");
        assert!(after.incarnation > before.incarnation);
        assert_eq!(router.view.snapshots, 2, "what was seen of the old life is worth nothing");
        assert_eq!(router.view.live.keys().collect::<Vec<_>>(), [&pair.connection]);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn an_agent_that_stops_cleanly_says_so_to_its_routers() {
    on_a_host(|host| {
        let agent = host.start_agent();
        let mut router = Router::take_over(host);
        let began = Instant::now();
        agent.stop();
        router.until("the link is closed", |view| !view.linked);
        assert!(began.elapsed() < Duration::from_millis(1500), "it was only missed, after {:?}", began.elapsed());
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_vote_once_given_is_not_given_again_after_a_crash() {
    on_a_host(|host| {
        let agent = host.start_agent();
        let mut first = Router::start(host, "r1");
        let mut second = Router::start(host, "r2");
        first.until_linked();
        second.until_linked();
        // A voter that has just started is silent for a lease: it may have promised.
        std::thread::sleep(Duration::from_millis(600));
        first.send(&claim(7));
        first.until("the vote is given", |view| matches!(votes(&view.others), [Vote::Grant(_)]));
        agent.crash();
        second.until("the link is lost", |view| !view.linked);

        let _agent = host.start_agent();
        second.until_linked();
        std::thread::sleep(Duration::from_millis(600));
        second.send(&claim(7));
        second.until("the vote is refused", |view| {
            matches!(votes(&view.others), [Vote::Refuse(refuse)]
                if refuse.reason == Refusal::Granted && refuse.highest == Epoch(7))
        });
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_configuration_is_checked_without_touching_the_host_and_a_bad_one_is_named() {
    on_a_host(|host| {
        let check = |file: &str| {
            let file = host.folder().join(file);
            let output = Command::new(env!("CARGO_BIN_EXE_vipa-agent")).arg("--check").arg(file).output().unwrap();
            let (said, complained) =
                (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
            (output.status.success(), said, complained)
        };
        let (good, said, complained) = check("t1.toml");
        assert!(good && said.contains("target t1 at 10.9.0.31") && complained.is_empty(), "{said}{complained}");
        assert!(!host.kept_changes().exists());

        let text = fs::read_to_string(host.folder().join("t1.toml")).unwrap();
        fs::write(host.folder().join("bad.toml"), text.replace("10.9.0.31", "here")).unwrap();
        let (good, _, complained) = check("bad.toml");
        assert!(!good && complained.contains("bad.toml:"), "{complained}");
    });
}
