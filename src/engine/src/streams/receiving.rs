//! What arrives for streams.

use super::assembler::{Assembler, ReadyData};
use super::control::{MAX_DATA, MAX_STREAM_DATA, STOP_SENDING};
use super::id::{Dir, StreamKey};
use super::recv::{AfterReceive, ReceiveAction};
use super::{FlowClock, IN_READABLE, STARTING, StreamEvent, Streams, is_local};
use crate::wire::error::{TransportError, TransportErrorCode};
use crate::wire::frame::StreamFrame;

impl Streams {
    /// A STREAM frame arrived.
    #[inline]
    pub(crate) fn on_stream(
        &mut self,
        clock: FlowClock,
        frame: &StreamFrame<'_>,
    ) -> Result<ReceiveAction, TransportError> {
        let Some(slot) = self.find(frame.id, true)? else {
            return Ok(ReceiveAction::Nothing);
        };
        let end = frame.offset + frame.data.len() as u64;
        let stream = &mut self.table[slot];
        let Some(recv) = &mut stream.recv else {
            return Ok(ReceiveAction::Nothing);
        };
        let new = recv.account(end, frame.fin)?;
        self.received += new;
        if self.received > self.window.limit() {
            return Err(TransportError::new(
                TransportErrorCode::FLOW_CONTROL_ERROR,
                "data beyond the advertised limit of the connection",
            ));
        }
        if recv.takes_directly(frame.offset, end) {
            let offset = recv.consumed;
            let key = StreamKey {
                slot,
                generation: stream.generation,
            };
            return Ok(ReceiveAction::Deliver {
                key,
                offset,
                skip: (offset - frame.offset) as usize,
                fin: recv.final_size == Some(end),
            });
        }
        if recv.reset || recv.end_reported {
            return Ok(ReceiveAction::Nothing);
        }
        if recv.stopped.is_some() {
            // Not wanted: as good as consumed.
            recv.consumed = recv.highest;
            self.credit(clock, new);
            self.finish(slot);
            return Ok(ReceiveAction::Nothing);
        }
        if recv.unordered.is_some() {
            self.credit(clock, 0);
            return self.on_unordered(slot, frame);
        }
        let consumed = recv.consumed;
        self.held.change(&mut recv.assembler, |assembler| {
            assembler.insert(consumed, frame.offset, frame.data)
        })?;
        self.credit(clock, 0);
        self.queue_readable(slot);
        Ok(ReceiveAction::Nothing)
    }

    /// Data was given to the application out of the packet: it consumed the first `consumed` bytes of `data` at `offset`.
    #[inline]
    pub(crate) fn on_delivered(
        &mut self,
        clock: FlowClock,
        key: StreamKey,
        delivered: StreamFrame<'_>,
        consumed: usize,
        after: AfterReceive,
    ) -> Result<(), TransportError> {
        let Some(recv) = self.table.get_mut(key).and_then(|stream| stream.recv.as_mut()) else {
            return Ok(());
        };
        if recv.stopped.is_some() || recv.end_reported {
            // It ended the stream meanwhile, and with it what was in its hands.
            return Ok(());
        }
        if recv.unordered.is_some() {
            recv.note_delivered(&mut self.held, delivered.offset, consumed as u64)?;
        }
        let rest = &delivered.data[consumed..];
        if !rest.is_empty() {
            let start = recv.consumed;
            self.held.change(&mut recv.assembler, |assembler| {
                assembler.insert(start, delivered.offset + consumed as u64, rest)
            })?;
        }
        match after {
            AfterReceive::Pending => recv.pending = Some(delivered.data.len() as u64),
            AfterReceive::Pause => recv.enabled = false,
            AfterReceive::Uncredited => {
                self.consume_uncredited(clock, key, consumed as u64);
                return Ok(());
            }
            AfterReceive::Continue => {}
        }
        self.consume(clock, key, consumed as u64, consumed as u64);
        if consumed > 0 && !rest.is_empty() {
            self.queue_readable(key.slot);
        }
        Ok(())
    }

    /// Buffers data that could be delivered, for [`Streams::next_readable`]: its packet is freed before the application can be
    /// called.
    pub(crate) fn buffer(&mut self, key: StreamKey, frame: &StreamFrame<'_>) -> Result<(), TransportError> {
        let Some(recv) = self.table.get_mut(key).and_then(|stream| stream.recv.as_mut()) else {
            return Ok(());
        };
        if recv.unordered.is_some() {
            return self.keep_unordered(key.slot, frame);
        }
        let consumed = recv.consumed;
        self.held.change(&mut recv.assembler, |assembler| {
            assembler.insert(consumed, frame.offset, frame.data)
        })?;
        self.queue_readable(key.slot);
        Ok(())
    }

    /// Takes the buffered data that is ready for the application. `Connection::on_ready_delivered` must follow.
    pub fn take_ready(&mut self, key: StreamKey) -> Option<ReadyData> {
        let recv = self.table.get_mut(key)?.recv.as_mut()?;
        if !recv.is_readable() {
            return None;
        }
        let offset = match recv.unordered {
            Some(_) => recv.assembler.first().unwrap_or(recv.consumed),
            None => recv.consumed,
        };
        let mut ready = self
            .held
            .change(&mut recv.assembler, |assembler| assembler.take(offset));
        ready.fin = recv.final_size == Some(ready.offset() + ready.len() as u64);
        Some(ready)
    }

    /// The application consumed `consumed` bytes of what [`Streams::take_ready`] returned.
    pub(crate) fn on_ready_delivered(
        &mut self,
        clock: FlowClock,
        key: StreamKey,
        ready: ReadyData,
        consumed: usize,
        after: AfterReceive,
    ) {
        let Some(recv) = self.table.get_mut(key).and_then(|stream| stream.recv.as_mut()) else {
            return;
        };
        if recv.stopped.is_some() || recv.end_reported {
            return;
        }
        let len = ready.len();
        let start = match recv.unordered {
            // All of it is consumed.
            Some(_) => ready.offset() + len as u64,
            None => recv.consumed,
        };
        // That these are too many is said when the next frame comes.
        let _ = recv.note_delivered(&mut self.held, ready.offset(), len as u64);
        self.held
            .change(&mut recv.assembler, |assembler| assembler.give_back(ready, start));
        match after {
            AfterReceive::Pending => recv.pending = Some(len as u64),
            AfterReceive::Pause => recv.enabled = false,
            AfterReceive::Uncredited | AfterReceive::Continue => {}
        }
        // Of a stream that is not read in order, behind a gap.
        let has_more = recv.unordered.is_some() && !recv.assembler.is_empty();
        if after == AfterReceive::Uncredited {
            // All of it.
            self.consume_uncredited(clock, key, consumed as u64);
        } else {
            self.consume(clock, key, consumed as u64, consumed as u64);
        }
        if has_more || (consumed > 0 && consumed < len) {
            self.queue_readable(key.slot);
        }
    }

    /// Completes a delivery that was [`AfterReceive::Pending`]: the application consumed `consumed` bytes of it. Less than all pauses receiving.
    /// Or so many bytes of deliveries that were [`AfterReceive::Uncredited`]. False if none is pending, or they had fewer bytes.
    pub fn receive_complete(&mut self, clock: FlowClock, key: StreamKey, consumed: u64) -> bool {
        let Some(recv) = self.get_mut(key).and_then(|stream| stream.recv.as_mut()) else {
            return false;
        };
        let Some(pending) = recv.pending else {
            let is_there = recv.uncredited > 0 && consumed <= recv.uncredited;
            if is_there {
                recv.uncredited -= consumed;
                self.consume(clock, key, 0, consumed);
            }
            return is_there;
        };
        if consumed > pending {
            return false;
        }
        recv.pending = None;
        if consumed < pending {
            recv.enabled = false;
        }
        self.consume(clock, key, consumed, consumed);
        self.queue_readable(key.slot);
        true
    }

    /// The application has not said that it wants no more of what is received on the stream.
    pub fn wants_data(&self, key: StreamKey) -> bool {
        let recv = self.table.get(key).and_then(|stream| stream.recv.as_ref());
        recv.is_some_and(|recv| recv.stopped.is_none() && !recv.end_reported)
    }

    /// Enables or pauses the delivery of received data.
    pub fn set_receive_enabled(&mut self, key: StreamKey, enabled: bool) {
        if let Some(recv) = self.get_mut(key).and_then(|stream| stream.recv.as_mut()) {
            recv.enabled = enabled;
            self.queue_readable(key.slot);
        }
    }

    /// The next stream with data to deliver by [`Streams::take_ready`].
    pub fn next_readable(&mut self) -> Option<StreamKey> {
        while let Some(slot) = self.readable.pop_front() {
            let stream = &mut self.table[slot];
            stream.flags &= !IN_READABLE;
            if stream.recv.as_ref().is_some_and(|recv| recv.is_readable()) {
                return Some(self.key(slot));
            }
        }
        None
    }

    #[inline]
    pub(super) fn queue_readable(&mut self, slot: u32) {
        let stream = &mut self.table[slot];
        if stream.flags & IN_READABLE == 0 && stream.recv.as_ref().is_some_and(|recv| recv.is_readable()) {
            stream.flags |= IN_READABLE;
            self.readable.push_back(slot);
        }
    }

    /// As [`Streams::consume`], without credit for it.
    #[cold]
    fn consume_uncredited(&mut self, clock: FlowClock, key: StreamKey, count: u64) {
        if let Some(recv) = &mut self.table[key.slot].recv {
            recv.uncredited += count;
        }
        self.consume(clock, key, count, 0);
    }

    /// Moves on behind consumed data: gives credit to the peer, for as much as is said, and reports the end.
    #[inline]
    fn consume(&mut self, clock: FlowClock, key: StreamKey, count: u64, credit: u64) {
        let stream = &mut self.table[key.slot];
        let Some(recv) = &mut stream.recv else { return };
        recv.consumed += count;
        // Credit alone moves nothing, and may come while a handler has what the assembler holds.
        if count > 0 && !recv.assembler.is_empty() && recv.unordered.is_none() {
            let consumed = recv.consumed;
            self.held
                .change(&mut recv.assembler, |assembler| assembler.consume(consumed));
        }
        let ended = recv.final_size == Some(recv.consumed)
            && recv.pending.is_none()
            && recv.uncredited == 0
            && !recv.end_reported;
        let (id, dir) = (stream.id, stream.dir);
        let update = recv.wants_update(clock.now, clock.rtt, |pace, size| {
            let initial = self.config.initial_window(dir, is_local(id, self.side));
            self.growth.resize(pace, size, initial)
        });
        if ended {
            recv.end_reported = true;
            self.end_growth(key.slot);
        }
        if update {
            self.set_stream_pending(key.slot, MAX_STREAM_DATA);
        }
        self.credit(clock, credit);
        if ended {
            self.events.push_back(StreamEvent::PeerSendShutdown { key });
            self.finish(key.slot);
        }
    }

    #[inline]
    fn credit(&mut self, clock: FlowClock, count: u64) {
        self.consumed += count;
        let half_is_used = self
            .window
            .on_consumed(self.consumed, clock.now, clock.rtt, |_, size| size);
        if half_is_used || self.window.runs_short(self.consumed, self.received) {
            self.set_pending(MAX_DATA);
        }
    }

    /// An acknowledgement goes out: the peer may hear with it how far it may send.
    #[inline]
    pub fn on_ack_due(&mut self) {
        if self.window.on_ack(self.consumed) {
            self.set_pending(MAX_DATA);
        }
    }

    /// RESET_STREAM arrived.
    pub(crate) fn on_reset_stream(
        &mut self,
        clock: FlowClock,
        id: u64,
        code: u64,
        final_size: u64,
    ) -> Result<(), TransportError> {
        let Some(slot) = self.find(id, true)? else {
            return Ok(());
        };
        let key = self.key(slot);
        let Some(recv) = &mut self.table[slot].recv else {
            return Ok(());
        };
        let known = recv.final_size.is_some();
        let new = recv.account(final_size, true)?;
        self.received += new;
        if self.received > self.window.limit() {
            return Err(TransportError::new(
                TransportErrorCode::FLOW_CONTROL_ERROR,
                "final size beyond the advertised limit of the connection",
            ));
        }
        if recv.end_reported || recv.reset {
            return Ok(());
        }
        // All data has arrived, and the application will see it (RFC 9000 section 3.2: "Data Recvd").
        if known && recv.stopped.is_none() && recv.assembler.ready_end(recv.consumed) == final_size {
            return Ok(());
        }
        recv.reset = true;
        recv.end_reported = true;
        recv.pending = None;
        self.held.change(&mut recv.assembler, Assembler::clear);
        let unconsumed = final_size - recv.credited();
        (recv.consumed, recv.uncredited) = (final_size, 0);
        let unwanted = recv.stopped.is_some();
        self.end_growth(slot);
        self.credit(clock, unconsumed);
        if !unwanted {
            self.events.push_back(StreamEvent::PeerSendAborted { key, code });
        }
        self.finish(slot);
        Ok(())
    }

    /// Asks the peer to stop sending, and discards what still arrives.
    pub fn stop_sending(&mut self, clock: FlowClock, key: StreamKey, code: u64) {
        if self.end_unstarted(key) {
            return;
        }
        let Some(stream) = self.table.get_mut(key) else {
            return;
        };
        let Some(recv) = &mut stream.recv else { return };
        if recv.stopped.is_some() || recv.end_reported {
            return;
        }
        recv.stopped = Some(code);
        recv.pending = None;
        self.held.change(&mut recv.assembler, Assembler::clear);
        let unconsumed = recv.highest - recv.credited();
        (recv.consumed, recv.uncredited) = (recv.highest, 0);
        let all_arrived = recv.final_size.is_some();
        self.end_growth(key.slot);
        if !all_arrived {
            self.set_stream_pending(key.slot, STOP_SENDING);
        }
        self.credit(clock, unconsumed);
        self.finish(key.slot);
    }

    /// Nobody has to do with a stream any more: what was finished goes on, and the rest is aborted with code 0.
    pub fn leave(&mut self, clock: FlowClock, key: StreamKey) {
        let Some(stream) = self.get_mut(key) else { return };
        let is_finishing = stream.send.as_ref().is_some_and(|send| !send.is_open());
        match stream.id {
            Some(_) if is_finishing => self.stop_sending(clock, key, 0),
            None if is_finishing && stream.flags & STARTING != 0 => {
                // The peer hears of it when the stream starts.
                if let Some(recv) = &mut stream.recv {
                    recv.stopped = Some(0);
                    stream.pending |= STOP_SENDING;
                }
            }
            _ => self.abort(clock, key, 0),
        }
    }

    /// Ends both halves of a stream with an error code.
    pub fn abort(&mut self, clock: FlowClock, key: StreamKey, code: u64) {
        self.reset(key, code);
        self.stop_sending(clock, key, code);
    }

    /// DATA_BLOCKED arrived: the peer is told of what little credit it does not know of.
    pub(crate) fn on_data_blocked(&mut self) {
        if self.window.on_blocked(self.consumed) {
            self.set_pending(MAX_DATA);
        }
    }

    /// STREAM_DATA_BLOCKED arrived, as [`Streams::on_data_blocked`].
    pub(crate) fn on_stream_data_blocked(&mut self, id: u64) -> Result<(), TransportError> {
        if let Some(slot) = self.find(id, true)?
            && let Some(recv) = &mut self.table[slot].recv
            && recv.final_size.is_none()
            && recv.stopped.is_none()
            && recv.window.on_blocked(recv.credited())
        {
            self.set_stream_pending(slot, MAX_STREAM_DATA);
        }
        Ok(())
    }

    /// The direction of a frame that says `bidi`.
    pub(crate) fn dir_of(bidi: bool) -> Dir {
        if bidi { Dir::Bi } else { Dir::Uni }
    }
}
