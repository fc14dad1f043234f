//! What one thread hands to another one: a box, in a place for one.

use crossbeam_utils::atomic::AtomicCell;

/// A place for one box. Putting and taking are each one atomic exchange of a pointer, without a lock.
pub(crate) struct Handover<T>(AtomicCell<Option<Box<T>>>);

impl<T> Handover<T> {
    pub(crate) fn new() -> Self {
        const { assert!(AtomicCell::<Option<Box<T>>>::is_lock_free()) };
        Handover(AtomicCell::new(None))
    }

    /// Puts a box there. What was there, and nobody has taken, is dropped.
    pub(crate) fn put(&self, item: Box<T>) {
        self.0.swap(Some(item));
    }

    /// Takes what is there.
    pub(crate) fn take(&self) -> Option<Box<T>> {
        self.0.swap(None)
    }
}
