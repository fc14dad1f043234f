//! What slots and waiters are made of. The model of them has loom's in its place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

pub(crate) use atomic_waker::AtomicWaker;
pub(crate) use crossbeam_queue::SegQueue;
pub(crate) use ringway::wake_after_turn;
