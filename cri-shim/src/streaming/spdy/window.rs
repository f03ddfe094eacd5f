//! Flow control of what is sent: how many bytes the peer has room for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// What both ends begin with.
pub(super) const INITIAL: i64 = 64 * 1024;

/// Whether the peer does flow control at all. The clients of Kubernetes announce no room and ignore that of others: with
/// them only the TCP connection holds up a sender. Known from the first frame that speaks of windows.
#[derive(Debug, Default)]
pub(super) struct Honoured(AtomicBool);

impl Honoured {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The room of a stream, or of all of them.
#[derive(Debug)]
pub(super) struct Window {
    /// Bytes; none when the stream is gone.
    left: Mutex<Option<i64>>,
    more: Notify,
}

impl Window {
    pub(super) fn new(bytes: i64) -> Self {
        Self { left: Mutex::new(Some(bytes)), more: Notify::new() }
    }

    /// Takes room for up to `want` bytes, waiting for some; `None` when the stream is gone.
    pub(super) async fn take(&self, want: usize, honoured: &Honoured) -> Option<usize> {
        let want = i64::try_from(want).unwrap_or(i64::MAX);
        loop {
            let mut more = std::pin::pin!(self.more.notified());
            more.as_mut().enable();
            {
                let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
                let left = left.as_mut()?;
                let now = if honoured.get() { want.min(*left) } else { want };
                if now > 0 {
                    *left -= now;
                    return usize::try_from(now).ok();
                }
            }
            more.await;
        }
    }

    /// The peer has room for more (or, by SETTINGS, for less).
    pub(super) fn grant(&self, delta: i64) {
        if let Some(left) = self.left.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            *left = left.saturating_add(delta);
        }
        self.more.notify_waiters();
    }

    /// The stream is gone: nobody waits any longer.
    pub(super) fn close(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.more.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_counts_is_not_overrun_and_one_that_does_not_is_not_waited_for() {
        let (honoured, window) = (Honoured::default(), Window::new(10));
        assert_eq!(window.take(100, &honoured).await, Some(100));
        honoured.set();
        window.grant(95);
        assert_eq!(window.take(100, &honoured).await, Some(5));
        let waits = tokio::time::timeout(Duration::from_millis(20), window.take(1, &honoured));
        assert!(waits.await.is_err());
        let (taken, ()) = tokio::join!(window.take(9, &honoured), async { window.grant(3) });
        assert_eq!(taken, Some(3));
        let (taken, ()) = tokio::join!(window.take(9, &honoured), async { window.close() });
        assert_eq!(taken, None);
    }
}
