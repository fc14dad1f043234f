//! What is known of streams and connections outside of their worker, so that a call of another thread can be answered at once although it is carried
//! out later. What has become of an object between the call and its turn is not known here: events tell of that.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use ringway_engine::streams::{IDEAL_SEND_MIN, PRIORITY_DEFAULT};

/// What is known of a stream.
pub(crate) struct StreamKnown {
    flags: AtomicU8,
    priority: AtomicU16,
    /// Bytes of the data that the handler has, or has kept, and that nobody has completed yet, plus one; 0: there is none.
    pending: AtomicU64,
}

const STARTED: u8 = 1;
/// Nothing more can be sent.
const SEND_ENDED: u8 = 2;
const NO_SEND: u8 = 4;
const NO_RECEIVE: u8 = 8;
/// Several deliveries may wait for their completion.
const MANY: u8 = 16;
/// It is read as its data arrives.
const UNORDERED: u8 = 32;
/// What is received goes into buffers of the application.
const BUFFERS: u8 = 64;

/// Why a call does not fit.
pub(crate) type Misfit = &'static str;

impl StreamKnown {
    /// A stream of ours, which has not started.
    pub(crate) fn of_ours(bidirectional: bool) -> Self {
        StreamKnown {
            flags: AtomicU8::new(if bidirectional { 0 } else { NO_RECEIVE }),
            priority: AtomicU16::new(PRIORITY_DEFAULT),
            pending: AtomicU64::new(0),
        }
    }

    /// Becomes that of a stream of the peer. For the worker, where no other thread has a handle.
    pub(crate) fn become_theirs(&self, bidirectional: bool) {
        let sides = if bidirectional { 0 } else { SEND_ENDED | NO_SEND };
        self.flags.store(STARTED | sides, Ordering::Relaxed);
        self.priority.store(PRIORITY_DEFAULT, Ordering::Relaxed);
        self.pending.store(0, Ordering::Relaxed);
    }

    /// As it was set last.
    pub(crate) fn priority(&self) -> u16 {
        self.priority.load(Ordering::Relaxed)
    }

    /// It is to be this.
    pub(crate) fn set_priority(&self, priority: u16) {
        self.priority.store(priority, Ordering::Relaxed);
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    /// Sets a flag; true if it was not set.
    fn set(&self, flag: u8) -> bool {
        self.flags.fetch_or(flag, Ordering::AcqRel) & flag == 0
    }

    /// The stream is to start.
    pub(crate) fn start(&self) -> Result<(), Misfit> {
        if self.set(STARTED) {
            Ok(())
        } else {
            Err(IS_STARTED)
        }
    }

    /// Something is to be sent.
    #[inline]
    pub(crate) fn send(&self) -> Result<(), Misfit> {
        match self.has(SEND_ENDED) {
            false => Ok(()),
            true if self.has(NO_SEND) => Err(HAS_NO_SEND),
            true => Err(IS_SEND_ENDED),
        }
    }

    /// The sending side is to end behind what was sent.
    pub(crate) fn finish(&self) -> Result<(), Misfit> {
        match self.set(SEND_ENDED) {
            true => Ok(()),
            false if self.has(NO_SEND) => Err(HAS_NO_SEND),
            false => Err(IS_SEND_ENDED),
        }
    }

    /// The sending side is to be aborted, perhaps behind its end.
    pub(crate) fn abort_send(&self) -> Result<(), Misfit> {
        if self.has(NO_SEND) {
            return Err(HAS_NO_SEND);
        }
        self.end_send();
        Ok(())
    }

    /// The sending side has ended.
    pub(crate) fn end_send(&self) {
        if !self.has(SEND_ENDED) {
            self.set(SEND_ENDED);
        }
    }

    /// The receiving side is called.
    pub(crate) fn receive(&self) -> Result<(), Misfit> {
        if self.has(NO_RECEIVE) {
            Err(HAS_NO_RECEIVE)
        } else {
            Ok(())
        }
    }

    /// It is to be read as its data arrives.
    pub(crate) fn read_unordered(&self) -> Result<(), Misfit> {
        if self.has(BUFFERS) {
            return Err(UNORDERED_BUFFERS);
        }
        self.set(UNORDERED);
        Ok(())
    }

    /// What is received is to go into buffers of the application.
    pub(crate) fn take_buffers(&self) -> Result<(), Misfit> {
        self.receive()?;
        if self.has(UNORDERED) {
            return Err(UNORDERED_BUFFERS);
        }
        self.set(BUFFERS);
        Ok(())
    }

    /// A handler is about to get so much data.
    #[inline]
    pub(crate) fn offer(&self, len: usize) {
        self.pending.store(len as u64 + 1, Ordering::Release);
    }

    /// A handler is about to get so much data, beside what it has not completed.
    #[inline]
    pub(crate) fn offer_more(&self, len: usize) {
        if !self.has(MANY) {
            self.set(MANY);
        }
        let more = |pending: u64| Some(pending.max(1) + len as u64);
        let _ = self
            .pending
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
    }

    /// A handler that got so much beside the rest is done with it.
    #[inline]
    pub(crate) fn withdraw_some(&self, len: usize) {
        let less = |pending: u64| Some(pending.saturating_sub(len as u64).max(1));
        let _ = self
            .pending
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// Nobody waits for the completion of a delivery any more.
    #[inline]
    pub(crate) fn withdraw(&self) {
        self.pending.store(0, Ordering::Release);
    }

    /// A completion that came too early did not count.
    pub(crate) fn restore(&self, len: usize, bytes: usize) {
        if self.has(MANY) {
            self.offer_more(bytes);
        } else {
            self.offer(len);
        }
    }

    /// So much of a delivery is consumed. Gives how long it was.
    pub(crate) fn complete(&self, bytes: usize) -> Result<usize, Misfit> {
        let mut pending = self.pending.load(Ordering::Acquire);
        loop {
            let len = pending.checked_sub(1).ok_or(NOTHING_PENDING)?;
            if bytes as u64 > len {
                return Err(MORE_THAN_PENDING);
            }
            let left = if self.has(MANY) { pending - bytes as u64 } else { 0 };
            let taken =
                self.pending
                    .compare_exchange_weak(pending, left, Ordering::AcqRel, Ordering::Acquire);
            match taken {
                Ok(_) => return Ok(len as usize),
                Err(other) => pending = other,
            }
        }
    }
}

/// What is known of a connection.
pub(crate) struct ConnectionKnown {
    /// What its handler has been asked and nobody has answered.
    questions: AtomicU8,
    /// Tickets that a server may give its client.
    tickets: AtomicU8,
    /// Bytes that each may carry, in fours, plus one; 0: not even none.
    ticket_room: AtomicU8,
    /// Bytes that may be sent before no more are taken, as the worker last knew.
    send_room: AtomicI64,
    /// Bytes of sends of other threads that the worker has not seen yet. Negative for a moment where it has seen one before it was counted.
    sends_under_way: AtomicI64,
    /// How much of each stream should be queued; 0: [`IDEAL_SEND_MIN`].
    ideal_send: AtomicU64,
    /// The longest datagram that may be sent; before the handshake is complete, the longest that may turn out to fit.
    datagram_max: AtomicU32,
    /// Its handler is to be notified, and has not been yet.
    notified: AtomicBool,
}

/// A question.
#[derive(Clone, Copy)]
pub(crate) enum Question {
    /// `PeerCertificateReceived`.
    Certificate = 1,
    /// `Resumed`.
    Ticket = 2,
}

impl ConnectionKnown {
    /// Of a connection that may send so much before no more is taken.
    pub(crate) fn new(send_room: i64) -> Self {
        ConnectionKnown {
            questions: AtomicU8::default(),
            tickets: AtomicU8::default(),
            ticket_room: AtomicU8::default(),
            send_room: AtomicI64::new(send_room),
            sends_under_way: AtomicI64::default(),
            ideal_send: AtomicU64::default(),
            datagram_max: AtomicU32::new(u16::MAX.into()),
            notified: AtomicBool::new(false),
        }
    }

    /// A handler is about to be asked. For the worker only.
    pub(crate) fn ask(&self, question: Question) {
        self.questions.fetch_or(question as u8, Ordering::AcqRel);
    }

    /// There is an answer; false if there was no question.
    pub(crate) fn answer(&self, question: Question) -> bool {
        self.questions.fetch_and(!(question as u8), Ordering::AcqRel) & question as u8 != 0
    }

    /// The handshake is complete, and so many tickets may be given, each with so much data, if any fits. For the worker only.
    pub(crate) fn set_tickets(&self, tickets: usize, data_max: Option<usize>) {
        let room = data_max.map_or(0, |max| (max / TICKET_ROOM_UNIT + 1).min(u8::MAX.into()) as u8);
        self.ticket_room.store(room, Ordering::Relaxed);
        self.tickets
            .store(tickets.min(u8::MAX.into()) as u8, Ordering::Release);
    }

    /// A ticket with so much data is to be given.
    pub(crate) fn take_ticket(&self, len: usize) -> Result<(), Misfit> {
        let fits = |_: &u8| {
            let room = usize::from(self.ticket_room.load(Ordering::Relaxed));
            len.div_ceil(TICKET_ROOM_UNIT) < room
        };
        let take = |left: u8| left.checked_sub(1).filter(fits);
        let taken = self
            .tickets
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        match taken {
            Ok(_) => Ok(()),
            Err(0) => Err(NO_TICKET),
            Err(_) => Err(TICKET_TOO_LONG),
        }
    }

    /// How much may be sent, as long as the worker has not seen more. For the worker only.
    #[inline]
    pub(crate) fn set_send_room(&self, room: i64) {
        self.send_room.store(room, Ordering::Relaxed);
    }

    /// Something may be sent: less than the limit is queued.
    #[inline]
    pub(crate) fn has_send_room(&self) -> bool {
        let room = self.send_room.load(Ordering::Relaxed);
        room > self.sends_under_way.load(Ordering::Relaxed)
    }

    /// So many bytes are on their way to the worker.
    pub(crate) fn begin_send(&self, bytes: i64) {
        self.sends_under_way.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The worker has them.
    pub(crate) fn end_send(&self, bytes: i64) {
        self.sends_under_way.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The handler is to be notified; false if somebody has said so already.
    pub(crate) fn notify(&self) -> bool {
        !self.notified.swap(true, Ordering::AcqRel)
    }

    /// The handler is about to be notified: from now on it is to be notified again.
    pub(crate) fn begin_notified(&self) {
        self.notified.swap(false, Ordering::AcqRel);
    }

    /// The longest datagram that may be sent.
    pub(crate) fn datagram_max(&self) -> usize {
        self.datagram_max.load(Ordering::Relaxed) as usize
    }

    /// For the worker only.
    pub(crate) fn set_datagram_max(&self, len: usize) {
        self.datagram_max.store(len as u32, Ordering::Relaxed);
    }

    /// How much of each stream should be queued.
    pub(crate) fn ideal_send(&self) -> u64 {
        match self.ideal_send.load(Ordering::Relaxed) {
            0 => IDEAL_SEND_MIN,
            bytes => bytes,
        }
    }

    /// For the worker only.
    pub(crate) fn set_ideal_send(&self, bytes: u64) {
        self.ideal_send.store(bytes, Ordering::Relaxed);
    }

    /// It was not given after all.
    pub(crate) fn put_ticket_back(&self) {
        self.tickets.fetch_add(1, Ordering::AcqRel);
    }
}

/// In what [`ConnectionKnown::ticket_room`] counts: a byte has room for 1000 bytes.
const TICKET_ROOM_UNIT: usize = 4;

pub(crate) const NO_TICKET: Misfit = "no ticket is to be given: only a server gives them, after its handshake, and as many as \
     server_resumption_level and tickets_per_connection in its settings say";
const TICKET_TOO_LONG: Misfit = "a ticket carries 1000 bytes of data at most; and less, or there is none at all, if the client has shown a \
     certificate chain of more than 7 KB";
const IS_STARTED: Misfit = "the stream has been started already";
const IS_SEND_ENDED: Misfit = "the sending side of the stream has ended";
const HAS_NO_SEND: Misfit = "the peer's unidirectional stream has no sending side here";
const HAS_NO_RECEIVE: Misfit = "a unidirectional stream has no receiving side where it was opened";
const UNORDERED_BUFFERS: Misfit =
    "a stream with buffers of the application is read in order: use either buffers or the order of arrival";
const NOTHING_PENDING: Misfit = "no Receive event waits to be completed";
const MORE_THAN_PENDING: Misfit = "the Receive event had fewer bytes";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_is_completed_once_by_whoever_comes_first() {
        let known = StreamKnown::of_ours(true);
        known.offer(3);
        let winners = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| known.complete(3).is_ok()))
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().ok())
                .filter(|&won| won)
                .count()
        });
        assert_eq!(winners, 1);
    }

    #[test]
    fn empty_delivery_is_one_too() {
        let known = StreamKnown::of_ours(true);
        known.offer(0);
        assert_eq!(known.complete(1), Err(MORE_THAN_PENDING));
        assert_eq!(known.complete(0), Ok(0));
        assert_eq!(known.complete(0), Err(NOTHING_PENDING));
    }
}
