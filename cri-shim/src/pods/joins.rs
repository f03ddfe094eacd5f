//! RunPodSandbox calls under way: a repeated one joins, and gets the same answer.
//!
//! A call that has succeeded but whose client was gone by then is handed out once more, to the same pod and attempt. If
//! nobody asks within four minutes and no container was made in it, the sandbox is removed again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tonic::Status;

use super::plan::Key;

/// How long a sandbox waits for a client that hung up.
pub(super) const CLAIM: Duration = Duration::from_secs(240);

type Outcome = Option<Result<String, Status>>;

/// The calls.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    flights: Mutex<HashMap<Key, Flight>>,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    outcome: watch::Receiver<Outcome>,
}

/// What a call is.
pub(super) enum Role {
    /// The first: it does the work and tells the others.
    First(watch::Sender<Outcome>, Ticket),
    /// Joined to one that is there.
    Joined(Ticket),
}

/// A place in a call.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    key: Key,
    number: u64,
    outcome: watch::Receiver<Outcome>,
}

impl Joins {
    pub(super) fn enter(&self, key: &Key) -> Role {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(key) {
            let outcome = flight.outcome.clone();
            return Role::Joined(Ticket { key: key.clone(), number: flight.number, outcome });
        }
        let (sender, outcome) = watch::channel(None);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        flights.insert(key.clone(), Flight { number, outcome: outcome.clone() });
        Role::First(sender, Ticket { key: key.clone(), number, outcome })
    }

    /// Ends a call: the next one with its key begins anew. Whether it was still there.
    pub(super) fn leave(&self, ticket: &Ticket) -> bool {
        let mut flights = self.lock();
        let there = flights.get(&ticket.key).is_some_and(|f| f.number == ticket.number);
        if there {
            flights.remove(&ticket.key);
        }
        there
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

impl Ticket {
    /// The outcome, once it is there.
    pub(super) async fn outcome(&mut self) -> Result<String, Status> {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(lost())),
            Err(_) => Err(lost()),
        }
    }
}

fn lost() -> Status {
    Status::internal("the work on this sandbox came to nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(attempt: u32) -> Key {
        Key { namespace: "d".into(), name: "p".into(), uid: "u".into(), attempt }
    }

    #[tokio::test]
    async fn a_repeated_call_gets_the_first_ones_answer() {
        let joins = Joins::default();
        let Role::First(sender, first) = joins.enter(&key(0)) else { panic!("the first") };
        let Role::Joined(mut second) = joins.enter(&key(0)) else { panic!("joined") };
        assert!(matches!(joins.enter(&key(1)), Role::First(..)), "another attempt is another call");
        sender.send(Some(Ok("id".into()))).expect("listeners");
        assert_eq!(second.outcome().await.expect("answer"), "id");
        assert!(joins.leave(&second));
        assert!(!joins.leave(&first), "claimed once");
        assert!(matches!(joins.enter(&key(0)), Role::First(..)));
    }

    #[tokio::test]
    async fn work_that_dies_is_told() {
        let joins = Joins::default();
        let Role::First(sender, _) = joins.enter(&key(0)) else { panic!("the first") };
        let Role::Joined(mut second) = joins.enter(&key(0)) else { panic!("joined") };
        drop(sender);
        assert!(second.outcome().await.is_err());
    }
}
