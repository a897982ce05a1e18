//! Roles by client certificates, and by a loopback address without any.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use vipa_model::config::{Api, ApiListen};
use vipa_web::ApiLimits;

use crate::{
    check,
    fake::{Control, Reply, Served, ask, config, serve},
    log, wait_log,
};

const ORDER: &str = r#"{"order":{"move":{"vipa":"10.77.0.100","to":"r2"}}}"#;

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let made = params.self_signed(&key).unwrap();
        let (certificate, pem) = (made.der().clone(), made.pem());
        Self { issuer: Issuer::new(params, key), certificate, pem }
    }

    fn issue(&self, name: &str) -> (CertificateDer<'static>, String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "not this one");
        let made = params.signed_by(&key, &self.issuer).unwrap();
        (made.der().clone(), made.pem(), key)
    }
}

struct Tls {
    authority: Authority,
    served: Served,
    control: Control,
    folder: tempfile::TempDir,
}

fn write_server(authority: &Authority, folder: &Path) {
    let (_, certificate, key) = authority.issue("localhost");
    fs::write(folder.join("api.key"), key.serialize_pem()).unwrap();
    fs::write(folder.join("api.pem"), certificate).unwrap();
}

impl Tls {
    fn new(roles: &str) -> Self {
        log();
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        write_server(&authority, folder.path());
        fs::write(folder.path().join("people.pem"), &authority.pem).unwrap();
        let config = Self::config(folder.path(), roles);
        let mut api: Api = config.api.clone().unwrap();
        let ApiListen::Tls(tls) = &mut api.listen else { panic!("{api:?}") };
        tls.address.set_port(0);
        let control = Control::default();
        let served = serve(config, &api, &control, ApiLimits::default());
        Self { authority, served, control, folder }
    }

    fn config(folder: &Path, roles: &str) -> vipa_model::config::Config {
        let folder = folder.display();
        config(&format!(
            "listen = \"127.0.0.1:1\"\ncertificate = \"{folder}/api.pem\"\nkey = \"{folder}/api.key\"\n\
             authority = \"{folder}/people.pem\"\n{roles}"
        ))
    }

    fn connect(&self, client: Option<(CertificateDer<'static>, KeyPair)>) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let stream = TcpStream::connect(self.served.address.unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        StreamOwned::new(connection, stream)
    }

    fn ask(&self, name: &str, verb: &str, path: &str, body: Option<&str>) -> Reply {
        let (certificate, _, key) = self.authority.issue(name);
        ask(self.connect(Some((certificate, key))), verb, path, body)
    }

    /// Whether a client with this certificate gets any answer.
    fn is_answered(&self, client: Option<(CertificateDer<'static>, KeyPair)>) -> bool {
        let mut stream = self.connect(client);
        let sent = stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        sent.is_ok() && Reply::read(&mut stream).is_some()
    }
}

#[test]
fn a_certificate_of_the_authority_has_the_role_of_its_name() {
    let api = Tls::new("read = [\"alice\"]\noperate = [\"bob\"]");
    let description = api.ask("alice", "GET", "/v1/openapi.json", None).json();
    for name in ["alice", "bob"] {
        let reply = api.ask(name, "GET", "/v1/status", None);
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
        check(&description, "GET", "/v1/status", &reply);
    }
    let reply = api.ask("alice", "POST", "/v1/orders", Some(ORDER));
    check(&description, "POST", "/v1/orders", &reply);
    assert_eq!(reply.status, 403);
    assert!(reply.json()["detail"].as_str().unwrap().contains("takes the role operate"), "{reply:?}");
    wait_log(&["vipa_web::audit", "who=alice", "from=127.0.0.1", "order=order", "refused"]);
    let reply = api.ask("bob", "POST", "/v1/orders", Some(ORDER));
    assert_eq!(reply.status, 200, "{reply:?}");
    wait_log(&["vipa_web::audit", "who=bob", "from=127.0.0.1", "10.77.0.100", "done: "]);
    let reply = api.ask("carol", "GET", "/v1/status", None);
    check(&description, "GET", "/v1/status", &reply);
    assert_eq!(reply.status, 403);
    assert!(reply.json()["detail"].as_str().unwrap().contains("has no role here"), "{reply:?}");
    assert_eq!(api.control.asked().iter().filter(|asked| *asked == "order").count(), 1, "bob's alone");
}

#[test]
fn who_shows_no_certificate_or_a_foreign_one_gets_no_answer() {
    let api = Tls::new("read = [\"alice\"]");
    let (certificate, _, key) = api.authority.issue("alice");
    assert!(api.is_answered(Some((certificate, key))));
    assert!(!api.is_answered(None));
    let (certificate, _, key) = Authority::new().issue("alice");
    assert!(!api.is_answered(Some((certificate, key))), "of another authority");
    let mut plain = TcpStream::connect(api.served.address.unwrap()).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    plain.write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(Reply::read(&mut plain).is_none(), "without TLS");
    assert_eq!(api.control.asked(), ["status"]);
}

#[test]
fn a_reload_takes_a_role_away_at_once_and_an_open_connection_with_it() {
    let api = Tls::new("operate = [\"bob\"]");
    let (certificate, _, key) = api.authority.issue("bob");
    let mut stream = api.connect(Some((certificate, key)));
    let request = b"GET /v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut status = || {
        stream.write_all(request).unwrap();
        let mut bytes = Vec::new();
        let mut some = [0; 4096];
        // Until the body, which is one document, is complete.
        while !bytes.ends_with(b"}") {
            let length = stream.read(&mut some).unwrap();
            assert!(length > 0);
            bytes.extend_from_slice(&some[..length]);
        }
        String::from_utf8(bytes).unwrap()
    };
    assert!(status().starts_with("HTTP/1.1 200"));
    api.served.configs.send_replace(Arc::new(Tls::config(api.folder.path(), "read = [\"alice\"]")));
    assert!(status().starts_with("HTTP/1.1 403"));
}

#[test]
fn renewed_files_are_taken_up_while_it_runs() {
    let api = Tls::new("read = [\"alice\"]");
    let next = Authority::new();
    fs::write(api.folder.path().join("people.pem"), format!("{}{}", api.authority.pem, next.pem)).unwrap();
    write_server(&api.authority, api.folder.path());
    wait_log(&["the API takes renewed certificate files up", &api.folder.path().display().to_string()]);
    let (certificate, _, key) = next.issue("alice");
    assert!(api.is_answered(Some((certificate, key))), "of the authority that is new");
    fs::write(api.folder.path().join("api.pem"), "nonsense").unwrap();
    wait_log(&["the API keeps its former certificate", "holds no certificate in PEM"]);
    assert_eq!(api.ask("alice", "GET", "/v1/status", None).status, 200);
}

#[test]
fn on_a_loopback_address_without_tls_everybody_reads_and_nobody_orders() {
    log();
    let config = config("listen = \"127.0.0.1:1\"\ntls = \"none\"\npage = true");
    let mut api = config.api.clone().unwrap();
    let ApiListen::Loopback(address) = &mut api.listen else { panic!("{api:?}") };
    address.set_port(0);
    let control = Control::default();
    let served = serve(config, &api, &control, ApiLimits::default());
    let connect = || TcpStream::connect(served.address.unwrap()).unwrap();
    assert_eq!(ask(connect(), "GET", "/v1/status", None).status, 200);
    assert_eq!(ask(connect(), "GET", "/", None).status, 200);
    assert_eq!(ask(connect(), "POST", "/v1/orders", Some(ORDER)).status, 403);
    let mut foreign = connect();
    foreign.write_all(b"GET /v1/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(Reply::read(&mut foreign).unwrap().status, 421, "a name that leads here by a trick (DNS rebinding)");
    assert_eq!(control.asked(), ["status"]);
}
