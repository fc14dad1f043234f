//! From connections into the device's transmit slots.

use ringway_datapath::device::Device;
use ringway_datapath::meta::{ReceiveMeta, TransmitMeta};
use ringway_engine::connection::drops::DropReason;
use ringway_types::{Ecn, Instant};

use super::Worker;
use super::limits::{
    SINGLES_PER_CONNECTION_PER_TURN, SLOTS_PER_CONNECTION_PER_TURN, STATELESS_BYTES_MAX, STATELESS_PER_TURN,
};

impl Worker {
    /// Lets every connection that may have something to send fill slots, in turn. Stops when the device
    /// is blocked. Gives the number of slots filled.
    pub fn transmit(&mut self, now: Instant, device: &mut Device) -> usize {
        let mut filled = self.stateless.flush(now, device);
        let slots = match self.limits.segments_max {
            1 => SINGLES_PER_CONNECTION_PER_TURN,
            _ => SLOTS_PER_CONNECTION_PER_TURN,
        };
        // Those that are ready now; those that become ready meanwhile (or stay so) wait for the next turn.
        for _ in 0..self.ready.len() {
            let Some(place) = self.ready.pop_front() else {
                break;
            };
            let Some(slot) = self.slots.get_mut(place as usize) else {
                continue;
            };
            slot.ready = false;
            let Some(mut hosted) = slot.hosted.take() else {
                continue;
            };
            let mut blocked = false;
            let mut more = true;
            for _ in 0..slots {
                let Some(buffer) = device.slot() else {
                    blocked = true;
                    break;
                };
                let Some(transmit) = hosted.engine.transmit(now, buffer, &self.limits) else {
                    more = false;
                    break;
                };
                let meta = TransmitMeta {
                    port: transmit.path.port,
                    remote: transmit.path.remote,
                    local_ip: (!transmit.path.local.ip().is_unspecified()).then(|| transmit.path.local.ip()),
                    ecn: transmit.ecn,
                    segment_size: transmit.segment_size,
                };
                device.commit(now, &meta, transmit.len);
                filled += 1;
            }
            hosted.engine.shrink_to_fit();
            if hosted.has_events() || hosted.engine.is_drained() {
                // Also notes it as ready again.
                self.put_back(now, place, hosted);
            } else {
                let slot = &mut self.slots[place as usize];
                slot.hosted = Some(hosted);
                if more && !slot.ready {
                    slot.ready = true;
                    self.ready.push_back(place);
                }
            }
            if self.slots.contains(place as usize) {
                self.rearm(place);
            }
            if blocked {
                break;
            }
        }
        filled
    }
}

/// Packets to be sent that belong to no connection: as many as one turn may send, then none.
#[derive(Default)]
pub(super) struct StatelessQueue {
    replies: Vec<(TransmitMeta, Box<[u8]>)>,
}

impl StatelessQueue {
    /// Writes an answer to a datagram; `write` gives its length, or `None` if there is none to give.
    pub(super) fn push(
        &mut self,
        to: &ReceiveMeta,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<(), DropReason> {
        if self.replies.len() >= STATELESS_PER_TURN {
            return Err(DropReason::StatelessLimit);
        }
        let mut buffer = [0; STATELESS_BYTES_MAX];
        let len = write(&mut buffer).ok_or(DropReason::StatelessLimit)?;
        let meta = TransmitMeta {
            port: to.port,
            remote: to.remote,
            local_ip: (!to.local.ip().is_unspecified()).then(|| to.local.ip()),
            ecn: Ecn::NotEct,
            segment_size: len,
        };
        self.replies.push((meta, buffer[..len].into()));
        Ok(())
    }

    fn flush(&mut self, now: Instant, device: &mut Device) -> usize {
        let mut sent = 0;
        for (meta, bytes) in &self.replies {
            let Some(slot) = device.slot() else { break };
            slot[..bytes.len()].copy_from_slice(bytes);
            device.commit(now, meta, bytes.len());
            sent += 1;
        }
        self.replies.drain(..sent);
        sent
    }
}
