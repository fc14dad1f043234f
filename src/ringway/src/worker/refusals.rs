//! Datagrams that the device refused: for their size, then the connections that sent them send smaller ones at once; or as there is no way to the
//! peer.

use std::io;

use ringway_datapath::device::Device;
use ringway_datapath::refusals::{Refusal, RefusalReason};
use ringway_types::Instant;

use super::Worker;

impl Worker {
    /// Tells connections which of their datagrams the device has refused since the last turn. True if one of them has heard of it, and may have
    /// something to send now.
    #[inline]
    pub(crate) fn on_refusals(&mut self, now: Instant, device: &mut Device) -> bool {
        let mut heard = false;
        while let Some(refusal) = device.take_refusal() {
            heard |= self.on_refusal(now, &refusal);
        }
        heard
    }

    fn on_refusal(&mut self, now: Instant, refusal: &Refusal) -> bool {
        let index = refusal.sender;
        let Some(mut hosted) = self.take(index) else {
            return false;
        };
        // Another connection may have the slot by now, or this one another path.
        let is_sender = hosted.engine.path().remote == refusal.remote;
        if is_sender {
            hosted.guarded(now, |hosted| match refusal.reason {
                RefusalReason::TooBig => {
                    hosted
                        .engine
                        .on_datagram_too_big(now, refusal.segment_size, refusal.bytes);
                }
                RefusalReason::Unreachable(errno) => {
                    let error = io::Error::from_raw_os_error(errno);
                    hosted.engine.on_unreachable(error.to_string());
                }
            });
        }
        self.put_back(now, index, hosted);
        if is_sender && self.slots.contains(index as usize) {
            self.rearm(index);
        }
        is_sender
    }
}
