//! A router as the agent sees one: real links, and a view of the agent's reports.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{runtime::Handle, sync::oneshot};
use vipa_model::{
    Connection, ConnectionState, Delivery, Epoch, Forwarding, Incarnation, NodeName, PortRange, Protocol, Service,
};
use vipa_protocol::{
    Associate, Change, Distribution, Hello, Load, Message, Part, Position, Record, Role, Run, Standing, VERSION,
};
use vipa_transport::{Admission, Identity, LinkEvent, Receiver, Sender, StartError, Timing, TransportSettings, start};

use crate::host::{Host, PATIENCE, until};

/// The routers that the agent dials.
pub(crate) const ROUTERS: [(&str, &str); 2] = [("r1", "127.0.0.1:7401"), ("r2", "127.0.0.1:7402")];
pub(crate) const VIPA: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The address that makes the agent a candidate, and one of another target.
pub(crate) const HERE: &str = "10.9.0.31";
pub(crate) const ELSEWHERE: &str = "10.9.0.32";
/// The address of an agent that is reached by IPv6.
pub(crate) const HERE6: &str = "fd09::31";
/// A VIPA of the other family.
pub(crate) const VIPA6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// The address that the routers' tunnels come from.
pub(crate) const PORT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 21);
pub(crate) const PORT6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x21);

/// The agent's reports of the VIPA to a router.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) linked: bool,
    pub(crate) live: BTreeMap<Connection, ConnectionState>,
    pub(crate) listening: Vec<(Protocol, u16)>,
    pub(crate) position: Option<Position>,
    /// Completed answers to `Associate`.
    pub(crate) answered: Vec<Epoch>,
    /// Snapshots begun.
    pub(crate) snapshots: usize,
    /// Every record of every tail, as it came.
    pub(crate) records: Vec<Record>,
    /// The agent's last load report, and the number of them.
    pub(crate) load: Option<Load>,
    pub(crate) loads: usize,
    /// Every message that is no report.
    pub(crate) others: Vec<Message>,
}

impl View {
    /// The reported changes of one connection.
    pub(crate) fn story_of(&self, connection: &Connection) -> Vec<Change> {
        self.records.iter().filter(|record| record.connection == *connection).map(|record| record.change).collect()
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Listeners(listeners) => self.listening = listeners.listening,
            Message::Connections(report) => {
                match report.run {
                    Run::Tail { after, records } => {
                        // An answer begins at the requested position, though more may have been reported in between.
                        let known = self.position.map_or(0, |position| position.sequence);
                        let answer = report.answers.is_some();
                        assert!(after == known || answer && after < known, "a tail begins where the last report ended");
                        let young = usize::try_from(known - after).expect("a few");
                        let records: Vec<Record> = records.into_iter().skip(young).collect();
                        for record in &records {
                            match record.change {
                                Change::Opened(state) => self.live.insert(record.connection, state),
                                Change::Closed => self.live.remove(&record.connection),
                            };
                        }
                        self.records.extend(records);
                    }
                    Run::Snapshot { part, connections } => {
                        if matches!(part, Part::Only | Part::First) {
                            self.live.clear();
                            self.snapshots += 1;
                        }
                        self.live.extend(connections);
                    }
                }
                self.position = Some(report.upto);
                self.answered.extend(report.answers);
            }
            Message::Load(load) => {
                self.load = Some(load);
                self.loads += 1;
            }
            other => self.others.push(other),
        }
    }
}

/// A router that lives until it is dropped, which acts as a kill: its peers are not informed.
#[derive(Debug)]
pub(crate) struct Router {
    name: &'static str,
    /// The runtime that it owns.
    vipa: IpAddr,
    sender: Sender,
    receiver: Receiver,
    runtime: Handle,
    /// Ends the thread of the runtime.
    end: Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
    pub(crate) view: View,
}

impl Router {
    pub(crate) fn start(host: &Host, name: &'static str) -> Self {
        let file = |ending: &str| host.folder().join(format!("{name}.{ending}"));
        let identity = Identity::load(&host.folder().join("ca.pem"), &file("pem"), &file("key")).expect("an identity");
        let (_, address) = ROUTERS.iter().find(|(router, _)| *router == name).expect("one of the two");
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
        let hello = Hello {
            version: VERSION,
            cluster: "test".into(),
            key: vipa_transport::key_digest("test", &std::array::from_fn(|byte| byte as u8)),
            node: node(name),
            role: Role::Router,
            addresses: vec![PORT.into(), PORT6.into()],
            incarnation: Incarnation(u64::try_from(since.as_millis()).expect("a time of this age")),
            voters: ["r1", "r2", "t1"].map(node).to_vec().into(),
        };
        let listen: SocketAddr = address.parse().expect("an address");
        let admission = Admission { routers: ROUTERS.map(|(name, _)| node(name)).to_vec(), ..Admission::default() };
        let settings =
            TransportSettings { hello, listen: Some(listen), dial: vec![], admission, timing: Timing::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let entered = handle.enter();
        let (sender, receiver) = start_once_free(&settings, &identity);
        drop(entered);
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn(move || drop(runtime.block_on(ended)));
        Self {
            name,
            vipa: VIPA.into(),
            sender,
            receiver,
            runtime: handle,
            end: Some((end, thread)),
            view: View::default(),
        }
    }

    /// Waits until the agent's reports fulfil the condition.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(&View) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.view) {
            let name = self.name;
            assert!(self.hear(deadline), "{name} waited in vain until {what}; it knows {:#?}", self.view);
        }
    }

    pub(crate) fn until_linked(&mut self) {
        self.until("the agent is linked", |view| view.linked);
    }

    /// Receives for `time`.
    pub(crate) fn listen_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while self.hear(end) {}
    }

    /// Receives one event; false when none came before `deadline`.
    fn hear(&mut self, deadline: Instant) -> bool {
        let event =
            self.runtime.block_on(async { tokio::time::timeout_at(deadline.into(), self.receiver.recv()).await });
        let Ok(event) = event else { return false };
        match event.expect("the transport runs") {
            LinkEvent::Up { peer, hello } => {
                assert_eq!(peer, node("t1"));
                let here = [HERE, HERE6].map(|address| Role::Target { address: address.parse().expect("an address") });
                assert!(here.contains(&hello.role), "{hello:?}");
                self.view.linked = true;
            }
            LinkEvent::Down { .. } => self.view.linked = false,
            LinkEvent::Message { message, .. } => self.view.take(message),
            LinkEvent::Refused(refusal) => panic!("refused: {refusal}"),
        }
        true
    }

    /// The messages within `time`, and their times; the view does not receive them.
    pub(crate) fn messages_for(&mut self, time: Duration) -> Vec<(Message, Instant)> {
        let end = Instant::now() + time;
        let mut messages = Vec::new();
        while let Ok(event) =
            self.runtime.block_on(async { tokio::time::timeout_at(end.into(), self.receiver.recv()).await })
        {
            if let Some(LinkEvent::Message { message, .. }) = event {
                messages.push((message, Instant::now()));
            }
        }
        messages
    }

    pub(crate) fn send(&self, message: &Message) {
        self.sender.send(&node("t1"), message);
    }

    /// As `take_over`, of this VIPA.
    pub(crate) fn take_over_of(host: &Host, vipa: IpAddr) -> Self {
        let mut router = Self::start(host, "r1");
        router.vipa = vipa;
        router.until_linked();
        router.distribute(1, PortRange::one(80), &[HERE]);
        router.associate(1);
        router
    }

    /// Distributes, as the owner of `epoch`, the candidates of these TCP ports of the VIPA.
    pub(crate) fn distribute(&self, epoch: u64, ports: PortRange, candidates: &[&str]) {
        self.distribute_services(epoch, &[(Protocol::Tcp, ports)], candidates);
    }

    pub(crate) fn distribute_services(&self, epoch: u64, services: &[(Protocol, PortRange)], candidates: &[&str]) {
        self.distribute_of(self.vipa, epoch, services, candidates);
    }

    /// As `distribute_services`, of this VIPA.
    pub(crate) fn distribute_of(
        &self,
        vipa: IpAddr,
        epoch: u64,
        services: &[(Protocol, PortRange)],
        candidates: &[&str],
    ) {
        let candidates: Vec<IpAddr> = candidates.iter().map(|text| text.parse().expect("an address")).collect();
        let service = |&(protocol, ports): &(Protocol, PortRange)| Service {
            protocol,
            ports,
            delivery: Default::default(),
            balance: Default::default(),
            choice: Default::default(),
            orphans: Default::default(),
            sources: Default::default(),
            candidates: candidates.clone(),
        };
        self.send(&Message::Distribution(Distribution {
            vipa,
            epoch: Epoch(epoch),
            sender: Standing::Owner,
            ranks: vec![],
            services: services.iter().map(service).collect(),
            paths: vec![],
        }));
    }

    /// Distributes, as the owner of `epoch`, that this target gets the VIPA's datagrams by this path.
    pub(crate) fn distribute_by(&self, forwarding: Forwarding, epoch: u64, vipa: IpAddr, here: &str) {
        let service = Service {
            protocol: Protocol::Udp,
            ports: PortRange::ALL,
            delivery: Delivery { forwarding, ..Delivery::default() },
            balance: Default::default(),
            choice: Default::default(),
            orphans: Default::default(),
            sources: Default::default(),
            candidates: vec![here.parse().expect("an address")],
        };
        let (epoch, sender) = (Epoch(epoch), Standing::Owner);
        self.send(&Message::Distribution(Distribution {
            vipa,
            epoch,
            sender,
            ranks: vec![],
            services: vec![service],
            paths: vec![],
        }));
    }

    /// Distributes, as the owner of `epoch`, that `nat` translates the connections of one TCP port of the VIPA to
    /// another one here.
    pub(crate) fn distribute_by_nat(&self, epoch: u64, port: u16, target_port: u16) {
        let delivery = Delivery { forwarding: Forwarding::Nat, target_port: Some(target_port), ..Delivery::default() };
        let service = Service {
            protocol: Protocol::Tcp,
            ports: PortRange::one(port),
            delivery,
            balance: Default::default(),
            choice: Default::default(),
            orphans: Default::default(),
            sources: Default::default(),
            candidates: vec![HERE.parse().expect("an address")],
        };
        let (vipa, epoch, sender) = (self.vipa, Epoch(epoch), Standing::Owner);
        self.send(&Message::Distribution(Distribution {
            vipa,
            epoch,
            sender,
            ranks: vec![],
            services: vec![service],
            paths: vec![],
        }));
    }

    /// Asks, as the owner of `epoch`, for everything that this router has not seen yet, and waits for the answer.
    #[track_caller]
    pub(crate) fn associate(&mut self, epoch: u64) {
        let epoch = Epoch(epoch);
        let associate = Associate { vipa: self.vipa, epoch, standing: Standing::Owner, seen: self.view.position };
        self.send(&Message::Associate(associate));
        self.until("the agent has answered", |view| view.answered.last() == Some(&epoch));
    }

    /// The usual beginning: linked, port 80 distributed to the agent, associated.
    pub(crate) fn take_over(host: &Host) -> Self {
        Self::take_over_of(host, VIPA.into())
    }
}

/// The address may be in use for a moment because of another test's start: its process has a copy of the previous
/// router's socket until it runs its program.
fn start_once_free(settings: &TransportSettings, identity: &Identity) -> (Sender, Receiver) {
    let mut started = None;
    until("the address is free", || match start(settings.clone(), identity) {
        Ok(transport) => {
            started = Some(transport);
            true
        }
        Err(StartError::Listen { source, .. }) if source.kind() == ErrorKind::AddrInUse => false,
        Err(error) => panic!("the transport starts: {error}"),
    });
    started.expect("it was waited for")
}

impl Drop for Router {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.end.take() {
            // With the sending end the runtime's thread ends, and with the runtime everything on it.
            drop(end);
            let _ = thread.join();
        }
    }
}

pub(crate) fn node(name: &str) -> NodeName {
    name.parse().expect("a node name")
}
