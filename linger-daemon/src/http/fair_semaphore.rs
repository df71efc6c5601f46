//! A semaphore that is fair among peers, for work that only a few may do at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::listen::Peer;
use crate::sync::lock;

/// Semaphores by peer; only those in use exist.
pub(super) struct PeerSemaphores {
    permits: usize,
    peers: Mutex<HashMap<Peer, Weak<Semaphore>>>,
}

impl PeerSemaphores {
    /// Creates semaphores with this many permits for each peer.
    pub(super) fn new(permits: usize) -> Self {
        let peers = Mutex::default();
        Self { permits, peers }
    }

    /// Returns the semaphore of a peer.
    pub(super) fn of(&self, peer: Peer) -> Arc<Semaphore> {
        let mut peers = lock(&self.peers);
        peers.retain(|_, semaphore| semaphore.strong_count() > 0);
        let known = peers.get(&peer).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let semaphore = Arc::new(Semaphore::new(self.permits));
            peers.insert(peer, Arc::downgrade(&semaphore));
            semaphore
        })
    }
}

/// A semaphore that serves peers in turn, and the requests of one peer in their order. tokio's semaphore has one queue,
/// in which many requests of one peer would delay all others.
pub(super) struct FairSemaphore {
    permits: Arc<Semaphore>,
    /// Limits those that wait for a permit to one request of each peer; the peer's other requests wait for that one.
    turns: PeerSemaphores,
}

impl FairSemaphore {
    /// Creates a semaphore with this many permits.
    pub(super) fn new(permits: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(permits)),
            turns: PeerSemaphores::new(1),
        }
    }

    /// Waits for a permit.
    pub(super) async fn acquire(&self, peer: Peer) -> OwnedSemaphorePermit {
        const OPEN: &str = "the semaphores are never closed";
        let turns = self.turns.of(peer);
        let _turn = turns.acquire().await.expect(OPEN);
        let permits = Arc::clone(&self.permits);
        permits.acquire_owned().await.expect(OPEN)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn host(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Returns the permit, if it has been granted.
    fn poll<T>(waits: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match waits.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn peers_take_turns_even_if_many_requests_of_one_wait() {
        let semaphore = FairSemaphore::new(1);
        let first = poll(pin!(semaphore.acquire(Some(host(1))))).expect("it is free");
        let (mut second, mut third) = (
            pin!(semaphore.acquire(Some(host(1)))),
            pin!(semaphore.acquire(Some(host(1)))),
        );
        assert!(poll(second.as_mut()).is_none() && poll(third.as_mut()).is_none());
        let mut other = pin!(semaphore.acquire(Some(host(2))));
        assert!(poll(other.as_mut()).is_none());
        drop(first);
        let permit = poll(second.as_mut()).expect("it came first");
        drop(permit);
        assert!(poll(third.as_mut()).is_none());
        let permit = poll(other.as_mut()).expect("its peer is next");
        drop(permit);
        assert!(poll(third.as_mut()).is_some());
    }

    #[test]
    fn unused_semaphores_are_forgotten() {
        let semaphores = PeerSemaphores::new(1);
        let one = semaphores.of(Some(host(1)));
        assert!(Arc::ptr_eq(&one, &semaphores.of(Some(host(1)))));
        drop(one);
        let _two = semaphores.of(Some(host(2)));
        assert_eq!(semaphores.peers.lock().unwrap().len(), 1);
    }
}
