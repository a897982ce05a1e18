//! The agent's reports of its host's load: accept queues, processors.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use vipa_protocol::{Accepting, Intent, load::FULL_HEADROOM};

use crate::{
    host::{on_a_host, on_a_host_by_both, run},
    router::{Router, VIPA, View},
    sockets::{Pair, abort, begin_to_open, connect_from, open, serve},
};

/// The reported state of the only listener; one that is not reported accepts, and nothing waits.
fn queue(view: &View) -> (Accepting, u32) {
    let listeners = view.load.as_ref().map_or(&[][..], |load| &load.listeners);
    listeners.first().map_or((Accepting::Yes, 0), |queue| (queue.accepting, queue.waiting))
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_host_tells_how_it_fares_from_its_first_link_on_and_about_once_a_second() {
    on_a_host(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        router.until("its load is told", |view| view.load.is_some());
        let load = router.view.load.clone().unwrap();
        assert!((1..=FULL_HEADROOM).contains(&load.headroom) && load.host.cpu_permille <= 1000, "{load:?}");
        assert_eq!((load.intent, load.host.connections), (Intent::Serve, 0));
        let before = router.view.loads;
        router.listen_for(Duration::from_secs(3));
        let told = router.view.loads - before;
        assert!((2..=5).contains(&told), "{told} times in 3 s");

        let listener = serve();
        let _pairs: Vec<Pair> = (0..3).map(|_| open(&listener)).collect();
        router.until("its connections are counted", |view| {
            let host = view.load.as_ref().unwrap().host;
            host.connections == 3 && host.passive_opens >= 3
        });
    });
}

/// Handshakes begun, established and accepted, as last reported.
fn served(view: &View) -> Option<(u64, u64, u64)> {
    let served = view.load.as_ref()?.served.first()?;
    Some((served.begun, served.established, served.accepted))
}

#[test]
#[ignore = "needs root: make test-agent"]
fn what_becomes_of_every_connection_a_client_begins_is_counted() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        // Some come and go between two looks.
        (0..20).for_each(|_| abort(open(&listener)));
        let _held: Vec<Pair> = (0..5).map(|_| open(&listener)).collect();
        router.until("all are counted", |view| served(view) == Some((25, 25, 25)));
        let (client, server) = ("10.9.0.1".parse().unwrap(), (VIPA, 80).into());
        let _waiting: Vec<TcpStream> = (0..3).map(|_| connect_from(client, server).unwrap()).collect();
        router.until("three wait", |view| served(view) == Some((28, 28, 25)));
        run("nft", "add table ip t");
        run("nft", "add chain ip t in { type filter hook input priority 0 ; }");
        run("nft", "add rule ip t in tcp sport 80 tcp flags & (syn|ack) == syn|ack drop");
        let _half = begin_to_open();
        router.until("one is half open", |view| served(view) == Some((29, 28, 25)));
        let said = host.status();
        for line in [
            "target t1 at 10.9.0.31, serving, up for ",
            "routers      r1 linked, r2 NOT LINKED",
            "VIPA 192.0.2.10, epoch 1\n  connections 9; log at ",
            "  listening   80/tcp\n  reports to  r1 (owner, epoch 1)",
            "  192.0.2.10 is on lo",
            "net.ipv4.conf.all.arp_ignore is 1, and was 0",
            "192.0.2.10 80/tcp: 29 handshakes, 28 of them whole, 25 accepted in time",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_server_that_accepts_nothing_is_told_within_two_seconds_and_again_when_it_serves() {
    on_a_host(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let _clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect((VIPA, 80)).unwrap()).collect();
        let began = Instant::now();
        router.until("it is stalled", |view| queue(view).0 == Accepting::Stalled);
        assert!(began.elapsed() < Duration::from_secs(2), "told after {:?}", began.elapsed());
        assert_eq!(queue(&router.view).1, 3);

        let _servers: Vec<_> = (0..3).map(|_| listener.accept().unwrap()).collect();
        let began = Instant::now();
        router.until("it serves", |view| queue(view) == (Accepting::Yes, 0));
        assert!(began.elapsed() < Duration::from_secs(1), "told after {:?}", began.elapsed());
        // Their clients may have given up long ago.
        router.until("the three came too late", |view| served(view) == Some((3, 3, 0)));
        let _pair = open(&listener);
        router.until("the next one did not", |view| served(view) == Some((4, 4, 1)));
        // Connections whose server ends while they wait are never accepted.
        let _left: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect((VIPA, 80)).unwrap()).collect();
        router.until("two wait", |view| queue(view).1 == 2);
        drop(listener);
        router.listen_for(Duration::from_millis(1_500));
        assert_eq!(served(&router.view), Some((6, 6, 1)));
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_busy_server_whose_queue_never_empties_is_not_stalled() {
    on_a_host(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        // Four wait at any time; one is accepted, and another comes, every 50 ms.
        let mut clients: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect((VIPA, 80)).unwrap()).collect();
        let mut servers = Vec::new();
        for _ in 0..80 {
            clients.push(TcpStream::connect((VIPA, 80)).unwrap());
            servers.push(listener.accept().unwrap());
            router.listen_for(Duration::from_millis(50));
            assert_eq!(queue(&router.view).0, Accepting::Yes);
        }
        assert!(queue(&router.view).1 >= 3, "{:?}", router.view.load);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_full_accept_queue_is_told_at_once() {
    on_a_host(|host| {
        run("sysctl", "-q -w net.core.somaxconn=2");
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let _listener = serve();
        let _clients: Vec<_> = (0..6).map(|_| begin_to_open()).collect();
        let began = Instant::now();
        router.until("it is full", |view| queue(view).0 == Accepting::Full);
        assert!(began.elapsed() < Duration::from_secs(1), "told after {:?}", began.elapsed());
    });
}
