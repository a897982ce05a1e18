//! Which Ethernet address each target and gateway has, found and kept by ARP (RFC 826) or
//! neighbour discovery (RFC 4861).
//!
//! ```text
//!   want ──► unresolved ──answer──► resolved ──REFRESH──► asked again, the old address still used
//!               │  ▲                                          │
//!               └──┘ asked at the pace of `pause`             └─answer─► resolved
//! ```
//! Who does not answer is asked quickly, then once a second, then ever more seldom, down to every RETRY_SLOWEST. A sign of life,
//! or a packet that waits for it, has it asked quickly again.
//! When another station says that it has the address, the one that is known is asked first, there and nowhere else:
//! ```text
//!   resolved ──another MAC──► contended ──the known one answers──► resolved, as before
//!                                 └──no answer within VERIFY──► resolved, at the other
//! ```
//! So forged answers take no packets away from a neighbour that lives.
//!
//! The agent of a target tells the target's Ethernet address over its authenticated link. The station with that address is asked,
//! and once it has answered, no other station's answer counts until the agent tells another address or is away:
//! ```text
//!   any state ──told──► told ──the told one answers──► confirmed ──told another──► told
//!                        └──no answer within VERIFY──► as without an agent
//! ```
//! A network where somebody else answers for the target (proxy ARP) is the reason why a told address is not used unasked.
//!
//! An address once learned is used until another replaces it: a neighbour that went silent is no reason to drop
//! packets early; that a target died is its agent's and its link's news, not ARP's.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use vipa_model::{Mac, Moment, PortId};

/// First retries of an unresolved neighbour, then every `RETRY_SLOW`, then each after twice the time, up to `RETRY_SLOWEST`.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_SLOW: Duration = Duration::from_secs(1);
const RETRY_SLOWEST: Duration = Duration::from_secs(16);
/// Requests sent at the first pace, and those sent by the end of the second.
const QUICK_RETRIES: u32 = 10;
const SLOW_RETRIES: u32 = 40;
/// A resolved neighbour is asked again after this long, so that a changed address is noticed.
const REFRESH: Duration = Duration::from_secs(20);

/// A resolved neighbour whose agent is away is asked again after this long, so that its silence is noticed.
const REFRESH_DOUBTED: Duration = Duration::from_secs(1);

/// So many questions without an answer, and a neighbour is silent.
const SILENT: u32 = 5;

/// Between two questions to the known station of an address that another one says is its own, and how long it has to answer.
const VERIFY_RETRY: Duration = Duration::from_millis(60);
const VERIFY: Duration = Duration::from_millis(300);

/// A client that `nat` answers is remembered for this long after it was last heard of.
const PASSING: Duration = Duration::from_secs(60);
/// Such clients at one time; one more is not found, and its answers are dropped.
const PASSERS: usize = 4096;

/// The neighbours this router wants to reach; limited by what the configuration and the agents name, and by [`PASSERS`].
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    entries: BTreeMap<IpAddr, Neighbour>,
    /// The Ethernet addresses that linked targets have told as their own, by the targets' addresses.
    told: BTreeMap<IpAddr, Mac>,
    /// Addresses that have moved to another station, and those that another station has claimed in vain.
    moved: u64,
    contested: u64,
}

#[derive(Debug)]
struct Neighbour {
    port: PortId,
    mac: Option<Mac>,
    ask_at: Moment,
    /// Requests since the last answer.
    asked: u32,
    /// Requests since it was last to be asked quickly.
    paced: u32,
    /// Its agent is away, so that only its answers show that it lives.
    doubted: bool,
    /// A client on a port's own network: when it was last wanted or heard of.
    passing: Option<Moment>,
    /// Another station that says that the address is its own.
    contender: Option<Contender>,
    told: ReportedStation,
}

/// What an agent's word for the address has come to.
#[derive(Clone, Copy, Debug)]
enum ReportedStation {
    /// No agent tells the address, or the station that it tells does not answer.
    Nothing,
    /// The station that it tells is asked.
    Asked(Contender),
    /// The station that it tells has answered.
    Confirmed,
}

#[derive(Clone, Copy, Debug)]
struct Contender {
    mac: Mac,
    since: Moment,
    /// When to ask the known station next.
    ask_at: Moment,
}

impl Neighbour {
    fn new(port: PortId, passing: Option<Moment>, now: Moment) -> Self {
        Self {
            port,
            mac: None,
            ask_at: now,
            asked: 0,
            paced: 0,
            doubted: false,
            passing,
            contender: None,
            told: ReportedStation::Nothing,
        }
    }
}

impl ReportedStation {
    /// The station has to be asked.
    fn by_agent(mac: Mac, now: Moment) -> Self {
        Self::Asked(Contender { mac, since: now, ask_at: now })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Somebody we do not forward to, or nothing new.
    Nothing,
    /// The workers must be told.
    Changed,
    /// The same; the station that the target's agent tells has answered.
    Told,
}

impl Neighbours {
    /// Sets whom to keep resolved. What is known of those that stay is kept, the others are forgotten.
    pub(crate) fn want(&mut self, wanted: impl IntoIterator<Item = (IpAddr, PortId)>, now: Moment) {
        let mut old = std::mem::take(&mut self.entries);
        for (address, port) in wanted {
            let kept = old.remove(&address).filter(|entry| entry.port == port);
            let kept = kept.unwrap_or_else(|| {
                let told = self
                    .told
                    .get(&address)
                    .map_or(ReportedStation::Nothing, |mac| ReportedStation::by_agent(*mac, now));
                Neighbour { told, ..Neighbour::new(port, None, now) }
            });
            self.entries.insert(address, Neighbour { passing: None, ..kept });
        }
        self.entries.extend(old.into_iter().filter(|(_, entry)| entry.passing.is_some()));
    }

    /// A packet waits for this one, who is nobody that was to be expected.
    pub(crate) fn want_passer(&mut self, address: IpAddr, port: PortId, now: Moment) {
        if let Some(entry) = self.entries.get_mut(&address) {
            if entry.passing.is_some() {
                entry.passing = Some(now);
            }
            self.hurry(address, now);
            return;
        }
        let passers = self.entries.values().filter(|entry| entry.passing.is_some()).count();
        if passers < PASSERS {
            self.entries.insert(address, Neighbour::new(port, Some(now), now));
        }
    }

    /// A neighbour that may answer now, or that a packet waits for, is asked quickly again if it was not any more.
    pub(crate) fn hurry(&mut self, address: IpAddr, now: Moment) {
        if let Some(entry) = self.entries.get_mut(&address).filter(|entry| entry.paced > QUICK_RETRIES) {
            (entry.paced, entry.ask_at) = (0, now);
        }
    }

    /// Takes in the Ethernet address that a target's agent tells. `None`: it tells none any more; the one that is used stays until ARP
    /// or neighbour discovery finds another.
    pub(crate) fn tell(&mut self, address: IpAddr, mac: Option<Mac>, now: Moment) {
        let before = match mac {
            Some(mac) => self.told.insert(address, mac),
            None => self.told.remove(&address),
        };
        if let Some(entry) = self.entries.get_mut(&address).filter(|_| before != mac) {
            entry.told = mac.map_or(ReportedStation::Nothing, |mac| ReportedStation::by_agent(mac, now));
        }
    }

    /// Says whether a target's agent is away: from then on the target is asked every second, beginning now.
    pub(crate) fn doubt(&mut self, address: IpAddr, doubted: bool, now: Moment) {
        if let Some(entry) = self.entries.get_mut(&address).filter(|entry| entry.doubted != doubted) {
            entry.doubted = doubted;
            if doubted {
                (entry.paced, entry.ask_at) = (0, now);
            }
        }
    }

    /// Everybody who has been found.
    pub(crate) fn found(&self) -> impl Iterator<Item = (IpAddr, (PortId, Mac))> + '_ {
        self.entries.iter().filter_map(|(&address, entry)| Some((address, (entry.port, entry.mac?))))
    }

    /// Whether it has left [`SILENT`] questions in a row unanswered.
    pub(crate) fn is_silent(&self, address: IpAddr) -> bool {
        self.entries.get(&address).is_some_and(|entry| entry.asked >= SILENT)
    }

    pub(crate) fn mac(&self, address: IpAddr) -> Option<Mac> {
        self.entries.get(&address)?.mac
    }

    /// Whether it is asked for on this port.
    pub(crate) fn is_at(&self, port: PortId, address: IpAddr) -> bool {
        self.entries.get(&address).is_some_and(|entry| entry.port == port)
    }

    /// A few of the targets and gateways on a port, beginning at a place in the list of them.
    pub(crate) fn some_at(&self, port: PortId, from: usize, count: usize) -> Vec<IpAddr> {
        let here = self.entries.iter().filter(|(_, entry)| entry.port == port && entry.passing.is_none());
        let here: Vec<IpAddr> = here.map(|(address, _)| *address).collect();
        let skipped = from.checked_rem(here.len()).unwrap_or(0);
        here.iter().cycle().skip(skipped).take(count.min(here.len())).copied().collect()
    }

    /// The address of the station with this MAC, of those that were asked for.
    pub(crate) fn address_of(&self, mac: Mac) -> Option<IpAddr> {
        self.entries.iter().find(|(_, entry)| entry.mac == Some(mac)).map(|(address, _)| *address)
    }

    pub(crate) fn learn(&mut self, port: PortId, address: IpAddr, mac: Mac, now: Moment) -> Learned {
        let Some(entry) = self.entries.get_mut(&address).filter(|entry| entry.port == port) else {
            return Learned::Nothing;
        };
        let was_silent = entry.asked >= SILENT;
        let is_told = self.told.get(&address) == Some(&mac);
        let is_first_answer = is_told && !matches!(entry.told, ReportedStation::Confirmed);
        if is_told {
            entry.told = ReportedStation::Confirmed;
        } else if matches!(entry.told, ReportedStation::Confirmed) {
            self.contested += 1;
            return Learned::Nothing;
        }
        match entry.mac {
            Some(known) if known != mac && is_told => self.moved += 1,
            Some(known) if known != mac && !was_silent => {
                let ask = Contender { mac, since: now, ask_at: now };
                entry.contender = Some(entry.contender.map_or(ask, |contender| Contender { mac, ..contender }));
                return Learned::Nothing;
            }
            Some(known) if known != mac => self.moved += 1,
            _ => self.contested += u64::from(entry.contender.is_some()),
        }
        entry.contender = None;
        (entry.asked, entry.paced) = (0, 0);
        entry.passing = entry.passing.map(|_| now);
        entry.ask_at = now + if entry.doubted { REFRESH_DOUBTED } else { REFRESH };
        let is_same = entry.mac.replace(mac) == Some(mac) && !was_silent;
        match is_first_answer {
            true => Learned::Told,
            false if is_same => Learned::Nothing,
            false => Learned::Changed,
        }
    }

    /// Names the known stations to ask whether they still have an address that another one says is its own. True if an address has
    /// moved, which the workers must be told.
    pub(crate) fn verify_due(&mut self, now: Moment, mut ask: impl FnMut(PortId, IpAddr, Mac)) -> bool {
        let before = self.moved;
        for (&address, entry) in &mut self.entries {
            if let ReportedStation::Asked(told) = &mut entry.told {
                if now.since(told.since) >= VERIFY {
                    entry.told = ReportedStation::Nothing;
                } else if told.ask_at <= now {
                    told.ask_at = now + VERIFY_RETRY;
                    ask(entry.port, address, told.mac);
                }
            }
            let (Some(contender), Some(known)) = (&mut entry.contender, entry.mac) else { continue };
            if now.since(contender.since) >= VERIFY {
                entry.mac = Some(contender.mac);
                entry.contender = None;
                self.moved += 1;
            } else if contender.ask_at <= now {
                contender.ask_at = now + VERIFY_RETRY;
                ask(entry.port, address, known);
            }
        }
        self.moved != before
    }

    pub(crate) fn counts(&self) -> [(String, u64); 2] {
        [("neighbour.moved".into(), self.moved), ("neighbour.contested".into(), self.contested)]
    }

    /// Names every neighbour to send a request for now, and notes that it was sent. True if one has become silent, which the
    /// workers must be told.
    pub(crate) fn ask_due(&mut self, now: Moment, mut ask: impl FnMut(PortId, IpAddr)) -> bool {
        let mut fell_silent = false;
        self.entries.retain(|_, entry| entry.passing.is_none_or(|heard| now.since(heard) < PASSING));
        for (&address, entry) in &mut self.entries {
            if entry.ask_at <= now {
                ask(entry.port, address);
                entry.asked = entry.asked.saturating_add(1);
                entry.paced = entry.paced.saturating_add(1);
                entry.ask_at = now + pause(entry.paced);
                fell_silent |= entry.asked == SILENT;
            }
        }
        fell_silent
    }
}

/// How long to wait for an answer after so many requests.
fn pause(paced: u32) -> Duration {
    if paced <= QUICK_RETRIES {
        return RETRY;
    }
    let doublings = paced.saturating_sub(SLOW_RETRIES).min(8);
    (RETRY_SLOW * (1 << doublings)).min(RETRY_SLOWEST)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
    const PORT: PortId = PortId(0);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn asked(neighbours: &mut Neighbours, now: Moment) -> Vec<IpAddr> {
        let mut list = Vec::new();
        neighbours.ask_due(now, |_, address| list.push(address));
        list
    }

    #[test]
    fn an_unresolved_neighbour_is_asked_for_at_once_then_again_and_then_slowly() {
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], Moment::ZERO);
        let mut now = Moment::ZERO;
        let mut sent = 0;
        while now < Moment::ZERO + Duration::from_secs(10) {
            sent += asked(&mut neighbours, now).len();
            now = now + Duration::from_millis(10);
        }
        assert_eq!(neighbours.mac(TARGET), None);
        assert!((18..=21).contains(&sent), "10 quick requests, then one a second: {sent}");
    }

    #[test]
    fn who_is_absent_for_long_is_asked_seldom_and_quickly_again_when_there_is_a_reason() {
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], Moment::ZERO);
        let mut now = Moment::ZERO;
        let mut run = |neighbours: &mut Neighbours, span: Duration| {
            let (end, mut sent) = (now + span, 0);
            while now < end {
                sent += asked(neighbours, now).len();
                now = now + Duration::from_millis(10);
            }
            (now, sent)
        };
        run(&mut neighbours, Duration::from_secs(100));
        let (later, sent) = run(&mut neighbours, Duration::from_secs(160));
        assert!((9..=11).contains(&sent), "one in 16 s: {sent}");
        neighbours.want_passer(TARGET, PORT, later);
        let (_, sent) = run(&mut neighbours, Duration::from_millis(500));
        assert_eq!(sent, 5, "a packet waits for it");
        // As long as it is asked quickly, more packets change nothing.
        neighbours.hurry(TARGET, later);
        assert_eq!(run(&mut neighbours, Duration::from_millis(500)).1, 5);
        assert!(neighbours.is_silent(TARGET));
    }

    #[test]
    fn an_answer_is_kept_and_asked_again_only_after_a_while() {
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], Moment::ZERO);
        assert_eq!(neighbours.learn(PORT, TARGET, MAC, Moment::ZERO), Learned::Changed);
        assert_eq!(neighbours.learn(PORT, TARGET, MAC, Moment::ZERO), Learned::Nothing);
        assert!(asked(&mut neighbours, Moment::ZERO + Duration::from_secs(19)).is_empty());
        assert_eq!(asked(&mut neighbours, Moment::ZERO + REFRESH), [TARGET]);
        assert_eq!(neighbours.mac(TARGET), Some(MAC), "still used while asked again");
    }

    #[test]
    fn a_target_whose_agent_is_away_is_asked_every_second_and_its_silence_is_noticed_within_half_a_second() {
        let at = |ms| Moment::ZERO + Duration::from_millis(ms);
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], at(0));
        neighbours.learn(PORT, TARGET, MAC, at(0));
        neighbours.doubt(TARGET, true, at(1_000));
        assert_eq!(asked(&mut neighbours, at(1_000)), [TARGET]);
        assert_eq!(neighbours.learn(PORT, TARGET, MAC, at(1_001)), Learned::Nothing);
        assert!(asked(&mut neighbours, at(1_900)).is_empty());
        neighbours.want([(TARGET, PORT)], at(1_950));
        let fell_silent: Vec<bool> = (0..5).map(|try_| neighbours.ask_due(at(2_001 + 100 * try_), |_, _| {})).collect();
        assert_eq!(fell_silent, [false, false, false, false, true]);
        assert!(neighbours.is_silent(TARGET));
        assert_eq!(neighbours.learn(PORT, TARGET, MAC, at(3_000)), Learned::Changed, "it is not silent any more");
        neighbours.doubt(TARGET, false, at(3_001));
        neighbours.learn(PORT, TARGET, MAC, at(3_001));
        assert!(asked(&mut neighbours, at(20_000)).is_empty());
    }

    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const THIRD: Mac = Mac([2, 0, 0, 0, 0, 3]);

    /// Whom it asks, and when, milliseconds; and when the address moves.
    fn verified(neighbours: &mut Neighbours, from: u64, until: u64) -> (Vec<(u64, Mac)>, Option<u64>) {
        let (mut asked, mut moved) = (Vec::new(), None);
        for ms in (from..until).step_by(5) {
            let now = Moment::ZERO + Duration::from_millis(ms);
            if neighbours.verify_due(now, |_, _, known| asked.push((ms, known))) {
                moved = moved.or(Some(ms));
            }
        }
        (asked, moved)
    }

    #[test]
    fn forged_answers_take_nothing_away_from_a_neighbour_that_answers() {
        let at = |ms| Moment::ZERO + Duration::from_millis(ms);
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], at(0));
        neighbours.learn(PORT, TARGET, MAC, at(0));
        for forged in 1..64 {
            assert_eq!(neighbours.learn(PORT, TARGET, Mac([2, 9, 9, 9, 9, forged]), at(100)), Learned::Nothing);
        }
        assert_eq!(verified(&mut neighbours, 100, 105).0, [(100, MAC)]);
        assert_eq!(neighbours.learn(PORT, TARGET, MAC, at(110)), Learned::Nothing);
        assert_eq!(verified(&mut neighbours, 110, 1_000), (Vec::new(), None));
        assert_eq!((neighbours.mac(TARGET), neighbours.moved, neighbours.contested), (Some(MAC), 0, 1));
    }

    #[test]
    fn an_address_whose_station_does_not_answer_any_more_moves() {
        let at = |ms| Moment::ZERO + Duration::from_millis(ms);
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], at(0));
        neighbours.learn(PORT, TARGET, MAC, at(0));
        assert_eq!(neighbours.learn(PORT, TARGET, OTHER, at(100)), Learned::Nothing);
        let asked = [100, 160, 220, 280, 340].map(|ms| (ms, MAC)).to_vec();
        assert_eq!(verified(&mut neighbours, 100, 1_000), (asked, Some(400)));
        assert_eq!((neighbours.mac(TARGET), neighbours.moved), (Some(OTHER), 1));
        // One that is known to be silent is not waited for.
        for try_ in 0..5 {
            neighbours.ask_due(at(30_000 + 200 * try_), |_, _| {});
        }
        assert_eq!(neighbours.learn(PORT, TARGET, MAC, at(31_000)), Learned::Changed);
        assert_eq!((neighbours.mac(TARGET), neighbours.moved), (Some(MAC), 2));
    }

    #[test]
    fn no_forged_answer_moves_an_address_that_an_agent_tells_even_while_its_target_is_silent() {
        let at = |ms| Moment::ZERO + Duration::from_millis(ms);
        let mut neighbours = Neighbours::default();
        // Told before it is wanted, and wanted before it is told.
        neighbours.tell(TARGET, Some(MAC), at(0));
        neighbours.want([(TARGET, PORT)], at(0));
        assert_eq!(verified(&mut neighbours, 0, 5).0, [(0, MAC)]);
        assert_eq!(neighbours.learn(PORT, TARGET, MAC, at(5)), Learned::Told);
        for ms in 6..5_000 {
            assert_eq!(neighbours.learn(PORT, TARGET, OTHER, at(ms)), Learned::Nothing);
            assert_eq!(verified(&mut neighbours, ms, ms + 1), (Vec::new(), None));
        }
        assert_eq!((neighbours.mac(TARGET), neighbours.moved, neighbours.contested), (Some(MAC), 0, 4_994));
        // Without the agent ARP alone decides: the silent station has a moment to answer.
        neighbours.tell(TARGET, None, at(5_000));
        assert_eq!(neighbours.learn(PORT, TARGET, OTHER, at(5_000)), Learned::Nothing);
        assert_eq!(verified(&mut neighbours, 5_000, 6_000).1, Some(5_300));
        assert_eq!(neighbours.mac(TARGET), Some(OTHER));
    }

    #[test]
    fn an_address_moves_to_the_station_that_the_agent_tells_as_soon_as_that_answers() {
        let at = |ms| Moment::ZERO + Duration::from_millis(ms);
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], at(0));
        neighbours.learn(PORT, TARGET, OTHER, at(0));
        neighbours.tell(TARGET, Some(MAC), at(100));
        neighbours.tell(TARGET, Some(MAC), at(101));
        assert_eq!(verified(&mut neighbours, 101, 110).0, [(101, MAC)]);
        assert_eq!(neighbours.mac(TARGET), Some(OTHER), "until it has answered");
        assert_eq!(neighbours.learn(PORT, TARGET, MAC, at(110)), Learned::Told);
        assert_eq!((neighbours.mac(TARGET), neighbours.moved), (Some(MAC), 1));
        // Its card is replaced.
        neighbours.tell(TARGET, Some(THIRD), at(9_000));
        assert_eq!(neighbours.learn(PORT, TARGET, THIRD, at(9_001)), Learned::Told);
        assert_eq!((neighbours.mac(TARGET), neighbours.moved), (Some(THIRD), 2));
    }

    #[test]
    fn a_told_station_that_does_not_answer_is_not_used_and_another_answers_for_it() {
        let at = |ms| Moment::ZERO + Duration::from_millis(ms);
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], at(0));
        neighbours.tell(TARGET, Some(MAC), at(0));
        assert_eq!(neighbours.learn(PORT, TARGET, OTHER, at(1)), Learned::Changed);
        let asked = [0, 60, 120, 180, 240].map(|ms| (ms, MAC)).to_vec();
        assert_eq!(verified(&mut neighbours, 0, 1_000), (asked, None));
        assert_eq!(neighbours.mac(TARGET), Some(OTHER));
        // The other one may be replaced, as without an agent.
        neighbours.learn(PORT, TARGET, THIRD, at(1_000));
        assert_eq!(verified(&mut neighbours, 1_000, 2_000).1, Some(1_300));
        // It may answer later.
        assert_eq!(neighbours.learn(PORT, TARGET, MAC, at(3_000)), Learned::Told);
        assert_eq!(neighbours.learn(PORT, TARGET, THIRD, at(3_001)), Learned::Nothing);
        assert_eq!(neighbours.mac(TARGET), Some(MAC));
    }

    #[test]
    fn strangers_and_answers_on_another_port_teach_nothing() {
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], Moment::ZERO);
        assert_eq!(
            neighbours.learn(PORT, IpAddr::V4(Ipv4Addr::new(198, 51, 100, 99)), MAC, Moment::ZERO),
            Learned::Nothing
        );
        assert_eq!(neighbours.learn(PortId(1), TARGET, MAC, Moment::ZERO), Learned::Nothing);
        assert_eq!(neighbours.mac(TARGET), None);
    }

    #[test]
    fn what_is_wanted_again_keeps_its_address() {
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], Moment::ZERO);
        neighbours.learn(PORT, TARGET, MAC, Moment::ZERO);
        neighbours.want([(TARGET, PORT), (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 22)), PORT)], Moment::ZERO);
        assert_eq!(neighbours.mac(TARGET), Some(MAC));
        neighbours.want([], Moment::ZERO);
        assert_eq!(neighbours.mac(TARGET), None);
    }

    #[test]
    fn a_client_on_the_network_is_found_and_forgotten_when_it_is_silent() {
        let mut neighbours = Neighbours::default();
        neighbours.want_passer(TARGET, PORT, Moment::ZERO);
        assert_eq!(asked(&mut neighbours, Moment::ZERO), [TARGET]);
        neighbours.learn(PORT, TARGET, MAC, Moment::ZERO);
        neighbours.want([], Moment::ZERO);
        assert_eq!(neighbours.found().count(), 1, "it is no target, and stays");
        asked(&mut neighbours, Moment::ZERO + PASSING);
        assert_eq!(neighbours.found().count(), 0);
    }

    #[test]
    fn clients_fill_no_more_than_their_room() {
        let mut neighbours = Neighbours::default();
        for client in 0..10_000 {
            neighbours.want_passer(IpAddr::V4(Ipv4Addr::from_bits(client)), PORT, Moment::ZERO);
        }
        assert_eq!(asked(&mut neighbours, Moment::ZERO).len(), PASSERS);
    }
}
