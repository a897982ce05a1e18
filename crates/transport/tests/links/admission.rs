//! Which nodes may link, by certificate and by configuration.

use std::{
    fs,
    time::{Duration, Instant},
};

use vipa_model::Incarnation;
use vipa_protocol::{Hello, Role};
use vipa_transport::{
    Admission, CertifiedRoles, LinkEvent, ReachResult, Refusal, StartError, Timing, TransportSettings, reach, start,
};

use super::{Cluster, LOCALHOST, Node, RENEWAL, admission, hello, kill, linked, name, release};

/// The next event that is neither a refusal nor a message.
async fn next_of_links(node: &mut Node) -> LinkEvent {
    loop {
        match node.next().await {
            LinkEvent::Refused { .. } | LinkEvent::Message { .. } => {}
            event => return event,
        }
    }
}

#[tokio::test]
async fn an_authority_takes_the_place_of_another_while_links_live() {
    let (cluster, renewed) = (Cluster::new(), Cluster::new());
    let (mut a, mut b) = linked(&cluster).await;
    let of_yesterday = cluster.identity("c");
    let ca = cluster.folder().join("ca.pem");
    let read = |folder: &Cluster| fs::read_to_string(folder.folder().join("ca.pem")).expect("an authority");
    let (old, new) = (read(&cluster), read(&renewed));

    // Both authorities are trusted: a node that is certified by either links, and live links stay.
    fs::write(&ca, format!("{old}{new}")).expect("it is written");
    let address = b.address();
    let mut c = Node::start("c", hello("c", 2), &renewed.identity("c"), None, vec![(name("b"), address)]);
    fs::write(renewed.folder().join("ca.pem"), format!("{old}{new}")).expect("it is written");
    assert!(matches!(next_of_links(&mut c).await, LinkEvent::Up { .. }));
    assert_eq!(next_of_links(&mut b).await, LinkEvent::Up { peer: name("c"), hello: hello("c", 2) });

    // First new certificates are installed, then the old authority is removed: links by its certificates are closed,
    // and opened again with the new ones.
    fs::write(renewed.folder().join("ca.pem"), &new).expect("it is written");
    for node in ["a", "b"] {
        renewed.identity(node);
        for ending in ["pem", "key"] {
            let file = format!("{node}.{ending}");
            fs::copy(renewed.folder().join(&file), cluster.folder().join(&file)).expect("it is copied");
        }
    }
    tokio::time::sleep(RENEWAL * 4).await;
    fs::write(&ca, &new).expect("it is written");
    assert_eq!(next_of_links(&mut a).await, LinkEvent::Down { peer: name("b") });
    assert!(matches!(next_of_links(&mut a).await, LinkEvent::Up { .. }));
    let mut old = Node::start("c", hello("c", 3), &of_yesterday, None, vec![(name("b"), address)]);
    assert!(matches!(old.next().await, LinkEvent::Refused { .. }));
    c.send("b", &release(1));
}

#[tokio::test]
async fn a_revoked_node_or_certificate_is_cut_and_stays_out() {
    let cluster = Cluster::new();
    let (mut a, mut b) = linked(&cluster).await;
    let mut c = cluster.dial("c", 1, &b);
    c.expect_up("b").await;
    b.expect_up("c").await;
    b.sender.admit(Admission { revoked_nodes: vec![name("c")], ..admission() });
    match b.next().await {
        LinkEvent::Refused(refusal) => {
            assert!(refusal.node == Some(name("c")) && refusal.why.contains("c is revoked"), "{refusal}");
        }
        other => panic!("{other:?}"),
    }
    b.expect_down("c").await;
    c.expect_down("b").await;
    match c.next().await {
        LinkEvent::Refused(refusal) => assert!(refusal.why.contains("c is revoked"), "{refusal}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(b.sender.linked(), [name("a")]);

    let certificate = fs::read(cluster.folder().join("a.pem")).expect("a certificate");
    let (_, pem) = x509_parser::pem::parse_x509_pem(&certificate).expect("a certificate");
    let serial = pem.parse_x509().expect("a certificate").raw_serial_as_string().replace(':', "");
    b.sender.admit(Admission { revoked_serials: vec![serial], ..admission() });
    a.expect_down("b").await;
    match a.next().await {
        LinkEvent::Refused(refusal) => assert!(refusal.why.contains("certificate of a is revoked"), "{refusal}"),
        other => panic!("{other:?}"),
    }
}

/// A node that greets as this target.
fn target(node: &str, incarnation: u64, address: [u8; 4]) -> Hello {
    Hello { role: Role::Target { address: address.into() }, ..hello(node, incarnation) }
}

async fn refused(node: &mut Node) -> String {
    match node.next().await {
        LinkEvent::Refused(refusal) => refusal.why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_may_be_only_what_its_certificate_says() {
    let cluster = Cluster::new();
    let mut b = cluster.listen("b", 1, LOCALHOST);
    let dial = || vec![(name("b"), b.address())];
    let t1 = cluster.identity_as("t1", &CertifiedRoles::target([[10, 0, 0, 1].into()]));
    let dials: Vec<_> = (0..3).map(|_| dial()).collect();
    let [first, second, third] = dials.try_into().expect("three");

    // A node's own certificate is checked before it sends anything.
    let start_as = |hello: Hello| {
        let timing = Timing::default();
        start(TransportSettings { hello, listen: None, dial: vec![], admission: admission(), timing }, &t1)
    };
    assert!(matches!(start_as(hello("t1", 1)), Err(StartError::Role(_))), "a target's certificate makes no router");
    assert!(matches!(start_as(target("t1", 1, [10, 0, 0, 2])), Err(StartError::Role(_))), "nor another target");

    let mut node = Node::start("t1", target("t1", 1, [10, 0, 0, 1]), &t1, None, first);
    node.expect_up("b").await;
    b.expect_up("t1").await;

    // A router that no configuration names.
    let mut unknown = Node::start("r9", hello("r9", 1), &cluster.identity("r9"), None, second);
    let why = refused(&mut unknown).await;
    assert!(why.contains("r9 is no router of this cluster"), "{why}");
    let why = refused(&mut b).await;
    assert!(why.contains("r9 is no router of this cluster"), "{why}");
    drop(unknown);

    // One address, another name.
    let thief = cluster.identity_as("t9", &CertifiedRoles::target([[10, 0, 0, 1].into()]));
    let mut thief = Node::start("t9", target("t9", 1, [10, 0, 0, 1]), &thief, None, third);
    let why = refused(&mut thief).await;
    assert!(why.contains("10.0.0.1 is the address of t1"), "{why}");
    assert_eq!(b.sender.linked(), [name("t1")]);
    // Once the first has ended its link, the second is admitted.
    drop(node);
    loop {
        if let LinkEvent::Up { peer, .. } = b.next().await {
            assert_eq!(peer, name("t9"));
            break;
        }
    }
}

#[tokio::test]
async fn a_node_of_a_life_that_cannot_be_is_refused_by_name() {
    let cluster = Cluster::new();
    let mut b = cluster.listen("b", 1, LOCALHOST);
    let mut late = cluster.dial("a", Incarnation::LAST.0 + 1, &b);
    let why = refused(&mut late).await;
    assert!(why.contains("a cannot be in its life 4611686018427387905"), "{why}");
    let why = refused(&mut b).await;
    assert!(why.contains("a cannot be in its life 4611686018427387905"), "{why}");
    drop(late);
    let _last = cluster.dial("a", Incarnation::LAST.0, &b);
    match next_of_links(&mut b).await {
        LinkEvent::Up { peer, hello } => assert_eq!((peer, hello.incarnation), (name("a"), Incarnation::LAST)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_copied_certificate_is_refused_while_the_first_is_alive() {
    let cluster = Cluster::new();
    let (a, mut b) = linked(&cluster).await;
    let copy_of_a = || {
        let (dial, elsewhere) = (vec![(name("b"), b.address())], ([127, 0, 0, 2], 0).into());
        Node::start("a", hello("a", 2), &cluster.identity("a"), Some(elsewhere), dial)
    };
    let mut copy = copy_of_a();
    let why = refused(&mut copy).await;
    assert!(why.contains("a is linked already, from 127.0.0.1:"), "{why}");
    let why = refused(&mut b).await;
    assert!(why.contains("a is linked already"), "{why}");
    a.send("b", &release(1));
    assert_eq!(b.expect_message("a").await, release(1));
    // The first dies silently: its keep-alives stop, and the copy is admitted.
    kill(a).await;
    b.expect_down("a").await;
    assert_eq!(b.expect_up("a").await.incarnation, Incarnation(2));
}

#[tokio::test]
async fn a_restarted_process_is_linked_at_once_although_nobody_has_missed_the_killed_one() {
    let cluster = Cluster::new();
    let (a, mut b) = linked(&cluster).await;
    std::mem::forget(a);
    let began = Instant::now();
    let _again = cluster.dial("a", 2, &b);
    b.expect_down("a").await;
    assert_eq!(b.expect_up("a").await.incarnation, Incarnation(2));
    assert!(began.elapsed() < Timing::default().keep_alive, "it waited {:?}", began.elapsed());
}

#[tokio::test]
async fn a_peer_is_asked_for_a_link_and_notices_nothing() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let mut b = cluster.listen("b", 1, LOCALHOST);
    let patience = Duration::from_secs(5);
    let asked =
        |identity, address, patience| async move { reach(&identity, &name("b"), address, patience).await.unwrap() };
    assert_eq!(asked(cluster.identity("a"), b.address(), patience).await, ReachResult::Answers);
    match asked(other.identity("a"), b.address(), patience).await {
        ReachResult::Refuses(why) => assert!(why.contains("vipactl pki init"), "{why}"),
        other => panic!("{other:?}"),
    }
    let deaf = std::net::UdpSocket::bind(LOCALHOST).unwrap();
    let silent = asked(cluster.identity("a"), deaf.local_addr().unwrap(), Duration::from_millis(200)).await;
    assert_eq!(silent, ReachResult::Silent);
    // The stranger's attempt is told, who only asked is not.
    let mut told = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(500), b.receiver.recv()).await {
        told.push(event);
    }
    assert!(
        told.len() <= 1 && told.iter().all(|event| matches!(event, LinkEvent::Refused(Refusal { node: None, .. }))),
        "{told:?}"
    );
}
