//! The server as its clients see it, on real sockets.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use vipa_metrics::{MetricsServer, Snapshot, SnapshotRequest, catalogue};
use vipa_model::config::MetricsListen;

/// A program with metrics: its server, and how many snapshots it has made.
struct Program {
    server: MetricsServer,
    snapshots: Arc<Mutex<u64>>,
}

fn program(listen: &MetricsListen) -> Program {
    let (requests, mut asked) = mpsc::channel::<SnapshotRequest>(1);
    let server = MetricsServer::start(listen, requests).unwrap();
    let snapshots = Arc::new(Mutex::new(0));
    let made = Arc::clone(&snapshots);
    std::thread::spawn(move || {
        while let Some(reply) = asked.blocking_recv() {
            let number = {
                let mut made = made.lock().unwrap();
                *made += 1;
                *made
            };
            let mut snapshot = Snapshot::default();
            snapshot.count(catalogue::WORKER_TURNS, [0.into()], number);
            let _ = reply.send(snapshot);
        }
    });
    Program { server, snapshots }
}

fn loopback() -> MetricsListen {
    MetricsListen::Tcp("127.0.0.1:0".parse().unwrap())
}

impl Program {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.server.port().unwrap())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

fn ask(mut stream: impl Read + Write, request: &str) -> String {
    // Whoever is refused early may not read all of it.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nHost: vipa\r\n\r\n";

#[test]
fn a_scrape_gets_the_text_and_its_type() {
    let program = program(&loopback());
    let answer = ask(program.connect(), SCRAPE);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.ends_with("vipa_worker_turns_total{worker=\"0\"} 1\n"), "{answer}");
    let open = "GET /metrics HTTP/1.1\r\nHost: vipa\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n";
    let answer = ask(program.connect(), open);
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[test]
fn many_scrapes_cost_one_snapshot_and_later_ones_a_new_one() {
    let program = program(&loopback());
    let began = Instant::now();
    let answers: Vec<String> = (0..5).map(|_| ask(program.connect(), SCRAPE)).collect();
    if began.elapsed() < Duration::from_millis(400) {
        assert_eq!(*program.snapshots.lock().unwrap(), 1);
        assert!(answers.iter().all(|answer| answer.ends_with("} 1\n")));
    }
    std::thread::sleep(Duration::from_millis(600));
    let before = *program.snapshots.lock().unwrap();
    ask(program.connect(), SCRAPE);
    assert_eq!(*program.snapshots.lock().unwrap(), before + 1);
}

#[test]
fn what_is_no_scrape_is_refused_by_a_sentence() {
    let program = program(&loopback());
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: vipa\r\n\r\n", "404"),
        ("GET /metrics/../etc/passwd HTTP/1.1\r\nHost: vipa\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: vipa\r\nContent-Length: 0\r\n\r\n", "405"),
        ("DELETE /metrics HTTP/1.1\r\nHost: vipa\r\n\r\n", "405"),
    ] {
        let answer = ask(program.connect(), request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    assert_eq!(*program.snapshots.lock().unwrap(), 0, "none of them costs the program anything");
}

#[test]
fn neither_silent_slow_nor_endless_clients_keep_a_scrape_waiting() {
    let program = program(&loopback());
    // More of each than there are places.
    let silent: Vec<TcpStream> = (0..20).map(|_| program.connect()).collect();
    let mut slow: Vec<TcpStream> = (0..20).map(|_| program.connect()).collect();
    for stream in &mut slow {
        let _ = stream.write_all(b"GET /met");
    }
    let mut endless = program.connect();
    let headers = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n", "x".repeat(100_000));
    let _ = endless.write_all(headers.as_bytes());
    let began = Instant::now();
    let answer = ask(program.connect(), SCRAPE);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(4), "it waited {:?}", began.elapsed());
    let mut refused = Vec::new();
    endless.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = endless.read_to_end(&mut refused);
    assert!(!String::from_utf8_lossy(&refused).contains(" 200 "), "headers without an end are not served");
    drop((silent, slow));
}

#[test]
fn a_program_that_gives_no_snapshot_is_said_to() {
    let (requests, asked) = mpsc::channel::<SnapshotRequest>(1);
    let server = MetricsServer::start(&loopback(), requests).unwrap();
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", server.port().unwrap())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    let answer = ask(connect(), SCRAPE);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("the main loop has given no snapshot within 2 s\n"), "{answer}");
    drop(asked);
    assert!(ask(connect(), SCRAPE).starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_unix_socket_serves_its_group_replaces_a_dead_file_and_goes() {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::env::temp_dir().join(format!("vipa-metrics-{}", std::process::id()));
    let path = folder.join("metrics.sock");
    std::fs::create_dir_all(&folder).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listen = MetricsListen::Unix(path.clone());
    let program = program(&listen);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let stream = UnixStream::connect(&path).unwrap();
    assert!(ask(stream, SCRAPE).starts_with("HTTP/1.1 200 OK\r\n"));
    let (requests, _asked) = mpsc::channel(1);
    let second = MetricsServer::start(&listen, requests).map(|_| ()).unwrap_err();
    assert_eq!(
        second.to_string(),
        format!("[metrics] listen: cannot listen on unix:{}; is another program there?", path.display())
    );
    drop(program);
    assert!(!path.exists());
    std::fs::remove_dir_all(&folder).unwrap();
}
