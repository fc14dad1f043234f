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
