//! What the slots are made of. The model of them has loom's in its place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

pub(crate) use atomic_waker::AtomicWaker;
pub(crate) use ringway::wake_after_turn;
