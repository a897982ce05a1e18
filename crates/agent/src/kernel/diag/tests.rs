use std::net::{TcpListener, TcpStream};

use super::*;

fn connections() -> Vec<Socket> {
    let mut found = Vec::new();
    Diag::open().unwrap().dump(Protocol::Tcp, States::CONNECTIONS, |socket| found.push(socket)).unwrap();
    found
}

#[test]
fn a_connection_of_this_process_is_in_the_dump_from_both_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let found = connections();
    for end in [&client, &server] {
        let local = end.local_addr().unwrap();
        let remote = end.peer_addr().unwrap();
        let socket = found.iter().find(|socket| socket.local == (local.ip(), local.port())).expect("it is listed");
        assert_eq!(socket.remote, (remote.ip(), remote.port()));
        assert_eq!(socket.state, TcpState::Established);
    }
}

#[test]
fn an_ipv4_client_of_a_dual_stack_listener_is_listed_under_its_ipv4_address() {
    let Ok(listener) = TcpListener::bind("[::]:0") else { return };
    let port = listener.local_addr().unwrap().port();
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (_server, _) = listener.accept().unwrap();
    let loopback = IpAddr::from([127, 0, 0, 1]);
    assert!(connections().iter().any(|socket| socket.local == (loopback, port)));
    let mut listeners = Vec::new();
    Diag::open().unwrap().dump(Protocol::Tcp, States::LISTENERS, |socket| listeners.push(socket)).unwrap();
    let listed = listeners.iter().find(|socket| socket.local.1 == port).expect("it is listed");
    assert!(listed.takes_ipv4);
}

#[test]
fn a_half_closed_connection_is_told_from_an_established_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let local = server.local_addr().unwrap();
    let remote = server.peer_addr().unwrap();
    let state = || {
        let is_it = |socket: &Socket| {
            socket.local == (local.ip(), local.port()) && socket.remote == (remote.ip(), remote.port())
        };
        connections().into_iter().find(is_it).map(|socket| socket.state)
    };
    let mut tries = 0;
    while state() != Some(TcpState::CloseWait) {
        tries += 1;
        assert!(tries < 1000, "the kernel never told of the half-close");
        std::thread::yield_now();
    }
}

#[test]
fn damaged_messages_end_the_list_and_nothing_else() {
    assert_eq!(messages(&[1, 2, 3]).count(), 0);
    let mut short = [0_u8; 16];
    short[0] = 200;
    assert_eq!(messages(&short).count(), 0);
    assert!(socket_of(&[0; 71]).is_none());
    assert!(attribute(&[3, 0, 0, 0], 1).is_none());
}

#[test]
fn a_connection_is_found_by_its_name_until_it_is_gone_and_its_listener_is_not_taken_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, peer) = listener.accept().unwrap();
    let here = server.local_addr().unwrap();
    let mut diag = Diag::open().unwrap();
    let mut state = || {
        let found = diag.find((here.ip(), here.port()), (peer.ip(), peer.port())).unwrap();
        found.map(|socket| socket.state)
    };
    assert_eq!(state(), Some(TcpState::Established));
    drop(server);
    // On a busy machine the kernel may be slow.
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let wait = || {
        assert!(std::time::Instant::now() < limit, "the kernel never told of the end");
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    while state() != Some(TcpState::FinWait2) {
        wait();
    }
    // The server's end is in TIME-WAIT then, which is no connection any more.
    drop(client);
    while state().is_some() {
        wait();
    }
    let nobody = ("127.0.0.2".parse().unwrap(), 1);
    assert_eq!(diag.find((here.ip(), here.port()), nobody).unwrap(), None);
}
