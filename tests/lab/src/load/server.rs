//! The server's end: answers every message, and checks that each is the next one of its connection. A connection whose
//! first message is a request ends as the request states.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use anyhow::{Context, Result};
use tokio::net::{TcpSocket, TcpStream};

use super::{
    REPORT, clock,
    frame::{Frame, Kind, Trouble, payload, scramble},
    report::{FAULTS, ServerReport},
    request::answer,
};

/// The kernel takes the smaller of this and `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

#[derive(Clone, Debug)]
pub struct ServerSettings {
    pub name: String,
    pub listen: SocketAddr,
}

/// Serves for ever; one JSON report a line on standard output.
pub fn serve(settings: &ServerSettings) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve_on(settings))
}

async fn serve_on(settings: &ServerSettings) -> Result<()> {
    let socket = if settings.listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?; // Many connections need several server processes.
    socket.bind(settings.listen).with_context(|| format!("cannot bind {}", settings.listen))?;
    let listener = socket.listen(BACKLOG)?;
    let tally = Rc::new(RefCell::new(ServerReport { server: settings.name.clone(), ..ServerReport::default() }));
    let reporter = Rc::clone(&tally);
    tokio::task::spawn_local(async move {
        let mut every = tokio::time::interval(REPORT);
        loop {
            every.tick().await;
            println!("{}", serde_json::to_string(&*reporter.borrow()).expect("a report is plain data"));
        }
    });
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().zip(settings.name.bytes()) {
        *to = from;
    }
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("accept: {error}");
                tokio::time::sleep(REPORT).await;
                continue;
            }
        };
        let tally = Rc::clone(&tally);
        {
            let mut tally = tally.borrow_mut();
            tally.accepted += 1;
            tally.open += 1;
        }
        let accepted = scramble(clock() ^ u64::from(std::process::id()) << 40);
        tokio::task::spawn_local(async move {
            let end = converse(stream, accepted, name, &tally).await;
            let mut tally = tally.borrow_mut();
            tally.open -= 1;
            match end {
                Trouble::Closed => tally.finished += 1,
                Trouble::Socket(error) => broken(&mut tally, &format!("{client}: {error}")),
                Trouble::Wrong(what) => broken(&mut tally, &format!("{client}: {what}")),
            }
        });
    }
}

fn broken(tally: &mut ServerReport, why: &str) {
    tally.broken += 1;
    eprintln!("{why}");
    if tally.faults.len() < FAULTS {
        tally.faults.push(why.into());
    }
}

async fn converse(mut stream: TcpStream, accepted: u64, server: [u8; 16], tally: &RefCell<ServerReport>) -> Trouble {
    if let Err(error) = stream.set_nodelay(true) {
        return Trouble::Socket(error);
    }
    let mut connection = None;
    let mut scratch = Vec::new();
    for sequence in 0.. {
        let ask = match Frame::read(&mut stream).await {
            Ok(ask) => ask,
            Err(trouble) => return trouble,
        };
        if ask.kind == Kind::Request && sequence == 0 {
            return match answer(&mut stream, &ask, accepted, server).await {
                Ok(()) => {
                    tally.borrow_mut().requests += 1;
                    Trouble::Closed
                }
                Err(trouble) => trouble,
            };
        }
        let first = *connection.get_or_insert(ask.connection);
        if ask.kind != Kind::Ask || ask.connection != first {
            return Trouble::Wrong(format!("a message of connection {:x} in {first:x}", ask.connection));
        }
        if ask.sequence != sequence {
            return Trouble::Wrong(format!("message {} where {sequence} should come", ask.sequence));
        }
        if ask.payload != payload(first, sequence) {
            return Trouble::Wrong(format!("a wrong payload in message {sequence}"));
        }
        let reply = Frame { kind: Kind::Answer, accepted, server, ..ask };
        if let Err(trouble) = reply.write(&mut stream, &mut scratch).await {
            return trouble;
        }
        tally.borrow_mut().messages += 1;
    }
    Trouble::Closed
}
