//! Faults that tests put into the engine.

use std::cell::Cell;

thread_local! {
    /// Calls of the engine until one panics.
    pub(crate) static CALLS_LEFT: Cell<u32> = const { Cell::new(u32::MAX) };
}

pub(crate) fn panic_if_asked() {
    CALLS_LEFT.with(|left| {
        left.set(left.get().saturating_sub(1));
        if left.get() == 0 {
            left.set(u32::MAX);
            panic!("as the test asked");
        }
    });
}
