//! Answers to questions that everybody asks, kept for a moment.
//!
//! However many clients ask at once, control is asked once. A question that has begun is answered even if its client has gone, so that
//! clients that come and go cost no more than one that stays.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::problem::Problem;

/// How old an answer may be.
pub(crate) const FRESH: Duration = Duration::from_millis(250);

#[derive(Clone, Debug)]
struct CachedAnswer {
    since: Instant,
    text: Bytes,
}

type Slot = Arc<Mutex<Option<CachedAnswer>>>;

#[derive(Debug)]
pub(crate) struct Cache {
    slots: BTreeMap<&'static str, Slot>,
}

impl Cache {
    pub(crate) fn new(questions: impl IntoIterator<Item = &'static str>) -> Self {
        Self { slots: questions.into_iter().map(|question| (question, Slot::default())).collect() }
    }

    /// The answer to `question`: the one that is kept, or what `ask` says now.
    pub(crate) async fn get<F>(&self, question: &str, ask: F) -> Result<Bytes, Problem>
    where
        F: Future<Output = Result<Bytes, Problem>> + Send + 'static,
    {
        let Some(slot) = self.slots.get(question) else { return ask.await };
        let mut slot = Arc::clone(slot).lock_owned().await;
        if let Some(kept) = slot.as_ref().filter(|kept| kept.since.elapsed() < FRESH) {
            return Ok(kept.text.clone());
        }
        *slot = None;
        // It goes on when the client leaves.
        let asking = tokio::spawn(fill(slot, ask));
        asking.await.unwrap_or_else(|_| Err(Problem::stopping()))
    }

    /// After an order all is different.
    pub(crate) async fn forget(&self) {
        for slot in self.slots.values() {
            *slot.lock().await = None;
        }
    }
}

async fn fill(
    mut slot: OwnedMutexGuard<Option<CachedAnswer>>,
    ask: impl Future<Output = Result<Bytes, Problem>>,
) -> Result<Bytes, Problem> {
    let text = ask.await?;
    *slot = Some(CachedAnswer { since: Instant::now(), text: text.clone() });
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Counter;

    use super::*;

    /// Answers with how often it was asked.
    fn asked(times: &Arc<Counter<u8>>) -> impl Future<Output = Result<Bytes, Problem>> + Send + 'static {
        let times = Arc::clone(times);
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut times = times.lock().unwrap();
            *times += 1;
            Ok(Bytes::from(times.to_string()))
        }
    }

    #[tokio::test]
    async fn many_who_ask_at_once_cost_one_question() {
        let (cache, times) = (Arc::new(Cache::new(["status"])), Arc::default());
        let clients: Vec<_> = (0..50)
            .map(|_| {
                let (cache, ask) = (Arc::clone(&cache), asked(&times));
                tokio::spawn(async move { cache.get("status", ask).await })
            })
            .collect();
        for client in clients {
            assert_eq!(client.await.unwrap(), Ok(Bytes::from("1")));
        }
        cache.forget().await;
        assert_eq!(cache.get("status", asked(&times)).await, Ok(Bytes::from("2")), "after an order it is asked anew");
        assert_eq!(cache.get("drill", asked(&times)).await, Ok(Bytes::from("3")), "this one is not kept");
        assert_eq!(cache.get("drill", asked(&times)).await, Ok(Bytes::from("4")));
    }

    #[tokio::test]
    async fn a_question_whose_client_has_gone_is_answered_for_the_next() {
        let (cache, times) = (Cache::new(["status"]), Arc::default());
        let gone = tokio::time::timeout(Duration::from_millis(5), cache.get("status", asked(&times))).await;
        assert!(gone.is_err());
        assert_eq!(cache.get("status", asked(&times)).await, Ok(Bytes::from("1")));
    }

    #[tokio::test]
    async fn an_error_is_not_kept() {
        let (cache, times) = (Cache::new(["status"]), Arc::default());
        let failed = cache.get("status", async { Err(Problem::stopping()) }).await;
        assert_eq!(failed, Err(Problem::stopping()));
        assert_eq!(cache.get("status", asked(&times)).await, Ok(Bytes::from("1")));
    }
}
