//! A thousand VIPAs: they are on the host soon and at little cost, and no answer waits for them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use vipa_model::{Epoch, PortRange, Protocol};
use vipa_protocol::{Associate, Beat, Message, Owned, Standing};

use crate::{
    host::{Agent, Host, on_a_host, run, until},
    router::{HERE, Router},
};

const COUNT: u16 = 1_000;
/// Between two beats, as with a lease of 100 ms.
const BEAT: Duration = Duration::from_millis(10);

fn vipa(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(192, 168, high, low).into()
}

fn vipas_on_lo() -> usize {
    run("ip", "-o -4 address show dev lo").matches("192.168.").count()
}

/// Sends beats, and receives, until `is_over`; returns how long each answer took.
fn beat_until(router: &mut Router, mut is_over: impl FnMut(&[Message]) -> bool) -> Vec<Duration> {
    let mut sent: Vec<Instant> = Vec::new();
    let mut answered: Vec<Duration> = Vec::new();
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < crate::host::PATIENCE, "it is never over");
        let owned = vec![Owned { vipa: vipa(0), epoch: Epoch(1), yielding_to: None }];
        router.send(&Message::Beat(Beat { sequence: sent.len() as u64, owned }));
        sent.push(Instant::now());
        let mut others = Vec::new();
        for (message, at) in router.messages_for(BEAT) {
            match message {
                Message::BeatAck(ack) => {
                    let sent = sent[usize::try_from(ack.sequence).expect("a few")];
                    answered.push(at.duration_since(sent));
                }
                other => others.push(other),
            }
        }
        if is_over(&others) && answered.len() >= sent.len().saturating_sub(3) {
            return answered;
        }
    }
}

fn summary(mut times: Vec<Duration>) -> (Duration, Duration, Duration) {
    times.sort();
    let part = |permille: usize| times[(times.len() - 1) * permille / 1000];
    (part(500), part(900), part(1000))
}

/// The processor time that the agent has used.
fn processor_time(agent: &Agent) -> Duration {
    let ticks: u32 = [11, 12].map(|index| agent.stat(index)).iter().sum();
    Duration::from_millis(10) * ticks
}

fn number(status: &serde_json::Value, key: &str) -> u64 {
    status["work"][key].as_u64().expect("a number")
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_thousand_vipas_come_by_few_dumps_and_files_and_no_beat_waits_for_them() {
    on_a_host(|host| {
        let agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        router.until_linked();
        let began = Instant::now();
        for number in 0..COUNT {
            router.distribute_of(vipa(number), 1, &[(Protocol::Tcp, PortRange::one(80))], &[HERE]);
            let (vipa, epoch) = (vipa(number), Epoch(1));
            router.send(&Message::Associate(Associate { vipa, epoch, standing: Standing::Owner, seen: None }));
        }
        // Counted beside the beats, because counting takes long itself.
        let (tell, all_here) = mpsc::channel();
        let counting = thread::spawn(move || {
            until("they are on lo", || vipas_on_lo() == usize::from(COUNT));
            tell.send(began.elapsed()).expect("heard");
        });
        let mut answered = BTreeSet::new();
        let mut here = None;
        let times = beat_until(&mut router, |messages| {
            answered.extend(messages.iter().filter_map(|message| match message {
                Message::Connections(report) if report.answers.is_some() => Some(report.vipa),
                _ => None,
            }));
            here = here.or_else(|| all_here.try_recv().ok());
            here.is_some() && answered.len() == usize::from(COUNT)
        });
        counting.join().expect("it ended well");
        let status = host.status_for_programs();
        let (dumps, requests, files) =
            (number(&status, "address_dumps"), number(&status, "address_requests"), number(&status, "files_written"));
        let here = here.expect("they are here");
        let (median, most, slowest) = summary(times);
        eprintln!("1,000 VIPAs on lo after {here:?} by {dumps} dumps, {requests} requests, {files} files written");
        eprintln!("beats meanwhile: median {median:?}, nine of ten {most:?}, slowest {slowest:?}");
        assert_eq!(requests, u64::from(COUNT), "each address is put there once");
        // A dump and a file for each batch, and a dump for each look.
        assert!(dumps <= 60 && files <= 60, "{dumps} dumps, {files} files");
        assert!(here < Duration::from_secs(10), "{here:?}");
        assert_prompt(most, slowest);
        at_rest(host, &agent, &mut router);
        router.distribute_of(vipa(1), 2, &[(Protocol::Tcp, PortRange::one(80))], &["10.9.0.32"]);
        until("one has gone", || vipas_on_lo() == usize::from(COUNT) - 1);
        agent.stop();
        assert_eq!(host.clean_up().matches("is off lo").count(), usize::from(COUNT) - 1);
        assert_eq!(vipas_on_lo(), 0);
    });
}

/// Cost when nothing happens.
fn at_rest(host: &Host, agent: &Agent, router: &mut Router) {
    const TIME: Duration = Duration::from_secs(6);
    let dumps_before = number(&host.status_for_programs(), "address_dumps");
    let (began, before) = (Instant::now(), processor_time(agent));
    let _ = router.messages_for(TIME);
    let took = processor_time(agent) - before;
    let dumps = number(&host.status_for_programs(), "address_dumps") - dumps_before;
    eprintln!("at rest: {took:?} of {:?}, {dumps} dumps", began.elapsed());
    assert!(dumps <= 4, "one dump a look: {dumps}");
    // A debug build beside other tests.
    assert!(took < TIME / 4, "{took:?}");
    let began = Instant::now();
    let (median, most, slowest) = summary(beat_until(router, |_| began.elapsed() >= TIME / 2));
    eprintln!("beats at rest: median {median:?}, nine of ten {most:?}, slowest {slowest:?}");
    assert_prompt(most, slowest);
}

/// Limits for a debug build on a busy machine; a release build on a quiet one answers within 5 ms. A loop that waits
/// for the host is silent for seconds.
fn assert_prompt(most: Duration, slowest: Duration) {
    assert!(most < Duration::from_millis(500), "{most:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
