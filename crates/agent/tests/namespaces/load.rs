//! What the agent tells of how its host fares: accept queues, processors.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use vipa_protocol::{Accepting, Intent, load::FULL_HEADROOM};

use crate::{
    host::on_a_host,
    router::{Router, VIPA, View},
    sockets::{Pair, begin_to_open, open, serve},
};

/// What the router knows of the only listener; one that is not told of accepts, and nothing waits.
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
        crate::host::run("sysctl", "-q -w net.core.somaxconn=2");
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let _listener = serve();
        let _clients: Vec<_> = (0..6).map(|_| begin_to_open()).collect();
        let began = Instant::now();
        router.until("it is full", |view| queue(view).0 == Accepting::Full);
        assert!(began.elapsed() < Duration::from_secs(1), "told after {:?}", began.elapsed());
    });
}
