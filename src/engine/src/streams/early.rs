//! Streams of a client before its handshake is complete: in 0-RTT it sends what the application has marked for it, under the limits that the server
//! gave on the connection before (RFC 9000 section 7.4.1); and streams of a server that 0-RTT data came on.
//!
//! While the handshake lasts, the limit of a stream ends where the marked data does: whatever else keeps to the limit then sends nothing more.

use super::send::Fin;
use super::{
    Dir, EARLY, IMMEDIATE, IN_SCHEDULER, IN_UNCREDITED, NOT_EARLY, STARTING, StreamKey, StreamState, Streams,
};
use crate::wire::transport_parameters::TransportParameters;

impl Streams {
    /// A client may send 0-RTT data, under these limits of the connection before. Streams start at once.
    pub(crate) fn begin_early(&mut self, remembered: &TransportParameters) {
        self.early = true;
        self.set_peer_params(remembered);
    }

    /// Sets how far a stream may send before the handshake is complete, after data was queued on it.
    pub(super) fn limit_early(&mut self, key: StreamKey, may_be_early: bool) {
        let Streams {
            table, peer_windows, ..
        } = self;
        let Some(stream) = table.get_mut(key) else { return };
        let window = match stream.dir {
            Dir::Bi => peer_windows.bidi_local,
            Dir::Uni => peer_windows.uni,
        };
        let Some(send) = &mut stream.send else { return };
        if !may_be_early && stream.flags & EARLY == 0 {
            stream.flags |= NOT_EARLY;
        }
        if stream.flags & NOT_EARLY == 0 {
            send.limit = send.written.min(window);
        } else if send.fin == Fin::Pending {
            send.fin = Fin::Later;
        }
    }

    /// The server has accepted 0-RTT. With its parameters, all may be sent.
    pub(crate) fn accept_early(&mut self, params: &TransportParameters) {
        self.early = false;
        self.set_peer_params(params);
        for slot in self.table.slots() {
            let window = self.own_window(slot);
            let stream = &mut self.table[slot];
            stream.flags &= !NOT_EARLY;
            if let Some(send) = &mut stream.send {
                if stream.id.is_some() {
                    send.limit = window;
                    send.immediate = stream.flags & IMMEDIATE != 0;
                }
                send.release_fin();
            }
            self.tell_accepted(slot);
            self.schedule(slot);
        }
    }

    /// 0-RTT is not accepted, and nothing that was sent in it counts: all of it is to be sent when the server's parameters are there. Streams keep
    /// the IDs that they have.
    pub(crate) fn reject_early(&mut self) {
        if !std::mem::replace(&mut self.early, false) {
            return;
        }
        (self.send_limit, self.sent) = (0, 0);
        self.limit = [0; 2];
        self.opened = [0; 2];
        self.peer_windows = Default::default();
        let mut started: Vec<_> = self
            .table
            .slots()
            .into_iter()
            .filter_map(|slot| Some((self.table[slot].id?, slot)))
            .collect();
        started.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(id.index()));
        for (id, slot) in started {
            self.take_back(slot);
            // In front of those that have no ID yet.
            self.starting.get_or_insert_default()[id.dir() as usize].push_front(slot);
            self.note_streams_blocked(id.dir());
        }
        for slot in self.table.slots() {
            let stream = &mut self.table[slot];
            stream.flags &= !NOT_EARLY;
            if let Some(send) = &mut stream.send {
                send.release_fin();
            }
        }
    }

    /// Makes a stream one that has sent nothing, and may not yet.
    fn take_back(&mut self, slot: u32) {
        let stream = &mut self.table[slot];
        stream.flags |= STARTING;
        if let Some(send) = &mut stream.send {
            send.take_back();
        }
        let flags = stream.flags;
        if flags & IN_SCHEDULER != 0 {
            self.scheduler.remove(slot);
        }
        if flags & IN_UNCREDITED != 0 {
            self.uncredited.retain(|&other| other != slot);
        }
        self.table[slot].flags &= !(IN_SCHEDULER | IN_UNCREDITED);
    }

    /// How far a stream of ours may send at first.
    fn own_window(&self, slot: u32) -> u64 {
        match self.table[slot].dir {
            Dir::Bi => self.peer_windows.bidi_local,
            Dir::Uni => self.peer_windows.uni,
        }
    }

    /// Data of the peer up to `end` came in 0-RTT.
    pub(crate) fn on_early_data(&mut self, id: u64, end: u64) {
        let Some(&slot) = self.by_id.get(&id) else { return };
        if let Some(recv) = &mut self.table[slot].recv {
            recv.early_end = recv.early_end.max(end);
            recv.is_early = true;
        }
    }

    /// The peer has sent data of this stream in 0-RTT: somebody else may have sent it again.
    pub fn has_early_data(&self, key: StreamKey) -> bool {
        let is_early = |stream: &StreamState| stream.recv.as_ref().is_some_and(|recv| recv.is_early);
        self.get(key).is_some_and(is_early)
    }

    /// Data from `offset` on may have come in 0-RTT.
    #[inline]
    pub fn is_early(&self, key: StreamKey, offset: u64) -> bool {
        let recv = self.get(key).and_then(|stream| stream.recv.as_ref());
        recv.is_some_and(|recv| recv.is_early && (offset < recv.early_end || recv.early_end == 0))
    }
}
