//! A semaphore that is fair among peers, for work that only a few may do at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::listen::Peer;
use crate::sync::lock;

/// Semaphores by peer; only those in use exist.
#[derive(Default)]
pub(super) struct PeerSemaphores(Mutex<HashMap<Peer, Weak<Semaphore>>>);

impl PeerSemaphores {
    /// Returns the semaphore of a peer, with this many permits.
    pub(super) fn of(&self, peer: Peer, permits: usize) -> Arc<Semaphore> {
        let mut peers = lock(&self.0);
        peers.retain(|_, semaphore| semaphore.strong_count() > 0);
        let known = peers.get(&peer).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let semaphore = Arc::new(Semaphore::new(permits));
            peers.insert(peer, Arc::downgrade(&semaphore));
            semaphore
        })
    }
}

/// A semaphore of which no peer can take all permits, and that limits the requests of each peer. tokio's semaphore has
/// one queue, in which many requests of one peer would delay all others.
pub(super) struct FairSemaphore {
    permits: Arc<Semaphore>,
    most_of_peer: usize,
    /// Limits the permits that a peer has or waits for; the peer's other requests wait for those.
    permits_of_peer: PeerSemaphores,
    /// Limits the requests of a peer that have a permit or wait.
    requests_of_peer: PeerSemaphores,
}

/// A permit, released when dropped.
pub(super) struct Permit {
    _of_all: OwnedSemaphorePermit,
    _of_peer: OwnedSemaphorePermit,
    _request: OwnedSemaphorePermit,
}

impl FairSemaphore {
    /// Creates a semaphore with this many permits: in total, and for one peer.
    pub(super) fn new(permits: usize, most_of_peer: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(permits)),
            most_of_peer,
            permits_of_peer: PeerSemaphores::default(),
            requests_of_peer: PeerSemaphores::default(),
        }
    }

    /// Waits for a permit. Returns `None` at once if this many requests of the peer have one or wait already.
    pub(super) async fn acquire(&self, peer: Peer, requests: usize) -> Option<Permit> {
        const OPEN: &str = "the semaphores are never closed";
        let request = self.requests_of_peer.of(peer, requests);
        let request = request.try_acquire_owned().ok()?;
        let of_peer = self.permits_of_peer.of(peer, self.most_of_peer);
        let of_peer = of_peer.acquire_owned().await;
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        Some(Permit {
            _of_all: permit.expect(OPEN),
            _of_peer: of_peer.expect(OPEN),
            _request: request,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::pin::pin;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn host(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Returns the permit, if it has been granted.
    async fn poll(waits: impl Future<Output = Option<Permit>>) -> Option<Permit> {
        let granted = timeout(Duration::ZERO, waits).await.ok();
        granted.map(|permit| permit.expect("few requests wait"))
    }

    #[tokio::test]
    async fn a_peer_has_neither_all_permits_nor_all_of_the_queue() {
        let semaphore = FairSemaphore::new(2, 1);
        let acquire = |last| semaphore.acquire(Some(host(last)), 2);
        let first = poll(acquire(1)).await;
        let mut second = pin!(acquire(1));
        assert!(first.is_some() && poll(second.as_mut()).await.is_none());
        let third = timeout(Duration::ZERO, acquire(1)).await;
        assert!(matches!(third, Ok(None)), "a third is refused");
        let _other = poll(acquire(2)).await.expect("one is left");
        let mut last = pin!(acquire(3));
        assert!(poll(last.as_mut()).await.is_none());
        drop(first);
        assert!(poll(second.as_mut()).await.is_none());
        let permit = poll(last.as_mut()).await.expect("its peer is next");
        drop(permit);
        assert!(poll(second.as_mut()).await.is_some());
    }

    #[test]
    fn unused_semaphores_are_forgotten() {
        let semaphores = PeerSemaphores::default();
        let one = semaphores.of(None, 1);
        assert!(Arc::ptr_eq(&one, &semaphores.of(None, 1)));
        drop(one);
        let _two = semaphores.of(Some([192, 0, 2, 1].into()), 1);
        assert_eq!(semaphores.0.lock().unwrap().len(), 1);
    }
}
