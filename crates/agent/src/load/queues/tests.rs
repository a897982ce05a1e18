use std::net::Ipv4Addr;

use super::*;

const HERE: End = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), 80);
const CLIENT: End = (IpAddr::V4(Ipv4Addr::new(203, 0, 113, 4)), 40_000);

/// One listener with room for 8, looked at every 100 ms.
#[derive(Default)]
struct Server {
    queues: Queues,
    looks: u64,
}

impl Server {
    fn now(&self) -> Moment {
        Moment(self.looks * 100_000_000)
    }

    fn look(&mut self, waiting: u32) -> Vec<Question> {
        self.looks += 1;
        self.queues.observe(self.now(), &[Seen { cookie: 7, local: HERE, waiting, room: 8 }])
    }

    /// Looks until a question is asked, at most `looks` times.
    fn until_asked(&mut self, waiting: u32, looks: usize) -> Option<(usize, Question)> {
        (1..=looks).find_map(|count| Some((count, self.look(waiting).pop()?)))
    }

    /// Makes it suspect with a sample of two, and asks what became of them.
    fn suspect(&mut self) {
        self.look(2);
        let (looks, question) = self.until_asked(2, 20).unwrap();
        assert_eq!((looks, question), (5, Question::WhoWaits { cookie: 7, port: 80 }));
        self.queues.sampled(7, vec![(HERE, CLIENT), (HERE, CLIENT)]);
        let (looks, question) = self.until_asked(2, 20).unwrap();
        assert_eq!((looks, question), (5, Question::WhatOfThem { cookie: 7, who: vec![(HERE, CLIENT); 2] }));
    }

    fn learn(&mut self, fortunes: &[Fortune]) {
        self.queues.learnt(self.now(), 7, fortunes);
    }

    fn accepting(&self) -> Accepting {
        self.queues.notable().map(|(_, accepting)| accepting).next().unwrap_or(Accepting::Yes)
    }
}

#[test]
fn who_lets_all_of_a_sample_wait_for_a_second_is_stalled_and_serves_again_once_half_are_accepted() {
    let mut server = Server::default();
    server.suspect();
    server.learn(&[Fortune::Waits, Fortune::Waits]);
    assert_eq!(server.accepting(), Accepting::Stalled);
    assert_eq!(server.until_asked(3, 20), None, "what is known is not asked again");
    assert_eq!(server.accepting(), Accepting::Stalled);
    server.look(1);
    assert_eq!(server.accepting(), Accepting::Yes);
}

#[test]
fn a_queue_that_stays_as_long_as_it_was_while_the_server_accepts_is_no_stall() {
    let mut server = Server::default();
    server.suspect();
    server.learn(&[Fortune::Waits, Fortune::Accepted]);
    assert_eq!(server.accepting(), Accepting::Yes);
    let (looks, question) = server.until_asked(2, 20).unwrap();
    assert_eq!((looks, question), (5, Question::WhoWaits { cookie: 7, port: 80 }), "the clock begins anew");
}

#[test]
fn clients_that_have_gone_speak_for_the_server_unless_others_still_wait() {
    let mut server = Server::default();
    server.suspect();
    server.learn(&[Fortune::Gone, Fortune::Gone]);
    assert_eq!(server.accepting(), Accepting::Yes);
    let mut server = Server::default();
    server.suspect();
    server.learn(&[Fortune::Gone, Fortune::Waits]);
    assert_eq!(server.accepting(), Accepting::Stalled);
}

#[test]
fn a_queue_of_nothing_but_clients_that_gave_up_is_stalled() {
    let mut server = Server::default();
    server.look(3);
    server.until_asked(3, 20).unwrap();
    server.queues.sampled(7, vec![]);
    assert!(matches!(server.until_asked(3, 20), Some((_, Question::WhatOfThem { .. }))));
    server.learn(&[]);
    assert_eq!(server.accepting(), Accepting::Stalled);
}

#[test]
fn a_queue_that_falls_now_and_then_is_never_asked_about() {
    let mut server = Server::default();
    for waiting in [5, 6, 7, 6, 7, 8, 7].repeat(5) {
        assert_eq!(server.look(waiting), []);
        assert_eq!(server.accepting(), Accepting::Yes);
    }
}

#[test]
fn a_full_queue_is_told_at_the_second_look_and_until_it_is_half_empty() {
    let mut server = Server::default();
    let mut told = Vec::new();
    for waiting in [9, 8, 9, 9, 7, 5, 4, 9] {
        server.look(waiting);
        told.push(server.accepting());
    }
    let (full, yes) = (Accepting::Full, Accepting::Yes);
    assert_eq!(told, [yes, yes, yes, full, full, full, yes, yes]);
}

#[test]
fn a_listener_that_is_gone_is_forgotten_with_all_that_was_said_of_it() {
    let mut server = Server::default();
    server.suspect();
    server.learn(&[Fortune::Waits, Fortune::Waits]);
    let now = server.now();
    server.queues.observe(now, &[]);
    assert_eq!(server.queues.notable().count(), 0);
}

#[test]
fn who_waited_in_a_stalled_queue_or_one_that_is_gone_is_late_and_nobody_else_is() {
    let mut server = Server::default();
    server.look(4);
    server.look(1);
    assert_eq!(server.queues.take_late(), BTreeMap::new(), "it accepts");
    server.look(0);
    server.suspect();
    server.learn(&[Fortune::Waits, Fortune::Waits]);
    server.look(5);
    server.look(0);
    assert_eq!(server.queues.take_late(), BTreeMap::from([(7, 5)]));
    server.look(3);
    server.look(0);
    assert_eq!(server.queues.take_late(), BTreeMap::new(), "it accepts again");
    server.look(2);
    assert_eq!(server.queues.observe(server.now(), &[]), []);
    assert_eq!(server.queues.take_late(), BTreeMap::from([(7, 2)]), "the kernel has reset them");
}
