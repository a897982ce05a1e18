//! A service's settings as its configuration has them, for who compares two of them.

use std::{fmt::Display, net::IpAddr};

use crate::{Agentless, Choice, Delivery, Pace, Service, Sources};

impl Service {
    /// Every key of the configuration but for the service's name and its candidates, with its value as text, always in the same order.
    /// What one candidate has of its own stands after the value of the others: `"ipip; 10.0.0.31 direct"`. An empty text: not set.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let Self { protocol: _, ports: _, candidates: _, delivery, balance, choice, orphans, sources } = self;
        let Delivery { forwarding, exceptions, target_port, path_mtu, clamp_mss } = delivery;
        let Choice { weights, exceptions: own_weights, agentless } = choice;
        let Sources { allow, deny, new_per_second } = sources;
        let forwardings = exceptions.iter().map(|(address, forwarding)| (*address, forwarding.name()));
        vec![
            ("forwarding", with_exceptions(forwarding.name(), forwardings)),
            ("target_port", optional(target_port.as_ref())),
            ("path_mtu", path_mtu.to_string()),
            ("clamp_mss", clamp_mss.to_string()),
            ("balance", balance.name().into()),
            ("weights", with_exceptions(weights.name(), own_weights.iter().copied())),
            ("agent = false", agentless.iter().map(asked).collect::<Vec<_>>().join(", ")),
            ("orphans", orphans.name().into()),
            ("allow", listed(allow)),
            ("deny", listed(deny)),
            ("new_per_second_per_source", optional(new_per_second.as_ref())),
        ]
    }
}

/// Texts with commas between them.
pub fn listed<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn optional<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn with_exceptions<T: Display>(usual: &str, exceptions: impl Iterator<Item = (IpAddr, T)>) -> String {
    let exceptions = listed(exceptions.map(|(address, value)| format!("{address} {value}")));
    if exceptions.is_empty() { usual.into() } else { format!("{usual}; {exceptions}") }
}

fn asked(Agentless { address, question, pace }: &Agentless) -> String {
    let Pace { interval, timeout, rise, fall } = pace;
    format!("{address} {question} each {interval:?} within {timeout:?}, rise {rise}, fall {fall}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Balance, Forwarding, Orphans, PortRange, Protocol, Question, Weights};

    #[test]
    fn settings_read_as_in_the_configuration() {
        let usual = Service {
            protocol: Protocol::Tcp,
            ports: PortRange::one(80),
            delivery: Delivery::default(),
            balance: Balance::Maglev,
            choice: Choice::default(),
            orphans: Orphans::Reset,
            sources: Sources::default(),
            candidates: Vec::new(),
        };
        let host: IpAddr = "10.0.0.31".parse().unwrap();
        let second = Duration::from_secs(1);
        let pace = Pace { interval: second, timeout: second / 2, rise: 2, fall: 3 };
        let other = Service {
            delivery: Delivery {
                forwarding: Forwarding::Ipip,
                exceptions: vec![(host, Forwarding::Direct)],
                target_port: Some(8080),
                path_mtu: false,
                clamp_mss: false,
            },
            balance: Balance::WeightedActive,
            choice: Choice {
                weights: Weights::Load,
                exceptions: vec![(host, 3)],
                agentless: vec![Agentless { address: host, question: Question::Tcp(80), pace }],
            },
            orphans: Orphans::Balance,
            sources: Sources {
                allow: vec!["10.0.0.0/8".parse().unwrap(), "192.0.2.0/24".parse().unwrap()],
                deny: vec!["10.9.0.0/16".parse().unwrap()],
                new_per_second: Some(50),
            },
            ..usual.clone()
        };
        let read = |service: &Service| service.settings().into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(read(&usual), ["direct", "", "true", "true", "maglev", "static", "", "reset", "", "", ""]);
        assert_eq!(
            read(&other),
            [
                "ipip; 10.0.0.31 direct",
                "8080",
                "false",
                "false",
                "weighted-active",
                "load; 10.0.0.31 3",
                "10.0.0.31 tcp 80 each 1s within 500ms, rise 2, fall 3",
                "balance",
                "10.0.0.0/8, 192.0.2.0/24",
                "10.9.0.0/16",
                "50",
            ]
        );
    }
}
