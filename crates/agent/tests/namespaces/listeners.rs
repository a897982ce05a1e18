//! The agent's reports of listeners.

use std::net::{TcpListener, UdpSocket};

use vipa_model::{PortRange, Protocol};

use crate::{
    host::on_a_host_by_both,
    router::{HERE, Router, VIPA},
};

const TCP: Protocol = Protocol::Tcp;

#[test]
#[ignore = "needs root: make test-agent"]
fn listeners_on_the_vipa_or_any_address_are_told_as_they_come_and_go() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        router.until_linked();
        router.distribute(1, PortRange { first: 8000, last: 8009 }, &[HERE]);
        router.associate(1);
        assert_eq!(router.view.listening, []);

        let _any = TcpListener::bind("0.0.0.0:8000").unwrap();
        let _any_of_both = TcpListener::bind("[::]:8001").unwrap();
        let vipa = TcpListener::bind((VIPA, 8002)).unwrap();
        let _another_address = TcpListener::bind("10.9.0.31:8003").unwrap();
        let _another_port = TcpListener::bind("0.0.0.0:8010").unwrap();
        router.until("three listen", |view| view.listening == [(TCP, 8000), (TCP, 8001), (TCP, 8002)]);
        drop(vipa);
        router.until("two listen", |view| view.listening == [(TCP, 8000), (TCP, 8001)]);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_takeover_is_told_the_listeners_of_that_moment_beside_its_answer() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        for epoch in (2..40).step_by(2) {
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            router.associate(epoch);
            router.until("it listens", |view| view.listening == [(TCP, 80)]);
            drop(listener);
            router.associate(epoch + 1);
            router.until("nothing listens", |view| view.listening.is_empty());
        }
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn bound_udp_sockets_are_listeners_of_udp_services() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        router.until_linked();
        router.distribute_services(1, &[(Protocol::Udp, PortRange::one(53))], &[HERE]);
        router.associate(1);
        let _socket = UdpSocket::bind("0.0.0.0:53").unwrap();
        let _tcp = TcpListener::bind("0.0.0.0:53").unwrap();
        router.until("the socket is told", |view| view.listening == [(Protocol::Udp, 53)]);
    });
}
