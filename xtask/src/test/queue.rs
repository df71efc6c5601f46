//! A queue of items shared by several threads.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A queue that hands out each item once.
pub(super) struct Queue<'a, T> {
    items: &'a [T],
    next: AtomicUsize,
}

impl<'a, T> Queue<'a, T> {
    pub(super) fn new(items: &'a [T]) -> Self {
        Self {
            items,
            next: AtomicUsize::new(0),
        }
    }

    /// Takes the next item, if one is left.
    pub(super) fn next(&self) -> Option<&'a T> {
        self.items.get(self.next.fetch_add(1, Ordering::Relaxed))
    }
}
