//! Replies that belong to no connection: version negotiation, Retry, refusals and stateless reset.

use ringway_datapath::device::Device;
use ringway_datapath::meta::{ReceiveMeta, TransmitMeta};
use ringway_engine::connection::drops::DropReason;
use ringway_types::{Ecn, Instant};

use super::limits::{NO_SENDER, STATELESS_BYTES_MAX};

/// Replies that wait to be sent; at most as many as one turn may send.
pub(super) struct StatelessQueue {
    max: usize,
    replies: Vec<(TransmitMeta, Box<[u8]>)>,
    written: u64,
}

impl StatelessQueue {
    /// For so many replies in one turn.
    pub(super) fn new(max: usize) -> Self {
        StatelessQueue {
            max,
            replies: Vec::new(),
            written: 0,
        }
    }

    /// Queues a reply to a datagram. `write` returns its length, or `None` if there is nothing to reply.
    pub(super) fn push(
        &mut self,
        to: &ReceiveMeta,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<(), DropReason> {
        if self.replies.len() >= self.max {
            return Err(DropReason::StatelessLimit);
        }
        let mut buffer = [0; STATELESS_BYTES_MAX];
        let len = write(&mut buffer).ok_or(DropReason::StatelessLimit)?;
        let meta = TransmitMeta {
            port: to.port,
            remote: to.remote,
            local_ip: (!to.local.ip().is_unspecified()).then(|| to.local.ip()),
            ecn: Ecn::NotEct,
            dscp: 0,
            segment_size: len,
            sender: NO_SENDER,
            probe_timeouts: 0,
        };
        self.replies.push((meta, buffer[..len].into()));
        self.written += 1;
        Ok(())
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.replies.len()
    }

    /// How many there have been.
    pub(super) fn written(&self) -> u64 {
        self.written
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

#[cfg(all(test, feature = "sim"))]
mod tests {
    use ringway_datapath::local::LocalDevice;
    use ringway_datapath::port::BoundPort;
    use ringway_datapath::sim::{SimDevice, SimNetwork};
    use ringway_types::PortId;

    use super::*;

    /// They are `WorkerStats::queued_stateless_replies`, and then `stateless_replies` alone.
    #[test]
    fn replies_wait_until_the_device_takes_them_and_no_more_than_told() {
        let network = SimNetwork::new(1);
        let local = "192.0.2.1:443".parse().unwrap();
        let mut device = Device::from(LocalDevice::Sim(SimDevice::new(&network, 1)));
        let port = BoundPort::Sim(network.bind(local).unwrap());
        device.attach(PortId(0), port).unwrap();
        let to = ReceiveMeta {
            port: PortId(0),
            remote: "198.51.100.1:5000".parse().unwrap(),
            local,
            ecn: Ecn::NotEct,
            segment_size: 1200,
        };
        let mut queue = StatelessQueue::new(2);
        let mut push = || queue.push(&to, |_| Some(30)).is_ok();
        assert_eq!([push(), push(), push()], [true, true, false]);
        assert_eq!((queue.len(), queue.written()), (2, 2));
        assert_eq!(queue.flush(Instant::from_nanos(1), &mut device), 2);
        assert_eq!((queue.len(), queue.written()), (0, 2));
    }
}
