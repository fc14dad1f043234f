//! What the halves of a stream share with its handler.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use ringway::Stream;

use crate::slots::{ReceiveSlot, SendSlot};
use crate::var_int::StreamId;

/// What the halves of a stream share with its handler.
pub(crate) struct StreamShared {
    pub(crate) id: StreamId,
    /// The peer has opened it in 0-RTT.
    pub(crate) zero_rtt: bool,
    pub(crate) receive: ReceiveSlot,
    pub(crate) send: SendSlot,
    /// The application has it.
    pub(crate) accepted: AtomicBool,
    /// It has ended, and is bidirectional.
    pub(crate) over: AtomicBool,
    /// Set by the worker.
    pub(crate) callback: OnceLock<Stream>,
}

impl StreamShared {
    fn new(id: StreamId, zero_rtt: bool, accepted: bool) -> Self {
        StreamShared {
            id,
            zero_rtt,
            receive: ReceiveSlot::new(),
            send: SendSlot::new(),
            accepted: AtomicBool::new(accepted),
            over: AtomicBool::new(false),
            callback: OnceLock::new(),
        }
    }
}

thread_local! {
    /// Memory of streams that are over, as new, for the next ones of this thread.
    static FREE: RefCell<Vec<Arc<StreamShared>>> = const { RefCell::new(Vec::new()) };
}

/// Of so many streams.
const FREE_MAX: usize = 1024;

/// A reference to a stream. Whoever drops the last one keeps the memory for the next stream.
#[derive(Clone)]
pub(crate) struct StreamRef(Option<Arc<StreamShared>>);

impl StreamRef {
    pub(crate) fn new(id: StreamId, zero_rtt: bool, accepted: bool) -> Self {
        let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        if let Some(mut free) = free
            && let Some(shared) = Arc::get_mut(&mut free)
        {
            (shared.id, shared.zero_rtt) = (id, zero_rtt);
            *shared.accepted.get_mut() = accepted;
            return StreamRef(Some(free));
        }
        StreamRef(Some(Arc::new(StreamShared::new(id, zero_rtt, accepted))))
    }

    /// There is no other reference to it, and none will come.
    pub(crate) fn is_alone(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|shared| Arc::strong_count(shared) == 1)
    }

    pub(crate) fn is(&self, other: &StreamRef) -> bool {
        std::ptr::eq::<StreamShared>(&**self, &**other)
    }
}

impl Deref for StreamRef {
    type Target = StreamShared;

    #[inline]
    fn deref(&self) -> &StreamShared {
        self.0.as_ref().expect("it is taken by the drop alone")
    }
}

impl Drop for StreamRef {
    fn drop(&mut self) {
        // Two that see each other go the usual way.
        if !self.is_alone() {
            return;
        }
        let Some(mut shared) = self.0.take() else { return };
        let Some(over) = Arc::get_mut(&mut shared) else {
            return;
        };
        // The worker's handle, and what was not read.
        *over = StreamShared::new(over.id, false, false);
        // `Err`: the thread ends.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < FREE_MAX {
                free.push(shared);
            }
        });
    }
}
