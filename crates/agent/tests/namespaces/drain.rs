//! Draining without breaking a connection.

use std::{
    io::Read,
    process::Child,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use vipa_protocol::Intent;

use crate::{
    host::{on_a_host, times_on_lo},
    router::{Router, View},
    sockets::{abort, open, serve},
};

fn intends(view: &View, intent: Intent) -> bool {
    view.load.as_ref().is_some_and(|load| load.intent == intent)
}

/// Whether a command succeeded, and its output.
fn end_of(mut command: Child) -> (bool, String) {
    let status = command.wait().expect("a child of ours");
    let mut said = String::new();
    command.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    (status.success(), said)
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_drained_host_leaves_when_its_last_connection_is_over_and_no_earlier() {
    on_a_host(|host| {
        let mut agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let pair = open(&listener);
        router.until("the connection is told", |view| view.live.contains_key(&pair.connection));
        let command = host.drain(&[]);
        router.until("it wants no new connections", |view| intends(view, Intent::Drain));
        router.listen_for(Duration::from_secs(2));
        assert!(!agent.has_ended() && router.view.linked, "a connection is left");
        assert_eq!(times_on_lo("192.0.2.10/32"), 1);
        abort(pair);
        router.until("the agent says goodbye", |view| !view.linked);
        let (drained, said) = end_of(command);
        assert!(drained && said.contains("draining: 1 connection(s) left"), "{said}");
        assert!(said.ends_with("drained: no connection left; the agent leaves\n"), "{said}");
        agent.until_ended();
        assert_eq!(times_on_lo("192.0.2.10/32"), 0);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_drain_ends_when_its_time_is_over_and_says_that_it_broke_something() {
    on_a_host(|host| {
        let agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let pair = open(&listener);
        router.until("the connection is told", |view| view.live.contains_key(&pair.connection));
        let (drained, said) = end_of(host.drain(&["--timeout", "2"]));
        assert!(!drained && said.ends_with("time is over with 1 connection(s) left; the agent leaves\n"), "{said}");
        agent.until_ended();
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_cancelled_drain_has_the_host_serve_again() {
    on_a_host(|host| {
        let mut agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let _pair = open(&listener);
        router.until("the connection is told", |view| view.live.len() == 1);
        let waiting = host.drain(&[]);
        router.until("it wants no new connections", |view| intends(view, Intent::Drain));
        let (cancelled, said) = end_of(host.drain(&["--cancel"]));
        assert!(cancelled && said == "serving: new connections are welcome again\n", "{said}");
        router.until("it serves", |view| intends(view, Intent::Serve));
        assert!(!end_of(waiting).0, "who waits for the drain learns that there is none");
        assert!(!agent.has_ended());
        agent.stop();
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn sigterm_drains_where_the_configuration_says_so_and_a_second_one_ends_at_once() {
    on_a_host(|host| {
        host.configure("drain_timeout_s = 60");
        let mut agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let _pair = open(&listener);
        router.until("the connection is told", |view| view.live.len() == 1);
        agent.signal(Signal::SIGTERM);
        router.until("it wants no new connections", |view| intends(view, Intent::Drain));
        router.listen_for(Duration::from_millis(500));
        assert!(!agent.has_ended());
        let began = Instant::now();
        agent.stop();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    });
}
