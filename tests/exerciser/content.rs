//! What is sent, so that whoever receives it can tell that it is right: records, each of which says how long it is, and has bytes that follow from
//! that. Whole sends may come in any order, as threads and handlers make them beside each other.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use rand::RngExt;
use rand::rngs::StdRng;
use ringway::{Bytes, EventStatus, KeptData};
use ringway_tests::order::check;

/// The longest record, with its length.
pub(crate) const RECORD_MAX: usize = 1 << 17;
const HEADER: usize = 4;

/// The byte at place `i` of a record of `len` bytes behind its length is the one at place `len mod 251 + i` here.
static BODY: LazyLock<Vec<u8>> = LazyLock::new(|| (0..RECORD_MAX + 251).map(|at| (at % 251) as u8).collect());

fn body(len: usize) -> &'static [u8] {
    &BODY[len % 251..][..len]
}

/// A record of so many bytes, its length among them; empty if it has no room for that.
pub(crate) fn record(len: usize) -> Bytes {
    match len.checked_sub(HEADER) {
        Some(len) => [&(len as u32).to_be_bytes()[..], body(len)].concat().into(),
        None => Bytes::new(),
    }
}

/// Some of it after the other, some of them empty.
pub(crate) fn in_parts(mut record: Bytes, rng: &mut StdRng) -> Vec<Bytes> {
    let mut parts = Vec::new();
    while parts.len() < 5 && rng.random_bool(0.6) {
        parts.push(record.split_to(rng.random_range(0..=record.len())));
    }
    parts.push(record);
    parts
}

/// A datagram is a record, or is empty.
pub(crate) fn check_datagram(data: &[u8]) {
    check(data == record(data.len()), "datagram", "with wrong content");
}

/// Received data that is kept, and what it was.
pub(crate) struct Kept {
    data: KeptData,
    was: Vec<u8>,
}

impl Kept {
    pub(crate) fn new(data: KeptData, was: Vec<u8>) -> Self {
        Kept { data, was }
    }

    /// It is what it was, whole and in parts.
    pub(crate) fn check(mut self, rng: &mut StdRng) {
        let at = rng.random_range(0..=self.was.len());
        let same = self.data[..] == self.was && self.data.slice(at..)[..] == self.was[at..];
        check(same, "data that was kept", "is not what it was");
        let first = self.data.split_to(at);
        drop(self.data.clone());
        let again = [Bytes::from(first), Bytes::from(self.data)].concat();
        check(again == self.was, "data that was kept", "is not what it was");
    }
}

/// How a stream is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    InOrder,
    /// What is pending is the application's.
    Many,
    Unordered,
}

/// What was received on a stream.
pub(crate) struct Reading {
    way: Way,
    content: Vec<u8>,
    /// Of unordered content: what of it is there.
    arrived: Vec<bool>,
    /// Where records that were checked end.
    checked: usize,
    /// Where the next delivery begins.
    next: RangeInclusive<usize>,
    /// The end, once it is known.
    end: Option<usize>,
}

impl Reading {
    pub(crate) fn new(way: Way) -> Self {
        Reading {
            way,
            content: Vec::new(),
            arrived: Vec::new(),
            checked: 0,
            next: 0..=0,
            end: None,
        }
    }

    /// There is data, which is checked.
    pub(crate) fn receive(&mut self, offset: u64, data: &[u8], fin: bool) {
        let (start, end) = (offset as usize, offset as usize + data.len());
        let is_within = self.end.is_none_or(|last| end <= last);
        check(is_within, "received data", "beyond the end of the stream");
        if fin {
            let is_end = self.end.is_none_or(|last| last == end) && end >= self.content.len();
            check(is_end, "received data", "with another end than before");
            self.end = Some(end);
        }
        if self.way == Way::Unordered {
            return self.receive_unordered(start, data);
        }
        check(
            self.next.contains(&start),
            "received data",
            "not where the last has ended",
        );
        self.next = end..=end;
        let known = self.content.len().clamp(start, end) - start;
        let is_same = self.content[start..][..known] == data[..known];
        check(is_same, "received data", "another than the first time");
        self.content.extend_from_slice(&data[known..]);
        self.check_records();
    }

    fn receive_unordered(&mut self, start: usize, data: &[u8]) {
        let end = start + data.len();
        if self.content.len() < end {
            self.content.resize(end, 0);
            self.arrived.resize(end, false);
        }
        let is_new = !self.arrived[start..end].contains(&true);
        check(is_new, "received data", "twice");
        self.content[start..end].copy_from_slice(data);
        self.arrived[start..end].fill(true);
    }

    /// The handler answers the event that has brought so many bytes so.
    pub(crate) fn answer(&mut self, len: usize, status: EventStatus) {
        let end = *self.next.start();
        self.next = match (self.way, status) {
            (Way::Unordered, _) => return,
            (_, EventStatus::Continue(consumed) | EventStatus::Consumed(consumed)) => {
                let left = end - len + consumed;
                left..=left
            }
            // Somebody will say how much of it is consumed.
            (Way::InOrder, EventStatus::Pending) => end - len..=end,
            _ => end..=end,
        };
    }

    /// There is no more: everything that was sent has come, and whole.
    pub(crate) fn finish(&mut self) {
        let is_whole = !self.arrived.contains(&false) && self.end.is_none_or(|end| end == self.content.len());
        check(is_whole, "PeerSendShutdown", "before all data has come");
        self.check_records();
        let is_boundary = self.checked == self.content.len();
        check(is_boundary, "PeerSendShutdown", "within a send");
    }

    fn check_records(&mut self) {
        while let Some((header, rest)) = self.content[self.checked..].split_first_chunk::<HEADER>() {
            let len = u32::from_be_bytes(*header) as usize;
            check(len <= RECORD_MAX, "received data", "with wrong content");
            let there = rest.len().min(len);
            let is_right = rest[..there] == body(len)[..there];
            check(is_right, "received data", "with wrong content");
            if there < len {
                break;
            }
            self.checked += HEADER + len;
        }
    }
}
