use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::Instant,
};

use vipa_protocol::admin::Answer;

use super::*;

/// Longer than an operator's program waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than a socket's buffers take.
const LONG: usize = 1 << 20;

/// A socket whose every question is answered with a long text.
struct Served {
    path: PathBuf,
    counts: watch::Receiver<ClientCounts>,
    _folder: Folder,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn serve(name: &str, limits: ClientLimits) -> Served {
    let folder = std::env::temp_dir().join(format!("vipa-admin-{name}-{}", std::process::id()));
    let path = folder.join("r1.sock");
    let rules = AccessRules::new(&vipa_model::config::AdminAccess::default()).expect("no groups");
    let socket = AdminSocket::open(&path, rules).expect("a socket");
    let (questions_in, mut questions) = mpsc::channel::<Question>(16);
    let (counter, counts) = watch::channel(ClientCounts::default());
    tokio::spawn(socket.serve_within(limits, questions_in, counter));
    tokio::spawn(async move {
        while let Some((_, reply)) = questions.recv().await {
            reply.end(Answer::Error("x".repeat(LONG)));
        }
    });
    Served { path, counts, _folder: Folder(folder) }
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.set_write_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

fn ask(stream: &mut UnixStream) {
    let line = serde_json::to_string(&Versioned::new(Request::Counters)).expect("a request");
    writeln!(stream, "{line}").expect("it is taken");
}

fn answer(stream: &UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("an answer in time");
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_read_or_never_ask_do_not_lock_the_operator_out() {
    let long = Duration::from_secs(600);
    let served = serve("crowd", ClientLimits { request: long, answer: long });
    let mut deaf: Vec<_> = (0..MAX_CLIENTS).map(|_| connect(&served.path)).collect();
    deaf.iter_mut().for_each(ask);
    let mute: Vec<_> = (0..MAX_CLIENTS).map(|_| connect(&served.path)).collect();
    let mut operator = connect(&served.path);
    ask(&mut operator);
    assert!(answer(&operator).len() > LONG);
    assert_eq!(served.counts.borrow().displaced, MAX_CLIENTS as u64 + 1);
    drop((deaf, mute));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_answer_is_let_go() {
    let limits = ClientLimits { request: Duration::from_secs(600), answer: Duration::from_millis(200) };
    let mut served = serve("slow", limits);
    let mut deaf = connect(&served.path);
    ask(&mut deaf);
    let waited = tokio::time::timeout(PATIENCE, served.counts.wait_for(|counts| counts.slow == 1)).await;
    assert!(waited.is_ok(), "it is counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_nothing_is_let_go() {
    let limits = ClientLimits { request: Duration::from_millis(200), answer: Duration::from_secs(600) };
    let served = serve("mute", limits);
    let began = Instant::now();
    let mute = connect(&served.path);
    assert_eq!(answer(&mute), "", "the socket is closed");
    assert!(began.elapsed() >= limits.request);
    assert_eq!(*served.counts.borrow(), ClientCounts::default());
}

/// The whole way: a socket, its rules, and who is told what.
async fn told(name: &str, rules: AccessRules, request: Request) -> String {
    let folder = std::env::temp_dir().join(format!("vipa-admin-{name}-{}", std::process::id()));
    let path = folder.join("r1.sock");
    let _folder = Folder(folder);
    let socket = AdminSocket::open(&path, rules).expect("a socket");
    let (questions_in, mut questions) = mpsc::channel::<Question>(16);
    let (counter, _counts) = watch::channel(ClientCounts::default());
    tokio::spawn(socket.serve(questions_in, counter));
    tokio::spawn(async move {
        while let Some((_, reply)) = questions.recv().await {
            let uid = reply.operator().map(|operator| operator.uid);
            reply.end(Answer::Error(format!("asked by {uid:?}")));
        }
    });
    let mut stream = connect(&path);
    let line = serde_json::to_string(&Versioned::new(request)).expect("a request");
    tokio::task::spawn_blocking(move || {
        writeln!(stream, "{line}").expect("it is taken");
        answer(&stream)
    })
    .await
    .expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_carries_the_uid_of_who_asks_as_the_kernel_says_it() {
    let rules = AccessRules::new(&vipa_model::config::AdminAccess::default()).expect("no groups");
    let me = nix::unistd::Uid::effective();
    let order = Request::Order { order: vipa_protocol::Order::Join { node: None } };
    assert!(told("uid", rules, order).await.contains(&format!("asked by Some({me})")));
}
