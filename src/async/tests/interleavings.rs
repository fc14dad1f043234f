//! The slots of streams, and the lists of tasks that wait for something of a connection, compiled with loom's atomics: all interleavings of worker
//! and tasks are tried.
#![allow(dead_code, reason = "not all that tasks do with them is tried")]
#![allow(unreachable_pub, reason = "what the library has in public is here by itself")]

#[path = "../src/batch.rs"]
mod batch;
#[path = "../src/slots.rs"]
mod slots;
#[path = "../src/waiters.rs"]
mod waiters;

/// In place of what the library has there.
mod sync {
    use std::collections::VecDeque;
    use std::fmt;
    use std::task::Waker;

    use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

    #[derive(Default)]
    pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

    impl fmt::Debug for AtomicWaker {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("AtomicWaker")
        }
    }

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

    /// In place of a list without a lock. Who looks whether something is there takes no lock here either: that one has seen what another thread did
    /// before is not for the list to see to.
    pub(crate) struct SegQueue<T> {
        items: Mutex<VecDeque<T>>,
        len: AtomicUsize,
    }

    impl<T> Default for SegQueue<T> {
        fn default() -> Self {
            SegQueue {
                items: Mutex::new(VecDeque::new()),
                len: AtomicUsize::new(0),
            }
        }
    }

    impl<T> SegQueue<T> {
        pub(crate) fn push(&self, item: T) {
            // In this order, as the list has it: whoever has pushed is counted.
            self.len.fetch_add(1, Ordering::SeqCst);
            self.items.lock().unwrap().push_back(item);
        }

        pub(crate) fn pop(&self) -> Option<T> {
            let item = self.items.lock().unwrap().pop_front()?;
            self.len.fetch_sub(1, Ordering::SeqCst);
            Some(item)
        }

        pub(crate) fn len(&self) -> usize {
            self.len.load(Ordering::SeqCst)
        }
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
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use bytes::Bytes;

use batch::Batch;
use slots::{Found, ReceiveSlot, SendSlot, SideEnd};
use waiters::{TICKETS_MIN, Waiter, Waiters};

/// In all interleavings with up to two switches that nobody waits for.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    // One model sweeps as many tickets as may be, each in several steps.
    builder.max_branches = 10_000;
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

#[test]
fn who_waits_for_the_end_is_woken_by_it_behind_data() {
    check(|| {
        let slot = Arc::new(ReceiveSlot::new());
        let worker = Arc::clone(&slot);
        let worker = thread::spawn(move || {
            assert!(worker.reserve(1, 1000));
            give(&worker, b"x");
            end(&worker);
        });
        let ended = loom::future::block_on(poll_fn(|cx| slot.poll_end(cx)));
        assert_eq!(ended, SideEnd::Finished);
        // And what came before it is there.
        assert_eq!(read(&slot, 1000, || panic!("never paused")), 1);
        worker.join().unwrap();
    });
}

/// A task that is not run again.
struct Task;

impl Wake for Task {
    fn wake(self: std::sync::Arc<Self>) {}
}

#[test]
fn nothing_is_left_of_a_task_that_goes_while_the_worker_tells_it() {
    check(|| {
        let (receive, send) = (Arc::new(ReceiveSlot::new()), Arc::new(SendSlot::new()));
        let worker = (Arc::clone(&receive), Arc::clone(&send));
        let worker = thread::spawn(move || {
            let (receive, send) = worker;
            end(&receive);
            send.tell(1, Some(SideEnd::Lost));
        });
        let task = std::sync::Arc::new(Task);
        let waker = Waker::from(std::sync::Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        let (read, written) = (receive.poll(&mut cx), send.poll(&mut cx, || send.has_ended()));
        drop((read, written));
        receive.abandon();
        send.abandon();
        worker.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&task), 2, "its own waker, and this");
    });
}

/// Places that a worker gives, one for each task.
#[derive(Default)]
struct Places {
    free: AtomicUsize,
    waiters: Waiters,
}

impl Places {
    fn give(&self) {
        self.free.fetch_add(1, Ordering::AcqRel);
        self.waiters.wake();
    }

    fn poll(&self, cx: &mut Context<'_>, waiter: &mut Waiter) -> Poll<()> {
        let one_less = |free: usize| free.checked_sub(1);
        let take = || {
            self.free
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less)
                .ok()
        };
        self.waiters.poll(cx, waiter, || take().map(drop))
    }

    /// For ever, which loom tells, if a wake-up is lost.
    fn take(&self) {
        let mut waiter = Waiter::default();
        loom::future::block_on(poll_fn(|cx| self.poll(cx, &mut waiter)));
    }
}

#[test]
fn each_of_several_tasks_that_wait_gets_a_place() {
    check(|| {
        let places = Arc::new(Places::default());
        let others = [Arc::clone(&places), Arc::clone(&places)];
        let others = others.map(|places| thread::spawn(move || places.take()));
        places.give();
        places.give();
        for other in others {
            other.join().unwrap();
        }
    });
}

#[test]
fn task_that_gives_up_takes_no_wake_up_along() {
    check(|| {
        let places = Arc::new(Places::default());
        let (stays, goes) = (Arc::clone(&places), Arc::clone(&places));
        let stays = thread::spawn(move || stays.take());
        let goes = thread::spawn(move || {
            let waker = Waker::from(std::sync::Arc::new(Task));
            let mut waiter = Waiter::default();
            // It may have one: then it gives it back.
            if goes
                .poll(&mut Context::from_waker(&waker), &mut waiter)
                .is_ready()
            {
                goes.give();
            }
        });
        places.give();
        stays.join().unwrap();
        goes.join().unwrap();
    });
}

#[test]
fn task_that_looks_once_more_while_it_is_woken_for_nothing_waits_still() {
    check(|| {
        let places = Arc::new(Places::default());
        let worker = Arc::clone(&places);
        let worker = thread::spawn(move || {
            worker.waiters.wake();
            worker.give();
        });
        let waker = Waker::from(std::sync::Arc::new(Task));
        let mut waiter = Waiter::default();
        // It is run for another reason, and waits in the same place.
        if places
            .poll(&mut Context::from_waker(&waker), &mut waiter)
            .is_pending()
        {
            loom::future::block_on(poll_fn(|cx| places.poll(cx, &mut waiter)));
        }
        worker.join().unwrap();
    });
}

#[test]
fn task_is_woken_although_its_ticket_is_swept_meanwhile() {
    check(|| {
        let places = Arc::new(Places::default());
        let waker = Waker::from(std::sync::Arc::new(Task));
        // Tickets of tasks that have gone, as many as may be.
        for _ in 0..TICKETS_MIN {
            let wait = places.poll(&mut Context::from_waker(&waker), &mut Waiter::default());
            assert!(wait.is_pending());
        }
        // Its ticket is the one too many, and it sweeps.
        let waits = Arc::clone(&places);
        let waits = thread::spawn(move || waits.take());
        places.give();
        waits.join().unwrap();
    });
}
