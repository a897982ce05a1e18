//! The agent's reports of real connections.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener},
    sync::mpsc,
    thread,
    time::Duration,
};

use vipa_model::{
    ConnectionState::{Closing, Established, HalfOpen},
    Protocol,
};
use vipa_protocol::Change::{self, Closed, Opened};

use crate::{
    host::{on_a_crowded_host, on_a_host_by_both, run},
    router::{HERE, Router},
    sockets::{Pair, abort, begin_to_open, connect_from, connection_of, open, serve},
};

/// Long enough for several looks at the kernel.
const SEVERAL_LOOKS: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs root: make test-agent"]
fn a_connection_is_told_when_it_opens_and_when_it_ends() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let pair = open(&listener);
        let connection = pair.connection;
        router.until("it is open", |view| view.live.get(&connection) == Some(&Established));
        abort(pair);
        router.until("it has ended", |view| view.live.is_empty());
        assert_eq!(router.view.story_of(&connection), [Opened(Established), Closed]);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_connection_the_client_half_closed_is_closing_and_held_until_the_server_closes() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let mut pair = open(&listener);
        router.until("it is open", |view| view.live.get(&pair.connection) == Some(&Established));
        pair.client.shutdown(Shutdown::Write).unwrap();
        router.until("it is closing", |view| view.live.get(&pair.connection) == Some(&Closing));
        pair.server.write_all(b"still talking").unwrap();
        let mut heard = [0; 13];
        pair.client.read_exact(&mut heard).unwrap();
        router.listen_for(SEVERAL_LOOKS);
        assert_eq!(router.view.story_of(&pair.connection), [Opened(Established), Opened(Closing)]);
        drop(pair.server);
        router.until("it has ended", |view| view.live.is_empty());
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_connection_the_server_half_closed_is_closing_and_held_until_the_client_closes() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let pair = open(&listener);
        pair.server.shutdown(Shutdown::Write).unwrap();
        router.until("it is closing", |view| view.live.get(&pair.connection) == Some(&Closing));
        drop(pair.client);
        drop(pair.server);
        router.until("it has ended", |view| view.live.is_empty());
    });
}

/// The kernel replaces the socket of such a connection by a smaller one, which is no end: the client's own FIN, and
/// what it sent before that, are still to come.
#[test]
#[ignore = "needs root: make test-agent"]
fn a_connection_the_server_closed_first_is_held_until_the_client_has_closed_too() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let Pair { connection, client, server } = open(&listener);
        router.until("it is open", |view| view.live.get(&connection) == Some(&Established));
        drop(server);
        router.until("it is closing", |view| view.live.get(&connection) == Some(&Closing));
        router.listen_for(SEVERAL_LOOKS);
        assert_eq!(router.view.story_of(&connection), [Opened(Established), Opened(Closing)]);
        drop(client);
        router.until("it has ended", |view| view.live.is_empty());
        assert_eq!(router.view.story_of(&connection), [Opened(Established), Opened(Closing), Closed]);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn what_nat_sends_to_this_host_s_own_address_is_told_under_the_vipa_and_its_port() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        router.until_linked();
        router.distribute_by_nat(1, 80, 8080);
        router.associate(1);
        let here: SocketAddr = format!("{HERE}:8080").parse().unwrap();
        let listener = TcpListener::bind(here).unwrap();
        let _other = TcpListener::bind(format!("{HERE}:80")).unwrap();
        router.until("it listens", |view| view.listening == [(Protocol::Tcp, 80)]);
        let client = connect_from("10.9.0.1".parse().unwrap(), here).unwrap();
        let (server, _) = listener.accept().unwrap();
        let connection = connection_of(client.local_addr().unwrap());
        router.until("it is told", |view| view.live.get(&connection) == Some(&Established));
        abort(Pair { connection, client, server });
        router.until("it has ended", |view| view.live.is_empty());
        assert_eq!(router.view.story_of(&connection), [Opened(Established), Closed]);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_handshake_under_way_is_half_open_until_it_is_done() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let _listener = serve();
        run("nft", "add table ip t");
        run("nft", "add chain ip t in { type filter hook input priority 0 ; }");
        run("nft", "add rule ip t in tcp sport 80 tcp flags & (syn|ack) == syn|ack drop");
        let (connection, _client) = begin_to_open();
        router.until("it is half open", |view| view.live.get(&connection) == Some(&HalfOpen));
        run("nft", "delete table ip t");
        router.until("it is open", |view| view.live.get(&connection) == Some(&Established));
        assert_eq!(router.view.story_of(&connection), [Opened(HalfOpen), Opened(Established)]);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn connections_of_other_addresses_are_nobodys_business() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let other = std::net::TcpListener::bind("10.9.0.31:80").unwrap();
        let _client = std::net::TcpStream::connect("10.9.0.31:80").unwrap();
        let _server = other.accept().unwrap();
        router.listen_for(SEVERAL_LOOKS);
        assert!(router.view.live.is_empty() && router.view.records.is_empty());
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_new_owner_gets_thousands_of_connections_as_a_snapshot_and_a_warm_one_nothing_twice() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut first = Router::take_over(host);
        let listener = serve();
        let mut pairs: Vec<Pair> = (0..5_000).map(|_| open(&listener)).collect();
        let held: BTreeSet<_> = pairs.iter().map(|pair| pair.connection).collect();

        // Cold: the answer alone must have everything, whatever the agent's last look had seen.
        let mut second = Router::start(host, "r2");
        second.until_linked();
        second.associate(2);
        assert_eq!(second.view.live.keys().copied().collect::<BTreeSet<_>>(), held);
        assert_eq!((second.view.snapshots, second.view.records.len()), (1, 0));

        // Warm: the router was sent every change and asks only for what it has not seen.
        first.until("it knows all", |view| view.live.len() == held.len());
        let young = open(&listener);
        first.associate(3);
        assert_eq!(first.view.live.get(&young.connection), Some(&Established));
        assert_eq!((first.view.live.len(), first.view.snapshots), (held.len() + 1, 1));

        pairs.push(young);
        pairs.into_iter().for_each(abort);
        first.until("all have ended", |view| view.live.is_empty());
        second.until("all have ended", |view| view.live.is_empty());
    });
}

/// While the kernel lists its sockets, others come and go; one that stays must be in every list.
#[test]
#[ignore = "needs root: make test-agent"]
fn a_connection_that_lives_is_never_told_to_have_ended_whatever_comes_and_goes_beside_it() {
    on_a_crowded_host(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let pairs: Vec<Pair> = (0..2_000).map(|_| open(&listener)).collect();
        let held: BTreeSet<_> = pairs.iter().map(|pair| pair.connection).collect();
        router.until("it knows all", |view| view.live.len() == held.len());

        let (stop, stopped) = mpsc::channel::<()>();
        let churn = thread::spawn(move || {
            let mut opened = 0;
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                let young: Vec<Pair> = (0..50).map(|_| open(&listener)).collect();
                opened += young.len();
                young.into_iter().for_each(abort);
            }
            opened
        });
        router.listen_for(Duration::from_secs(5));
        stop.send(()).unwrap();
        let opened = churn.join().unwrap();
        let is_false = |change: &Change| *change == Closed;
        let wronged = held.iter().filter(|held| router.view.story_of(held).iter().any(is_false)).count();
        assert_eq!(wronged, 0, "of {} connections that lived, while {opened} came and went", held.len());
        router.until("the others have ended", |view| view.live.len() == held.len());
    });
}
