//! Received data that outlives its event: what arrives of a stream within a turn is copied into one block.
//!
//! A copy of what was just decrypted takes less than the references, wake-ups and allocations of as many chunks as there were packets, and gives the
//! packets' memory back at once, however slow a reader is.

use std::sync::LazyLock;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use ringway::ReceivedData;

use crate::batch::Batch;

/// What a turn has brought of a stream: the last chunk is still open.
#[derive(Default)]
pub(crate) struct Filling(Vec<u8>);

impl Filling {
    /// Adds data; chunks that are full go into the batch.
    pub(crate) fn add(&mut self, data: &ReceivedData<'_>, batch: &mut Batch) {
        for &slice in data.slices() {
            self.add_slice(slice, data.fin(), batch);
        }
    }

    fn add_slice(&mut self, mut rest: &[u8], is_last: bool, batch: &mut Batch) {
        let is_small = rest.len() < SMALL || is_last;
        while !rest.is_empty() {
            if self.0.len() == self.0.capacity() {
                match self.0.len() {
                    // What comes by itself gets what it needs.
                    0 if is_small && rest.len() <= BLOCK => self.0.reserve_exact(rest.len()),
                    BLOCK.. => self.close(batch),
                    _ => {
                        let block = block();
                        let small = std::mem::replace(&mut self.0, block);
                        self.0.extend_from_slice(&small);
                    }
                }
                continue;
            }
            let (fits, more) = rest.split_at(rest.len().min(self.0.capacity() - self.0.len()));
            self.0.extend_from_slice(fits);
            rest = more;
        }
    }

    /// No more is added to the last chunk.
    pub(crate) fn close(&mut self, batch: &mut Batch) {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return;
        }
        let (len, unused) = (bytes.len(), bytes.capacity() - bytes.len());
        match bytes.capacity() {
            BLOCK.. if len < DENSE => batch.push(Bytes::copy_from_slice(&Block(bytes).0), 0),
            BLOCK.. => batch.push(Bytes::from_owner(Block(bytes)), unused),
            _ => batch.push(bytes.into(), unused),
        }
    }
}

/// Less is not expected to be followed by more within the turn, as a full packet is.
const SMALL: usize = 1024;
const BLOCK: usize = 16 << 10;
/// What fills less of its block is copied out: whoever keeps chunks keeps all of their memory, and the peer chooses how little comes in a turn.
const DENSE: usize = BLOCK / 4;

/// Blocks that serve again.
static FREE: LazyLock<ArrayQueue<Vec<u8>>> = LazyLock::new(|| ArrayQueue::new(FREE_MAX));
/// One MiB.
const FREE_MAX: usize = 64;

fn block() -> Vec<u8> {
    FREE.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK))
}

/// Memory of a chunk.
struct Block(Vec<u8>);

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0);
        bytes.clear();
        // `Err`: there are enough.
        let _ = FREE.push(bytes);
    }
}

#[cfg(test)]
mod tests {
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
                assert_eq!(batch.len(), data.len().div_ceil(BLOCK), "packets of {packet}");
                let last = match data.len() % BLOCK {
                    len if len < DENSE => len,
                    _ => BLOCK,
                };
                let memory = (batch.len() - 1) * BLOCK + last + batch.len() * CHUNK;
                assert_eq!(data.len() + batch.overhead(), memory, "packets of {packet}");
            }
        }
        // One by itself takes what it needs.
        let batch = batch_of([&[0; 512][..]]);
        assert_eq!((batch.len(), batch.overhead()), (1, CHUNK));
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

    /// What comes of a stream in a turn.
    fn batch_of<'a>(packets: impl IntoIterator<Item = &'a [u8]>) -> Batch {
        let (mut filling, mut batch) = (Filling::default(), Batch::default());
        for packet in packets {
            filling.add_slice(packet, false, &mut batch);
        }
        filling.close(&mut batch);
        batch
    }
}
