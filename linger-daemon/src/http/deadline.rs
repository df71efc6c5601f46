//! When the answer under way on a connection must have been taken.

use std::future::pending;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Sets the deadline of one connection.
#[derive(Clone)]
pub(super) struct Deadline(watch::Sender<Option<Instant>>);

impl Deadline {
    /// A deadline that is not set, and what waits for it.
    pub(super) fn new() -> (Self, Overdue) {
        let (set, watched) = watch::channel(None);
        (Self(set), Overdue(watched))
    }

    /// The answer must have been taken by then.
    pub(super) fn set(&self, at: Instant) {
        self.0.send_replace(Some(at));
    }

    /// The answer is taken.
    pub(super) fn lift(&self) {
        self.0.send_replace(None);
    }
}

/// Waits for the deadline of one connection.
pub(super) struct Overdue(watch::Receiver<Option<Instant>>);

impl Overdue {
    /// Done when a deadline passes before it is lifted.
    pub(super) async fn passed(mut self) {
        loop {
            let deadline = *self.0.borrow_and_update();
            let passed = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = passed => return,
                changed = self.0.changed() => if changed.is_err() {
                    // No answer will come any more.
                    return pending().await;
                }
            }
        }
    }
}
