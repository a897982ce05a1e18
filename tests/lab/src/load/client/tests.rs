//! The client must detect every fault of a router or a server in its bytes.

use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::*;

/// The client's report of two exchanges with a server whose answers `answer` makes.
fn told_of(answer: fn(Frame) -> Vec<Frame>) -> Vec<Result<(), String>> {
    told_of_bytes(move |ask| {
        let mut bytes = Vec::new();
        for frame in answer(ask) {
            let mut encoded = Vec::new();
            frame.encode(&mut encoded);
            bytes.extend(encoded);
        }
        bytes
    })
}

fn told_of_bytes(answer: impl Fn(Frame) -> Vec<u8> + 'static) -> Vec<Result<(), String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let vipa = listener.local_addr().expect("bound");
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            while let Ok(ask) = Frame::read(&mut stream).await {
                if stream.write_all(&answer(ask)).await.is_err() {
                    break;
                }
            }
        });
        let settings = ClientSettings {
            vipa,
            sources: Vec::new(),
            connections: 0,
            interval: Duration::from_millis(1),
            fresh_per_second: 0,
            patience: Duration::from_secs(5),
            voice: Voice::Json,
        };
        let shared = Shared { settings, tally: RefCell::default(), pace: watch::channel(Pace::Talking).0, salt: 1 };
        let mut talk = open(&shared, 7, 0).await.expect("the server listens");
        let mut told = Vec::new();
        for _ in 0..2 {
            told.push(talk.exchange().await.map_err(|loss| loss.words()));
        }
        told
    })
}

fn good(ask: Frame) -> Frame {
    Frame { kind: Kind::Answer, accepted: 5, server: *b"t1\0\0\0\0\0\0\0\0\0\0\0\0\0\0", ..ask }
}

fn flip(mut frame: Frame) -> Frame {
    frame.payload[3] ^= 1;
    frame
}

#[test]
fn good_answers_are_good() {
    assert_eq!(told_of(|ask| vec![good(ask)]), [Ok(()), Ok(())]);
}

#[test]
fn a_changed_payload_with_a_good_checksum_is_noticed() {
    let told = told_of(|ask| vec![flip(good(ask))]);
    assert!(told[0].is_err(), "{told:?}");
}

#[test]
fn a_byte_changed_on_the_way_is_noticed() {
    let told = told_of_bytes(|ask| {
        let mut bytes = Vec::new();
        good(ask).encode(&mut bytes);
        bytes[70] ^= 1;
        bytes
    });
    assert_eq!(told[0], Err("a wrong checksum".into()));
}

#[test]
fn a_lost_byte_is_noticed() {
    let told = told_of_bytes(|ask| {
        let sequence = ask.sequence;
        let mut bytes = Vec::new();
        good(ask).encode(&mut bytes);
        if sequence == 0 {
            bytes.remove(10);
            bytes.push(0);
        }
        bytes
    });
    assert!(told[0].is_err(), "{told:?}");
}

#[test]
fn a_doubled_answer_is_noticed_by_the_next_exchange() {
    let told = told_of(|ask| vec![good(ask.clone()), good(ask)]);
    assert_eq!(told[0], Ok(()));
    assert!(told[1].as_ref().is_err_and(|words| words.starts_with("message 0 of 7 from t1")), "{told:?}");
}

#[test]
fn an_answer_of_another_connection_is_noticed() {
    let told = told_of(|ask| vec![Frame { connection: 8, ..good(ask) }]);
    assert!(told[0].is_err(), "{told:?}");
}

#[test]
fn another_server_that_goes_on_where_the_first_stopped_is_noticed() {
    let told = told_of(|ask| vec![Frame { accepted: 5 + ask.sequence, ..good(ask) }]);
    assert_eq!(told[0], Ok(()));
    assert!(told[1].is_err(), "{told:?}");
}
