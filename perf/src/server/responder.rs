//! What answers one request, and what its handlers count.

use std::sync::atomic::{AtomicU64, Ordering};

use ringway::{
    Bytes, ConnectionStats, EventStatus, ReceivedData, Stream, StreamEvent, StreamShutdown, ZeroRtt,
};
use ringway_perf_protocol::{HEADER_LEN, Pattern, RequestHeader};

use crate::endpoint::EndpointArgs;

#[derive(Debug)]
pub(super) struct Shared {
    pattern: Pattern,
    verify: bool,
    posted: u64,
    io_size: u64,
    /// By partition.
    counters: Box<[PartitionCounters]>,
}

/// What the handlers of one partition count. They run on one thread, which alone writes here: no atomic addition is needed.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct PartitionCounters {
    pub requests: AtomicU64,
    pub request_bytes: AtomicU64,
    pub response_bytes: AtomicU64,
    pub verification_failures: AtomicU64,
    pub ideal_processor_changes: AtomicU64,
    pub resumed: AtomicU64,
    pub zero_rtt_accepted: AtomicU64,
    pub zero_rtt_rejected: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

impl Shared {
    pub(super) fn new(args: &EndpointArgs, partitions: usize) -> Self {
        let io_size = args.io_size.as_u64();
        Shared {
            pattern: Pattern::new(io_size as usize),
            verify: args.verify,
            posted: args.posted.as_u64(),
            io_size,
            counters: (0..partitions).map(|_| PartitionCounters::default()).collect(),
        }
    }

    /// A connection has moved here; its handler runs on this partition's thread.
    pub(super) fn on_moved(&self, partition: usize) {
        add(&self.counters[partition].ideal_processor_changes, 1);
    }

    /// A connection has ended; its handler runs on this partition's thread.
    pub(super) fn on_ended(&self, partition: usize, stats: &ConnectionStats) {
        let counters = &self.counters[partition];
        add(&counters.resumed, stats.resumed.into());
        match stats.zero_rtt {
            ZeroRtt::Accepted => add(&counters.zero_rtt_accepted, 1),
            ZeroRtt::Rejected => add(&counters.zero_rtt_rejected, 1),
            ZeroRtt::NotOffered | ZeroRtt::Offered => {}
        }
    }

    /// A piece of a response of `len` bytes.
    pub(super) fn piece(&self, offset: u64, len: u64) -> Bytes {
        self.pattern.piece(offset, self.io_size.min(len - offset))
    }

    /// Whether this is what belongs there in a request, behind its header, if that is to be verified.
    pub(super) fn is_correct(&self, offset: u64, data: &[u8]) -> bool {
        !self.verify || data.is_empty() || self.pattern.matches(offset, data)
    }

    /// So much of a request has come. For the one thread of this partition that counts, as what follows.
    pub(super) fn on_request_bytes(&self, partition: usize, bytes: usize) {
        add(&self.counters[partition].request_bytes, bytes as u64);
    }

    /// A request has come, with the right content or not.
    pub(super) fn on_request(&self, partition: usize, correct: bool) {
        let counters = &self.counters[partition];
        add(&counters.requests, 1);
        add(&counters.verification_failures, (!correct).into());
    }

    /// So much of a response was sent.
    pub(super) fn on_response_bytes(&self, partition: usize, bytes: u64) {
        add(&self.counters[partition].response_bytes, bytes);
    }

    /// That of the thread on which a handler of this stream runs.
    fn counters(&self, stream: &Stream) -> &PartitionCounters {
        &self.counters[stream.connection().partition()]
    }

    pub(super) fn sum(&self, counter: impl Fn(&PartitionCounters) -> &AtomicU64) -> u64 {
        let counts = self
            .counters
            .iter()
            .map(|counters| counter(counters).load(Ordering::Relaxed));
        counts.sum()
    }
}

/// What answers one request.
struct Responder {
    shared: &'static Shared,
    header: RequestHeader,
    /// Bytes of the response sent so far, and those not acknowledged.
    offset: u64,
    outstanding: u64,
    correct: bool,
}

pub(super) fn responder(
    shared: &'static Shared,
) -> impl FnMut(&Stream, StreamEvent<'_>) -> EventStatus + Send {
    let mut responder = Responder {
        shared,
        header: RequestHeader::default(),
        offset: 0,
        outstanding: 0,
        correct: true,
    };
    move |stream, event| {
        responder.on_event(stream, event);
        EventStatus::Done
    }
}

impl Responder {
    fn on_event(&mut self, stream: &Stream, event: StreamEvent<'_>) {
        match event {
            StreamEvent::Receive(receive) => self.on_receive(stream, &receive),
            StreamEvent::PeerSendShutdown => {
                add(&self.shared.counters(stream).requests, 1);
                match self.header.response_len() {
                    Some(0) => {
                        let _ = stream.shutdown(StreamShutdown::Graceful);
                    }
                    Some(len) => self.send(stream, len),
                    // Less than a header is no request.
                    None => {
                        let _ = stream.shutdown(StreamShutdown::AbortSend(1));
                    }
                }
            }
            StreamEvent::SendComplete { context, canceled } => {
                self.outstanding -= context;
                if !canceled {
                    add(&self.shared.counters(stream).response_bytes, context);
                    self.send(stream, self.header.response_len().unwrap_or(0));
                }
            }
            StreamEvent::PeerSendAborted { .. } => {
                let _ = stream.shutdown(StreamShutdown::AbortSend(0));
            }
            StreamEvent::ShutdownComplete { .. } if !self.correct => {
                add(&self.shared.counters(stream).verification_failures, 1);
            }
            _ => {}
        }
    }

    fn on_receive(&mut self, stream: &Stream, receive: &ReceivedData<'_>) {
        let mut offset = receive.offset();
        for slice in receive.slices() {
            let rest = self.header.take(slice);
            let start = offset + (slice.len() - rest.len()) as u64;
            self.correct &= self
                .shared
                .is_correct(start.saturating_sub(HEADER_LEN as u64), rest);
            offset += slice.len() as u64;
        }
        add(&self.shared.counters(stream).request_bytes, receive.len() as u64);
    }

    fn send(&mut self, stream: &Stream, len: u64) {
        while self.offset < len && self.outstanding < self.shared.posted {
            let piece = self.shared.piece(self.offset, len);
            let count = piece.len() as u64;
            if stream.send(piece, count, self.offset + count == len).is_err() {
                return;
            }
            self.offset += count;
            self.outstanding += count;
        }
    }
}
