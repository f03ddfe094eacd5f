//! Creations under way, by sandbox, name and attempt: a retry joins the one that there is.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The id of the container, or why there is none.
pub(super) type Outcome = Option<Result<String, (tonic::Code, String)>>;

/// Sandbox, name, attempt.
pub(super) type Key = (String, String, u32);

/// CreateContainer calls under way.
#[derive(Debug, Default)]
pub(crate) struct Creating {
    map: Mutex<HashMap<Key, watch::Receiver<Outcome>>>,
}

/// What a call is.
pub(super) enum Role {
    /// It does the work and tells the others.
    First(watch::Sender<Outcome>),
    /// It waits for the first one.
    Joined(watch::Receiver<Outcome>),
}

impl Creating {
    pub(super) fn enter(&self, key: &Key) -> Role {
        let mut map = self.lock();
        // A first one that has panicked has dropped its end.
        if let Some(receiver) = map.get(key).filter(|r| r.has_changed().is_ok()) {
            return Role::Joined(receiver.clone());
        }
        let (sender, receiver) = watch::channel(None);
        map.insert(key.clone(), receiver);
        Role::First(sender)
    }

    pub(super) fn leave(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Waits until no creation in this sandbox is under way.
    pub(super) async fn settled(&self, sandbox: &str) {
        let all: Vec<_> =
            self.lock().iter().filter(|(key, _)| key.0 == sandbox).map(|(_, r)| r.clone()).collect();
        for mut outcome in all {
            // An end that was dropped is settled too.
            let _ = outcome.wait_for(Option::is_some).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, watch::Receiver<Outcome>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_joins_while_the_first_works() {
        let creating = Creating::default();
        let key = ("pod".to_owned(), "a".to_owned(), 0);
        let Role::First(sender) = creating.enter(&key) else { panic!("the first") };
        assert!(matches!(creating.enter(&key), Role::Joined(_)));
        assert!(matches!(creating.enter(&("pod".into(), "a".into(), 1)), Role::First(_)));
        drop(sender);
        assert!(matches!(creating.enter(&key), Role::First(_)), "one that was given up is begun anew");
    }
}
