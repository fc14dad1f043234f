//! What streams have to send: data and control frames.

use std::ops::Range;

use bytes::Bytes;

use super::control::{
    Control, ControlToken, DATA_BLOCKED, MAX_DATA, MAX_STREAM_DATA, MAX_STREAMS_BIDI, MAX_STREAMS_UNI,
    RESET_STREAM, STREAM_DATA_BLOCKED, STREAMS_BLOCKED_BIDI, STREAMS_BLOCKED_UNI,
};
use super::id::StreamKey;
use super::send::{Fin, NextFrame, SendError, SendHalf, SendOptions, StreamRange};
use super::{
    CANCEL_ON_LOSS, Dir, IDEAL_SEND_MAX, IN_CONTROL, IN_SCHEDULER, IN_UNCREDITED, STARTING, StreamEvent,
    Streams,
};
use crate::wire::error::TransportError;
use crate::wire::frame::{stream_header_len, ty};

impl Streams {
    /// Queues data on a stream; `fin` ends it. The event `SendComplete` with `context` follows exactly once.
    ///
    /// # Errors
    ///
    /// The sending half is not open: it was finished or reset, the stream has none, or the connection has closed. Nothing is queued.
    pub fn send(&mut self, key: StreamKey, bytes: Bytes, context: u64, fin: bool) -> Result<(), SendError> {
        let options = SendOptions {
            fin,
            ..SendOptions::default()
        };
        self.send_with(key, bytes, context, options)
    }

    /// As [`Streams::send`], with options.
    ///
    /// # Errors
    ///
    /// As [`Streams::send`].
    #[inline]
    pub fn send_with(
        &mut self,
        key: StreamKey,
        bytes: Bytes,
        context: u64,
        options: SendOptions,
    ) -> Result<(), SendError> {
        let len = bytes.len() as u64;
        self.open_half(key)?.push(bytes, Some(context));
        self.on_pushed(key, len, options);
        Ok(())
    }

    /// As [`Streams::send_with`], with several buffers, which lie one behind the other in the stream.
    ///
    /// # Errors
    ///
    /// As [`Streams::send`].
    pub fn send_vectored(
        &mut self,
        key: StreamKey,
        buffers: Vec<Bytes>,
        context: u64,
        options: SendOptions,
    ) -> Result<(), SendError> {
        let len = buffers.iter().map(|bytes| bytes.len() as u64).sum();
        let send = self.open_half(key)?;
        let first = send.buffers_len();
        buffers.into_iter().for_each(|bytes| send.push(bytes, None));
        send.end_send(first, context);
        self.on_pushed(key, len, options);
        Ok(())
    }

    /// Data was queued.
    #[inline]
    fn on_pushed(&mut self, key: StreamKey, len: u64, options: SendOptions) {
        self.queued += len;
        let stream = &mut self.table[key.slot];
        if options.cancel_on_loss {
            stream.flags |= CANCEL_ON_LOSS;
        }
        if options.fin
            && let Some(send) = &mut stream.send
        {
            send.fin = Fin::Pending;
        }
        if self.early {
            self.limit_early(key, options.may_be_early);
        }
        // A send of nothing may be complete already.
        self.complete_sends(key);
        if !options.delay || options.fin {
            self.schedule(key.slot);
        }
    }

    /// Ends the sending half behind what was queued.
    ///
    /// # Errors
    ///
    /// As [`Streams::send`].
    pub fn finish_sending(&mut self, key: StreamKey) -> Result<(), SendError> {
        self.open_half(key)?.fin = Fin::Pending;
        if self.early {
            self.limit_early(key, false);
        }
        self.schedule(key.slot);
        Ok(())
    }

    fn open_half(&mut self, key: StreamKey) -> Result<&mut SendHalf, SendError> {
        if self.closed {
            return Err(SendError::Closed);
        }
        let stream = self.get_mut(key).ok_or(SendError::Closed)?;
        match &mut stream.send {
            Some(send) if send.is_open() => Ok(send),
            _ => Err(SendError::InvalidState),
        }
    }

    /// Ends the sending half with an error: what was not sent never will be. A stream that has not started ends whole.
    pub fn reset(&mut self, key: StreamKey, code: u64) {
        if self.end_unstarted(key) {
            return;
        }
        let Some(stream) = self.table.get_mut(key) else {
            return;
        };
        let Some(send) = &mut stream.send else { return };
        if send.reset.is_some() || send.is_done() {
            return;
        }
        send.reset(code, |released| {
            self.queued -= released.len;
            self.events.extend(released.event(key, true));
        });
        send.end_reported = true;
        self.follow_blocked(key.slot);
        let stream = &mut self.table[key.slot];
        if stream.flags & IN_SCHEDULER != 0 {
            stream.flags &= !IN_SCHEDULER;
            self.scheduler.remove(key.slot);
        }
        self.events
            .push_back(StreamEvent::SendShutdownComplete { key, graceful: false });
        self.set_stream_pending(key.slot, RESET_STREAM);
        self.finish(key.slot);
    }

    /// Sets the priority of a stream: higher goes first.
    pub fn set_priority(&mut self, key: StreamKey, priority: u16) {
        let Some(stream) = self.get_mut(key) else { return };
        stream.priority = priority;
        if stream.flags & IN_SCHEDULER != 0 {
            self.scheduler.remove(key.slot);
            self.scheduler.push(priority, key.slot);
        }
    }

    /// Enters a stream in the lists that it belongs in.
    pub(super) fn schedule(&mut self, slot: u32) {
        self.follow_blocked(slot);
        let stream = &mut self.table[slot];
        if stream.id.is_none() || stream.flags & STARTING != 0 {
            return;
        }
        let Some(send) = &stream.send else { return };
        if send.has_uncredited() && stream.flags & IN_UNCREDITED == 0 {
            stream.flags |= IN_UNCREDITED;
            self.uncredited.push_back(slot);
        }
        if send.has_new() && stream.flags & IN_SCHEDULER == 0 {
            stream.flags |= IN_SCHEDULER;
            self.scheduler.push(stream.priority, slot);
            self.note_blocked();
        } else if send.reset.is_none() && send.sent == send.limit && send.written > send.limit {
            self.note_stream_blocked(slot);
        }
    }

    /// The peer's limit keeps data back.
    fn note_stream_blocked(&mut self, slot: u32) {
        if self.early {
            // It may be the application that does.
            return;
        }
        let Some(send) = &mut self.table[slot].send else {
            return;
        };
        if send.blocked_at != Some(send.limit) {
            send.blocked_at = Some(send.limit);
            self.set_stream_pending(slot, STREAM_DATA_BLOCKED);
            self.told_blocked = true;
        }
    }

    /// The peer's limit for the connection keeps data back, if it does.
    #[inline]
    fn note_blocked(&mut self) {
        if self.is_flow_blocked() {
            self.told_blocked = true;
            if self.blocked_at != self.send_limit {
                self.blocked_at = self.send_limit;
                self.set_pending(DATA_BLOCKED);
            }
        }
    }

    /// True if there is data to send now.
    #[inline]
    pub(crate) fn has_data(&self) -> bool {
        !self.uncredited.is_empty() || (self.sent < self.send_limit && !self.scheduler.is_empty())
    }

    /// True if there are control frames to send.
    #[inline]
    pub(crate) fn has_control(&self) -> bool {
        self.pending != 0 || !self.control.is_empty()
    }

    /// The next data for a packet with `room` bytes left.
    #[inline]
    pub(crate) fn next_frame(&mut self, room: usize) -> Option<NextFrame> {
        if !self.uncredited.is_empty()
            && let Some(frame) = self.next_uncredited_frame(room)
        {
            return Some(frame);
        }
        let slot = self.scheduler.front()?;
        let credit = self.send_limit - self.sent;
        if credit == 0 {
            return None;
        }
        let stream = &mut self.table[slot];
        let id = stream.id?.value();
        let key = StreamKey {
            slot,
            generation: stream.generation,
        };
        let send = stream.send.as_mut()?;
        let header_len = stream_header_len(id, send.sent, false);
        let data_room = room.saturating_sub(header_len);
        if data_room == 0 {
            return None;
        }
        let piece = send.next_new(data_room.min(credit.min(u64::from(u16::MAX)) as usize));
        self.sent += piece.len as u64;
        if send.has_new() {
            self.scheduler.sent();
        } else {
            stream.flags &= !IN_SCHEDULER;
            self.scheduler.pop();
            if send.written > send.limit {
                self.note_stream_blocked(slot);
            }
            self.follow_blocked(slot);
        }
        self.note_blocked();
        let with_len = piece.len + LENGTH_FIELD <= data_room;
        Some(NextFrame {
            range: StreamRange::new(key, &piece),
            id,
            with_len,
            header_len: if with_len {
                header_len + LENGTH_FIELD
            } else {
                header_len
            },
            is_whole: piece.is_whole,
        })
    }

    fn next_uncredited_frame(&mut self, room: usize) -> Option<NextFrame> {
        while let Some(&slot) = self.uncredited.front() {
            let stream = &mut self.table[slot];
            let key = StreamKey {
                slot,
                generation: stream.generation,
            };
            if let (Some(id), Some(send)) = (stream.id, &mut stream.send)
                && send.has_uncredited()
            {
                // With a length always: what is sent again comes in pieces of any size.
                let id = id.value();
                if room <= stream_header_len(id, send.sent, true) {
                    return None;
                }
                let piece = send.next_uncredited(|offset| {
                    room.saturating_sub(stream_header_len(id, offset, true))
                        .min(usize::from(u16::MAX))
                })?;
                if !send.has_uncredited() {
                    stream.flags &= !IN_UNCREDITED;
                    self.uncredited.pop_front();
                }
                return Some(NextFrame {
                    range: StreamRange::new(key, &piece),
                    id,
                    with_len: true,
                    header_len: stream_header_len(id, piece.start, true),
                    is_whole: piece.is_whole,
                });
            }
            stream.flags &= !IN_UNCREDITED;
            self.uncredited.pop_front();
        }
        None
    }

    /// The bytes of stream data from `offset` on, as far as they lie in one of the application's buffers.
    #[inline]
    pub(crate) fn bytes_at(&self, key: StreamKey, offset: u64, len: usize) -> &[u8] {
        match self.get(key).and_then(|stream| stream.send.as_ref()) {
            Some(send) => send.bytes_at(offset, len),
            None => &[],
        }
    }

    /// Packets with this data were acknowledged; with `fin` the stream ends behind it.
    #[inline]
    pub(crate) fn on_data_acked(&mut self, key: StreamKey, data: Range<u64>, fin: bool) {
        let Some(stream) = self.table.get_mut(key) else {
            return;
        };
        let Some(send) = &mut stream.send else { return };
        if send.end_reported {
            return;
        }
        let (events, queued) = (&mut self.events, &mut self.queued);
        send.on_acked(data, fin, |released| {
            *queued -= released.len;
            events.extend(released.event(key, false));
        });
        if send.is_done() {
            send.end_reported = true;
            self.events
                .push_back(StreamEvent::SendShutdownComplete { key, graceful: true });
            self.finish(key.slot);
        }
    }

    /// A packet with this data was lost.
    pub(crate) fn on_data_lost(&mut self, range: StreamRange) {
        let Some(stream) = self.get_mut(range.key) else {
            return;
        };
        let Some(send) = &mut stream.send else { return };
        send.on_lost(range.offset, u64::from(range.len), range.fin);
        if stream.flags & CANCEL_ON_LOSS != 0 && send.reset.is_none() && !send.is_done() {
            stream.flags &= !CANCEL_ON_LOSS;
            self.events
                .push_back(StreamEvent::CancelOnLoss { key: range.key });
        }
        self.schedule(range.key.slot);
    }

    #[inline]
    pub(super) fn set_pending(&mut self, kind: u8) {
        self.pending |= kind;
    }

    pub(super) fn set_stream_pending(&mut self, slot: u32, kind: u8) {
        self.table[slot].pending |= kind;
        self.queue_control(slot);
    }

    pub(super) fn queue_control(&mut self, slot: u32) {
        let stream = &mut self.table[slot];
        // What has no ID yet has nothing to say, or may not say it.
        if stream.flags & (IN_CONTROL | STARTING) == 0 && stream.id.is_some() {
            stream.flags |= IN_CONTROL;
            self.control.push_back(slot);
        }
    }

    /// The next control frame that fits into `room` bytes.
    pub(crate) fn next_control(&mut self, room: usize) -> Option<Control> {
        if self.pending != 0 {
            let kind = 1 << self.pending.trailing_zeros();
            let (frame_type, value) = match kind {
                MAX_DATA => (ty::MAX_DATA, self.window.limit()),
                DATA_BLOCKED => (ty::DATA_BLOCKED, self.send_limit),
                MAX_STREAMS_BIDI => (ty::MAX_STREAMS_BIDI, self.peer_limit[0]),
                MAX_STREAMS_UNI => (ty::MAX_STREAMS_UNI, self.peer_limit[1]),
                STREAMS_BLOCKED_BIDI => (ty::STREAMS_BLOCKED_BIDI, self.limit[0]),
                _ => (ty::STREAMS_BLOCKED_UNI, self.limit[1]),
            };
            let token = ControlToken { key: None, kind };
            let control = Control {
                token,
                frame_type,
                values: [value, 0, 0],
                count: 1,
            };
            if control.len() > room {
                return None;
            }
            self.pending &= !kind;
            return Some(control);
        }
        while let Some(&slot) = self.control.front() {
            let stream = &mut self.table[slot];
            if let Some(id) = stream.id
                && stream.pending != 0
                && stream.flags & STARTING == 0
            {
                let kind = 1 << stream.pending.trailing_zeros();
                let id = id.value();
                let send = stream.send.as_ref();
                let recv = stream.recv.as_ref();
                let (frame_type, values, count) = match kind {
                    MAX_STREAM_DATA => (
                        ty::MAX_STREAM_DATA,
                        [id, recv.map_or(0, |recv| recv.window.limit()), 0],
                        2,
                    ),
                    STREAM_DATA_BLOCKED => (
                        ty::STREAM_DATA_BLOCKED,
                        [id, send.map_or(0, |send| send.limit), 0],
                        2,
                    ),
                    RESET_STREAM => {
                        let code = send.and_then(|send| send.reset).map_or(0, |reset| reset.code);
                        (ty::RESET_STREAM, [id, code, send.map_or(0, |send| send.sent)], 3)
                    }
                    _ => (
                        ty::STOP_SENDING,
                        [id, recv.and_then(|recv| recv.stopped).unwrap_or(0), 0],
                        2,
                    ),
                };
                let token = ControlToken {
                    key: Some(StreamKey {
                        slot,
                        generation: stream.generation,
                    }),
                    kind,
                };
                let control = Control {
                    token,
                    frame_type,
                    values,
                    count,
                };
                if control.len() > room {
                    return None;
                }
                stream.pending &= !kind;
                return Some(control);
            }
            stream.flags &= !IN_CONTROL;
            self.control.pop_front();
        }
        None
    }

    /// A packet with this control frame was acknowledged.
    pub(crate) fn on_control_acked(&mut self, token: ControlToken) {
        let Some(key) = token.key else { return };
        if token.kind == RESET_STREAM
            && let Some(send) = self.get_mut(key).and_then(|stream| stream.send.as_mut())
            && let Some(reset) = &mut send.reset
        {
            reset.acked = true;
            self.finish(key.slot);
        }
    }

    /// A packet with this control frame was lost: it is sent again if it still says something.
    pub(crate) fn on_control_lost(&mut self, token: ControlToken) {
        if self.closed {
            return;
        }
        let Some(key) = token.key else {
            let still = match token.kind {
                DATA_BLOCKED => self.is_flow_blocked(),
                STREAMS_BLOCKED_BIDI => self.is_starting(Dir::Bi),
                STREAMS_BLOCKED_UNI => self.is_starting(Dir::Uni),
                _ => true,
            };
            if still {
                self.set_pending(token.kind);
            }
            return;
        };
        let Some(stream) = self.get(key) else { return };
        let still = match token.kind {
            MAX_STREAM_DATA => stream
                .recv
                .as_ref()
                .is_some_and(|recv| recv.final_size.is_none() && recv.stopped.is_none()),
            STREAM_DATA_BLOCKED => stream.send.as_ref().is_some_and(|send| {
                send.reset.is_none() && send.sent == send.limit && send.written > send.limit
            }),
            RESET_STREAM => stream
                .send
                .as_ref()
                .is_some_and(|send| send.reset.is_some_and(|reset| !reset.acked)),
            _ => stream.recv.as_ref().is_some_and(|recv| recv.final_size.is_none()),
        };
        if still {
            self.set_stream_pending(key.slot, token.kind);
        }
    }

    /// The peer's limits may keep something back.
    #[inline]
    pub(crate) fn may_be_blocked(&self) -> bool {
        self.told_blocked
    }

    /// The peer is to be told again what its limits keep back (RFC 9000 section 4.1), if they still do.
    pub(crate) fn repeat_blocked(&mut self) {
        for kind in [DATA_BLOCKED, STREAMS_BLOCKED_BIDI, STREAMS_BLOCKED_UNI] {
            self.on_control_lost(ControlToken { key: None, kind });
        }
        for slot in self.table.slots() {
            if self.table[slot].flags & STARTING == 0 && self.table[slot].id.is_some() {
                self.on_control_lost(ControlToken {
                    key: Some(self.key(slot)),
                    kind: STREAM_DATA_BLOCKED,
                });
            }
        }
        self.told_blocked = self.has_control();
    }

    /// MAX_DATA arrived.
    pub(crate) fn on_max_data(&mut self, max: u64) {
        if max > self.send_limit {
            self.send_limit = max;
            self.pending &= !DATA_BLOCKED;
        }
    }

    /// MAX_STREAM_DATA arrived.
    pub(crate) fn on_max_stream_data(&mut self, id: u64, max: u64) -> Result<(), TransportError> {
        let Some(slot) = self.find(id, false)? else {
            return Ok(());
        };
        let stream = &mut self.table[slot];
        if let Some(send) = &mut stream.send
            && max > send.limit
        {
            send.limit = max;
            stream.pending &= !STREAM_DATA_BLOCKED;
            self.schedule(slot);
        }
        Ok(())
    }

    /// STOP_SENDING arrived.
    pub(crate) fn on_stop_sending(&mut self, id: u64, code: u64) -> Result<(), TransportError> {
        let Some(slot) = self.find(id, false)? else {
            return Ok(());
        };
        let key = self.key(slot);
        if self.table[slot]
            .send
            .as_ref()
            .is_some_and(|send| send.reset.is_none() && !send.is_done())
        {
            self.events
                .push_back(StreamEvent::PeerReceiveAborted { key, code });
            // Section 3.5: with the code of the frame.
            self.reset(key, code);
        }
        Ok(())
    }

    /// Sends of a stream that are complete, as all their bytes are acknowledged.
    pub(super) fn complete_sends(&mut self, key: StreamKey) {
        let (events, queued) = (&mut self.events, &mut self.queued);
        let stream = &mut self.table[key.slot];
        if stream.id.is_some()
            && let Some(send) = &mut stream.send
        {
            send.release(|released| {
                *queued -= released.len;
                events.extend(released.event(key, false));
            });
        }
    }

    /// Bytes that the caller should still give to be sent, by the limit of the configuration; none if it is not positive.
    #[inline]
    pub fn send_room(&self) -> i64 {
        match self.config.send_queue_limit {
            0 => i64::MAX,
            limit => limit.min(i64::MAX as u64) as i64 - self.queued as i64,
        }
    }

    /// So much is in flight. If it is as much as should be queued, more should be: twice as much, so that there is always enough to send when
    /// something is acknowledged.
    #[inline]
    pub(crate) fn on_in_flight(&mut self, bytes: u64) {
        if bytes >= self.ideal_send && self.ideal_send < IDEAL_SEND_MAX {
            self.raise_ideal(bytes);
        }
    }

    #[cold]
    fn raise_ideal(&mut self, in_flight: u64) {
        while in_flight >= self.ideal_send && self.ideal_send < IDEAL_SEND_MAX {
            self.ideal_send *= 2;
        }
        let bytes = self.ideal_send;
        for slot in self.table.slots() {
            let stream = &self.table[slot];
            if stream.id.is_some() && stream.send.as_ref().is_some_and(SendHalf::is_open) {
                let key = self.key(slot);
                self.events
                    .push_back(StreamEvent::IdealSendBufferSize { key, bytes });
            }
        }
    }
}

/// Bytes of a length.
const LENGTH_FIELD: usize = 2;
