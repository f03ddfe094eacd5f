//! One-time tokens: a request that was accepted over gRPC waits for its client to come over HTTP.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};

use super::error::Error;

/// How long a client has to come.
const EXPIRY: Duration = Duration::from_secs(60);
/// Most requests that wait.
const MAX_WAITING: usize = 1000;

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ticket {
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward(PortForwardRequest),
}

/// The requests that wait.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    waiting: Mutex<HashMap<String, (Instant, Ticket)>>,
}

impl Tokens {
    /// Keeps a request for its client; the token cannot be guessed.
    pub(super) fn issue(&self, ticket: Ticket, now: Instant) -> Result<String, Error> {
        let token = crate::fresh::random_hex::<16>().map_err(Error::io("random bytes"))?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, (expires, _)| *expires > now);
        if waiting.len() >= MAX_WAITING {
            return Err(Error::Exhausted(MAX_WAITING));
        }
        waiting.insert(token.clone(), (now + EXPIRY, ticket));
        Ok(token)
    }

    /// Gives out a request, once.
    pub(super) fn redeem(&self, token: &str, now: Instant) -> Option<Ticket> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (expires, ticket) = waiting.remove(token)?;
        (expires > now).then_some(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_for_a_minute() {
        let tokens = Tokens::default();
        let ticket = Ticket::PortForward(PortForwardRequest::default());
        let now = Instant::now();
        let token = tokens.issue(ticket.clone(), now).expect("token");
        assert_eq!(tokens.redeem(&token, now), Some(ticket.clone()));
        assert_eq!(tokens.redeem(&token, now), None);
        let token = tokens.issue(ticket.clone(), now).expect("token");
        assert_eq!(tokens.redeem(&token, now + EXPIRY), None);
        for _ in 0..MAX_WAITING {
            tokens.issue(ticket.clone(), now).expect("token");
        }
        assert!(matches!(tokens.issue(ticket.clone(), now), Err(Error::Exhausted(_))));
        tokens.issue(ticket, now + EXPIRY).expect("the others have expired");
    }
}
