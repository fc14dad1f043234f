//! Packets that do not fit a frame.

/// Bytes of the longest packet in several frames, with its headers.
pub(super) const JUMBO_BYTES: usize = 9216 + 64;
/// Frames that it takes at most.
pub(super) const JUMBO_FRAMES: usize = JUMBO_BYTES.div_ceil(3500);

/// Packets longer than a frame lie in several: they are put together and taken apart here, which costs a copy.
pub(super) struct Jumbo {
    pub(super) building: Box<[u8]>,
    /// What has come of one, if all of it has not.
    received: Vec<u8>,
    /// It is longer than any can be: thrown away up to its end.
    too_long: bool,
}

impl Jumbo {
    pub(super) fn new() -> Jumbo {
        Jumbo {
            building: vec![0; JUMBO_BYTES].into(),
            received: Vec::with_capacity(JUMBO_BYTES),
            too_long: false,
        }
    }

    /// Takes the part of a packet in one frame, and gives the packet if it is the last part.
    pub(super) fn take(&mut self, part: &[u8], more: bool) -> Option<&mut [u8]> {
        self.too_long |= self.received.len() + part.len() > JUMBO_BYTES;
        if !self.too_long {
            self.received.extend_from_slice(part);
        }
        (!more).then_some(&mut self.received[..])
    }

    pub(super) fn clear(&mut self) {
        self.received.clear();
        self.too_long = false;
    }
}
