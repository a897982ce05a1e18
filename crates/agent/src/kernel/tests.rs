use std::net::{TcpListener, TcpStream};

use vipa_model::PortRange;

use super::{diag::Diag, *};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn watch(kernel: &Kernel, port: u16) {
    kernel.watch(vec![Watched {
        vipa: HERE,
        services: vec![(Protocol::Tcp, PortRange::one(port))],
        translated: vec![],
    }]);
}

/// Without BPF, which needs root.
fn start() -> (Kernel, mpsc::Receiver<Event>) {
    let sight = Sight { observe: Observe::Diag, pace: Duration::from_secs(3600), namespaces: vec![] };
    Kernel::start(&sight).unwrap()
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
    let (kernel, mut events) = start();
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
    let (kernel, mut events) = start();
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
fn a_vipa_whose_first_listing_failed_is_listed_again_before_anybody_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (orders, orders_in) = commands::channel();
    let (_wake, woken) = UnixDatagram::pair().unwrap();
    let (told, mut events) = mpsc::channel(16);
    let here = vec![Namespace { diag: Diag::broken().unwrap(), ends: None, cookie: Ok(0) }];
    let pace = Duration::from_secs(3600);
    let mut observer = Observer::new((here, None), (orders_in, woken, told), pace, Shared::default());
    let services = vec![(Protocol::Tcp, PortRange::one(address.port()))];
    orders.send(Order::Watch(vec![Watched { vipa: HERE, services, translated: vec![] }])).unwrap();
    orders.send(Order::Look(7)).unwrap();
    assert!(matches!(observer.turn(), Err(Stop::Failed(_))));
    assert!(events.try_recv().is_err(), "nothing is known, so nothing is told");

    observer.here[0].diag = Diag::open().unwrap();
    assert!(observer.turn().is_ok());
    let wanted = Connection { protocol: Protocol::Tcp, client: client.local_addr().unwrap(), port: address.port() };
    let first = events.try_recv().unwrap();
    let Event::Holds { vipa: HERE, connections } = &first else { panic!("{first:?}") };
    assert!(connections.contains(&(wanted, ConnectionState::Established)));
    let rest: Vec<Event> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    assert_eq!(rest.last(), Some(&Event::Looked { token: 7 }));
}
