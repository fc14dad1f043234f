//! The way of a datagram from the device to its connection.

use std::ops::ControlFlow;

use ringway_datapath::contract::Burst;
use ringway_datapath::lent::Lender;
use ringway_datapath::meta::ReceiveMeta;
use ringway_engine::connection::PathAddress;
use ringway_engine::connection::drops::DropReason;
use ringway_engine::wire::{header, stateless};
use ringway_types::{Ecn, Instant, LOCAL_CID_LEN};

use super::Worker;
use super::hosted_connection::HostedConnection;
use super::inbox::HandedOverDatagram;
use super::routes::Route;

impl Worker {
    /// Receives a burst from the device: contiguous datagrams of one peer. A handshake takes as long as a hundred other
    /// packets, so a burst with one asks the device to receive no more in this turn: a few are enough, and the peers
    /// can work on the replies meanwhile.
    pub(crate) fn on_burst(&mut self, now: Instant, burst: Burst<'_>) -> ControlFlow<()> {
        let meta = burst.meta;
        if meta.remote.port() == 0 {
            // Nothing can be sent there.
            self.stats.drops.add(DropReason::SourcePortZero);
            return ControlFlow::Continue(());
        }
        let (mut rest, lender) = burst.into_lendable();
        let flow = if header::is_long(rest) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        };
        while !rest.is_empty() {
            let route = header::destination_cid(rest, LOCAL_CID_LEN).and_then(|cid| self.routes.route(cid));
            let Some(Route::Here(index)) = route else {
                let len = meta.segment_size.min(rest.len());
                let (datagram, tail) = rest.split_at_mut(len);
                match route {
                    Some(Route::Moved(partition)) => self.hand_over(now, partition, &meta, datagram, true),
                    _ => self.on_unrouted(now, &meta, datagram, true),
                }
                rest = tail;
                continue;
            };
            // A GRO run nearly always belongs to one connection: look it up once and stay with it.
            rest = self.receive_run(now, index, &meta, (rest, lender), None);
        }
        flow
    }

    /// Passes datagrams to one connection for as long as they belong to it. Returns the rest.
    fn receive_run<'a>(
        &mut self,
        now: Instant,
        index: u32,
        meta: &ReceiveMeta,
        (mut rest, lender): (&'a mut [u8], Lender<'a>),
        rss_partition: Option<usize>,
    ) -> &'a mut [u8] {
        let Some(mut hosted) = self.take(index) else {
            // Only a handler of this very connection that polls its own context gets here.
            return &mut [];
        };
        let path = path_of(meta);
        loop {
            let len = meta.segment_size.min(rest.len());
            let (datagram, tail) = rest.split_at_mut(len);
            rest = tail;
            hosted = self.receive_datagram(now, hosted, &path, meta.ecn, datagram, lender);
            let same = header::destination_cid(rest, LOCAL_CID_LEN)
                .is_some_and(|cid| self.routes.local_cid(cid) == Some(index));
            if !same {
                hosted.rss.on_run(&hosted.engine, &path, rss_partition);
                self.put_back(now, index, hosted);
                if rss_partition.is_some() {
                    self.follow_rss(now, index);
                }
                return rest;
            }
        }
    }

    /// Passes a datagram to its connection, and what it brings to the application.
    #[inline]
    pub(super) fn receive_datagram<'a>(
        &mut self,
        now: Instant,
        mut hosted: Box<HostedConnection>,
        path: &PathAddress,
        ecn: Ecn,
        datagram: &'a mut [u8],
        lender: Lender<'a>,
    ) -> Box<HostedConnection> {
        let mut receive = hosted.engine.receive(path, ecn, datagram);
        let drops = &mut self.stats.drops;
        while let Some(delivery) = hosted
            .guarded(now, |hosted| hosted.engine.receive_next(now, &mut receive, drops))
            .flatten()
        {
            hosted = hosted.deliver(now, delivery, lender);
        }
        hosted
    }

    /// Handles a datagram that another partition has handed over.
    pub(super) fn on_handed_over(&mut self, now: Instant, handed_over: HandedOverDatagram) {
        let HandedOverDatagram {
            meta,
            mut datagram,
            rss_partition,
            received,
        } = handed_over;
        match header::destination_cid(&datagram, LOCAL_CID_LEN).and_then(|cid| self.routes.route(cid)) {
            Some(Route::Here(index)) => {
                if let Some(hosted) = &mut self.slots[index as usize].hosted {
                    hosted.delays.datagrams.add(now.since(received));
                }
                self.receive_run(
                    now,
                    index,
                    &meta,
                    (&mut datagram, Lender::nobody()),
                    rss_partition,
                );
            }
            Some(Route::Moved(partition)) => {
                self.pass_on(received, partition, meta, &datagram, rss_partition)
            }
            None => self.on_unrouted(now, &meta, &mut datagram, false),
        }
    }

    /// Handles a datagram whose connection ID is not routed here: it belongs to another partition or to a new
    /// handshake, it is a stateless reset, or it belongs to nobody.
    fn on_unrouted(&mut self, now: Instant, meta: &ReceiveMeta, datagram: &mut [u8], may_hand_over: bool) {
        let Some(cid) = header::destination_cid(datagram, LOCAL_CID_LEN) else {
            return self.drop_datagram(meta, DropReason::MalformedHeader);
        };
        let partition = self.partitioning.partition_of(cid);
        let is_ours_by_length = cid.len() == LOCAL_CID_LEN;
        if header::is_long(datagram) {
            // A client chooses its first connection ID, so the partition that this seems to name on a listener's port
            // is chance. On a port of connections that a partition opened, connection IDs are our own, as in the
            // server's replies.
            let listener = self.listener_on(meta);
            let may_open = header::may_open_connection(datagram);
            // A listener that follows another one on a port may have been started before the client sent, and wait in the inbox: behind it.
            let follows = may_open && may_hand_over && listener.is_none() && self.is_left(meta.port);
            if follows && !self.inbox.is_empty() && self.inbox.has_place_for_strangers() {
                return self.hand_over(now, self.inbox.partition, meta, datagram, true);
            }
            let opens = may_open && (listener.is_some() || self.routes.is_initial(meta.remote, cid));
            // Connections go out from the listener's port: the packet may be an answer to one of another partition.
            let may_answer = listener.is_some_and(|entry| entry.port.is_connecting())
                && !self.routes.is_initial(meta.remote, cid);
            let to = match opens && !may_answer {
                true => listener.and_then(|entry| entry.listener.only),
                false => partition.filter(|_| is_ours_by_length),
            };
            match to.filter(|&other| may_hand_over && other != self.inbox.partition) {
                Some(other) => self.hand_over(now, other, meta, datagram, opens),
                None => self.on_long_header(now, meta, datagram, may_hand_over),
            }
            return;
        }
        if let Some(index) =
            stateless::reset_token_of(datagram).and_then(|token| self.routes.reset_token(meta.remote, &token))
        {
            if let Some(mut hosted) = self.take(index) {
                hosted.guarded(now, |hosted| hosted.engine.on_stateless_reset(now));
                self.put_back(now, index, hosted);
            }
            return;
        }
        match partition {
            Some(other) if may_hand_over && other != self.inbox.partition => {
                self.hand_over(now, other, meta, datagram, false)
            }
            _ => self.reset_peer(meta, datagram),
        }
    }

    /// Hands over a datagram that this partition's device has received. `by_cid`: its connection ID names this
    /// partition, and may have brought it here.
    pub(super) fn hand_over(
        &mut self,
        now: Instant,
        partition: usize,
        meta: &ReceiveMeta,
        datagram: &[u8],
        by_cid: bool,
    ) {
        // The metadata of a burst describes a run; only one datagram is handed over.
        let meta = ReceiveMeta {
            segment_size: datagram.len(),
            ..*meta
        };
        self.pass_on(
            now,
            partition,
            meta,
            datagram,
            (!by_cid).then_some(self.inbox.partition),
        );
    }

    fn pass_on(
        &mut self,
        received: Instant,
        partition: usize,
        meta: ReceiveMeta,
        datagram: &[u8],
        rss_partition: Option<usize>,
    ) {
        if self.inboxes[partition].hand_over(received, meta, datagram, rss_partition) {
            self.stats.handed_over += 1;
        } else {
            self.stats.drops.add(DropReason::HandoverFull);
        }
    }
}

/// The path that a datagram came by.
pub(super) fn path_of(meta: &ReceiveMeta) -> PathAddress {
    PathAddress {
        port: meta.port,
        local: meta.local,
        remote: meta.remote,
    }
}
