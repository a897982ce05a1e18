//! A control that answers from samples, and clients that speak plain HTTP/1.1.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::watch;
use vipa_model::config::{Api, Config};
use vipa_protocol::admin::{Answer, Request, Said};
use vipa_web::{AdminHandler, ApiLimits, ApiListener, ApiServer};

/// What the control is asked, and how it behaves.
#[derive(Clone, Default)]
pub(crate) struct Control {
    pub(crate) asked: Arc<Mutex<Vec<Request>>>,
    /// Questions of this name are never answered.
    pub(crate) deaf_to: Arc<Mutex<Option<&'static str>>>,
    /// Connections in the answer about connections.
    pub(crate) connections: usize,
}

/// The admin socket's answer of this name.
pub(crate) fn sample(name: &str) -> Value {
    let samples: BTreeMap<String, Value> = serde_json::from_str(include_str!("samples.json")).unwrap();
    json!({ "answer": name, "data": samples[name] })
}

impl Control {
    pub(crate) fn handler(&self) -> AdminHandler {
        let control = self.clone();
        Arc::new(move |request, _operator, progress| {
            let control = control.clone();
            Box::pin(async move {
                let ask = serde_json::to_value(&request).unwrap()["ask"].as_str().unwrap().to_owned();
                control.asked.lock().unwrap().push(request);
                if *control.deaf_to.lock().unwrap() == Some(&ask) {
                    std::future::pending::<()>().await;
                }
                let name = match ask.as_str() {
                    "order" => {
                        let refused = format!("{:?}", control.asked.lock().unwrap().last()).contains("203.0.113.1");
                        if refused {
                            return Some(Answer::Error("203.0.113.1 is no VIPA of this router".into()));
                        }
                        progress.send(Said { sentence: "r1 is asked to yield".into() }).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        "done"
                    }
                    "record" | "confirm" | "capture-start" | "capture-stop" => "done",
                    "capture-read" => "captured",
                    "explain" => "explanation",
                    other => other,
                };
                let mut answer = sample(name);
                if name == "connections" && control.connections > 0 {
                    let row = answer["data"]["shown"][0].clone();
                    answer["data"]["shown"] = vec![row; control.connections].into();
                }
                Some(serde_json::from_value(answer).unwrap())
            })
        })
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        let name = |request: &Request| serde_json::to_value(request).unwrap()["ask"].as_str().unwrap().to_owned();
        self.asked.lock().unwrap().iter().map(name).collect()
    }
}

/// A router's configuration with these lines in `[api]`.
pub(crate) fn config(api: &str) -> Config {
    let text = format!(
        "[node]\nname = \"r2\"\nlisten = \"10.0.0.1:7400\"\n[pki]\nca = \"ca.pem\"\ncertificate = \"r2.pem\"\nkey = \"r2.key\"\n\
         [cluster]\nname = \"c\"\nkey = \"000102030405060708090a0b0c0d0e0f\"\nvoters = [\"r1\", \"r2\", \"t1\"]\n\
         [cluster.routers]\nr2 = \"10.0.0.1:7400\"\n[[port]]\nname = \"p0\"\ndevice = \"net_tap0\"\naddress = \"10.0.0.2/24\"\n[api]\n{api}\n"
    );
    Config::parse("r2.toml", &text).unwrap()
}

/// A running API, and what changes its configuration.
pub(crate) struct Served {
    pub(crate) address: Option<std::net::SocketAddr>,
    pub(crate) configs: watch::Sender<Arc<Config>>,
    pub(crate) server: ApiServer,
}

/// Serves `api`, which is that of `config` but for its port.
pub(crate) fn serve(config: Config, api: &Api, control: &Control, limits: ApiLimits) -> Served {
    let listener = ApiListener::open(api).unwrap();
    let address = listener.address();
    let (configs, watched) = watch::channel(Arc::new(config));
    let server = listener.start(control.handler(), watched, limits).unwrap();
    Served { address, configs, server }
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self.headers.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then_some(value)
        });
        line.map(str::trim)
    }

    /// The whole answer in `bytes`; `None`: the connection ended without one.
    pub(crate) fn read(stream: &mut impl Read) -> Option<Self> {
        let mut bytes = Vec::new();
        // A peer that has closed may say so by a reset.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let headers = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = headers.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, headers, body: bytes[end + 4..].to_vec() })
    }
}

/// One request on a connection that ends with it.
pub(crate) fn ask(mut stream: impl Read + Write, verb: &str, path: &str, body: Option<&str>) -> Reply {
    let kind = if body.is_some() { "Content-Type: application/json\r\n" } else { "" };
    let body = body.unwrap_or_default();
    let length = body.len();
    let text = format!(
        "{verb} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).unwrap();
    Reply::read(&mut stream).unwrap_or_else(|| panic!("no answer to {verb} {path}"))
}
