//! How received data outlives its event.

use bytes::Bytes;
use ringway::{ReceivedData, ReceivedDatagram};

/// A packet's worth of less is copied: a block of its own costs less than the packet's memory, which a reader may hold for long.
const COPIED_MAX: usize = 512;

/// Gives the data as a chunk that can be kept. It stays in the packet that has brought it, where it can.
pub(crate) fn keep(data: &ReceivedData<'_>) -> Bytes {
    match data.slices() {
        [slice] if slice.len() <= COPIED_MAX => Bytes::copy_from_slice(slice),
        _ => data.keep().into(),
    }
}

/// The same of a datagram.
pub(crate) fn keep_datagram(datagram: &ReceivedDatagram<'_>) -> Bytes {
    if datagram.len() <= COPIED_MAX {
        Bytes::copy_from_slice(datagram)
    } else {
        datagram.keep().into()
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::events::RECEIVE_BUFFER;
    use crate::slots::{Batch, CHUNK, Found, ReceiveSlot};

    #[test]
    fn bytes_that_come_one_by_one_take_no_more_memory_than_many_at_a_time() {
        let slot = ReceiveSlot::new();
        let fill = || {
            let mut chunks = Box::<Batch>::default();
            while slot.reserve(1, RECEIVE_BUFFER) {
                chunks.push(Bytes::copy_from_slice(b"x"));
            }
            let count = chunks.len();
            assert!(slot.give(chunks).is_none());
            count
        };
        let count = fill();
        assert_eq!(count, RECEIVE_BUFFER / (1 + CHUNK));
        // All of the room comes back with what is read, and the worker is told once.
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Found::Data(batch)) = slot.poll(&mut cx) else {
            panic!("nothing is there");
        };
        let told = batch
            .iter()
            .filter(|chunk| slot.on_read(chunk.len() + CHUNK, RECEIVE_BUFFER));
        assert_eq!(told.count(), 1);
        assert_eq!(fill(), count);
    }
}
