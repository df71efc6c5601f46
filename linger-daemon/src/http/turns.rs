//! Who may have the ledger read and shown, a few at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::listen::Peer;

/// Gives out turns: to each peer one after another, and within a peer to who came first.
pub(super) struct Turns(Mutex<Queue>);

struct Queue {
    free: usize,
    /// Those that wait, of each peer; the peer whose turn is next comes first.
    peers: VecDeque<(Peer, VecDeque<oneshot::Sender<Turn>>)>,
}

/// A turn; the next one has it when it is dropped.
pub(super) struct Turn(Option<Arc<Turns>>);

impl Turns {
    /// So many turns at a time.
    pub(super) fn new(free: usize) -> Arc<Self> {
        let peers = VecDeque::new();
        Arc::new(Self(Mutex::new(Queue { free, peers })))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn.
    pub(super) async fn take(self: &Arc<Self>, peer: Peer) -> Turn {
        let comes = {
            let mut queue = self.queue();
            if queue.free > 0 {
                queue.free -= 1;
                return Turn(Some(Arc::clone(self)));
            }
            queue.join(peer)
        };
        comes.await.expect("whoever waits is given a turn")
    }

    /// Gives a turn that is over to the next who still waits.
    fn pass_on(self: &Arc<Self>) {
        loop {
            let waiting = {
                let mut queue = self.queue();
                let Some(waiting) = queue.next() else {
                    queue.free += 1;
                    return;
                };
                waiting
            };
            match waiting.send(Turn(Some(Arc::clone(self)))) {
                Ok(()) => return,
                // It waits no more.
                Err(mut turn) => drop(turn.0.take()),
            }
        }
    }
}

impl Queue {
    fn join(&mut self, peer: Peer) -> oneshot::Receiver<Turn> {
        let (waits, comes) = oneshot::channel();
        match self.peers.iter_mut().find(|(known, _)| *known == peer) {
            Some((_, waiting)) => waiting.push_back(waits),
            None => self.peers.push_back((peer, VecDeque::from([waits]))),
        }
        comes
    }

    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let (peer, mut waiting) = self.peers.pop_front()?;
        let next = waiting.pop_front();
        if !waiting.is_empty() {
            self.peers.push_back((peer, waiting));
        }
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
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

    /// The turn, if it has come.
    fn poll(waits: std::pin::Pin<&mut impl Future<Output = Turn>>) -> Option<Turn> {
        match waits.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn peers_take_turns_however_many_wait_of_one() {
        let turns = Turns::new(1);
        let first = poll(pin!(turns.take(host(1)))).expect("it is free");
        let (mut second, mut third) = (pin!(turns.take(host(1))), pin!(turns.take(host(1))));
        assert!(poll(second.as_mut()).is_none() && poll(third.as_mut()).is_none());
        let mut other = pin!(turns.take(host(2)));
        assert!(poll(other.as_mut()).is_none());
        drop(first);
        let turn = poll(second.as_mut()).expect("it came first");
        drop(turn);
        assert!(poll(third.as_mut()).is_none());
        let turn = poll(other.as_mut()).expect("its peer is next");
        drop(turn);
        assert!(poll(third.as_mut()).is_some());
    }

    #[test]
    fn no_turn_is_lost_with_those_who_wait_no_more() {
        let turns = Turns::new(1);
        let first = poll(pin!(turns.take(host(0)))).expect("it is free");
        {
            let mut gone = pin!(turns.take(host(0)));
            assert!(poll(gone.as_mut()).is_none());
        }
        let mut given = Box::pin(turns.take(host(1)));
        assert!(poll(given.as_mut()).is_none());
        drop(first);
        // It has the turn without having seen it.
        drop(given);
        assert!(poll(pin!(turns.take(host(2)))).is_some());
    }
}
