//! The API on real sockets: a Unix socket, TLS with real certificates, a loopback address. Every answer is held to the description that
//! the API gives of itself.

mod fake;
mod hostile;
mod schema;
mod tls;

use std::{
    io::Write,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use fake::{Control, Reply, Served, ask, config, serve};
use serde_json::{Value, json};
use vipa_model::config::Config;
use vipa_web::ApiLimits;

/// The lines of the log so far.
pub(crate) fn log() -> String {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let log = Arc::<Mutex<Vec<u8>>>::default();
        let writer = Arc::clone(&log);
        let make = move || Writer(Arc::clone(&writer));
        tracing_subscriber::fmt().with_ansi(false).with_writer(make).init();
        log
    });
    String::from_utf8_lossy(&log.lock().unwrap()).into_owned()
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Waits for a line of the log that has all of these.
pub(crate) fn wait_log(parts: &[&str]) {
    for _ in 0..500 {
        if log().lines().any(|line| parts.iter().all(|part| line.contains(part))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no line has {parts:?}:\n{}", log());
}

/// Holds an answer to the API's description of it.
pub(crate) fn check(description: &Value, verb: &str, path: &str, reply: &Reply) {
    let problem = reply.status >= 400;
    let name = if problem {
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
        "#/components/schemas/Problem".to_owned()
    } else {
        assert_eq!(reply.header("content-type"), Some("application/json"), "{reply:?}");
        let operation = &description["paths"][path.split('?').next().unwrap()][verb.to_lowercase()];
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
        schema.as_str().unwrap_or_else(|| panic!("{verb} {path} is not described")).to_owned()
    };
    let document = reply.json();
    let errors = schema::errors(description, name.trim_start_matches('#'), &document);
    assert!(errors.is_empty(), "{verb} {path}: {errors:#?}\n{document:#}");
    assert_eq!(document["version"], vipa_protocol::admin::VERSION, "every answer says its version");
    if problem {
        assert_eq!(document["status"], reply.status);
    }
}

struct Unix {
    path: std::path::PathBuf,
    served: Served,
    control: Control,
    _folder: tempfile::TempDir,
}

impl Unix {
    fn new(lines: &str) -> Self {
        Self::with(lines, Control::default(), ApiLimits::default())
    }

    fn with(lines: &str, control: Control, limits: ApiLimits) -> Self {
        log();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/api.sock");
        let config = config(&format!("listen = \"unix:{}\"\n{lines}", path.display()));
        let api = config.api.clone().unwrap();
        let served = serve(config, &api, &control, limits);
        Self { path, served, control, _folder: folder }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn ask(&self, verb: &str, path: &str, body: Option<&str>) -> Reply {
        ask(self.connect(), verb, path, body)
    }

    fn description(&self) -> Value {
        self.ask("GET", "/v1/openapi.json", None).json()
    }
}

#[test]
fn every_operation_answers_as_the_description_says() {
    let api = Unix::new("");
    let description = api.description();
    assert_eq!(description["openapi"], "3.1.0");
    let bodies = [
        ("/v1/orders", r#"{"order":{"move":{"vipa":"10.77.0.100","to":"r2"}}}"#),
        ("/v1/audit", r#"{"vipa":"10.77.0.100"}"#),
        ("/v1/reload", r#"{"mode":"dry-run"}"#),
        ("/v1/confirm", r#"{"undo":true}"#),
        ("/v1/capture/start", r#"{"filter":{"vipa":null,"fates":"","limit":10,"seconds":10}}"#),
        ("/v1/capture/read", "{}"),
        ("/v1/capture/stop", "{}"),
        ("/v1/record", r#"{"what":{"start":{"limit_mb":64}}}"#),
    ];
    let mut answered = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for verb in methods.as_object().unwrap().keys().filter(|_| path != "/v1/openapi.json") {
            let body = bodies.iter().find(|(known, _)| known == path && verb == "post").map(|(_, body)| *body);
            assert_eq!(body.is_some(), verb == "post", "{path} has a body here");
            let needs_vipa =
                methods[verb]["parameters"].as_array().into_iter().flatten().any(|it| it["required"] == true);
            let path = match needs_vipa {
                true if path.ends_with("explain") => {
                    format!("{path}?vipa=10.77.0.100&protocol=tcp&client=203.0.113.4:40000")
                }
                true => format!("{path}?vipa=10.77.0.100"),
                false => path.clone(),
            };
            let reply = api.ask(&verb.to_uppercase(), &path, body);
            assert_eq!(reply.status, 200, "{verb} {path}: {reply:?}");
            check(&description, verb, &path, &reply);
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            answered += 1;
        }
    }
    assert_eq!(answered, api.control.asked().len(), "each is a question to control: {:?}", api.control.asked());
    assert!(answered >= 13, "{answered}");
}

#[test]
fn an_answer_that_is_not_as_described_is_noticed() {
    let api = Unix::new("");
    let (description, answer) = (api.description(), api.ask("GET", "/v1/status", None).json());
    let errors = |change: &dyn Fn(&mut Value)| {
        let mut changed = answer.clone();
        change(&mut changed);
        schema::errors(&description, "/components/schemas/StatusAnswer", &changed)
    };
    assert_eq!(errors(&|_| ()), Vec::<String>::new());
    let changes: [&dyn Fn(&mut Value); 8] = [
        &|it| it["version"] = 1.into(),
        &|it| it["data"]["node"] = "R 1".into(),
        &|it| drop(it["data"].as_object_mut().unwrap().remove("vipas")),
        &|it| it["data"]["vipas"][0]["stance"] = "asleep".into(),
        &|it| it["data"]["vipas"][0]["ranks"][0] = json!(["r1", 200, 3]),
        &|it| it["data"]["vipas"][0]["ranks"][0][1] = 256.into(),
        &|it| it["data"]["uptime_ms"] = (-1).into(),
        &|it| it["data"]["vipas"][0]["mirror"]["part"] = "other".into(),
    ];
    for (number, change) in changes.iter().enumerate() {
        assert!(!errors(*change).is_empty(), "change {number} is not noticed");
    }
}

#[test]
fn an_order_is_carried_out_told_and_written_down_and_one_that_is_refused_too() {
    let api = Unix::new("");
    let description = api.description();
    let order = r#"{"order":{"move":{"vipa":"10.77.0.100","to":"r2"}}}"#;
    let reply = api.ask("POST", "/v1/orders", Some(order));
    check(&description, "POST", "/v1/orders", &reply);
    assert_eq!(reply.json()["data"]["sentence"], "r2 owns 10.77.0.100");
    assert_eq!(reply.json()["progress"], json!(["r1 is asked to yield"]));
    wait_log(&["vipa_web::audit", "who=uid 0", "from=the Unix socket", "10.77.0.100", "done: r2 owns"]);
    let refused = r#"{"order":{"takeback":{"vipa":"203.0.113.1"}}}"#;
    let reply = api.ask("POST", "/v1/orders", Some(refused));
    check(&description, "POST", "/v1/orders", &reply);
    assert_eq!((reply.status, reply.json()["detail"].as_str()), (409, Some("203.0.113.1 is no VIPA of this router")));
    wait_log(&["vipa_web::audit", "203.0.113.1", "not done: "]);
}

#[test]
fn an_order_goes_on_when_its_client_leaves() {
    let api = Unix::new("");
    let mut stream = api.connect();
    let body = r#"{"order":{"quiesce-target":{"target":"10.77.0.39"}}}"#;
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    while api.control.asked().is_empty() {
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(stream);
    wait_log(&["vipa_web::audit", "10.77.0.39", "done: "]);
}

#[test]
fn what_is_wrong_with_a_request_is_said_as_a_problem() {
    let api = Unix::new("");
    let description = api.description();
    let statuses = [
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/", None, 404),
        ("DELETE", "/v1/status", None, 405),
        ("POST", "/v1/status", Some("{}"), 405),
        ("GET", "/v1/orders", None, 405),
        ("GET", "/v1/drill", None, 400),
        ("GET", "/v1/connections?limit=many", None, 400),
        ("POST", "/v1/orders", Some("{"), 400),
        ("POST", "/v1/orders", None, 415),
    ];
    for (verb, path, body, status) in statuses {
        let reply = api.ask(verb, path, body);
        assert_eq!(reply.status, status, "{verb} {path}: {reply:?}");
        check(&description, verb, path, &reply);
    }
    assert_eq!(api.control.asked(), Vec::<String>::new(), "control was asked none of it");
}

#[test]
fn many_who_look_at_once_ask_control_once() {
    let api = Unix::new("");
    std::thread::scope(|scope| {
        (0..30).for_each(|_| {
            scope.spawn(|| assert_eq!(api.ask("GET", "/v1/status", None).status, 200));
        });
    });
    assert!(api.control.asked().len() < 15, "{:?}", api.control.asked().len());
}

#[test]
fn the_page_is_off_unless_it_is_wanted_and_loads_nothing_from_elsewhere() {
    let api = Unix::new("page = true");
    for (path, kind) in
        [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript"), ("/icon.svg", "image/svg+xml")]
    {
        let reply = api.ask("GET", path, None);
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.header("content-type").unwrap().starts_with(kind), "{path}: {reply:?}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe") && !policy.contains("http"),
            "{policy}"
        );
        let tag = reply.header("etag").unwrap();
        let mut stream = api.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nIf-None-Match: {tag}\r\n\r\n")
            .unwrap();
        assert_eq!(Reply::read(&mut stream).unwrap().status, 304, "{path}");
        assert_eq!(api.ask("POST", path, Some("{}")).status, 405);
    }
    assert_eq!(Unix::new("").ask("GET", "/page.js", None).status, 404);
}

#[test]
fn a_socket_of_a_killed_process_is_replaced_and_that_of_a_live_one_is_not() {
    let api = Unix::new("");
    let lines = format!("listen = \"unix:{}\"", api.path.display());
    let config: Config = config(&lines);
    let error = vipa_web::ApiListener::open(config.api.as_ref().unwrap()).err().unwrap().to_string();
    assert!(error.contains("another process answers there"), "{error}");
    let path = api.path.clone();
    drop(api.served.server);
    assert!(!path.exists(), "its file goes with it");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a killed process leaves it");
    drop(vipa_web::ApiListener::open(config.api.as_ref().unwrap()).unwrap());
}
