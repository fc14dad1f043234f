//! Replies that belong to no connection: version negotiation, Retry, refusals and stateless reset.

use ringway_datapath::device::Device;
use ringway_datapath::meta::{ReceiveMeta, TransmitMeta};
use ringway_engine::connection::drops::DropReason;
use ringway_types::{Ecn, Instant};

use super::limits::{NO_SENDER, STATELESS_BYTES_MAX, STATELESS_PER_TURN};

/// Replies that wait to be sent; at most as many as one turn may send.
#[derive(Default)]
pub(super) struct StatelessQueue {
    replies: Vec<(TransmitMeta, Box<[u8]>)>,
}

impl StatelessQueue {
    /// Queues a reply to a datagram. `write` returns its length, or `None` if there is nothing to reply.
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
            sender: NO_SENDER,
            probe_timeouts: 0,
        };
        self.replies.push((meta, buffer[..len].into()));
        Ok(())
    }

    /// Sends the replies, as far as the device takes them. Returns how many slots were filled.
    pub(super) fn flush(&mut self, now: Instant, device: &mut Device) -> usize {
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
