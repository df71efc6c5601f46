//! A semaphore that is fair among peers, for what only a few may do at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::listen::Peer;

/// Permits, which peers are given in turn, and the requests of one peer in their order. tokio's semaphore has one queue:
/// many requests of one peer would keep all others from theirs.
pub(super) struct FairSemaphore(Mutex<Queue>);

struct Queue {
    free: usize,
    /// Waiting requests by peer; the next peer comes first.
    peers: VecDeque<(Peer, VecDeque<oneshot::Sender<Permit>>)>,
}

/// A permit; the next one has it when it is dropped.
pub(super) struct Permit(Option<Arc<FairSemaphore>>);

impl FairSemaphore {
    /// So many permits.
    pub(super) fn new(free: usize) -> Arc<Self> {
        let peers = VecDeque::new();
        Arc::new(Self(Mutex::new(Queue { free, peers })))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit.
    pub(super) async fn acquire(self: &Arc<Self>, peer: Peer) -> Permit {
        let comes = {
            let mut queue = self.queue();
            if queue.free > 0 {
                queue.free -= 1;
                return Permit(Some(Arc::clone(self)));
            }
            queue.join(peer)
        };
        comes.await.expect("whoever waits is given a permit")
    }

    /// Gives a permit back: to the next who still waits.
    fn release(self: &Arc<Self>) {
        loop {
            let waiting = {
                let mut queue = self.queue();
                let Some(waiting) = queue.next() else {
                    queue.free += 1;
                    return;
                };
                waiting
            };
            match waiting.send(Permit(Some(Arc::clone(self)))) {
                Ok(()) => return,
                // It waits no more.
                Err(mut permit) => drop(permit.0.take()),
            }
        }
    }
}

impl Queue {
    fn join(&mut self, peer: Peer) -> oneshot::Receiver<Permit> {
        let (waits, comes) = oneshot::channel();
        match self.peers.iter_mut().find(|(known, _)| *known == peer) {
            Some((_, waiting)) => waiting.push_back(waits),
            None => self.peers.push_back((peer, VecDeque::from([waits]))),
        }
        comes
    }

    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        let (peer, mut waiting) = self.peers.pop_front()?;
        let next = waiting.pop_front();
        if !waiting.is_empty() {
            self.peers.push_back((peer, waiting));
        }
        next
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(semaphore) = self.0.take() {
            semaphore.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn host(last: u8) -> Peer {
        Some(IpAddr::from([192, 0, 2, last])).filter(|_| last > 0)
    }

    /// The permit, if it has come.
    fn poll(waits: std::pin::Pin<&mut impl Future<Output = Permit>>) -> Option<Permit> {
        match waits.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn peers_take_turns_however_many_wait_of_one() {
        let semaphore = FairSemaphore::new(1);
        let first = poll(pin!(semaphore.acquire(host(1)))).expect("it is free");
        let (mut second, mut third) = (
            pin!(semaphore.acquire(host(1))),
            pin!(semaphore.acquire(host(1))),
        );
        assert!(poll(second.as_mut()).is_none() && poll(third.as_mut()).is_none());
        let mut other = pin!(semaphore.acquire(host(2)));
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
    fn no_turn_is_lost_with_those_who_wait_no_more() {
        let semaphore = FairSemaphore::new(1);
        let first = poll(pin!(semaphore.acquire(host(0)))).expect("it is free");
        {
            let mut gone = pin!(semaphore.acquire(host(0)));
            assert!(poll(gone.as_mut()).is_none());
        }
        let mut given = Box::pin(semaphore.acquire(host(1)));
        assert!(poll(given.as_mut()).is_none());
        drop(first);
        // It has the permit without having seen it.
        drop(given);
        assert!(poll(pin!(semaphore.acquire(host(2)))).is_some());
    }
}
