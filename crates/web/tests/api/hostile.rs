//! Clients that are slow, many, or mean harm: each costs what its limits say, and others are served meanwhile.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, poll};
use vipa_model::config::ApiListen;
use vipa_web::ApiLimits;

use crate::{
    Unix, check,
    fake::{Control, Reply, ask, config, serve},
};

/// Short times, so that the tests are.
const LIMITS: ApiLimits = ApiLimits {
    connections: 8,
    per_address: 4,
    head: Duration::from_millis(400),
    head_bytes: 8 << 10,
    head_lines: 20,
    body: Duration::from_millis(400),
    body_bytes: 1 << 10,
    stalled: Duration::from_millis(400),
    answer: Duration::from_millis(400),
    order: Duration::from_millis(400),
    rate: 1000,
    burst: 1000,
};

fn unix() -> Unix {
    Unix::with("page = true", Control::default(), LIMITS)
}

/// The connection ends within a few seconds, whatever was said.
fn ends(stream: &mut impl Read) -> bool {
    let began = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    began.elapsed() < Duration::from_secs(10)
}

#[test]
fn a_client_that_says_nothing_or_goes_on_for_ever_is_let_go() {
    let api = unix();
    assert!(ends(&mut api.connect()), "it says nothing");
    let mut dribbling = api.connect();
    dribbling.write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: ").unwrap();
    let mut writer = dribbling.try_clone().unwrap();
    let dribble = std::thread::spawn(move || {
        while writer.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert!(ends(&mut dribbling), "a header that never ends");
    dribble.join().unwrap();
    let mut kept = api.connect();
    kept.write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(ends(&mut kept), "a connection without a further request");
    assert_eq!(api.ask("GET", "/v1/status", None).status, 200);
}

#[test]
fn a_head_or_a_body_that_is_too_long_or_too_late_is_refused() {
    let api = unix();
    let description = api.description();
    let mut long = api.connect();
    let line = "x".repeat(64 << 10);
    let _ = write!(long, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: {line}\r\n\r\n");
    assert!(Reply::read(&mut long).is_none_or(|reply| reply.status == 431));
    let mut many = api.connect();
    let lines = "X: y\r\n".repeat(30);
    write!(many, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").unwrap();
    assert!(Reply::read(&mut many).is_none_or(|reply| reply.status == 431));
    let body = format!("{{\"order\":\"{}\"}}", "x".repeat(2 << 10));
    let reply = api.ask("POST", "/v1/orders", Some(&body));
    check(&description, "POST", "/v1/orders", &reply);
    assert_eq!(reply.status, 413);
    let mut late = api.connect();
    let head = "POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\nConnection: close\r\n\r\n{";
    late.write_all(head.as_bytes()).unwrap();
    let reply = Reply::read(&mut late).unwrap();
    check(&description, "POST", "/v1/orders", &reply);
    assert_eq!(reply.status, 408);
    let mut nonsense = api.connect();
    nonsense.write_all(&[0xff; 512]).unwrap();
    assert!(ends(&mut nonsense));
    assert!(api.control.asked().is_empty(), "{:?}", api.control.asked());
}

#[test]
fn silent_clients_in_all_places_keep_nobody_out() {
    let api = Unix::with("", Control::default(), ApiLimits { head: Duration::from_secs(60), ..LIMITS });
    let silent: Vec<UnixStream> = (0..40).map(|_| api.connect()).collect();
    assert_eq!(api.ask("GET", "/v1/status", None).status, 200);
    drop(silent);
}

#[test]
fn one_address_has_a_part_of_the_places_only() {
    let config = config("listen = \"127.0.0.1:1\"\ntls = \"none\"");
    let mut api = config.api.clone().unwrap();
    let ApiListen::Loopback(address) = &mut api.listen else { panic!("{api:?}") };
    address.set_port(0);
    let served = serve(config, &api, &Control::default(), ApiLimits { head: Duration::from_secs(60), ..LIMITS });
    let address = served.address.unwrap();
    let silent: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut fifth = TcpStream::connect(address).unwrap();
    assert!(ends(&mut fifth), "all places of its address are taken");
    drop(silent);
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let mut stream = TcpStream::connect(address).unwrap();
        let sent = stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        if sent.is_ok() && Reply::read(&mut stream).is_some_and(|reply| reply.status == 200) {
            break;
        }
        assert!(Instant::now() < until, "the places are free again");
    }
}

#[test]
fn a_client_that_does_not_read_its_answer_is_let_go() {
    // Some megabytes: more than a socket takes.
    let control = Control { connections: 40_000, ..Control::default() };
    let api = Unix::with("", control, LIMITS);
    let mut deaf = api.connect();
    deaf.write_all(b"GET /v1/connections HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    // The other end hangs up although nothing was read.
    let mut ended = [PollFd::new(deaf.as_fd(), PollFlags::empty())];
    assert_eq!(poll(&mut ended, 20_000_u16), Ok(1), "it is still served");
    assert!(ended[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)));
    let mut got = Vec::new();
    let _ = deaf.read_to_end(&mut got);
    assert!(got.len() < 4_000_000, "the rest was not sent: {}", got.len());
    assert!(api.ask("GET", "/v1/connections", None).body.len() > 4_000_000, "one that reads has all of it");
}

#[test]
fn more_requests_a_second_than_the_rate_are_refused() {
    let api = Unix::with("", Control::default(), ApiLimits { rate: 1, burst: 5, ..LIMITS });
    let replies: Vec<_> = (0..8).map(|_| api.ask("GET", "/v1/status", None)).collect();
    assert!(replies[..5].iter().all(|reply| reply.status == 200));
    let refused = replies.iter().find(|reply| reply.status == 429).unwrap();
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.json()["version"], vipa_protocol::admin::VERSION);
}

#[test]
fn a_router_that_does_not_answer_is_named_and_other_things_go_on() {
    let api = unix();
    *api.control.deaf_to.lock().unwrap() = Some("status");
    let reply = api.ask("GET", "/v1/status", None);
    assert_eq!(reply.status, 504, "{reply:?}");
    assert!(reply.json()["detail"].as_str().unwrap().contains("did not answer"), "{reply:?}");
    assert_eq!(api.ask("GET", "/v1/counters", None).status, 200);
    *api.control.deaf_to.lock().unwrap() = Some("order");
    let reply = api.ask("POST", "/v1/orders", Some(r#"{"order":{"takeback":{"vipa":"10.77.0.55"}}}"#));
    assert_eq!(reply.status, 504, "{reply:?}");
    crate::wait_log(&["vipa_web::audit", "10.77.0.55", "still under way"]);
    assert_eq!(ask(api.connect(), "GET", "/", None).status, 200);
}
