use std::{net::Ipv4Addr, time::Duration};

use vipa_model::{Epoch, Incarnation};
use vipa_protocol::{Release, Role, VERSION};

use super::*;

fn name(text: &str) -> NodeName {
    text.parse().expect("a node name")
}

fn hello() -> Hello {
    Hello {
        version: VERSION,
        cluster: "test".into(),
        key: vipa_protocol::KeyDigest::default(),
        node: name("a"),
        role: Role::Router,
        addresses: vec![],
        incarnation: Incarnation(1),
        voters: vec![].into(),
    }
}

fn numbered(number: u64) -> Message {
    Message::Release(Release { vipa: Ipv4Addr::LOCALHOST.into(), epoch: Epoch(number) })
}

fn up() -> LinkEvent {
    LinkEvent::Up { peer: name("a"), hello: hello() }
}

fn message(number: u64) -> LinkEvent {
    LinkEvent::Message { peer: name("a"), message: numbered(number) }
}

/// All events that can be received now.
async fn drain(receiver: &mut Receiver) -> Vec<LinkEvent> {
    let mut events = Vec::new();
    while let Ok(event) = tokio::time::timeout(Duration::from_millis(20), receiver.recv()).await {
        events.extend(event);
    }
    events
}

#[tokio::test]
async fn beats_overtake_orders_and_orders_bulk_and_each_lane_keeps_its_order() {
    let (inbox, mut receiver) = inbox();
    inbox.up(1, name("a"), hello());
    for number in [1, 2] {
        inbox.message(Urgency::Bulk, 1, &name("a"), numbered(number), 10).await;
    }
    for number in [3, 4] {
        inbox.message(Urgency::Urgent, 1, &name("a"), numbered(number), 10).await;
    }
    assert_eq!(receiver.recv().await, Some(up()));
    for number in [5, 6] {
        assert!(inbox.try_beat(1, &name("a"), numbered(number), 10));
    }
    assert_eq!(drain(&mut receiver).await, [5, 6, 3, 4, 1, 2].map(message));
}

#[tokio::test]
async fn nothing_of_a_link_follows_its_end_nor_shows_up_in_the_next_one() {
    let (inbox, mut receiver) = inbox();
    inbox.up(1, name("a"), hello());
    inbox.message(Urgency::Bulk, 1, &name("a"), numbered(1), 10).await;
    inbox.down(name("a"));
    inbox.message(Urgency::Urgent, 1, &name("a"), numbered(2), 10).await;
    inbox.up(2, name("a"), hello());
    inbox.message(Urgency::Bulk, 1, &name("a"), numbered(3), 10).await;
    inbox.message(Urgency::Bulk, 2, &name("a"), numbered(4), 10).await;
    let down = LinkEvent::Down { peer: name("a") };
    assert_eq!(drain(&mut receiver).await, [up(), down, up(), message(4)]);
}

#[tokio::test]
async fn a_bulk_message_taken_before_its_links_up_was_seen_waits_for_it() {
    let (inbox, mut receiver) = inbox();
    // The state that a wake-up on the bulk queue leaves if the urgent queue was checked a moment earlier.
    inbox.message(Urgency::Bulk, 1, &name("a"), numbered(1), 10).await;
    receiver.waiting = receiver.bulk.recv().await;
    inbox.up(1, name("a"), hello());
    assert_eq!(drain(&mut receiver).await, [up(), message(1)]);
}

#[tokio::test]
async fn a_full_lane_makes_readers_wait_and_the_other_lanes_go_on() {
    let (inbox, mut receiver) = inbox();
    inbox.up(1, name("a"), hello());
    let (reader, peer) = (inbox.clone(), name("a"));
    let reading = tokio::spawn(async move {
        for number in 0..10 {
            reader.message(Urgency::Urgent, 1, &peer, numbered(number), MAX_MESSAGE).await;
        }
    });
    inbox.message(Urgency::Bulk, 1, &name("a"), numbered(50), 10).await;
    tokio::task::yield_now().await;
    assert!(!reading.is_finished(), "ten messages of {MAX_MESSAGE} bytes find no room");
    assert_eq!(receiver.recv().await, Some(up()));
    assert!(inbox.try_beat(1, &name("a"), numbered(60), 10));
    assert_eq!(receiver.recv().await, Some(message(60)));

    let events = drain(&mut receiver).await;
    assert!(reading.is_finished());
    let (bulk, orders): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| *event == message(50));
    assert_eq!((orders, bulk.len()), ((0..10).map(message).collect(), 1));
}

#[tokio::test]
async fn beats_that_find_no_room_are_dropped() {
    let (inbox, mut receiver) = inbox();
    inbox.up(1, name("a"), hello());
    assert_eq!(receiver.recv().await, Some(up()));
    let mut taken = 0;
    while inbox.try_beat(1, &name("a"), numbered(taken), 1_000) {
        taken += 1;
    }
    assert!((100..1_000).contains(&taken), "{taken} beats of 1,000 bytes");
    assert_eq!(drain(&mut receiver).await.len() as u64, taken);
    assert!(inbox.try_beat(1, &name("a"), numbered(0), 1_000), "what was received has made room");
}

#[tokio::test]
async fn who_is_refused_again_and_again_cannot_fill_the_queue() {
    let (inbox, mut receiver) = inbox();
    for _ in 0..200_000 {
        let address = ([203, 0, 113, 4], 1).into();
        inbox.refused(Refusal { node: None, address, why: "no certificate".into(), times: 1 });
    }
    inbox.up(1, name("a"), hello());
    let mut refused = 0;
    while let Some(LinkEvent::Refused { .. }) = receiver.recv().await {
        refused += 1;
    }
    assert!(refused < 200_000, "{refused}");
}

#[tokio::test]
async fn a_peers_words_are_told_in_one_short_line_that_no_terminal_obeys() {
    let (inbox, mut receiver) = inbox();
    let why = format!("it refuses this node: \u{1b}[2J\nall is well{}", "!".repeat(100_000));
    inbox.refused(Refusal { node: None, address: ([203, 0, 113, 4], 1).into(), why, times: 1 });
    match receiver.recv().await {
        Some(LinkEvent::Refused(Refusal { why, .. })) => {
            assert!(why.starts_with("it refuses this node: \\u{1b}[2J\\u{a}all is well!!!"), "{why}");
            assert_eq!(why.len(), MAX_REASON);
        }
        other => panic!("{other:?}"),
    }
}
