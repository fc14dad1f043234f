//! Batches in and out of a ring.

use rtrb::{Consumer, Producer};

/// Publishes a batch: with one release store. It must fit.
pub(super) fn publish<T>(ring: &mut Producer<T>, batch: &mut Vec<T>) {
    if batch.is_empty() {
        return;
    }
    match ring.write_chunk_uninit(batch.len()) {
        Ok(chunk) => {
            chunk.fill_from_iter(batch.drain(..));
        }
        Err(error) => debug_assert!(false, "a ring has room for all chunks there are: {error}"),
    }
}

/// Takes items, `most` at most and for as long as `each` says, and frees their places with one release store; gives how many.
pub(super) fn take<T>(ring: &mut Consumer<T>, most: usize, mut each: impl FnMut(T) -> bool) -> usize {
    let count = ring.slots().min(most);
    let Ok(chunk) = ring.read_chunk(count) else {
        return 0;
    };
    // Places of items that are not taken out of the iterator stay as they are.
    let mut taken = 0;
    for item in chunk {
        taken += 1;
        if !each(item) {
            break;
        }
    }
    taken
}
