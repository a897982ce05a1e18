//! The agent as systemd starts it from its unit, with all of the unit's hardening. Runs only on a machine made for it:
//! `make test-systemd` (`tests/systemd`).

use std::{fs, path::Path};

use vipa_model::PortRange;

use crate::{
    host::{Host, in_a_thread, run, sysctl, times_on_lo, until},
    router::{HERE, Router},
    sockets::{open, serve},
};

const PROGRAM: &str = "/usr/bin/vipa-agent";
const ETC: &str = "/etc/vipa";

/// Puts the configuration and the certificates where the unit expects them.
fn install(host: &Host) {
    let text = fs::read_to_string(host.config()).expect("the configuration");
    let folder = host.folder().display().to_string();
    let text = text.replace(&format!("{folder}/state"), "/var/lib/vipa-agent").replace(&folder, "/run/vipa-agent");
    fs::write(Path::new(ETC).join("agent.toml"), text).expect("it is written");
    for name in ["ca.pem", "t1.pem", "t1.key"] {
        fs::copy(host.folder().join(name), Path::new(ETC).join(name)).expect("it is copied");
    }
    run("chown", "-R vipa-agent:vipa-agent /etc/vipa");
}

fn status() -> String {
    run(PROGRAM, "status --config /etc/vipa/agent.toml")
}

fn main_pid() -> String {
    run("systemctl", "show --property MainPID --value vipa-agent").trim().to_owned()
}

#[test]
#[ignore = "needs a machine of its own: make test-systemd"]
fn the_unit_s_hardening_leaves_the_agent_working_through_a_crash_a_stop_and_a_cleanup() {
    if std::env::var_os("SYSTEMD").is_none() {
        return;
    }
    in_a_thread(|| {
        let host = Host::new();
        install(&host);
        // Returns when the agent has said that it is ready.
        run("systemctl", "start vipa-agent");
        let told = run("systemctl", "show --property StatusText,ActiveState,WatchdogUSec vipa-agent");
        assert!(told.contains("ActiveState=active") && told.contains("WatchdogUSec=30s"), "{told}");
        let mut router = Router::take_over(&host);
        let listener = serve();
        let pair = open(&listener);
        router.until("the connection is told", |view| view.live.contains_key(&pair.connection));
        assert_eq!((times_on_lo("192.0.2.10/32"), sysctl("conf/all/arp_ignore").as_str()), (1, "1"));
        let said = status();
        assert!(said.contains("followed by BPF, verified by sock_diag"), "{said}");
        let process = fs::read_to_string(format!("/proc/{}/status", main_pid())).expect("it runs");
        // CAP_NET_ADMIN and CAP_BPF.
        for line in ["CapEff:\t0000008000001000", "CapBnd:\t0000008000001000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(process.contains(line), "{line}: {process}");
        }
        until("its status is told", || {
            run("systemctl", "show --property StatusText vipa-agent").contains("1 of 1 routers linked; 1 VIPAs")
        });
        run("systemctl", "reload vipa-agent");
        assert_eq!(run("systemctl", "is-active vipa-agent").trim(), "active");
        let crashed = main_pid();
        run("kill", &format!("-9 {crashed}"));
        router.until("the link is lost", |view| !view.linked);
        assert_eq!(times_on_lo("192.0.2.10/32"), 1, "a crash takes nothing from the connections");
        until("systemd has started another", || ![crashed.as_str(), "0"].contains(&main_pid().as_str()));
        router.until_linked();
        router.distribute(2, PortRange::one(80), &[HERE]);
        router.associate(2);
        router.until("the connection is told again", |view| view.live.contains_key(&pair.connection));
        run("systemctl", "stop vipa-agent");
        assert_eq!((times_on_lo("192.0.2.10/32"), sysctl("conf/all/arp_ignore").as_str()), (1, "1"));
        run(PROGRAM, "cleanup --config /etc/vipa/agent.toml");
        assert_eq!((times_on_lo("192.0.2.10/32"), sysctl("conf/all/arp_ignore").as_str()), (0, "0"));
        let result = run("systemctl", "show --property Result --value vipa-agent");
        assert_eq!(result.trim(), "success");
    });
}
