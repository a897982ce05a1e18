//! The agent's reports of its configured checks.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use crate::{
    host::{on_a_host, run},
    router::{Router, View},
};

/// The check's name, whether it passes, and its detail.
fn told(view: &View) -> Vec<(&str, bool, &str)> {
    let checks = view.load.as_ref().map_or(&[][..], |load| &load.checks);
    checks.iter().map(|check| (check.name.as_str(), check.passing, check.detail.as_str())).collect()
}

#[test]
#[ignore = "needs root: make test-agent"]
fn checks_of_three_kinds_are_told_as_they_fail_and_pass() {
    on_a_host(|host| {
        let flag = host.folder().join("maintenance");
        let common = "interval_ms = 100\nrise = 1\nfall = 2";
        host.configure(&format!(
            "[[agent.check]]\nname = \"page\"\nprobe = \"http\"\nport = 8080\npath = \"/up\"\n{common}\n\
             [[agent.check]]\nname = \"port\"\nprobe = \"tcp\"\naddress = \"10.9.0.1:9000\"\n{common}\n\
             [[agent.check]]\nname = \"flag\"\nprobe = \"command\"\ncommand = [\"/usr/bin/test\", \"!\", \"-e\", \"{}\"]\n{common}",
            flag.display()
        ));
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        router.until("two fail", |view| {
            let refused = "Connection refused (os error 111)";
            told(view) == [("page", false, refused), ("port", false, refused), ("flag", true, "")]
        });
        let pages = TcpListener::bind("127.0.0.1:8080").unwrap();
        let answer = |status: &'static str| {
            let pages = pages.try_clone().unwrap();
            thread::spawn(move || {
                for mut client in pages.incoming().flatten().take(5) {
                    let mut question = [0; 256];
                    let length = client.read(&mut question).unwrap_or(0);
                    assert!(question[..length].starts_with(b"GET /up HTTP/1.1\r\n"));
                    let _ = write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                }
            })
        };
        let server = answer("200 OK");
        let port = TcpListener::bind("10.9.0.1:9000").unwrap();
        router.until("all pass", |view| told(view).iter().all(|(_, passing, _)| *passing));
        server.join().unwrap();
        let server = answer("503 Busy");
        fs::write(&flag, "").unwrap();
        drop(port);
        router.until("all fail, and why", |view| {
            let refused = "Connection refused (os error 111)";
            told(view) == [("page", false, "status 503"), ("port", false, refused), ("flag", false, "exit status: 1")]
        });
        server.join().unwrap();
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_vipa_on_an_outward_interface_is_told_as_a_check_that_fails_until_it_is_taken_away() {
    on_a_host(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        router.until("nothing fails", |view| view.load.is_some() && told(view).is_empty());
        run("ip", "link add outward type veth peer name other");
        run("ip", "link set outward up");
        run("ip", "address add 192.0.2.10/24 dev outward");
        let sentence = "192.0.2.10 is on outward, where this host answers for it: take it away \
                        (ip address del 192.0.2.10 dev outward)";
        router.until("it is told", |view| told(view) == [("vipa-address", false, sentence)]);
        assert!(host.status().contains(sentence), "{}", host.status());
        run("ip", "address del 192.0.2.10/24 dev outward");
        router.until("nothing fails any more", |view| told(view).is_empty());
        // On an interface without ARP answers it does no harm.
        run("ip", "link set outward arp off");
        run("ip", "address add 192.0.2.10/24 dev outward");
        router.listen_for(std::time::Duration::from_secs(5));
        router.until("nothing fails there", |view| told(view).is_empty());
    });
}
