//! From the connections into the device's transmit slots.

use ringway_datapath::device::Device;
use ringway_datapath::meta::TransmitMeta;
use ringway_types::Instant;

use super::Worker;
use super::limits::{DATAGRAMS_PER_CONNECTION_PER_TURN, SLOTS_PER_CONNECTION_PER_TURN};

impl Worker {
    /// Connections may have something to send, or answers of no connection wait.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || self.stateless.len() > 0
    }

    /// Lets each connection that may have something to send fill slots, in turn. Stops when the device is blocked.
    /// Returns how many slots were filled.
    pub(crate) fn transmit(&mut self, now: Instant, device: &mut Device) -> usize {
        let mut filled = self.stateless.flush(now, device);
        // It may have turned out that GSO fails.
        self.limits.segments_max = device.capabilities().send_segments_max;
        let slots = match self.limits.segments_max {
            1 => DATAGRAMS_PER_CONNECTION_PER_TURN,
            _ => SLOTS_PER_CONNECTION_PER_TURN,
        };
        // Connections that become ready meanwhile, or stay ready, wait for the next turn.
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else {
                break;
            };
            let Some(slot) = self.slots.get_mut(index as usize) else {
                continue;
            };
            slot.ready = false;
            let Some(mut hosted) = slot.hosted.take() else {
                continue;
            };
            hosted.delays.sends.add(now.since(slot.ready_since));
            let mut blocked = false;
            let mut more = true;
            for _ in 0..slots {
                let Some(buffer) = device.slot() else {
                    blocked = true;
                    break;
                };
                let limits = &self.limits;
                let Some(transmit) = hosted
                    .guarded(now, |hosted| hosted.engine.transmit(now, buffer, limits))
                    .flatten()
                else {
                    more = false;
                    break;
                };
                let meta = TransmitMeta {
                    port: transmit.path.port,
                    remote: transmit.path.remote,
                    local_ip: (!transmit.path.local.ip().is_unspecified()).then(|| transmit.path.local.ip()),
                    ecn: transmit.ecn,
                    dscp: transmit.dscp,
                    segment_size: transmit.segment_size,
                    sender: index,
                    probe_timeouts: transmit.probe_timeouts,
                };
                device.commit(now, &meta, transmit.len);
                filled += 1;
            }
            hosted.engine.shrink_to_fit();
            if hosted.has_events() || hosted.engine.is_drained() || hosted.engine.has_cid_changes() {
                // This also marks it as ready again.
                self.put_back(now, index, hosted);
            } else {
                let slot = &mut self.slots[index as usize];
                slot.hosted = Some(hosted);
                if more && !slot.ready {
                    slot.ready = true;
                    slot.ready_since = now;
                    self.ready.push_back(index);
                }
            }
            if self.slots.contains(index as usize) {
                self.rearm(index);
            }
            if blocked {
                break;
            }
        }
        filled
    }
}
