//! Stopping, killing or upgrading an agent costs its host's clients nothing.
//!
//! ```text
//!   numbered datagrams ──► v1 ═══ v0 ──► bare, and in each kind of tunnel ──► UDP socket on the VIPA
//!   a TCP client ── lo ──────────────────────────────────────────────────────► TCP server on the VIPA
//! ```

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{IpAddr, UdpSocket},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use vipa_model::{Forwarding, PortRange};

use crate::{
    host::{Host, on_a_host, times_on_lo, until},
    router::{HERE, PORT, Router, VIPA},
    sockets::{Pair, abort, open, serve},
    tunnels::{KINDS, Wire, datagram, until_unwrapped, wrapped},
};

const ON_LO: &str = "192.0.2.10/32";
/// Between two packets.
const GAP: Duration = Duration::from_millis(2);

/// Sends numbered datagrams until it is stopped; returns how many.
fn send_until(stopped: &mpsc::Receiver<()>) -> u32 {
    let wire = Wire::another();
    let here: IpAddr = HERE.parse().expect("an address");
    let mut number = 0_u32;
    while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
        let bare = datagram(VIPA.into(), 0, &number.to_be_bytes());
        let packet = match KINDS.get(number as usize % (KINDS.len() + 1)) {
            Some(kind) => wrapped(*kind, PORT.into(), here, 0, &bare),
            None => bare,
        };
        wire.send(&packet);
        number += 1;
        thread::sleep(GAP);
    }
    number
}

/// The numbers that arrive, until none has come for a while.
fn receive_all(socket: &UdpSocket) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    let mut text = [0; 100];
    while let Ok(length) = socket.recv(&mut text) {
        let number = u32::from_be_bytes(text[..length].try_into().expect("a number"));
        assert!(numbers.insert(number), "{number} came twice");
    }
    numbers
}

/// Segments that this namespace's TCP has retransmitted.
fn retransmitted() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").expect("the kernel tells");
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut both = names.split(' ').zip(values.split(' '));
    both.find(|(name, _)| *name == "RetransSegs").expect("it counts").1.parse().expect("a number")
}

/// One question and its answer.
fn exchange(pair: &mut Pair) {
    let mut byte = [0];
    pair.client.write_all(b"?").expect("it is open");
    pair.server.read_exact(&mut byte).expect("it is open");
    pair.server.write_all(b"!").expect("it is open");
    pair.client.read_exact(&mut byte).expect("it is open");
}

/// Exchanges bytes until it is stopped.
fn exchange_until(pair: &mut Pair, stopped: &mpsc::Receiver<()>) {
    while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
        exchange(pair);
        thread::sleep(GAP);
    }
}

fn distribute(router: &mut Router, epoch: u64) {
    router.until_linked();
    router.distribute_by(Forwarding::Ipip, epoch, VIPA.into(), HERE);
}

fn nothing_is_lost(host: &Host) {
    host.configure_tunnels(HERE, "v0");
    let wire = Wire::new();
    let mut agent = host.start_agent();
    let mut router = Router::start(host, "r1");
    distribute(&mut router, 1);
    let socket = crate::tunnels::serve(VIPA.into());
    // A busy machine must not lose what the host received.
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).expect("root may");
    let here = HERE.parse().expect("an address");
    let bare = datagram(VIPA.into(), 0, &[0; 4]);
    until_unwrapped(&socket, &wire, &wrapped(Forwarding::Ipip, PORT.into(), here, 0, &bare));
    let mut pair = open(&serve());
    let before = retransmitted();

    let (stop, stopped) = mpsc::channel();
    let (stop_exchange, exchange_stopped) = mpsc::channel();
    let sender = thread::spawn(move || send_until(&stopped));
    let receiver = thread::spawn(move || receive_all(&socket));
    let exchanger = thread::spawn(move || {
        exchange_until(&mut pair, &exchange_stopped);
        pair
    });
    for epoch in 2..6 {
        // Every other time it is killed.
        if epoch % 2 == 0 {
            agent.stop()
        } else {
            agent.crash()
        }
        router.until("the link is lost", |view| !view.linked);
        // It may take its time.
        thread::sleep(Duration::from_millis(300));
        agent = host.start_agent();
        let taken_over = usize::try_from(epoch).expect("a few");
        until("it has taken over", || host.log().matches("is unwrapped by BPF").count() == taken_over);
        distribute(&mut router, epoch);
        router.listen_for(Duration::from_millis(300));
    }
    drop((stop, stop_exchange));
    let sent = sender.join().expect("it ended well");
    let received = receiver.join().expect("it ended well");
    let pair = exchanger.join().expect("no connection broke");
    let lost: Vec<u32> = (0..sent).filter(|number| !received.contains(number)).collect();
    eprintln!("{sent} datagrams, none lost, {} segments sent again", retransmitted() - before);
    assert!(sent > 500 && lost.is_empty(), "of {sent} datagrams {} were lost: {lost:?}", lost.len());
    assert_eq!(retransmitted() - before, 0, "TCP lost something");
    assert_eq!(times_on_lo(ON_LO), 1);
    abort(pair);
}

#[test]
#[ignore = "needs root: make test-agent"]
fn restarts_lose_no_packet_whether_it_comes_bare_or_in_a_tunnel() {
    on_a_host(nothing_is_lost);
}

#[test]
#[ignore = "needs root: make test-agent"]
fn what_an_earlier_agent_left_stays_until_every_router_could_ask_for_it_and_goes_then() {
    on_a_host(|host| {
        let agent = host.start_agent();
        let mut r1 = Router::start(host, "r1");
        r1.until_linked();
        r1.distribute(1, PortRange::one(80), &[HERE]);
        until("the VIPA is here", || times_on_lo(ON_LO) == 1);
        agent.stop();
        r1.until("the link is lost", |view| !view.linked);

        // Removed from the lists meanwhile: no router has the VIPA any more.
        let agent = host.start_agent();
        r1.until_linked();
        r1.listen_for(Duration::from_secs(12));
        let said = host.status();
        assert!(said.contains("192.0.2.10 is on lo, as an earlier agent left it"), "{said}");
        assert_eq!(times_on_lo(ON_LO), 1, "one router has not spoken yet");
        let mut r2 = Router::start(host, "r2");
        r2.until_linked();
        until("nothing needs the VIPA", || times_on_lo(ON_LO) == 0);
        agent.stop();
        assert!(!host.clean_up().contains("192.0.2.10"));
    });
}
