//! Received data of a stream (or of the handshake) that cannot be delivered yet: out of order, or not wanted yet.
//!
//! What a peer can make us hold must follow from what it has sent, however it cuts its data: one byte in each 4 KiB of a window must not hold
//! the window. So data lies in pieces, ordered and without overlap. A piece takes 16 bytes; up to [`INLINE_MAX`] bytes of data lie in those
//! themselves, more in a block beside them, into which what comes behind it goes too.
//!
//! # What it costs
//!
//! All that is held, room that is not used yet and what the heap takes for itself included, is at most 4 × the bytes of the frames that brought
//! it, and 256 bytes. The smallest frame that makes a piece of its own has 4 bytes beside its data (CRYPTO with an offset of two bytes; with one
//! of one byte there can be only 32 of them); a stream's has 5. A piece of one byte takes 16 bytes, and 4 more as the list has up to a quarter of
//! its length in reserve: 20 bytes for 5. Blocks have room for at most 3 × their data, and for [`BLOCK_MAX`] only behind a block that is full.
//! `Connection::memory` says what this makes of a connection.
//!
//! A frame takes a binary search, and moves at most half of the list, which has [`RANGES_MAX`] pieces and one more for each KiB without a gap.

use std::collections::VecDeque;
use std::ops::Range;

use crate::wire::error::{TransportError, TransportErrorCode};

/// Where a piece begins, modulo 2^40, and how long it is: what is left of 16 bytes beside a pointer and a tag.
#[derive(Clone, Copy)]
struct Place {
    start: [u8; 5],
    len: [u8; 2],
}

impl Place {
    fn new(start: u64, len: usize) -> Self {
        let [a, b, c, d, e, ..] = start.to_le_bytes();
        Place {
            start: [a, b, c, d, e],
            len: (len as u16).to_le_bytes(),
        }
    }

    #[inline]
    fn start(self) -> u64 {
        let [a, b, c, d, e] = self.start;
        u64::from_le_bytes([a, b, c, d, e, 0, 0, 0])
    }

    #[inline]
    fn len(self) -> usize {
        usize::from(u16::from_le_bytes(self.len))
    }
}

/// One list gives the sizes of blocks.
macro_rules! blocks {
    ($($name:ident $size:literal,)*) => {
        /// Data without a gap. Each size of block is a variant of its own: a pointer that need not say its length takes 8 bytes.
        enum Piece {
            Inline(Place, [u8; INLINE_MAX]),
            $($name(Place, Box<[u8; $size]>),)*
        }

        impl Piece {
            /// Without data yet, in a block of this size.
            fn with_room(start: u64, room: usize) -> Self {
                let place = Place::new(start, 0);
                match room {
                    $($size => Piece::$name(place, zeroed()),)*
                    _ => Piece::Inline(place, [0; INLINE_MAX]),
                }
            }

            #[inline]
            fn place(&self) -> Place {
                match self {
                    Piece::Inline(place, _) => *place,
                    $(Piece::$name(place, _) => *place,)*
                }
            }

            fn place_mut(&mut self) -> &mut Place {
                match self {
                    Piece::Inline(place, _) => place,
                    $(Piece::$name(place, _) => place,)*
                }
            }

            /// Where its data lies, with room behind it.
            fn room(&self) -> &[u8] {
                match self {
                    Piece::Inline(_, data) => data,
                    $(Piece::$name(_, block) => &block[..],)*
                }
            }

            fn room_mut(&mut self) -> &mut [u8] {
                match self {
                    Piece::Inline(_, data) => data,
                    $(Piece::$name(_, block) => &mut block[..],)*
                }
            }
        }
    };
}

blocks! {
    B16 16, B32 32, B64 64, B128 128, B256 256, B512 512, B1024 1024, B2048 2048, B4096 4096, B8192 8192, B16384 16384,
}

/// A block that does not come about on the stack first.
fn zeroed<const N: usize>() -> Box<[u8; N]> {
    let block: Result<Box<[u8; N]>, _> = vec![0; N].into_boxed_slice().try_into();
    block.expect("it was made with this length")
}

impl Piece {
    #[inline]
    fn len(&self) -> usize {
        self.place().len()
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.room()[..self.len()]
    }

    /// Takes over data behind its own, for which there is room.
    fn push(&mut self, data: &[u8]) {
        let len = self.len();
        self.room_mut()[len..len + data.len()].copy_from_slice(data);
        self.place_mut().len = ((len + data.len()) as u16).to_le_bytes();
    }

    /// Bytes beside its place in the list.
    fn heap(&self) -> usize {
        match self {
            Piece::Inline(..) => 0,
            _ => self.room().len() + HEAP_OVERHEAD,
        }
    }
}

/// The room that data of this length begins with: a full packet's makes room for the next ones too.
fn room_for(len: usize) -> usize {
    if len <= INLINE_MAX {
        return INLINE_MAX;
    }
    let least = len.next_power_of_two().max(16);
    // What the place and the heap take must fit into the bound too, so that little data gets no more than it needs.
    let most = (3 * len).saturating_sub(24).max(1);
    least.max(1 << most.ilog2()).min(BLOCK_MAX)
}

/// Data of one stream from the first byte that was not consumed.
#[derive(Default)]
pub(crate) struct Assembler {
    pieces: VecDeque<Piece>,
    /// Where the first piece begins, at or below what was not consumed.
    start: u64,
    /// Where what follows it without a gap ends.
    ready_end: u64,
    /// Pieces that have a gap before them, the first included; what [`Assembler::take`] has taken out included.
    ranges: usize,
    /// What the pieces take beside their places in the list.
    heap: usize,
}

/// Data taken out of an assembler to be looked at: contiguous from its offset.
pub struct ReadyData {
    /// All that the assembler holds.
    pieces: VecDeque<Piece>,
    /// Where the first piece begins.
    start: u64,
    range: Range<u64>,
    /// The stream ends behind the data.
    pub(super) fin: bool,
}

impl ReadyData {
    /// Position of the first byte in the stream.
    pub fn offset(&self) -> u64 {
        self.range.start
    }

    /// The stream ends behind the data.
    pub fn fin(&self) -> bool {
        self.fin
    }

    /// Bytes of data.
    pub fn len(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }

    /// True if there is nothing but the end of the stream.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The data.
    pub fn slices(&self) -> Vec<&[u8]> {
        let mut slices = Vec::new();
        let mut at = self.start;
        for piece in &self.pieces {
            if at >= self.range.end {
                break;
            }
            let skip = self.range.start.saturating_sub(at).min(piece.len() as u64);
            let slice = &piece.bytes()[skip as usize..];
            if !slice.is_empty() {
                slices.push(slice);
            }
            at += piece.len() as u64;
        }
        slices
    }
}

impl Assembler {
    /// True if nothing is held.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges == 0
    }

    /// Bytes that it holds beside itself: pieces, blocks, and room for more.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        let list = match self.pieces.capacity() {
            0 => 0,
            places => places * size_of::<Piece>() + HEAP_OVERHEAD,
        };
        self.heap + list
    }

    /// Where contiguous data from `offset` on ends; `offset` if there is none.
    #[inline]
    pub(crate) fn ready_end(&self, offset: u64) -> u64 {
        if self.ranges > 0 && self.start <= offset {
            self.ready_end.max(offset)
        } else {
            offset
        }
    }

    /// Where a piece begins in the stream.
    #[inline]
    fn start_of(&self, piece: &Piece) -> u64 {
        self.start + (piece.place().start().wrapping_sub(self.start) & SPAN_MAX)
    }

    #[inline]
    fn end_of(&self, piece: &Piece) -> u64 {
        self.start_of(piece) + piece.len() as u64
    }

    /// How many pieces begin below `offset`.
    fn count_below(&self, offset: u64) -> usize {
        match self.pieces.back() {
            Some(last) if self.start_of(last) >= offset => {
                self.pieces.partition_point(|piece| self.start_of(piece) < offset)
            }
            _ => self.pieces.len(),
        }
    }

    /// Where the piece before the one with this index ends.
    fn end_before(&self, index: usize) -> Option<u64> {
        Some(self.end_of(&self.pieces[index.checked_sub(1)?]))
    }

    /// Where the piece with this index begins.
    fn start_at(&self, index: usize) -> Option<u64> {
        self.pieces.get(index).map(|piece| self.start_of(piece))
    }

    /// Keeps data at `offset`. Nothing below `consumed` is kept.
    pub(crate) fn insert(&mut self, consumed: u64, offset: u64, data: &[u8]) -> Result<(), TransportError> {
        let mut start = offset.max(consumed);
        let mut end = offset + data.len() as u64;
        if start >= end {
            return Ok(());
        }
        // What lies at its ends already is not taken again...
        let mut first = self.count_below(start + 1);
        if let Some(before) = self.end_before(first) {
            start = start.max(before);
        }
        while let Some(piece) = self.pieces.get(first)
            && self.start_of(piece) <= start
        {
            start = self.end_of(piece);
            first += 1;
        }
        if start >= end {
            return Ok(());
        }
        let mut last = self.count_below(end).max(first);
        while last > first
            && let Some(before) = self.end_before(last)
            && before >= end
        {
            last -= 1;
            end = self.start_of(&self.pieces[last]);
        }
        // ...and what lies within gives way: one frame makes one piece, whatever was there.
        let joins_before = self.end_before(first) == Some(start);
        let next = self.start_at(last);
        let joins_next = next == Some(end);
        let ranges_gone = (first..=last)
            .filter_map(|index| Some(self.end_before(index) != Some(self.start_at(index)?)))
            .filter(|&has_gap| has_gap)
            .count();
        let ranges = self.ranges + usize::from(!joins_before) + usize::from(next.is_some() && !joins_next)
            - ranges_gone;
        let end_of_all = self
            .end_before(self.pieces.len())
            .map_or(end, |last| last.max(end));
        let start_of_all = if self.is_empty() {
            start
        } else {
            self.start.min(start)
        };
        if ranges > RANGES_MAX || end_of_all - start_of_all > SPAN_MAX {
            return Err(TransportError::new(
                TransportErrorCode::INTERNAL_ERROR,
                "stream data with more gaps than we keep track of",
            ));
        }
        // What was the first piece may still follow what is the first now: then it is known where that ends.
        let is_first = first == 0;
        let joins_ready = is_first && joins_next && end < self.ready_end;
        let is_ready = (is_first && !joins_ready) || (joins_before && start == self.ready_end);
        self.ranges = ranges;
        self.remove(first..last);
        if is_first {
            self.start = start;
        }
        let next = self.place(
            first,
            start,
            &data[(start - offset) as usize..(end - offset) as usize],
        );
        if is_ready {
            self.ready_end = self.end_before(next).unwrap_or(end);
            self.extend_ready(next);
        }
        Ok(())
    }

    /// Enters data before the piece `index`, with which and with the one before it has no byte in common, and gives the index behind it.
    fn place(&mut self, mut index: usize, mut start: u64, mut data: &[u8]) -> usize {
        let end = start + data.len() as u64;
        let mut is_behind_full = false;
        if self.end_before(index) == Some(start) {
            let taken = self.append(index - 1, data);
            start += taken as u64;
            data = &data[taken..];
            is_behind_full = self.pieces[index - 1].len() == BLOCK_MAX;
        }
        while !data.is_empty() {
            let len = data.len().min(BLOCK_MAX);
            let room = if is_behind_full { BLOCK_MAX } else { room_for(len) };
            let mut piece = Piece::with_room(start, room);
            piece.push(&data[..len]);
            self.heap += piece.heap();
            if self.pieces.len() == self.pieces.capacity() {
                // Doubled, the list would have as much in reserve as it holds.
                self.pieces.reserve_exact((self.pieces.len() / 4).max(PIECES_MIN));
            }
            self.pieces.insert(index, piece);
            index += 1;
            start += len as u64;
            data = &data[len..];
            is_behind_full = len == BLOCK_MAX;
        }
        // Small ones that touch become one, so that data without gaps is in few, in whatever order it comes.
        if let Some(next) = self.pieces.get(index)
            && self.pieces[index - 1].len() + next.len() <= JOINED_MAX
            && self.start_of(next) == end
            && let Some(next) = self.pieces.remove(index)
        {
            self.append(index - 1, next.bytes());
            self.heap -= next.heap();
        }
        index
    }

    /// Enters data behind that of the piece `index`, as much as a piece may hold, and gives how much.
    fn append(&mut self, index: usize, data: &[u8]) -> usize {
        let piece = &mut self.pieces[index];
        let len = (piece.len() + data.len()).min(BLOCK_MAX);
        let taken = len - piece.len();
        if len > piece.room().len() {
            let mut grown = Piece::with_room(piece.place().start(), room_for(len));
            grown.push(piece.bytes());
            self.heap = self.heap + grown.heap() - piece.heap();
            *piece = grown;
        }
        piece.push(&data[..taken]);
        taken
    }

    /// Takes pieces out.
    fn remove(&mut self, pieces: Range<usize>) {
        if pieces.is_empty() {
            return;
        }
        for piece in self.pieces.drain(pieces) {
            self.heap -= piece.heap();
        }
        self.shrink();
    }

    /// Gives back what a list needs no more that was much longer.
    fn shrink(&mut self) {
        let len = self.pieces.len();
        if self.pieces.capacity() > 4 * len.max(PIECES_MIN) {
            self.pieces.shrink_to(2 * len.max(PIECES_MIN));
        }
    }

    /// The pieces from `index` on follow what is ready, as far as they do without a gap.
    fn extend_ready(&mut self, mut index: usize) {
        while let Some(piece) = self.pieces.get(index)
            && self.start_of(piece) == self.ready_end
        {
            self.ready_end = self.end_of(piece);
            index += 1;
        }
    }

    /// Takes out what is contiguous from `offset`. [`Assembler::give_back`] must follow before anything else.
    pub(crate) fn take(&mut self, offset: u64) -> ReadyData {
        let end = self.ready_end(offset);
        ReadyData {
            pieces: std::mem::take(&mut self.pieces),
            start: self.start,
            range: offset..end,
            fin: false,
        }
    }

    /// Takes back what was not consumed.
    pub(crate) fn give_back(&mut self, data: ReadyData, consumed: u64) {
        debug_assert!(self.pieces.is_empty());
        self.pieces = data.pieces;
        self.consume(consumed);
    }

    /// Everything below `consumed` may go.
    pub(crate) fn consume(&mut self, consumed: u64) {
        while let Some(first) = self.pieces.front() {
            let end = self.start + first.len() as u64;
            if end > consumed {
                break;
            }
            self.heap -= first.heap();
            let next = self.start_at(1);
            self.pieces.pop_front();
            self.ranges -= usize::from(next != Some(end));
            self.start = next.unwrap_or(end);
        }
        if self.pieces.is_empty() {
            return self.clear();
        }
        if self.start >= self.ready_end {
            self.ready_end = self.start;
            self.extend_ready(0);
        }
        self.shrink();
    }

    /// Lets everything go.
    #[inline]
    pub(crate) fn clear(&mut self) {
        if !self.is_empty() || self.pieces.capacity() > 0 {
            *self = Assembler::default();
        }
    }
}

const _: () = assert!(size_of::<Piece>() == 16);

/// Bytes that a piece holds without a block.
const INLINE_MAX: usize = 8;
/// Bytes in a block at most.
const BLOCK_MAX: usize = 16 * 1024;
/// Pieces that touch become one up to this size: what is copied for a frame stays little.
const JOINED_MAX: usize = 2048;
/// Places for which a list has room at least.
const PIECES_MIN: usize = 4;
/// What the heap takes for itself with each block, at most.
const HEAP_OVERHEAD: usize = 16;
/// From the first byte that is held to the last: a place says where it is modulo one more. A window of 1 TiB has no use.
const SPAN_MAX: u64 = (1 << 40) - 1;
/// Separate ranges of one stream that are kept track of. A window of 16 MiB at 10 % of loss has 1,300 gaps.
const RANGES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn byte_at(offset: u64) -> u8 {
        (offset % 251) as u8
    }

    fn bytes(offset: u64, len: usize) -> Vec<u8> {
        (offset..offset + len as u64).map(byte_at).collect()
    }

    /// An assembler, and the bytes of the smallest frames that could have brought what was inserted.
    #[derive(Default)]
    struct Bench {
        assembler: Assembler,
        consumed: u64,
        frames: usize,
    }

    impl Bench {
        fn insert(&mut self, offset: u64, len: usize) {
            self.frames += len + if offset < 64 { 3 } else { 4 };
            self.assembler
                .insert(self.consumed, offset, &bytes(offset, len))
                .unwrap();
            self.check();
        }

        /// Looks at what is ready, and consumes at most `eat` bytes of it. Gives how much was ready.
        fn read(&mut self, eat: usize) -> usize {
            let ready = self.assembler.take(self.consumed);
            assert_eq!(ready.offset(), self.consumed);
            let flat = ready.slices().concat();
            assert_eq!(flat.len(), ready.len());
            assert_eq!(flat, bytes(self.consumed, flat.len()));
            self.consumed += eat.min(flat.len()) as u64;
            self.assembler.give_back(ready, self.consumed);
            self.check();
            flat.len()
        }

        /// All that is known without looking is true, and the bound holds.
        fn check(&self) {
            let Assembler {
                pieces,
                start,
                ready_end,
                ranges,
                heap,
            } = &self.assembler;
            let mut counted = (0, 0);
            let mut at = None;
            let mut small = 0;
            let mut end_of_first = None;
            for piece in pieces {
                let from = self.assembler.start_of(piece);
                assert!(at.is_none_or(|at| at <= from) && piece.len() > 0);
                counted.0 += piece.heap();
                if at != Some(from) {
                    counted.1 += 1;
                    end_of_first = end_of_first.or(at);
                    small = 0;
                }
                assert!(
                    small == 0 || small + piece.len() > JOINED_MAX,
                    "small ones that touch"
                );
                small = piece.len();
                at = Some(from + piece.len() as u64);
            }
            assert_eq!((*heap, *ranges), counted);
            if let Some(first) = pieces.front() {
                assert_eq!(self.assembler.start_of(first), *start);
                assert_eq!(Some(*ready_end), end_of_first.or(at));
                assert!(*start + first.len() as u64 > self.consumed);
            } else {
                assert_eq!(self.assembler.memory(), 0);
            }
            let memory = self.assembler.memory();
            assert!(
                memory <= 4 * self.frames + 256,
                "{memory} bytes for {}",
                self.frames
            );
        }
    }

    proptest! {
        #[test]
        fn any_cut_and_order_gives_every_byte_once(
            start in prop::sample::select(vec![0, (1 << 40) - 20_000, (1 << 62) - 70_000]),
            pieces in prop::collection::vec((0u64..40_000, 0usize..6000, 0usize..9000, 0u32..4), 1..60),
        ) {
            let mut bench = Bench { consumed: start, ..Bench::default() };
            for (offset, len, eat, scale) in pieces {
                // Some all over the place, some close together and tiny.
                let shift = scale * 3;
                bench.insert(start + (offset >> shift), len >> shift);
                bench.read(eat >> shift);
            }
            // The rest arrives in one piece.
            bench.insert(start, 50_000);
            let left = (start + 50_000 - bench.consumed) as usize;
            prop_assert_eq!(bench.read(usize::MAX), left);
            prop_assert!(bench.assembler.is_empty());
            prop_assert_eq!(bench.assembler.memory(), 0);
        }
    }

    #[test]
    fn frame_of_any_length_holds_at_most_four_times_itself() {
        for len in 1..70_000 {
            let mut assembler = Assembler::default();
            assembler.insert(0, 100, &vec![0; len]).unwrap();
            // With the share of the list that it has among many.
            let pieces = assembler.pieces.len() * size_of::<Piece>() * 5 / 4;
            assert!(assembler.heap + pieces <= 4 * (len + 4), "{len}");
        }
    }

    #[test]
    fn one_byte_in_each_block_of_4_kib_holds_20_bytes_and_not_4_kib() {
        let mut bench = Bench::default();
        for index in 0..4096 {
            bench.insert(4095 + 4096 * index, 1);
        }
        let memory = bench.assembler.memory();
        assert!(memory <= 20 * 4096 + 80, "{memory}");
    }

    #[test]
    fn every_second_byte_is_held_until_one_frame_brings_all() {
        for step in [2, 3] {
            let mut bench = Bench::default();
            for index in 0..4000 {
                bench.insert(1 + step * index, 1);
            }
            assert_eq!(bench.assembler.ranges, 4000);
            bench.insert(0, 1 + step as usize * 4000);
            assert!(bench.assembler.pieces.len() <= 2 && bench.assembler.memory() <= 33_000);
            assert_eq!(bench.read(0), 1 + step as usize * 4000);
        }
    }

    #[test]
    fn bytes_that_come_one_by_one_become_few_pieces_in_any_order() {
        let len = 20_000;
        let orders: [fn(u64) -> u64; 4] = [
            |index| index,
            |index| 19_999 - index,
            // From both ends to the middle, and from the middle to both ends.
            |index| {
                if index % 2 == 0 {
                    index / 2
                } else {
                    19_999 - index / 2
                }
            },
            |index| {
                if index % 2 == 0 {
                    9_999 - index / 2
                } else {
                    10_000 + index / 2
                }
            },
        ];
        for order in orders {
            let mut bench = Bench::default();
            for index in 0..len {
                bench.insert(1 + order(index), 1);
            }
            assert!(bench.assembler.pieces.len() <= 2 * len as usize / JOINED_MAX + 1);
            assert!(bench.assembler.memory() <= 3 * len as usize);
            bench.insert(0, 1);
            assert_eq!(bench.read(usize::MAX), len as usize + 1);
        }
    }

    #[test]
    fn lost_packets_leave_gaps_that_their_repetitions_fill() {
        // Half of all packets get lost, in a window of 4 MiB.
        let (packet, packets) = (1400, 3000);
        let mut bench = Bench::default();
        for index in (1..packets).step_by(2) {
            bench.insert(index * packet, packet as usize);
        }
        for index in (0..packets).step_by(2) {
            bench.insert(index * packet, packet as usize);
            bench.read(usize::MAX);
        }
        assert!(bench.assembler.is_empty() && bench.assembler.memory() == 0);
    }

    #[test]
    fn reader_that_pauses_is_held_a_whole_window_in_blocks_that_are_full() {
        let (packet, packets) = (1400, 48_000);
        let mut assembler = Assembler::default();
        for index in 0..packets {
            assembler.insert(0, index * packet, &[0; 1400]).unwrap();
        }
        let held = (packet * packets) as usize;
        assert_eq!(assembler.ready_end(0), held as u64);
        assert!(assembler.memory() < held + held / 100, "{}", assembler.memory());
        assembler.consume(held as u64);
        assert_eq!(assembler.memory(), 0);
    }

    #[test]
    fn duplicates_and_parts_of_what_is_held_take_no_memory() {
        let mut bench = Bench::default();
        for index in 0..100 {
            bench.insert(50 + 200 * index, 100);
        }
        let memory = bench.assembler.memory();
        for index in 0..100 {
            for (offset, len) in [(0, 100), (0, 1), (99, 1), (30, 40)] {
                bench.insert(50 + 200 * index + offset, len);
            }
        }
        assert_eq!(bench.assembler.memory(), memory);
    }

    #[test]
    fn list_that_was_long_shrinks() {
        let mut bench = Bench::default();
        for index in 0..4000 {
            bench.insert(1 + 2 * index, 1);
        }
        bench.insert(0, 7001);
        bench.read(usize::MAX);
        assert_eq!(bench.assembler.ranges, 499);
        assert!(bench.assembler.memory() <= 2000 * size_of::<Piece>());
    }

    #[test]
    fn stream_in_very_many_pieces_is_an_error_and_no_memory() {
        let mut assembler = Assembler::default();
        let error = (0..)
            .find_map(|index| assembler.insert(0, 1 + index * 2, &[0]).err())
            .unwrap();
        assert_eq!(error.code, TransportErrorCode::INTERNAL_ERROR);
        assert!(assembler.memory() <= 84_000);
        // What fills gaps is welcome.
        assembler.insert(0, 0, &[0; 8000]).unwrap();
        assert!(assembler.ranges < 100);
        let error = assembler.insert(0, 1 << 41, &[0]).unwrap_err();
        assert_eq!(error.code, TransportErrorCode::INTERNAL_ERROR);
    }
}
