//! The agent's privileges, and what it opens.

use std::{fs, net::TcpListener};

use vipa_model::PortRange;

use crate::{
    host::{Agent, on_a_host, sysctl, times_on_lo},
    router::{HERE, Router},
    sockets::{open, serve},
};

/// `CAP_NET_ADMIN` and `CAP_BPF`, as the kernel prints them.
const NAMED: u64 = 1 << 12 | 1 << 39;

#[track_caller]
fn assert_has_only_what_it_names(agent: &Agent) {
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let bits = u64::from_str_radix(&agent.status(set), 16).unwrap();
        // A user that is not root may not lower the bounding set, and with no new privileges gains nothing by it.
        assert!(bits == NAMED || set == "CapBnd" && agent.status("Uid").starts_with("65534"), "{set} {bits:x}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&agent.status(set), 16), Ok(0), "{set}");
    }
    assert_eq!(agent.status("NoNewPrivs"), "1");
}

/// The agent's whole work, in short.
fn works(router: &mut Router) {
    router.until_linked();
    router.distribute(1, PortRange::one(80), &[HERE]);
    router.associate(1);
    let listener = serve();
    let pair = open(&listener);
    router.until("the connection is told", |view| view.live.contains_key(&pair.connection));
    assert_eq!((times_on_lo("192.0.2.10/32"), sysctl("conf/all/arp_ignore").as_str()), (1, "1"));
}

#[test]
#[ignore = "needs root: make test-agent"]
fn root_gives_up_all_that_the_agent_does_not_name_and_it_works_and_listens_nowhere() {
    on_a_host(|host| {
        let agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        works(&mut router);
        assert_has_only_what_it_names(&agent);
        // This namespace's listeners: none is left when the test's own is gone, except those that the agent might have.
        let listening = |file: &str| {
            let table = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
            table.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A")).count()
        };
        assert_eq!(["tcp", "tcp6"].map(listening), [0, 0]);
        let _own = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listening("tcp"), 1, "a listener would be seen");
        agent.stop();
        host.clean_up();
        assert_eq!(times_on_lo("192.0.2.10/32"), 0);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_user_with_two_capabilities_is_enough_for_all_of_it() {
    on_a_host(|host| {
        let mut router = Router::start(host, "r1");
        let agent = host.start_unprivileged_agent();
        works(&mut router);
        assert_has_only_what_it_names(&agent);
        let said = host.status();
        assert!(said.contains("followed by BPF, verified by sock_diag"), "{said}: {}", host.log());
        agent.stop();
        host.clean_up();
        assert_eq!((times_on_lo("192.0.2.10/32"), sysctl("conf/all/arp_ignore").as_str()), (0, "0"));
    });
}
