//! A datagram's way from the device to its connection.

use ringway_datapath::device::Burst;
use ringway_datapath::meta::{LOCAL_CID_LEN, ReceiveMeta};

use super::Worker;
use crate::base::Instant;
use crate::connection::PathAddress;
use crate::connection::drops::DropReason;
use crate::wire::header;
use crate::wire::stateless;

impl Worker {
    /// Takes in a burst from the device: datagrams of one peer, back to back.
    pub fn on_burst(&mut self, now: Instant, burst: Burst<'_>) {
        let meta = burst.meta;
        let mut rest = burst.into_data();
        while !rest.is_empty() {
            let Some(place) = header::destination_cid(rest, LOCAL_CID_LEN)
                .and_then(|cid| self.routes.local_cid(cid))
            else {
                let len = meta.segment_size.min(rest.len());
                let (datagram, tail) = rest.split_at_mut(len);
                self.on_unrouted(now, &meta, datagram, true);
                rest = tail;
                continue;
            };
            // A GRO run nearly always belongs to one connection: look it up once and stay with it.
            rest = self.receive_run(now, place, &meta, rest);
        }
    }

    /// Gives datagrams to one connection for as long as they are its own; gives what is left.
    fn receive_run<'a>(
        &mut self,
        now: Instant,
        place: u32,
        meta: &ReceiveMeta,
        mut rest: &'a mut [u8],
    ) -> &'a mut [u8] {
        let Some(mut hosted) = self.take(place) else {
            // The handler of this very connection polls the context: no way to come here otherwise.
            return &mut [];
        };
        let path = PathAddress { port: meta.port, local: meta.local, remote: meta.remote };
        loop {
            let len = meta.segment_size.min(rest.len());
            let (datagram, tail) = rest.split_at_mut(len);
            rest = tail;
            let mut receive = hosted.engine.receive(&path, meta.ecn, datagram);
            while let Some(delivery) = hosted.engine.receive_next(now, &mut receive, &mut self.stats.drops) {
                hosted = hosted.deliver(now, delivery);
            }
            let same = header::destination_cid(rest, LOCAL_CID_LEN)
                .is_some_and(|cid| self.routes.local_cid(cid) == Some(place));
            if !same {
                self.put_back(now, place, hosted);
                return rest;
            }
        }
    }

    /// A datagram that another partition received and that names this one.
    pub(super) fn on_handed_over(&mut self, now: Instant, meta: &ReceiveMeta, datagram: &mut [u8]) {
        let place = header::destination_cid(datagram, LOCAL_CID_LEN).and_then(|cid| self.routes.local_cid(cid));
        match place {
            Some(place) => {
                self.receive_run(now, place, meta, datagram);
            }
            None => self.on_unrouted(now, meta, datagram, false),
        }
    }

    /// A datagram whose connection ID is none of this worker's: of another partition, of a handshake that just begins,
    /// a stateless reset, or nobody's.
    fn on_unrouted(&mut self, now: Instant, meta: &ReceiveMeta, datagram: &mut [u8], may_hand_over: bool) {
        let Some(cid) = header::destination_cid(datagram, LOCAL_CID_LEN) else {
            return self.stats.drops.add(DropReason::MalformedHeader);
        };
        let partition = self.partitioning.of_cid(cid);
        let is_ours_by_length = cid.len() == LOCAL_CID_LEN;
        if header::is_long(datagram) {
            // A client chooses the first connection ID: what it says of partitions is chance, where clients are listened to. On a port of
            // another partition's connections it is our own, as in the server's answers to them.
            let opens = header::may_open_connection(datagram)
                && (self.listens_on(meta) || self.routes.is_initial(meta.remote, cid));
            match partition {
                Some(other) if !opens && may_hand_over && is_ours_by_length && other != self.remote.partition => {
                    self.hand_over(other, meta, datagram);
                }
                _ => self.on_long_header(now, meta, datagram),
            }
            return;
        }
        if let Some(place) =
            stateless::reset_token_of(datagram).and_then(|token| self.routes.reset_token(meta.remote, &token))
        {
            if let Some(mut hosted) = self.take(place) {
                hosted.engine.on_stateless_reset(now);
                self.put_back(now, place, hosted);
            }
            return;
        }
        match partition {
            Some(other) if may_hand_over && other != self.remote.partition => self.hand_over(other, meta, datagram),
            _ => self.reset_peer(meta, datagram),
        }
    }

    fn hand_over(&mut self, partition: usize, meta: &ReceiveMeta, datagram: &[u8]) {
        // The meta of a burst describes a run; handed over is one datagram.
        let meta = ReceiveMeta { segment_size: datagram.len(), ..*meta };
        if self.workers[partition].hand_over(meta, datagram) {
            self.stats.handed_over += 1;
        } else {
            self.stats.drops.add(DropReason::HandoverFull);
        }
    }
}
