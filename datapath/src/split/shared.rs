//! What both ends of a split device see, beside the rings between them.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use crossbeam_queue::SegQueue;
use ringway_types::PortId;

use crate::contract::DetachNotice;
use crate::port::BoundPort;

/// Endpoints come and go; it happens seldom.
pub(super) enum PortChange {
    Attach(PortId, BoundPort),
    Detach(PortId, DetachNotice),
}

/// What both ends see.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) ports: SegQueue<PortChange>,
    /// The worker found no slot: it wants to be woken when there is one.
    pub(super) wants_slot: AtomicBool,
    /// Bytes to be left free in front of a datagram.
    pub(super) headroom: AtomicUsize,
    /// Datagrams that the device takes as one, at most: it may turn out that it does not.
    pub(super) send_segments_max: AtomicUsize,
    /// Bytes of chunks that the application holds on to.
    pub(super) lent_bytes: AtomicUsize,
    /// The worker has gone.
    pub(super) closed: AtomicBool,
}
