//! Clients of a local socket, served by a bounded number of tasks.
//!
//! A new client is always served. Where all places are taken, one client is disconnected: the one that this process has
//! waited for longest, because it sends no request or does not read its answer; if this process waits for no client,
//! the one with the oldest request.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::task::AbortHandle;

/// The tasks that serve the clients of one socket; all of them end when this is dropped.
#[derive(Debug)]
pub struct ClientTasks {
    places: usize,
    tasks: Vec<ClientTask>,
}

#[derive(Debug)]
struct ClientTask {
    handle: AbortHandle,
    turn: Turn,
}

/// Whether the client or the server has to act next in an exchange.
#[derive(Clone, Debug)]
pub struct Turn(Arc<Mutex<(Whose, Instant)>>);

/// In the order in which clients are disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Client,
    Server,
}

impl Turn {
    /// Sets that this process waits for the client: for its request, or until it reads.
    pub fn of_client(&self) {
        self.set(Whose::Client);
    }

    /// Sets that the client waits for its answer.
    pub fn of_server(&self) {
        self.set(Whose::Server);
    }

    fn set(&self, whose: Whose) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (whose, Instant::now());
    }

    fn get(&self) -> (Whose, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientTasks {
    /// For at most `places` clients at one time, at least one.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { places: places.max(1), tasks: Vec::new() }
    }

    /// Serves one more client with the task that `serve` makes, beginning with the client's turn. Returns whether
    /// another client was disconnected for it.
    pub fn spawn<F>(&mut self, serve: impl FnOnce(Turn) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.retain(|task| !task.handle.is_finished());
        let crowded = self.tasks.len() >= self.places;
        if crowded && let Some((index, _)) = self.tasks.iter().enumerate().min_by_key(|(_, task)| task.turn.get()) {
            self.tasks.swap_remove(index).handle.abort();
        }
        let turn = Turn(Arc::new(Mutex::new((Whose::Client, Instant::now()))));
        let handle = tokio::spawn(serve(turn.clone())).abort_handle();
        self.tasks.push(ClientTask { handle, turn });
        crowded
    }
}

impl Drop for ClientTasks {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.handle.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;

    /// Tasks that never end by themselves, by number; and those that are left.
    struct Crowd {
        tasks: ClientTasks,
        turns: Vec<Turn>,
        ends: Vec<tokio::sync::oneshot::Receiver<()>>,
    }

    impl Crowd {
        fn new(places: usize) -> Self {
            Self { tasks: ClientTasks::new(places), turns: vec![], ends: vec![] }
        }

        fn come(&mut self) -> bool {
            let (alive, end) = tokio::sync::oneshot::channel::<()>();
            self.ends.push(end);
            let turns = &mut self.turns;
            self.tasks.spawn(|turn| {
                turns.push(turn);
                async move {
                    let _alive = alive;
                    std::future::pending::<()>().await;
                }
            })
        }

        async fn left(&mut self) -> BTreeSet<usize> {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let alive = |end: &mut tokio::sync::oneshot::Receiver<()>| {
                end.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty)
            };
            (0..self.ends.len()).filter(|number| alive(&mut self.ends[*number])).collect()
        }
    }

    #[tokio::test]
    async fn the_client_that_has_been_waited_for_longest_gives_way_before_one_that_waits() {
        let mut crowd = Crowd::new(3);
        assert!(!crowd.come() && !crowd.come() && !crowd.come());
        crowd.turns[0].of_server();
        crowd.turns[1].of_client();
        assert!(crowd.come());
        assert_eq!(crowd.left().await, BTreeSet::from([0, 1, 3]), "2 has been waited for since it came");
        assert!(crowd.come());
        assert_eq!(crowd.left().await, BTreeSet::from([0, 3, 4]));
        crowd.turns[4].of_server();
        crowd.turns[3].of_server();
        assert!(crowd.come());
        assert_eq!(crowd.left().await, BTreeSet::from([3, 4, 5]), "all wait: the oldest request gives way");
    }
}
