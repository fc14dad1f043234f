//! What is kept stays what it is, and comes back.

use super::*;

fn buffer(len: usize) -> PacketBuffer {
    PacketBuffer::new(vec![0; len].into())
}

#[test]
fn what_is_kept_stays_as_it_is_while_the_rest_is_written_to() {
    let mut buffer = buffer(100);
    let (bytes, lender) = buffer.visit(0..100, true);
    let (first, rest) = bytes.split_at_mut(10);
    first.fill(1);
    let kept = lender.loan(first).keep().unwrap();
    rest.fill(2);
    assert_eq!((&*kept, rest[0]), (&[1; 10][..], 2));
    assert!(buffer.is_lent());
    // It is read on another thread, and outlives the buffer.
    let other = kept.slice(2..=4);
    drop(kept);
    assert!(buffer.is_lent());
    let thread = std::thread::spawn(move || other.to_vec());
    drop(buffer);
    assert_eq!(thread.join().unwrap(), [1; 3]);
}

#[test]
fn bytes_of_other_memory_or_none_are_not_kept() {
    let (mut buffer, mut other) = (buffer(10), buffer(10));
    let foreign: &[u8] = other.visit(0..10, true).0;
    let (bytes, lender) = buffer.visit(2..5, true);
    assert!(lender.loan(foreign).keep().is_none());
    assert!(lender.loan(&bytes[..0]).keep().is_none());
    assert!(Lender::nobody().loan(&bytes[..1]).keep().is_none());
    let (bytes, lender) = buffer.visit(2..5, false);
    assert!(lender.loan(bytes).keep().is_none());
    assert!(!buffer.is_lent());
}

#[test]
#[should_panic(expected = "a buffer that is lent")]
fn buffer_that_is_lent_is_not_written_to() {
    let mut buffer = buffer(10);
    let (bytes, lender) = buffer.visit(0..10, true);
    let _kept = lender.loan(bytes).keep().unwrap();
    buffer[3] = 1;
}

fn keep(buffer: &mut PacketBuffer) -> LentBytes {
    let len = buffer.len();
    let (bytes, lender) = buffer.visit(0..len, true);
    lender.loan(bytes).keep().unwrap()
}

#[test]
fn lent_pieces_come_back_when_they_are_free_whichever_goes_first_and_are_bounded() {
    let mut lent = LentMemory::new(300);
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut piece = buffer(100);
        assert!(lent.may_lend(100, 13));
        kept.push(keep(&mut piece));
        lent.add(piece);
    }
    assert!(!lent.may_lend(100, 100), "that is as much as there may be");
    let mut back = Vec::new();
    lent.reclaim(|piece| back.push(piece));
    assert!(back.is_empty());
    kept.swap_remove(1);
    lent.reclaim(|piece| back.push(piece));
    assert_eq!((back.len(), lent.bytes()), (1, 200));
    assert!(!lent.may_lend(100, 12), "too little is in it");
    assert!(lent.may_lend(100, 13));
    kept.clear();
    lent.reclaim(|piece| back.push(piece));
    assert_eq!((back.len(), lent.bytes()), (3, 0));
    back[0][0] = 1;
}

#[test]
fn holds_that_are_dropped_on_other_threads_are_seen() {
    let mut spares: Vec<PacketBuffer> = (0..4).map(|_| buffer(64)).collect();
    let mut lent = LentMemory::new(4 * 64);
    let (sender, receiver) = std::sync::mpsc::channel::<(u8, LentBytes)>();
    let reader = std::thread::spawn(move || {
        for (number, kept) in receiver {
            assert!(kept.iter().all(|&byte| byte == number));
        }
    });
    let rounds = if cfg!(miri) { 100 } else { 20_000 };
    let mut used = 0;
    for round in 0..rounds {
        lent.reclaim(|piece| spares.push(piece));
        let Some(mut piece) = spares.pop() else {
            std::thread::yield_now();
            continue;
        };
        let number = round as u8;
        piece.fill(number);
        sender.send((number, keep(&mut piece))).unwrap();
        lent.add(piece);
        used += 1;
    }
    drop(sender);
    reader.join().unwrap();
    lent.reclaim(|piece| spares.push(piece));
    assert_eq!(spares.len(), 4);
    assert!(used > 4);
}
