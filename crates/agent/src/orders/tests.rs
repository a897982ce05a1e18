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
    let rules = AccessRules::new(&vipa_model::config::AdminAccess::default()).expect("no groups");
    let socket = OrderSocket::open(&path, rules).expect("a socket");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vipactl_is_answered_as_a_router_answers_it() {
    let (path, mut socket) = open("vipactl");
    let node = "t1".parse().expect("a name");
    let status = AgentStatus {
        version: "1.2.3".into(),
        node,
        address: "10.9.0.31".parse().expect("an address"),
        up_s: 61,
        routers: vec![("r1".parse().expect("a name"), false)],
        followed: "BPF".into(),
        repaired: 0,
        vipas: vec![],
        host: vipa_protocol::HostStatus::default(),
        load: None,
    };
    let told = status.clone();
    tokio::spawn(async move {
        while let Some((wish, told_to)) = socket.recv().await {
            assert_eq!(wish, Wish::Status);
            told_to.send(Word::Status(Box::new(told.clone()))).await.expect("it waits");
        }
    });
    let ask = |request: Request| {
        let path = path.clone();
        tokio::task::spawn_blocking(move || {
            let mut client = connect(&path);
            let line = serde_json::to_string(&Versioned::new(request)).expect("JSON");
            writeln!(client, "{line}").expect("it is taken");
            let mut answer = String::new();
            BufReader::new(client).read_line(&mut answer).expect("an answer");
            serde_json::from_str::<Versioned<Answer>>(&answer).expect("JSON").current().expect("this version")
        })
    };
    assert_eq!(ask(Request::Status).await.expect("an answer"), Answer::Agent(Box::new(status)));
    let Answer::Health(health) = ask(Request::Health).await.expect("an answer") else { panic!("no verdict") };
    assert_eq!(health.checks[0].finding, "no router is linked: this target gets no new connections");
    let Answer::Error(other) = ask(Request::Takeovers).await.expect("an answer") else { panic!("no error") };
    assert!(other.contains("ask a router"), "{other}");
}
