//! The slots of streams, compiled with loom's atomics: all interleavings of worker and task are tried.
#![allow(dead_code, reason = "of the slots, what tasks do with them is not all tried")]

#[path = "../src/batch.rs"]
mod batch;
#[path = "../src/slots.rs"]
mod slots;

/// In place of what the library has there.
mod sync {
    use std::task::Waker;

    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

    pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub(crate) fn new() -> Self {
            AtomicWaker(loom::future::AtomicWaker::new())
        }

        pub(crate) fn register(&self, waker: &Waker) {
            self.0.register_by_ref(waker);
        }

        pub(crate) fn take(&self) -> Option<Waker> {
            self.0.take_waker()
        }
    }

    pub(crate) fn wake_after_turn(waker: Waker) {
        waker.wake();
    }
}

/// In place of an atomic cell: as atomic, and what was done before an exchange is seen behind it.
mod handover {
    use loom::sync::Mutex;

    pub(crate) struct Handover<T>(Mutex<Option<Box<T>>>);

    impl<T> Handover<T> {
        pub(crate) fn new() -> Self {
            Handover(Mutex::new(None))
        }

        pub(crate) fn put(&self, item: Box<T>) {
            *self.0.lock().unwrap() = Some(item);
        }

        pub(crate) fn take(&self) -> Option<Box<T>> {
            self.0.lock().unwrap().take()
        }
    }
}

use std::future::poll_fn;

use loom::sync::Arc;
use loom::thread;

use bytes::Bytes;

use batch::Batch;
use slots::{Found, ReceiveSlot, SendSlot, SideEnd};

/// In all interleavings with up to two switches that nobody waits for.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

fn give(slot: &ReceiveSlot, chunk: &'static [u8]) {
    let mut batch = Box::<Batch>::default();
    batch.push(Bytes::from_static(chunk), 0);
    slot.give(batch);
    slot.tell();
}

fn end(slot: &ReceiveSlot) {
    slot.end(SideEnd::Finished);
    slot.tell();
}

/// Reads to the end, and gives how many bytes there were; `resume` is called when the worker waits. For ever, which loom tells, if a wake-up or a
/// word to go on is lost.
fn read(slot: &ReceiveSlot, limit: usize, resume: impl Fn()) -> usize {
    let mut read = 0;
    loop {
        match loom::future::block_on(poll_fn(|cx| slot.poll(cx))) {
            Found::Data(mut batch) => {
                for index in 0..batch.len() {
                    let len = batch.get_mut(index).unwrap().len();
                    read += len;
                    if slot.on_read(len, limit) {
                        resume();
                    }
                }
                if slot.on_read(batch.overhead(), limit) {
                    resume();
                }
            }
            Found::End(end) => {
                assert_eq!(end, SideEnd::Finished);
                return read;
            }
        }
    }
}

#[test]
fn reader_gets_all_that_was_pushed_before_the_end() {
    check(|| {
        let slot = Arc::new(ReceiveSlot::new());
        let worker = Arc::clone(&slot);
        let worker = thread::spawn(move || {
            for _ in 0..2 {
                assert!(worker.reserve(1, 1000));
                give(&worker, b"x");
            }
            end(&worker);
        });
        assert_eq!(read(&slot, 1000, || panic!("never paused")), 2);
        worker.join().unwrap();
    });
}

#[test]
fn worker_that_pauses_is_always_told_to_go_on() {
    check(|| {
        let slot = Arc::new(ReceiveSlot::new());
        let go_on = Arc::new(loom::sync::Notify::new());
        let (worker, told) = (Arc::clone(&slot), Arc::clone(&go_on));
        let worker = thread::spawn(move || {
            for _ in 0..2 {
                // Room for one.
                while !worker.reserve(2, 2) {
                    told.wait();
                }
                give(&worker, b"xy");
            }
            end(&worker);
        });
        assert_eq!(read(&slot, 2, || go_on.notify()), 4);
        worker.join().unwrap();
    });
}

#[test]
fn writer_that_waits_for_room_is_woken() {
    check(|| {
        let slot = Arc::new(SendSlot::new());
        let worker = Arc::clone(&slot);
        let worker = thread::spawn(move || {
            worker.tell(1, None);
            worker.tell(1, Some(SideEnd::Finished));
        });
        let all = |slot: &SendSlot| (slot.completed() == 2).then_some(());
        loom::future::block_on(poll_fn(|cx| slot.poll(cx, || all(&slot))));
        let end = loom::future::block_on(poll_fn(|cx| slot.poll(cx, || slot.has_ended())));
        assert_eq!(end, SideEnd::Finished);
        worker.join().unwrap();
    });
}
