//! What `ringperf` and the tests share: event loops of our own.

pub mod event_loop;
