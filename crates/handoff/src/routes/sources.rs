//! Clients that a service admits: prefixes allowed and denied; the longest match decides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use vipa_model::Sources;

/// A service's rule about clients, prepared for lookups by each new connection.
#[derive(Clone, Debug)]
pub struct SourceRule {
    /// Whether each prefix is admitted.
    ipv4: PrefixMap<Ipv4Net, bool>,
    ipv6: PrefixMap<Ipv6Net, bool>,
    /// Whether clients in no prefix are admitted.
    others: bool,
    /// Limit on new connections a second from one client.
    pub new_per_second: Option<u32>,
}

impl SourceRule {
    /// `None`: every client is admitted, without a limit.
    #[must_use]
    pub fn build(sources: &Sources) -> Option<Self> {
        let Sources { allow, deny, new_per_second } = sources;
        if allow.is_empty() && deny.is_empty() && new_per_second.is_none() {
            return None;
        }
        let mut rule = Self {
            ipv4: PrefixMap::new(),
            ipv6: PrefixMap::new(),
            others: allow.is_empty(),
            new_per_second: *new_per_second,
        };
        // A prefix on both lists is denied: the later one stays.
        for (prefix, admitted) in allow.iter().map(|p| (p, true)).chain(deny.iter().map(|p| (p, false))) {
            match *prefix {
                ipnet::IpNet::V4(prefix) => drop(rule.ipv4.insert(prefix, admitted)),
                ipnet::IpNet::V6(prefix) => drop(rule.ipv6.insert(prefix, admitted)),
            }
        }
        Some(rule)
    }

    #[must_use]
    pub fn admits(&self, client: IpAddr) -> bool {
        let found = match client {
            IpAddr::V4(client) => self.ipv4.get_lpm(&host4(client)).map(|(_, admitted)| *admitted),
            IpAddr::V6(client) => self.ipv6.get_lpm(&host6(client)).map(|(_, admitted)| *admitted),
        };
        found.unwrap_or(self.others)
    }
}

fn host4(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(address)
}

fn host6(address: Ipv6Addr) -> Ipv6Net {
    Ipv6Net::from(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: &[&str], deny: &[&str]) -> SourceRule {
        let prefixes = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        let sources = Sources { allow: prefixes(allow), deny: prefixes(deny), new_per_second: Some(1) };
        SourceRule::build(&sources).unwrap()
    }

    fn admits(rule: &SourceRule, client: &str) -> bool {
        rule.admits(client.parse().unwrap())
    }

    #[test]
    fn without_prefixes_and_limit_there_is_no_rule() {
        assert!(SourceRule::build(&Sources::default()).is_none());
    }

    #[test]
    fn only_the_allowed_come_and_all_but_the_denied() {
        let allowed = rule(&["203.0.113.0/24", "2001:db8::/32"], &[]);
        assert!(admits(&allowed, "203.0.113.9") && admits(&allowed, "2001:db8:1::1"));
        assert!(!admits(&allowed, "203.0.114.9") && !admits(&allowed, "2001:db9::1"));
        let denied = rule(&[], &["203.0.113.0/24"]);
        assert!(!admits(&denied, "203.0.113.9") && admits(&denied, "203.0.114.9") && admits(&denied, "2001:db8::1"));
    }

    #[test]
    fn the_longer_prefix_counts_and_of_two_equal_ones_the_denial() {
        let mixed =
            rule(&["203.0.113.128/25", "198.51.100.0/24"], &["203.0.113.0/24", "203.0.113.200/32", "198.51.100.0/24"]);
        assert!(admits(&mixed, "203.0.113.129"));
        assert!(!admits(&mixed, "203.0.113.1") && !admits(&mixed, "203.0.113.200") && !admits(&mixed, "198.51.100.1"));
    }
}
