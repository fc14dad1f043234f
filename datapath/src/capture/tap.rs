//! Between a device and the thread that writes: a ring of packets' bytes, and one of what is known of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ringway_types::Instant;
use rtrb::{Consumer, Producer, RingBuffer};

use super::options::CaptureOptions;

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Received,
    Sent,
}

/// A packet that was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) time: Instant,
    pub(super) direction: Direction,
    /// That of a frame; `None`: it is a datagram.
    pub(super) queue: Option<u32>,
    pub(super) ends: Option<Ends>,
    /// Bytes of it, and how many of them were taken.
    pub(super) len: u32,
    pub(super) taken: u32,
}

/// What a datagram of a socket is sent with. A frame has it in its headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ends {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) traffic_class: u8,
}

/// The ends of a capture that one device has. Dropped, the capture goes on without it.
#[derive(Debug)]
pub struct Taps {
    /// For frames, where the device has some.
    #[cfg(feature = "af_xdp")]
    pub(crate) frames: Option<Box<Tap>>,
    /// For datagrams of the kernel's sockets.
    pub(crate) datagrams: Option<Box<Tap>>,
}

/// The tap of a device, if there is one that still takes something.
#[inline]
pub(crate) fn running(tap: &mut Option<Box<Tap>>) -> Option<&mut Tap> {
    if tap.as_ref().is_some_and(|tap| tap.is_over()) {
        *tap = None;
    }
    tap.as_deref_mut()
}

/// What both ends see.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// These two are written by the device alone.
    pub(super) seen: AtomicU64,
    pub(super) dropped: AtomicU64,
    /// Nothing more is to be taken.
    pub(super) is_over: AtomicBool,
}

/// The device's end.
#[derive(Debug)]
pub(crate) struct Tap {
    records: Producer<Record>,
    bytes: Producer<u8>,
    every: u32,
    /// Packets to go by until one is taken.
    skip: u32,
    snap_length: usize,
    #[cfg(feature = "af_xdp")]
    queues: Option<Vec<u32>>,
    seen: u64,
    dropped: u64,
    counts: Arc<Counts>,
}

/// The other end.
pub(super) struct TapReader {
    /// The name of what it is at.
    pub(super) name: String,
    pub(super) partition: usize,
    /// Those that there are by now; `None`: it is at sockets.
    pub(super) queues: Option<Vec<u32>>,
    pub(super) records: Consumer<Record>,
    pub(super) bytes: Consumer<u8>,
    pub(super) counts: Arc<Counts>,
}

/// Both ends of one.
pub(super) fn tap(
    options: &CaptureOptions,
    name: &str,
    partition: usize,
    queues: Option<Vec<u32>>,
) -> (Tap, TapReader) {
    let room = Room::of(options.buffer_bytes);
    let (mut records_in, mut records) = RingBuffer::new(room.records);
    let (mut bytes_in, mut bytes) = RingBuffer::new(room.bytes);
    // Written once, so that the packet path does not wait for the kernel to find memory.
    let mut page = [0; 4096];
    for _ in 0..room.bytes.div_ceil(page.len()) {
        // There is room, and then there are as many bytes.
        let _ = bytes_in.push_entire_slice(&page);
        let _ = bytes.pop_entire_slice(&mut page);
    }
    let record = Record {
        time: Instant::ZERO,
        direction: Direction::Received,
        queue: None,
        ends: None,
        len: 0,
        taken: 0,
    };
    for _ in 0..room.records {
        let _ = records_in.push(record);
        let _ = records.pop();
    }
    let counts = Arc::<Counts>::default();
    let tap = Tap {
        records: records_in,
        bytes: bytes_in,
        every: options.every,
        skip: 0,
        snap_length: options.snap_length as usize,
        #[cfg(feature = "af_xdp")]
        queues: options.queues.clone(),
        seen: 0,
        dropped: 0,
        counts: Arc::clone(&counts),
    };
    let reader = TapReader {
        name: name.to_owned(),
        partition,
        queues,
        records,
        bytes,
        counts,
    };
    (tap, reader)
}

impl Tap {
    /// True when nothing more is to be taken.
    fn is_over(&self) -> bool {
        self.counts.is_over.load(Ordering::Relaxed) || self.records.is_abandoned()
    }

    /// A frame has come or goes by a queue.
    #[cfg(feature = "af_xdp")]
    pub(crate) fn frame(&mut self, time: Instant, direction: Direction, queue: u32, bytes: &[u8]) {
        if (self.queues.as_ref()).is_none_or(|queues| queues.contains(&queue)) {
            self.take(time, direction, Some(queue), None, bytes);
            self.publish();
        }
    }

    /// Datagrams have come or go, back to back, each of `segment_size` but for the last.
    pub(crate) fn datagrams(
        &mut self,
        time: Instant,
        direction: Direction,
        (source, destination): (SocketAddr, SocketAddr),
        traffic_class: u8,
        bytes: &[u8],
        segment_size: usize,
    ) {
        let ends = Some(Ends {
            source,
            destination,
            traffic_class,
        });
        for datagram in bytes.chunks(segment_size.max(1)) {
            self.take(time, direction, None, ends, datagram);
        }
        self.publish();
    }

    fn take(
        &mut self,
        time: Instant,
        direction: Direction,
        queue: Option<u32>,
        ends: Option<Ends>,
        bytes: &[u8],
    ) {
        self.seen += 1;
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        self.skip = self.every - 1;
        let headers = if ends.is_some() { HEADERS_MIN } else { 0 };
        let taken = bytes.len().min(self.snap_length - headers);
        // Bytes before what tells of them: whoever sees the one has the other.
        let has_room = self.records.slots() > 0 && self.bytes.push_entire_slice(&bytes[..taken]).is_ok();
        let record = Record {
            time,
            direction,
            queue,
            ends,
            len: bytes.len() as u32,
            taken: taken as u32,
        };
        if !has_room || self.records.push(record).is_err() {
            self.dropped += 1;
        }
    }

    fn publish(&self) {
        self.counts.seen.store(self.seen, Ordering::Relaxed);
        self.counts.dropped.store(self.dropped, Ordering::Relaxed);
    }
}

/// Those of UDP over IPv4: they are made when the datagram is written.
const HEADERS_MIN: usize = 28;
/// There is a record for each so many bytes of packets: small packets find room too.
const BYTES_OF_RECORD: usize = 256;

/// How a buffer is divided.
struct Room {
    records: usize,
    bytes: usize,
}

impl Room {
    fn of(buffer_bytes: usize) -> Room {
        let records = buffer_bytes / (BYTES_OF_RECORD + size_of::<Record>());
        let bytes = buffer_bytes - records * size_of::<Record>();
        Room { records, bytes }
    }
}

#[cfg(all(test, not(loom), feature = "af_xdp"))]
mod tests {
    use super::*;

    fn ends(options: &CaptureOptions) -> (Tap, TapReader) {
        tap(options, "test", 0, Some(vec![0]))
    }

    fn take(reader: &mut TapReader) -> Option<(Record, Vec<u8>)> {
        let record = reader.records.pop().ok()?;
        let mut bytes = vec![0; record.taken as usize];
        reader.bytes.pop_entire_slice(&mut bytes).unwrap();
        Some((record, bytes))
    }

    #[test]
    fn one_of_so_many_packets_is_taken_and_no_more_of_it_than_asked_for() {
        let options = CaptureOptions {
            every: 3,
            snap_length: 64,
            ..CaptureOptions::default()
        };
        let (mut tap, mut reader) = ends(&options);
        for packet in 0..7u8 {
            tap.frame(
                Instant::ZERO,
                Direction::Received,
                0,
                &vec![packet; 60 + usize::from(packet)],
            );
        }
        let taken: Vec<_> = std::iter::from_fn(|| take(&mut reader)).collect();
        let lens: Vec<_> = taken
            .iter()
            .map(|(record, bytes)| (record.len, bytes.clone()))
            .collect();
        assert_eq!(lens, [(60, vec![0; 60]), (63, vec![3; 63]), (66, vec![6; 64])]);
        assert_eq!(reader.counts.seen.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn runs_are_taken_apart_and_queues_that_nobody_asked_for_are_left_out() {
        let options = CaptureOptions {
            queues: Some(vec![1]),
            ..CaptureOptions::default()
        };
        let (mut tap, mut reader) = ends(&options);
        let addresses = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        tap.frame(Instant::ZERO, Direction::Sent, 0, &[9; 60]);
        tap.frame(Instant::ZERO, Direction::Sent, 1, &[8; 60]);
        tap.datagrams(Instant::ZERO, Direction::Sent, addresses, 1, &[7; 25], 10);
        let lens: Vec<_> = std::iter::from_fn(|| take(&mut reader))
            .map(|(record, _)| record.len)
            .collect();
        assert_eq!(lens, [60, 10, 10, 5]);
    }

    #[test]
    fn both_rings_together_have_the_memory_that_was_asked_for() {
        let options = CaptureOptions::default();
        let (tap, reader) = ends(&options);
        let records = reader.records.buffer().capacity() * size_of::<Record>();
        assert_eq!(records + reader.bytes.buffer().capacity(), options.buffer_bytes);
        assert!(tap.records.slots() > options.buffer_bytes / 512);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_what_is_there_stays_whole() {
        const BUFFER_BYTES: usize = 16_384;
        let (mut tap, mut reader) = ends(&CaptureOptions {
            buffer_bytes: BUFFER_BYTES,
            ..CaptureOptions::default()
        });
        let room = Room::of(BUFFER_BYTES);
        let mut drops = 0;
        // By turns too many bytes and too many packets.
        for (len, fit) in [(1500, room.bytes / 1500), (1, room.records)] {
            for packet in 0..100u8 {
                tap.frame(Instant::ZERO, Direction::Received, 0, &vec![packet; len]);
            }
            assert!(0 < fit && fit < 100);
            let expected: Vec<_> = (0..fit as u8).map(|packet| vec![packet; len]).collect();
            let taken = std::iter::from_fn(|| take(&mut reader)).map(|(_, bytes)| bytes);
            assert_eq!(taken.collect::<Vec<_>>(), expected);
            drops += 100 - fit as u64;
        }
        assert_eq!(reader.counts.dropped.load(Ordering::Relaxed), drops);
        drop(reader);
        assert!(tap.is_over());
    }
}
