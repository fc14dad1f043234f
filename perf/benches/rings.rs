//! What it costs to hand items from thread to thread, in batches of 32: rings that might join a device and its worker, in turn. Items are as
//! large as those that do. Usage: `cargo bench -p ringway-perf --bench rings [-- PRODUCER CONSUMER]` (processors; default 0 and 1).
#![allow(clippy::print_stdout, reason = "it prints figures")]

use std::hint::spin_loop;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use rtrb::RingBuffer;

/// Gives nanoseconds for each item.
type Ring = fn((usize, usize)) -> f64;

/// A chunk, and where datagrams are in it: half a cache line.
type Item = [u64; 4];

const ITEMS: usize = 1 << 22;
const BATCH: usize = 32;
const ROOM: usize = 1024;
const ROUNDS: usize = 7;

/// Sends batches for as long as the function says how many items it has taken; gives what the receiver made of them.
fn run(
    processors: (usize, usize),
    mut send: impl FnMut(&mut Vec<Item>) + Send,
    mut receive: impl FnMut(&mut dyn FnMut(Item)) + Send,
) -> f64 {
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            ringway_datapath::thread::pin(processors.0).expect("a processor to send from");
            let mut batch = Vec::with_capacity(BATCH);
            for index in (0..ITEMS).step_by(BATCH) {
                batch.extend((index..index + BATCH).map(|index| [index as u64; 4]));
                while !batch.is_empty() {
                    send(&mut batch);
                }
            }
        });
        scope.spawn(move || {
            ringway_datapath::thread::pin(processors.1).expect("a processor to receive on");
            let mut next = 0;
            while next < ITEMS as u64 {
                receive(&mut |item| {
                    assert!(
                        item[0] == next && item[3] == next,
                        "items are lost or out of order"
                    );
                    next += 1;
                });
            }
        });
    });
    start.elapsed().as_nanos() as f64 / ITEMS as f64
}

fn array_queue(processors: (usize, usize)) -> f64 {
    let queue = Arc::new(ArrayQueue::new(ROOM));
    let out = Arc::clone(&queue);
    run(
        processors,
        move |batch| {
            for item in batch.drain(..) {
                let mut item = item;
                while let Err(back) = queue.push(item) {
                    item = back;
                    spin_loop();
                }
            }
        },
        move |each| {
            while let Some(item) = out.pop() {
                each(item);
            }
        },
    )
}

/// Batches change hands whole, and come back empty.
fn array_queue_of_batches(processors: (usize, usize)) -> f64 {
    let full = Arc::new(ArrayQueue::<Vec<Item>>::new(ROOM / BATCH));
    let empty = Arc::new(ArrayQueue::new(ROOM / BATCH));
    for _ in 0..ROOM / BATCH - 1 {
        let _ = empty.push(Vec::with_capacity(BATCH));
    }
    let (full_out, empty_in) = (Arc::clone(&full), Arc::clone(&empty));
    run(
        processors,
        move |batch| match empty.pop() {
            Some(spare) => {
                let _ = full.push(std::mem::replace(batch, spare));
            }
            None => spin_loop(),
        },
        move |each| {
            while let Some(mut batch) = full_out.pop() {
                batch.drain(..).for_each(&mut *each);
                let _ = empty_in.push(batch);
            }
        },
    )
}

fn rtrb(processors: (usize, usize)) -> f64 {
    let (mut producer, mut consumer) = RingBuffer::new(ROOM);
    run(
        processors,
        move |batch| {
            for item in batch.drain(..) {
                while producer.is_full() {
                    spin_loop();
                }
                let _ = producer.push(item);
            }
        },
        move |each| {
            while let Ok(item) = consumer.pop() {
                each(item);
            }
        },
    )
}

/// As devices and workers do it.
fn rtrb_in_batches(processors: (usize, usize)) -> f64 {
    let (mut producer, mut consumer) = RingBuffer::new(ROOM);
    run(
        processors,
        move |batch| match producer.write_chunk_uninit(batch.len()) {
            Ok(chunk) => {
                chunk.fill_from_iter(batch.drain(..));
            }
            Err(_) => spin_loop(),
        },
        move |each| {
            if let Ok(chunk) = consumer.read_chunk(consumer.slots()) {
                chunk.into_iter().for_each(each);
            }
        },
    )
}

fn main() {
    let mut processors = std::env::args().skip(1).filter_map(|word| word.parse().ok());
    let processors = (processors.next().unwrap_or(0), processors.next().unwrap_or(1));
    let rings: [(&str, Ring); 4] = [
        ("crossbeam ArrayQueue", array_queue),
        ("crossbeam ArrayQueue of batches", array_queue_of_batches),
        ("rtrb", rtrb),
        ("rtrb, published in batches", rtrb_in_batches),
    ];
    let mut figures = rings.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (figures, (_, ring)) in figures.iter_mut().zip(rings) {
            figures.push(ring(processors));
        }
    }
    for (mut figures, (name, _)) in figures.into_iter().zip(rings) {
        figures.sort_by(f64::total_cmp);
        let (low, median, high) = (figures[0], figures[ROUNDS / 2], figures[ROUNDS - 1]);
        println!("{name:<32} {median:6.2} ns per item ({low:.2} to {high:.2})");
    }
}
