//! Received data that outlives its event: what arrives of a stream within a turn is copied into one block.
//!
//! A copy of what was just decrypted takes less than the references, wake-ups and allocations of as many chunks as there were packets, and gives the
//! packets' memory back at once, however slow a reader is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;

use bytes::{Bytes, BytesMut};
use ringway::ReceivedData;

use crate::batch::Batch;

/// What a turn has brought of a stream: the last chunk is still open.
#[derive(Default)]
pub(crate) struct Filling(BytesMut);

impl Filling {
    /// Adds data; chunks that are full go into the batch.
    pub(crate) fn add(&mut self, data: &ReceivedData<'_>, batch: &mut Batch) {
        let slices = data.slices();
        for (index, slice) in slices.iter().enumerate() {
            let is_last = data.fin() && index + 1 == slices.len();
            self.add_slice(slice, is_last, batch);
        }
    }

    /// `is_last`: nothing follows of the stream.
    fn add_slice(&mut self, mut rest: &[u8], is_last: bool, batch: &mut Batch) {
        while !rest.is_empty() {
            if self.0.len() == self.0.capacity() {
                self.make_room(rest.len(), is_last, batch);
            }
            let (fits, more) = rest.split_at(rest.len().min(self.0.capacity() - self.0.len()));
            self.0.extend_from_slice(fits);
            rest = more;
        }
    }

    /// What there is of the chunk is full, and so much more comes.
    fn make_room(&mut self, more: usize, is_last: bool, batch: &mut Batch) {
        if self.0.len() >= LARGE {
            self.close(batch);
        }
        let larger = match self.0.len() + more {
            // What comes by itself gets what it needs.
            len if (len < SMALL || is_last && len < MIDDLE) && self.0.is_empty() => {
                BytesMut::with_capacity(len)
            }
            len if len <= MIDDLE && batch.len() == 0 => block(MIDDLE),
            _ => block(LARGE),
        };
        let mut smaller = mem::replace(&mut self.0, larger);
        self.0.extend_from_slice(&smaller);
        smaller.clear();
        keep(smaller.capacity(), smaller);
    }

    /// No more is added to the last chunk.
    pub(crate) fn close(&mut self, batch: &mut Batch) {
        let mut bytes = mem::take(&mut self.0);
        let (len, size) = (bytes.len(), bytes.capacity());
        if len == 0 {
            return;
        }
        if size < MIDDLE {
            return batch.push(bytes.freeze(), size - len);
        }
        let filled = bytes.split();
        if len < size / 4 {
            batch.push(Bytes::copy_from_slice(&filled), 0);
        } else {
            batch.push(filled.freeze(), size - len);
        }
        keep(size, bytes);
    }
}

/// Less is not expected to be followed by more within the turn, as what a packet has room for is.
const SMALL: usize = 256;
/// Blocks are of one of two sizes. What fills less than a quarter of one is copied out: whoever keeps chunks keeps all of their memory, and the peer
/// chooses how little comes in a turn.
const MIDDLE: usize = 4 << 10;
const LARGE: usize = 16 << 10;

thread_local! {
    /// Of either size.
    static BLOCKS: RefCell<[Blocks; 2]> = const { RefCell::new([Blocks::new(), Blocks::new()]) };
}

/// Blocks that serve again once their chunks are dropped, on whichever thread.
struct Blocks {
    /// Taken from the back: what the last turn has filled comes first, which is in the processor's cache still.
    kept: VecDeque<BytesMut>,
    /// What this turn has filled: nobody has read it yet.
    filled: Vec<BytesMut>,
}

/// Of each size, so much memory is kept.
const KEPT_BYTES: usize = 512 << 10;
/// So many blocks are looked at for one that is free: the first are, but for those of slow readers.
const LOOKS: usize = 4;

impl Blocks {
    const fn new() -> Self {
        Blocks {
            kept: VecDeque::new(),
            filled: Vec::new(),
        }
    }

    fn take(&mut self, size: usize) -> Option<BytesMut> {
        for _ in 0..LOOKS {
            let mut block = self.kept.pop_back()?;
            if block.try_reclaim(size) {
                return Some(block);
            }
            self.kept.push_front(block);
        }
        None
    }

    fn keep(&mut self, size: usize, block: BytesMut) {
        if self.kept.len() + self.filled.len() >= KEPT_BYTES / size {
            // Most likely that of a slow reader.
            self.kept.pop_front();
        }
        if self.filled.len() < KEPT_BYTES / size {
            self.filled.push(block);
        }
    }
}

fn block(size: usize) -> BytesMut {
    let reclaim = |blocks: &RefCell<[Blocks; 2]>| blocks.borrow_mut()[usize::from(size == LARGE)].take(size);
    let reclaimed = BLOCKS.try_with(reclaim).ok().flatten();
    reclaimed.unwrap_or_else(|| BytesMut::with_capacity(size))
}

/// Keeps what is left of a block of this size.
fn keep(size: usize, block: BytesMut) {
    if size < MIDDLE {
        return;
    }
    // `Err`: the thread ends.
    let _ = BLOCKS.try_with(|blocks| blocks.borrow_mut()[usize::from(size == LARGE)].keep(size, block));
}

/// The turn ends: what it has filled is read now.
pub(crate) fn end_turn() {
    // `Err`: the thread ends.
    let _ = BLOCKS.try_with(|blocks| {
        for blocks in &mut *blocks.borrow_mut() {
            blocks.kept.extend(blocks.filled.drain(..));
        }
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::batch::CHUNK;
    use crate::events::RECEIVE_BUFFER;
    use crate::slots::{Found, ReceiveSlot};

    #[test]
    fn bytes_that_come_one_by_one_take_no_more_memory_than_many_at_a_time() {
        let slot = ReceiveSlot::new();
        let fill = || {
            let mut count = 0;
            while slot.reserve(1, RECEIVE_BUFFER) {
                let mut batch = Box::<Batch>::default();
                batch.push(Bytes::copy_from_slice(b"x"), 0);
                slot.give(batch);
                count += 1;
            }
            count
        };
        let count = fill();
        assert_eq!(count, RECEIVE_BUFFER.div_ceil(1 + CHUNK));
        // All of the room comes back with what is read, and the worker is told once.
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Found::Data(batch)) = slot.poll(&mut cx) else {
            panic!("nothing is there");
        };
        assert_eq!(batch.len(), count);
        assert!(!slot.on_read(1, RECEIVE_BUFFER));
        assert!(slot.on_read(batch.len() - 1 + batch.overhead(), RECEIVE_BUFFER));
        assert_eq!(fill(), count);
    }

    #[test]
    fn data_of_a_turn_becomes_few_chunks_whose_memory_counts() {
        // The last chunk is sparse of the one, and not of the other.
        for len in [100_000, 104_000] {
            let data: Vec<u8> = (0..len).map(|at| at as u8).collect();
            for packet in [1, 100, 1023, 1024, 1400, 16_384, 50_000] {
                let mut batch = batch_of(data.chunks(packet));
                let mut whole = Vec::new();
                (0..batch.len()).for_each(|index| whole.extend_from_slice(batch.get_mut(index).unwrap()));
                assert!(whole == data, "packets of {packet}");
                assert_eq!(batch.len(), data.len().div_ceil(LARGE), "packets of {packet}");
                let last = match data.len() % LARGE {
                    len if len < LARGE / 4 => len,
                    _ => LARGE,
                };
                let memory = (batch.len() - 1) * LARGE + last + batch.len() * CHUNK;
                assert_eq!(data.len() + batch.overhead(), memory, "packets of {packet}");
            }
        }
        // One by itself takes what it needs; one that nothing follows at once.
        let batch = batch_of([&[0; 512][..]]);
        assert_eq!((batch.len(), batch.overhead()), (1, CHUNK));
        for (len, unused) in [
            (1, 0),
            (1200, 0),
            (MIDDLE - 1, 0),
            (MIDDLE + 1, LARGE - MIDDLE - 1),
        ] {
            let (mut filling, mut batch) = (Filling::default(), Batch::default());
            filling.add_slice(&vec![7; len], true, &mut batch);
            filling.close(&mut batch);
            assert!(batch.get_mut(0).unwrap()[..] == vec![7; len]);
            assert_eq!(
                (batch.len(), batch.overhead()),
                (1, CHUNK + unused),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn chunk_takes_no_more_memory_than_four_times_its_bytes() {
        for (count, len) in [
            (2, 1),
            (1, 1200),
            (3, 1200),
            (4, 1200),
            (1, 4095),
            (1, 4096),
            (9, 1200),
        ] {
            let mut batch = batch_of(std::iter::repeat_n(&vec![7; len][..], count));
            assert_eq!(batch.len(), 1);
            assert!(batch.get_mut(0).unwrap()[..] == vec![7; count * len]);
            let most = CHUNK + 3 * count * len;
            assert!(
                batch.overhead() <= most,
                "{count} times {len}: {}",
                batch.overhead()
            );
        }
    }

    #[test]
    fn blocks_serve_again_when_their_chunks_are_dropped_and_no_earlier() {
        for len in [MIDDLE - 96, LARGE] {
            let chunk = |byte: u8| mem::take(batch_of([&vec![byte; len][..]]).get_mut(0).unwrap());
            let kept = chunk(1);
            // Also a part of one holds it.
            let part = chunk(2).slice(7..8);
            let places: BTreeSet<_> = (0..100).map(|_| chunk(3).as_ptr()).collect();
            assert_eq!(places.len(), 1);
            assert_eq!(std::thread::spawn(move || kept).join().unwrap(), vec![1; len]);
            assert_eq!(part[..], [2]);
        }
    }

    #[test]
    fn blocks_of_slow_readers_take_no_memory_beyond_their_chunks() {
        let chunks: Vec<_> = (0..2 * KEPT_BYTES / LARGE)
            .map(|_| batch_of([&[0; LARGE][..]]))
            .collect();
        let kept = || BLOCKS.with_borrow(|blocks| blocks.each_ref().map(|blocks| blocks.kept.len()));
        assert_eq!(kept(), [0, KEPT_BYTES / LARGE]);
        drop(chunks);
        assert_eq!(kept(), [0, KEPT_BYTES / LARGE]);
    }

    #[test]
    fn slow_readers_do_not_keep_the_blocks_of_others_from_serving_again() {
        let lent: Vec<_> = (0..KEPT_BYTES / LARGE)
            .map(|_| batch_of([&[0; LARGE][..]]))
            .collect();
        drop(batch_of([&[0; LARGE][..]]));
        let free = BLOCKS.with_borrow_mut(|blocks| {
            let is_free = blocks[1].kept.iter_mut().map(|block| block.try_reclaim(LARGE));
            is_free.filter(|&is_free| is_free).count()
        });
        assert_eq!(free, 1);
        drop(lent);
    }

    /// What comes of a stream in a turn.
    fn batch_of<'a>(packets: impl IntoIterator<Item = &'a [u8]>) -> Batch {
        let (mut filling, mut batch) = (Filling::default(), Batch::default());
        for packet in packets {
            filling.add_slice(packet, false, &mut batch);
        }
        filling.close(&mut batch);
        end_turn();
        batch
    }
}
