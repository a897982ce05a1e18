use std::net::{TcpListener, TcpStream};

use vipa_model::PortRange;

use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn watch(kernel: &Kernel, port: u16) {
    kernel.watch(vec![Watched {
        vipa: HERE,
        services: vec![(Protocol::Tcp, PortRange::one(port))],
        translated: vec![],
    }]);
}

/// Reads events until one satisfies `is_it`; the number is a limit, not a time.
fn until(events: &mut mpsc::Receiver<Event>, mut is_it: impl FnMut(&Event) -> bool) -> Event {
    for _ in 0..10_000 {
        let event = events.blocking_recv().expect("the thread lives");
        if is_it(&event) {
            return event;
        }
    }
    panic!("it never came");
}

#[test]
fn a_look_on_demand_tells_connections_and_listeners_and_then_its_token() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (kernel, mut events) = Kernel::start(Duration::from_secs(3600)).unwrap();
    watch(&kernel, address.port());
    kernel.look(7);
    let (mut held, mut listened) = (false, false);
    until(&mut events, |event| {
        match event {
            Event::Holds { vipa: HERE, connections } => {
                let wanted =
                    Connection { protocol: Protocol::Tcp, client: client.local_addr().unwrap(), port: address.port() };
                held |= connections.contains(&(wanted, ConnectionState::Established));
            }
            Event::Listening { vipa: HERE, listening } => listened |= *listening == [(Protocol::Tcp, address.port())],
            _ => {}
        }
        *event == Event::Looked { token: 7 }
    });
    assert!(held && listened);
}

#[test]
fn an_aborted_connection_is_told_at_once_without_a_look() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    let (kernel, mut events) = Kernel::start(Duration::from_secs(3600)).unwrap();
    watch(&kernel, address.port());
    kernel.look(1);
    until(&mut events, |event| *event == Event::Looked { token: 1 });
    let gone = Connection { protocol: Protocol::Tcp, client: client.local_addr().unwrap(), port: address.port() };
    // The client closes last, so that the server's end has no TIME-WAIT: it is simply gone.
    drop(client);
    drop(server);
    until(&mut events, |event| {
        let Event::Changed { vipa: HERE, records } = event else { return false };
        records.contains(&Record { connection: gone, change: Change::Closed })
    });
}

#[test]
fn a_socket_accepts_for_a_vipa_when_bound_to_it_or_to_any_address() {
    let vipa: IpAddr = "192.0.2.10".parse().unwrap();
    let socket = |local: &str, takes_ipv4| Socket {
        state: TcpState::Listen,
        local: (local.parse().unwrap(), 80),
        remote: ("0.0.0.0".parse().unwrap(), 0),
        takes_ipv4,
        waiting: 0,
        room: 0,
        is_nobodys: false,
        cookie: 0,
    };
    assert!(accepts(&socket("192.0.2.10", false), vipa));
    assert!(accepts(&socket("0.0.0.0", false), vipa));
    assert!(accepts(&socket("::", true), vipa));
    assert!(!accepts(&socket("::", false), vipa), "an IPv6-only listener");
    assert!(!accepts(&socket("127.0.0.1", false), vipa));
    assert!(!accepts(&socket("0.0.0.0", false), "2001:db8::1".parse().unwrap()));
}

#[test]
fn what_is_missing_is_what_was_there_and_is_not() {
    let held = |ports: &[u16]| -> Vec<_> {
        let connection = |port: &u16| Connection { protocol: Protocol::Tcp, client: (HERE, *port).into(), port: 80 };
        ports.iter().map(|port| (connection(port), ConnectionState::Established)).collect()
    };
    let ports = |before: &[u16], now: &[u16]| -> Vec<u16> {
        missing(&held(before), &held(now)).iter().map(|connection| connection.client.port()).collect()
    };
    assert!(ports(&[], &[1, 2]).is_empty());
    assert_eq!(ports(&[1, 2], &[]), [1, 2]);
    assert_eq!(ports(&[1, 3, 5, 7], &[2, 3, 4, 7, 9]), [1, 5]);
}
