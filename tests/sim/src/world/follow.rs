//! Follows the connections of one client port: the story has each change of a table entry and of what a target holds.

use super::World;

/// A client port, and the last state of its connections at every node in the story.
pub(super) struct Followed {
    port: u16,
    told: Vec<String>,
}

impl Followed {
    pub(super) fn new(port: u16) -> Self {
        Self { port, told: Vec::new() }
    }
}

impl World {
    /// Adds the state of the followed connections to the story, if it has changed in this step.
    pub(super) fn tell_followed(&mut self) {
        let Some(followed) = &self.followed else { return };
        let (port, before) = (followed.port, &followed.told);
        let state = self.state_of(port);
        let changed: Vec<String> = state.iter().filter(|line| !before.contains(line)).cloned().collect();
        let gone = before.iter().filter(|line| {
            let node = line.split(':').next();
            !state.iter().any(|other| other.split(':').next() == node)
        });
        let lines: Vec<String> = changed.into_iter().chain(gone.map(|line| format!("{line} (no more)"))).collect();
        for line in lines {
            self.tell(|| format!("   {port} at {line}"));
        }
        if let Some(followed) = &mut self.followed {
            followed.told = state;
        }
    }

    /// A line for each node that has a connection of this port.
    fn state_of(&self, port: u16) -> Vec<String> {
        let mut lines = Vec::new();
        for (router, gateway) in self.gateways.iter().enumerate() {
            let Some(gateway) = gateway else { continue };
            for (connection, target, state) in gateway.known() {
                if connection.client.port() == port {
                    let overruled = if gateway.has_overruled(target, &connection) { ", overruled" } else { "" };
                    lines.push(format!("r{}: {state:?} at t{}{overruled}", router + 1, target + 1));
                }
            }
        }
        for (target, host) in self.hosts.iter().enumerate() {
            let log = host.brain.held();
            for (connection, state) in host.held().iter().filter(|(connection, _)| connection.client.port() == port) {
                let logged = log.get(&super::VIPA).and_then(|log| log.get(connection));
                lines.push(format!("t{}: the kernel holds it {state:?}, the log has {logged:?}", target + 1));
            }
        }
        lines
    }
}
