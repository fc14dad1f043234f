//! Chunks between a queue and a kernel that is right, or wrong.

use std::collections::{BTreeSet, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::mock::{Kernel, reconnect, rings};
use super::{Outgoing, Received, RingSizes, Rings};
use crate::chunk::{Chunk, ReceivedMemory, SpareChunks};
use crate::umem::{ReceivedChunk, UmemChunk};

const CHUNK: u32 = 2048;
const SIZES: RingSizes = RingSizes {
    fill: 32,
    receive: 16,
    transmit: 16,
};
/// Bytes of a frame, at most. (Miri takes a second for some thousand.)
const LENGTHS: u32 = if cfg!(miri) { 30 } else { 1200 };
/// In front of a frame, as drivers leave it.
const HEADROOM: u64 = 256;

/// A queue with all its chunks, and the kernel.
fn queue(place: usize) -> (Rings, Vec<UmemChunk>, Kernel) {
    let (rings, mut chunks, kernel) = rings(CHUNK, 32, place, SIZES);
    chunks.truncate(32);
    (rings, chunks, kernel)
}

fn received(rings: &mut Rings) -> Vec<Received> {
    let mut batch = Vec::new();
    rings.receive(&mut batch, 64);
    batch
}

/// The bytes of a frame.
fn frame(received: &mut Received) -> &[u8] {
    let range = received.range.start as usize..received.range.end as usize;
    &received.chunk.bytes()[range]
}

/// Content that shows which frame it is of, and that all of it is.
fn content(number: u32) -> Vec<u8> {
    let len = 4 + (number * 37 % LENGTHS) as usize;
    let mut bytes: Vec<u8> = (0..len)
        .map(|index| (number as usize * 7 + index) as u8)
        .collect();
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn number(bytes: &[u8]) -> u32 {
    let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
    assert_eq!(bytes, content(number), "a frame is of one piece");
    number
}

/// Whatever the two sides do, and whatever the kernel says falsely beside it: what is received is what came, in order, and what is sent is what was
/// written.
#[test]
fn frames_arrive_whole_and_in_order_whatever_else_the_kernel_says() {
    let (seeds, steps) = if cfg!(miri) { (1, 300) } else { (20, 20_000) };
    for seed in 0..seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut rings, mut free, mut kernel) = queue(0);
        let mut resting = free.split_off(16);
        let (mut came, mut expected) = (0, VecDeque::new());
        let (mut written, mut sent) = (0, 0);
        let (mut ready, mut to_complete) = (Vec::new(), Vec::new());
        let mut lies = 0;
        for _ in 0..steps {
            match rng.random_range(0..8) {
                0 => {
                    let count = rng.random_range(0..6);
                    rings.fill(&mut resting, count);
                }
                1 => {
                    if kernel.receive(HEADROOM, &content(came)) {
                        expected.push_back(came);
                        came += 1;
                    }
                }
                2 => {
                    for mut received in received(&mut rings) {
                        assert_eq!(
                            Some(number(frame(&mut received))),
                            expected.pop_front(),
                            "seed {seed}"
                        );
                        resting.push(received.chunk);
                    }
                }
                3 => {
                    if let Some(mut chunk) = free.pop() {
                        let bytes = content(written);
                        written += 1;
                        chunk.bytes()[..bytes.len()].copy_from_slice(&bytes);
                        let len = bytes.len() as u32;
                        ready.push(Outgoing {
                            chunk,
                            len,
                            more: false,
                        });
                    }
                }
                4 => drop(rings.send(&mut ready)),
                5 => {
                    if let Some((address, bytes, _)) = kernel.send() {
                        assert_eq!(number(&bytes), sent, "seed {seed}");
                        sent += 1;
                        to_complete.push(address);
                    }
                }
                6 => {
                    // In any order.
                    if !to_complete.is_empty() {
                        let at = rng.random_range(0..to_complete.len());
                        kernel.complete(to_complete.swap_remove(at));
                    }
                    rings.complete(&mut free);
                }
                _ => {
                    // A chunk that it does not have: of this process, of nobody, or of the other direction.
                    let address = match rng.random_range(0..3) {
                        0 => u64::from(CHUNK) * rng.random_range(u64::from(rings.memory().chunks())..1 << 40),
                        1 if !free.is_empty() => address_of(&rings, &free[0]),
                        _ if !resting.is_empty() => address_of(&rings, &resting[0]),
                        _ => u64::MAX,
                    };
                    let told = match rng.random() {
                        true => kernel.deliver(address, 100, false),
                        false => kernel.complete(address),
                    };
                    // Named now, and looked at now, before the chunk may be with the kernel.
                    lies += u64::from(told);
                    for mut received in received(&mut rings) {
                        assert_eq!(
                            Some(number(frame(&mut received))),
                            expected.pop_front(),
                            "seed {seed}"
                        );
                        resting.push(received.chunk);
                    }
                    rings.complete(&mut free);
                }
            }
            let with_kernel = rings.receiving() + rings.sending();
            let here = resting.len() + free.len() + ready.len();
            assert_eq!(
                with_kernel as usize + here,
                32,
                "seed {seed}: each chunk is in one place"
            );
        }
        assert!(came > 10 && sent > 10 && lies > 10, "seed {seed}");
        // What was said when nothing was being sent is read when something is.
        assert!(
            rings.refused() <= lies && rings.refused() > lies / 2,
            "seed {seed}"
        );
    }
}

fn address_of(rings: &Rings, chunk: &UmemChunk) -> u64 {
    u64::from(rings.memory().number(chunk).unwrap()) * u64::from(CHUNK)
}

#[test]
fn descriptor_of_a_chunk_that_the_kernel_does_not_have_is_refused_and_counted() {
    let (mut rings, mut chunks, mut kernel) = queue(0);
    let mut to_send = chunks.split_off(31);
    assert_eq!(rings.fill(&mut chunks, 8), 8);
    let at = kernel.take().unwrap();
    kernel.write(at + HEADROOM, b"right");
    let past = u64::from(rings.memory().chunks()) * u64::from(CHUNK);
    for (address, len) in [
        // Of a chunk that is here, of none, and of a part that is not all in one.
        (address_of(&rings, &chunks[0]), 100),
        (past, 100),
        (u64::MAX, 100),
        (at + HEADROOM, CHUNK),
        (at + HEADROOM, u32::MAX),
    ] {
        assert!(kernel.deliver(address, len, false));
        assert_eq!(received(&mut rings).len(), 0, "{address} {len}");
    }
    assert_eq!((rings.refused(), rings.receiving()), (5, 8));
    // It comes once, and is not believed to come twice: a driver that finds no other chunk may name the last one again.
    assert!(kernel.deliver(at + HEADROOM, 5, false) && kernel.deliver(at + HEADROOM, 5, false));
    let mut batch = received(&mut rings);
    assert_eq!(batch.len(), 1);
    assert_eq!(frame(&mut batch[0]), b"right");
    assert_eq!((rings.refused(), rings.receiving()), (6, 7));
    // What is being received into was not sent.
    let chunk = to_send.pop().unwrap();
    let address = address_of(&rings, &chunk);
    let mut outgoing = vec![Outgoing {
        chunk,
        len: 1,
        more: false,
    }];
    assert_eq!(rings.send(&mut outgoing), 1);
    let receiving = kernel.take().unwrap();
    assert!(
        kernel.complete(receiving)
            && kernel.complete(past)
            && kernel.complete(address)
            && kernel.complete(address)
    );
    rings.complete(&mut to_send);
    assert_eq!((to_send.len(), rings.sending()), (1, 0));
    assert_eq!(address_of(&rings, &to_send[0]), address);
    // The second one is read when something is being sent again.
    assert_eq!(rings.refused(), 9);
}

/// An index of the kernel that has run away does not make more entries than there are.
#[test]
fn kernel_whose_index_runs_away_is_trusted_for_no_more_than_a_ring_holds() {
    let (mut rings, mut chunks, mut kernel) = queue(0);
    rings.fill(&mut chunks, 16);
    for _ in 0..if cfg!(miri) { 20 } else { 5000 } {
        kernel.receive.skip(1000);
        assert!(rings.received() <= SIZES.receive);
        assert_eq!(
            received(&mut rings).len().min(1),
            usize::from(rings.receiving() < 16)
        );
    }
}

#[test]
fn rings_take_no_more_than_there_is_room_for_and_the_rest_stays() {
    let (mut rings, mut chunks, mut kernel) = queue(0);
    let outgoing = |chunk| Outgoing {
        chunk,
        len: 7,
        more: false,
    };
    let mut ready: Vec<Outgoing> = chunks.drain(..20).map(outgoing).collect();
    assert_eq!((rings.send(&mut ready), ready.len(), rings.unsent()), (16, 4, 16));
    assert_eq!((rings.send(&mut ready), rings.sending()), (0, 16));
    assert!(kernel.send().is_some());
    assert_eq!((rings.send(&mut ready), ready.len(), rings.sending()), (1, 3, 17));
    assert_eq!((rings.fill(&mut chunks, 100), chunks.len()), (12, 0));
    // Frames that nobody takes fill the ring; those after them are lost, and their chunks stay with the kernel.
    let taken = (0..12)
        .filter(|&number| kernel.receive(0, &content(number)))
        .count();
    assert_eq!((taken, received(&mut rings).len()), (12, 12));
}

/// Both queues of a partition whose worker is on another thread: what the worker gives back of one queue is never given to the other, whose chunk
/// of that number is another one.
#[test]
fn frames_of_two_queues_stay_what_they_are_while_a_worker_keeps_them() {
    let mut spares = SpareChunks::default();
    let mut queues: Vec<_> = (0..2)
        .map(|place| {
            let (rings, mut chunks, kernel) = queue(place);
            chunks
                .drain(..16)
                .for_each(|chunk| spares.add(Chunk::Umem(chunk)));
            (rings, chunks, kernel)
        })
        .collect();
    let mut rng = StdRng::seed_from_u64(5);
    let mut with_worker = Vec::new();
    let mut came = 0;
    let steps = if cfg!(miri) { 100 } else { 20_000 };
    for _ in 0..steps {
        // The chunks of one come back while those of the other are being received into.
        let (rings, resting, kernel) = &mut queues[rng.random_range(0..2)];
        rings.fill(resting, 16);
        for _ in 0..rng.random_range(0..8) {
            came += u32::from(kernel.receive(HEADROOM, &content(came)));
        }
        for Received { mut chunk, range, .. } in received(rings) {
            let received = ReceivedChunk::new(&mut chunk, rings.memory());
            let mut memory = ReceivedMemory::Umem {
                chunk: received,
                range: range.start as usize..range.end as usize,
                may_lend: false,
            };
            let expected = number(memory.bytes());
            match spares.exchange(memory) {
                Some(filled) => with_worker.push((expected, filled)),
                None => assert!(with_worker.len() >= 16, "there are spare ones of this queue"),
            }
            resting.push(chunk);
        }
        while with_worker.len() > rng.random_range(0..32) {
            let at = rng.random_range(0..with_worker.len());
            let (expected, mut filled) = with_worker.swap_remove(at);
            assert_eq!(
                number(filled.data()),
                expected,
                "nobody has written into it meanwhile"
            );
            spares.add(filled.chunk);
        }
    }
    assert!(came > 100);
    for (rings, ..) in &queues {
        assert_eq!(rings.refused(), 0);
    }
}

#[test]
fn chunks_that_are_with_the_kernel_when_a_socket_goes_are_there_for_the_next_one() {
    let (mut rings, mut chunks, mut kernel) = queue(0);
    let outgoing = |chunk| Outgoing {
        chunk,
        len: 7,
        more: false,
    };
    let mut resting = chunks.split_off(16);
    rings.fill(&mut resting, 12);
    assert!(kernel.receive(HEADROOM, &content(0)) && kernel.receive(HEADROOM, &content(1)));
    // One is taken; one waits, and is lost with the socket.
    let mut batch = Vec::new();
    rings.receive(&mut batch, 1);
    assert_eq!(rings.send(&mut chunks.drain(..9).map(outgoing).collect()), 9);
    // Begun and not given back, given back and not taken; others not begun.
    kernel.send().unwrap();
    let (address, ..) = kernel.send().unwrap();
    assert!(kernel.complete(address));
    let (received, sent, mut kernel) = reconnect(&mut rings, kernel, SIZES);
    assert_eq!((received.len(), sent.len()), (11, 9));
    assert_eq!((rings.receiving(), rings.sending()), (0, 0));
    let here = received.iter().chain(&sent).chain(&resting).chain(&chunks);
    let addresses: BTreeSet<u64> = here
        .chain([&batch[0].chunk])
        .map(|chunk| address_of(&rings, chunk))
        .collect();
    assert_eq!(addresses.len(), 32, "each chunk is in one place");
    resting.extend(received);
    assert_eq!(rings.fill(&mut resting, 15), 15);
    assert!(kernel.receive(HEADROOM, &content(2)));
    assert_eq!(number(frame(&mut self::received(&mut rings)[0])), 2);
    assert_eq!(rings.send(&mut sent.into_iter().map(outgoing).collect()), 9);
    assert!(kernel.send().is_some());
    assert_eq!(rings.refused(), 0);
}

#[test]
fn chunk_of_another_queue_is_not_exchanged() {
    let (mut rings, mut chunks, mut kernel) = queue(0);
    let (_, mut others, _other_kernel) = queue(0);
    rings.fill(&mut chunks, 1);
    kernel.receive(HEADROOM, b"here");
    let mut batch = received(&mut rings);
    let refused = ReceivedChunk::new(&mut batch[0].chunk, rings.memory()).exchange(others.pop().unwrap());
    let foreign = refused.unwrap_err();
    assert!(!rings.memory().owns(&foreign));
    assert_eq!(frame(&mut batch[0]), b"here");
    let taken = ReceivedChunk::new(&mut batch[0].chunk, rings.memory()).exchange(chunks.pop().unwrap());
    assert_eq!(&taken.unwrap().bytes()[256..260], b"here");
}

/// The kernel on a thread of its own: nothing is read before it is written.
#[test]
fn frames_pass_between_threads() {
    let (mut rings, mut chunks, mut kernel) = queue(0);
    let frames = if cfg!(miri) { 50 } else { 20_000 };
    let receiver = std::thread::spawn(move || {
        let mut next = 0;
        while next < frames {
            rings.fill(&mut chunks, 16);
            for mut received in received(&mut rings) {
                assert_eq!(number(frame(&mut received)), next);
                next += 1;
                chunks.push(received.chunk);
            }
            std::thread::yield_now();
        }
    });
    let mut next = 0;
    while next < frames {
        match kernel.receive(HEADROOM, &content(next)) {
            true => next += 1,
            false => std::thread::yield_now(),
        }
    }
    receiver.join().unwrap();
}
