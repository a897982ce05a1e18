//! Tests of the lab itself: what it builds exists, faults that it injects are detected, and nothing that it made is
//! left afterwards. No router.

use std::{net::SocketAddr, process::Command, thread::sleep, time::Duration};

use anyhow::Result;
use vipa_lab::{
    load::{Client, ClientPlan, Server},
    netns::{Host, Lab, Plug},
    packet_ledger::PacketLedger,
    process::wait,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Time after which delayed acknowledgements have been sent.
const QUIET: Duration = Duration::from_millis(300);

fn client_and_server(lab: &Lab) -> Result<(Host, Host, Server)> {
    let client = lab.host("client", &["10.77.0.51".parse()?])?;
    let host = lab.host("t1", &["10.77.0.31".parse()?])?;
    let server = Server::start(&host, "10.77.0.31:80".parse()?)?;
    Ok((client, host, server))
}

fn plan(connections: usize) -> Result<ClientPlan> {
    let vipa: SocketAddr = "10.77.0.31:80".parse()?;
    Ok(ClientPlan { messages_per_second: 1_000, fresh_per_second: 0, ..ClientPlan::new(vipa, connections) })
}

#[test]
fn connections_that_nothing_happens_to_are_kept_and_counted() -> Result<()> {
    let lab = Lab::new("bench_kept")?;
    let (host, _t1, server) = client_and_server(&lab)?;
    let mut client = Client::start(&host, "client", &plan(300)?)?;
    let open = client.wait_open(PATIENCE)?;
    assert_eq!(open.servers, [("t1".to_string(), 300)].into());
    let fresh = client.fresh_and_wait(20)?;
    assert_eq!((fresh.ok, fresh.failed), (20, 0));
    let paused = client.pause()?;
    client.mark()?;
    sleep(Duration::from_millis(700));
    let still = client.wait_for("a report", PATIENCE, |_| true)?;
    assert_eq!((still.messages, still.silent_since_mark), (paused.messages, 300), "nothing happens in a pause");
    client.resume()?;
    client.wait_for("everyone to go on", PATIENCE, |report| report.silent_since_mark == 0)?;
    let end = client.finish(PATIENCE)?;
    assert_eq!((end.asked, end.kept, end.broken.total(), end.stalls), (300, 300, 0, 0), "{end:#?}");
    assert!(end.messages >= 600, "every connection has had at least two answers");
    let seen = wait("the server's account", PATIENCE, || Some(server.report()).filter(|seen| seen.open == 0))?;
    assert_eq!((seen.accepted, seen.finished, seen.broken, seen.messages), (320, 320, 0, end.messages + 60));
    Ok(())
}

#[test]
fn a_server_that_dies_breaks_its_connections_and_that_is_seen() -> Result<()> {
    let lab = Lab::new("bench_broken")?;
    let (host, _t1, mut server) = client_and_server(&lab)?;
    let mut client = Client::start(&host, "client", &plan(50)?)?;
    client.wait_open(PATIENCE)?;
    server.kill()?;
    let report = client.wait_for("all to break", PATIENCE, |report| report.broken.total() == 50)?;
    assert_eq!((report.open, report.kept), (0, 0));
    Ok(())
}

#[test]
fn a_pulled_plug_is_a_stall_and_not_a_loss_and_the_first_answer_after_it_is_timed() -> Result<()> {
    let lab = Lab::new("bench_stall")?;
    let (host, t1, _server) = client_and_server(&lab)?;
    let mut client = Client::start(&host, "client", &plan(50)?)?;
    client.wait_open(PATIENCE)?;
    t1.plug(Plug::Out)?;
    client.mark()?;
    let gap = Duration::from_millis(3_200);
    sleep(gap);
    t1.plug(Plug::In)?;
    let report = client.wait_for("answers", PATIENCE, |report| report.silent_since_mark == 0)?;
    assert!(report.first_after_mark_us.is_some_and(|us| us >= 3_000_000), "{report:#?}");
    assert!(report.longest_ms >= 3_000 && report.stalls > 0, "{report:#?}");
    let end = client.finish(PATIENCE)?;
    assert_eq!((end.kept, end.broken.total()), (50, 0), "{end:#?}");
    Ok(())
}

#[test]
fn the_ledger_balances_when_nothing_is_lost_and_shows_what_is() -> Result<()> {
    let lab = Lab::new("bench_ledger")?;
    let (host, t1, _server) = client_and_server(&lab)?;
    let ledger = PacketLedger::open(&lab, &host, [t1.clone()], "10.77.0.31:80".parse()?)?;
    let mut client = Client::start(&host, "client", &plan(100)?)?;
    client.wait_open(PATIENCE)?;
    client.mark()?;
    // Until every client has sent one of the messages that span several segments.
    client.wait_for("messages", PATIENCE, |report| report.messages >= 100 * 16)?;
    client.pause()?;
    sleep(QUIET);
    let before = ledger.read()?;
    assert_eq!((before.lost(), before.sent > 2_000), (0, true), "{before:?}");
    t1.nft(
        "add table ip thief\nadd chain ip thief steal { type filter hook prerouting priority -400; }\n\
            add rule ip thief steal tcp dport 80 numgen inc mod 10 0 drop\n",
    )?;
    client.resume()?;
    client.mark()?;
    client.wait_for("everyone to go on", PATIENCE, |report| report.silent_since_mark == 0)?;
    client.pause()?;
    sleep(QUIET);
    let after = ledger.read()?.since(before);
    assert!(after.lost() * 9 >= after.sent / 2, "a tenth was stolen: {after:?}");
    Ok(())
}

#[test]
fn a_lab_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::new("bench_clean")?;
    let tag = lab.tag().to_string();
    let (_client, _t1, _server) = client_and_server(&lab)?;
    // A process that the lab has not started, in one of its namespaces.
    let mut stray = lab.host("stray", &[])?.command("sleep", ["1000"]).spawn()?;
    drop(lab);
    stray.wait()?;
    let namespaces = String::from_utf8(Command::new("ip").args(["netns", "list"]).output()?.stdout)?;
    assert!(!namespaces.contains(&tag), "{namespaces}");
    assert!(!std::path::Path::new("/tmp").join(tag).exists());
    Ok(())
}
