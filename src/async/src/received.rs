//! How received data outlives its event.

use bytes::{Bytes, BytesMut};
use ringway::ReceivedData;

/// Gives the data as chunks that can be kept: copied once.
pub(crate) fn keep(data: &ReceivedData<'_>, mut push: impl FnMut(Bytes)) {
    match data.slices() {
        [] => {}
        [slice] => push(Bytes::copy_from_slice(slice)),
        slices => {
            let mut chunk = BytesMut::with_capacity(data.len());
            slices.iter().for_each(|slice| chunk.extend_from_slice(slice));
            push(chunk.freeze());
        }
    }
}
