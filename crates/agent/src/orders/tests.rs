use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream as Connection,
    time::Instant,
};

use super::*;
use crate::drain::Stage;

/// Longer than an operator waits.
const PATIENCE: Duration = Duration::from_secs(10);

fn open(name: &str) -> (PathBuf, OrderSocket) {
    let path = std::env::temp_dir().join(format!("vipa-orders-{name}-{}.sock", std::process::id()));
    let socket = OrderSocket::open(&path).expect("a socket");
    (path, socket)
}

fn connect(path: &Path) -> Connection {
    let stream = Connection::connect(path).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_say_nothing_do_not_lock_the_operator_out_and_give_way_before_one_that_drains() {
    let (path, mut socket) = open("crowd");
    let mut draining = connect(&path);
    draining.write_all(b"{\"drain\":{\"timeout_s\":60}}\n").expect("it is taken");
    let (_, drain) = socket.recv().await.expect("a wish");
    let mute: Vec<_> = (0..2 * MAX_CLIENTS).map(|_| connect(&path)).collect();

    let mut operator = connect(&path);
    operator.write_all(b"\"cancel\"\n").expect("it is taken");
    let received = tokio::time::timeout(PATIENCE, socket.recv()).await.expect("the operator has a place");
    let (wish, told) = received.expect("a wish");
    assert_eq!(wish, Wish::Cancel);
    let serving = Progress { stage: Stage::Serving, connections: 0, left_s: 0 };
    for client in [&drain, &told] {
        client.send(Word::Progress(serving)).await.expect("it is served");
    }
    drop((drain, told));
    for client in [&draining, &operator] {
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line).expect("an answer");
        assert_eq!(line, "{\"stage\":\"serving\",\"connections\":0,\"left_s\":0}\n");
    }
    drop(mute);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_nothing_is_let_go() {
    let (path, _socket) = open("mute");
    let began = Instant::now();
    let mut mute = connect(&path);
    assert_eq!(mute.read(&mut [0]).expect("the end"), 0);
    assert!(began.elapsed() >= CLIENT_LIMIT);
}
