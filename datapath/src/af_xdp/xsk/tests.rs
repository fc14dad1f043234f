//! A queue with a kernel that does as it is told.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use super::*;
use crate::af_xdp::socket::Counts as KernelCounts;
use crate::chunk::ReceivedMemory;
use crate::lent::LentBytes;
use crate::umem::{RingSizes, mock};

const SIZES: RingSizes = RingSizes {
    fill: 256,
    receive: 64,
    transmit: 128,
};
const COUNTS: Counts = Counts {
    receive: 96,
    transmit: 128,
    spare: 0,
    lent: 24,
};
const CHUNK: usize = 2048;

/// What the kernel answers when it is asked to send.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Behaviour {
    /// It sends so many frames, and says EAGAIN if there are more.
    Budget(usize),
    /// It takes all, and has not sent them yet.
    Takes,
    /// It loses one frame, and says EBUSY.
    Refuses,
    /// It says so, and does nothing.
    Answers(i32),
    /// It says nothing, and does nothing.
    Nothing,
}

struct Mock {
    side: RefCell<mock::Kernel>,
    behaviour: Cell<Behaviour>,
    is_unbound: Cell<bool>,
    sent: RefCell<Vec<Vec<u8>>>,
    /// Chunks of what it has not sent yet.
    taken: RefCell<Vec<u64>>,
    asked: Cell<u32>,
    /// Of which nothing is read.
    descriptor: io::Stdin,
}

impl Kernel for Rc<Mock> {
    fn send(&self) -> io::Result<()> {
        self.asked.set(self.asked.get() + 1);
        let mut side = self.side.borrow_mut();
        let mut send = |most: usize| {
            for _ in 0..most {
                let Some((address, bytes, more)) = side.send() else {
                    return false;
                };
                let mut sent = self.sent.borrow_mut();
                match sent
                    .last_mut()
                    .filter(|_| self.behaviour.get() != Behaviour::Refuses && PART.get())
                {
                    Some(last) => last.extend(bytes),
                    None => sent.push(bytes),
                }
                PART.set(more);
                match self.behaviour.get() {
                    Behaviour::Takes => self.taken.borrow_mut().push(address),
                    _ => assert!(side.complete(address)),
                }
            }
            true
        };
        let error = match self.behaviour.get() {
            Behaviour::Budget(frames) => send(frames).then_some(libc::EAGAIN),
            Behaviour::Takes => {
                send(usize::MAX);
                None
            }
            Behaviour::Refuses => send(1).then_some(libc::EBUSY),
            Behaviour::Answers(error) => Some(error),
            Behaviour::Nothing => None,
        };
        error.map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)))
    }

    fn is_unbound(&self) -> bool {
        self.is_unbound.get()
    }

    fn receive(&self) -> io::Result<()> {
        Ok(())
    }

    fn counts(&self) -> io::Result<KernelCounts> {
        Ok(KernelCounts::default())
    }

    fn prefer_busy_poll(&self, _: i32, _: i32) -> io::Result<()> {
        Ok(())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

thread_local! {
    /// The packet that was sent last goes on.
    static PART: Cell<bool> = const { Cell::new(false) };
}

struct Queue {
    xsk: Xsk<Rc<Mock>>,
    kernel: Rc<Mock>,
}

impl Queue {
    fn new(mode: BindMode, multi_buffer: bool) -> Queue {
        let (rings, chunks, side) = mock::rings(CHUNK as u32, COUNTS.receive + COUNTS.transmit, 0, SIZES);
        side.transmit.set_needs_wakeup(true);
        let kernel = Rc::new(Mock {
            side: RefCell::new(side),
            behaviour: Cell::new(Behaviour::Budget(32)),
            is_unbound: Cell::new(false),
            sent: RefCell::default(),
            taken: RefCell::default(),
            asked: Cell::default(),
            descriptor: io::stdin(),
        });
        let binding = Binding {
            interface: 0,
            queue: 0,
            mode,
            multi_buffer,
        };
        Queue {
            xsk: Xsk::new(Rc::clone(&kernel), rings, chunks, COUNTS, binding),
            kernel,
        }
    }

    fn behave(&self, behaviour: Behaviour) {
        self.kernel.behaviour.set(behaviour);
    }

    /// Sends a packet; false without a chunk for it.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let Some(frame) = self.xsk.frame() else {
            return false;
        };
        frame[..bytes.len()].copy_from_slice(bytes);
        self.xsk.commit(bytes.len());
        true
    }

    fn received(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        self.xsk
            .receive_from(|| false, &mut |mut memory: ReceivedMemory<'_>| {
                packets.push(memory.bytes().to_vec())
            });
        packets
    }

    /// A turn of the thread that has it.
    fn turn(&mut self, millis: u64) {
        self.xsk.look(Instant::from_nanos(millis * 1_000_000));
        self.xsk.flush();
    }

    fn stats(&self) -> XdpStats {
        let mut stats = XdpStats::default();
        self.xsk.count(&mut stats).unwrap();
        stats
    }
}

#[test]
fn one_flush_sends_all_whatever_the_budget_of_a_call() {
    let mut queue = Queue::new(BindMode::Copy, false);
    for number in 0..60u8 {
        assert!(queue.send(&[number; 100]));
    }
    queue.xsk.flush();
    assert_eq!(queue.kernel.asked.get(), 2);
    let sent = queue.kernel.sent.take();
    assert!(
        sent.len() == 60
            && sent
                .iter()
                .zip(0..)
                .all(|(frame, number)| *frame == [number; 100])
    );
    assert_eq!(queue.stats().transmit_level, 0);
    assert!(!queue.xsk.waits_for_room());
    queue.xsk.flush();
    assert_eq!(queue.kernel.asked.get(), 2, "there is nothing to ask for");
}

/// A link whose MTU has fallen loses each frame, and the kernel stops behind it.
#[test]
fn frames_that_the_link_refuses_are_counted_and_do_not_hold_up_those_behind_them() {
    let mut queue = Queue::new(BindMode::Copy, false);
    queue.behave(Behaviour::Refuses);
    for _ in 0..50 {
        assert!(queue.send(&[1; 1500]));
    }
    queue.xsk.flush();
    let stats = queue.stats();
    assert_eq!((stats.refused_sends, stats.transmit_level), (50, 0));
    assert!(!queue.xsk.waits_for_room() && queue.xsk.can_send());
    queue.behave(Behaviour::Budget(32));
    queue.kernel.sent.take();
    assert!(queue.send(&[2; 1200]));
    queue.xsk.flush();
    assert_eq!(*queue.kernel.sent.borrow(), [vec![2; 1200]]);
}

#[test]
fn thread_does_not_sleep_while_frames_are_left_and_asks_again() {
    let mut queue = Queue::new(BindMode::Copy, false);
    queue.behave(Behaviour::Answers(libc::ENOBUFS));
    assert!(queue.send(b"one"));
    for millis in 0..900 {
        queue.turn(millis);
        assert!(queue.xsk.waits_for_room() && queue.xsk.can_send());
    }
    assert_eq!(queue.kernel.asked.get(), 900, "once a turn, as nothing moves");
    queue.behave(Behaviour::Budget(32));
    queue.turn(900);
    assert!(!queue.xsk.waits_for_room());
    assert_eq!(queue.stats().transmit_stuck, 0);
}

/// They come back by a queue between the threads, which wakes this one.
#[test]
fn thread_sleeps_while_all_that_can_be_sent_from_is_with_another_thread() {
    let mut queue = Queue::new(BindMode::Copy, false);
    let with_worker = queue.xsk.supply_chunks().slots;
    assert!(!with_worker.is_empty() && !queue.xsk.waits_for_room());
}

/// Nothing tells of that which the kernel gives back.
#[test]
fn thread_does_not_sleep_while_the_kernel_has_all_that_another_thread_can_send_from() {
    let mut queue = Queue::new(BindMode::Copy, false);
    let mut with_worker = queue.xsk.supply_chunks().slots;
    queue.behave(Behaviour::Takes);
    while let Some(chunk) = with_worker.pop() {
        assert!(
            !queue.xsk.waits_for_room(),
            "the other thread has {}",
            with_worker.len() + 1
        );
        queue.xsk.set_building(chunk);
        queue.xsk.commit(100);
        queue.turn(0);
    }
    queue.xsk.reclaim(&mut with_worker);
    assert!(with_worker.is_empty() && queue.xsk.can_send());
    assert!(queue.xsk.waits_for_room());
    let first = queue.kernel.taken.borrow_mut().remove(0);
    assert!(queue.kernel.side.borrow_mut().complete(first));
    queue.turn(1);
    queue.xsk.reclaim(&mut with_worker);
    assert!(with_worker.len() == 1 && !queue.xsk.waits_for_room());
    // A NIC that is stopped may keep them.
    with_worker.drain(..).for_each(|chunk| {
        queue.xsk.set_building(chunk);
        queue.xsk.commit(100);
    });
    queue.turn(2);
    assert!((0..=EMPTY_POLLS_MAX).any(|_| !queue.xsk.waits_for_room()));
}

/// Too few are none.
#[test]
fn thread_does_not_sleep_while_there_are_too_few_chunks_for_a_packet_of_several() {
    for short in 0..3 {
        let mut queue = Queue::new(BindMode::Copy, true);
        queue.behave(Behaviour::Takes);
        (0..short).for_each(|_| assert!(queue.send(b"short")));
        while queue.send(&[1; 5000]) {
            queue.turn(0);
        }
        assert!(queue.xsk.waits_for_room(), "behind {short} short ones");
    }
}

#[test]
fn ring_of_which_nothing_goes_out_for_a_second_is_left_to_the_sockets_until_something_does() {
    for behaviour in [
        Behaviour::Answers(libc::EINVAL),
        Behaviour::Nothing,
        Behaviour::Answers(libc::EAGAIN),
    ] {
        let mut queue = Queue::new(BindMode::ZeroCopy, false);
        queue.behave(behaviour);
        assert!(queue.send(b"one"));
        (0..1100).for_each(|millis| queue.turn(millis));
        assert!(
            !queue.xsk.can_send() && !queue.xsk.waits_for_room(),
            "{behaviour:?}"
        );
        assert_eq!(queue.stats().transmit_stuck, 1);
        queue.turn(2000);
        assert_eq!(queue.stats().transmit_stuck, 1, "it is told once");
        queue.behave(Behaviour::Budget(32));
        queue.turn(2001);
        queue.turn(2002);
        assert!(queue.xsk.can_send(), "{behaviour:?}");
        assert_eq!(*queue.kernel.sent.borrow(), [b"one"]);
    }
}

/// Drivers without copies answer so themselves, while the NIC goes on to write to our memory: as igc while its program is taken off.
#[test]
fn interface_is_not_taken_for_gone_because_its_driver_says_that_it_has_no_such_address() {
    let mut queue = Queue::new(BindMode::ZeroCopy, false);
    queue.behave(Behaviour::Answers(libc::ENXIO));
    assert!(queue.send(b"one"));
    queue.turn(0);
    assert!(queue.xsk.stage == Stage::Bound && queue.xsk.can_send());
    queue.kernel.is_unbound.set(true);
    queue.turn(1);
    assert!(queue.xsk.stage == Stage::Lost && !queue.xsk.can_send());
}

#[test]
fn thread_may_sleep_while_the_interface_is_down_and_sends_when_it_is_up() {
    let mut queue = Queue::new(BindMode::Copy, false);
    queue.behave(Behaviour::Answers(libc::ENETDOWN));
    assert!(queue.send(b"one"));
    for millis in 0..5000 {
        queue.turn(millis);
    }
    assert!(!queue.xsk.waits_for_room() && queue.xsk.can_send());
    assert_eq!(queue.stats().transmit_stuck, 0);
    queue.behave(Behaviour::Budget(32));
    queue.turn(5000);
    assert_eq!(*queue.kernel.sent.borrow(), [b"one"]);
}

/// A worker on another thread has all chunks but a few: with these it goes on by the sockets when the kernel keeps the others.
#[test]
fn worker_on_another_thread_has_chunks_though_the_kernel_keeps_all_that_it_sent() {
    let mut queue = Queue::new(BindMode::Copy, false);
    let mut with_worker = queue.xsk.supply_chunks().slots;
    let most = with_worker.len();
    assert!(most > COUNTS.transmit as usize / 2);
    queue.behave(Behaviour::Nothing);
    for chunk in with_worker.drain(..) {
        queue.xsk.set_building(chunk);
        queue.xsk.commit(100);
    }
    (0..1100).for_each(|millis| queue.turn(millis));
    queue.xsk.reclaim(&mut with_worker);
    assert!(
        !queue.xsk.can_send() && with_worker.len() > 16,
        "{}",
        with_worker.len()
    );
    // Sent by the sockets, they come back.
    for _ in 0..3 {
        let count = with_worker.len();
        for chunk in with_worker.drain(..) {
            queue.xsk.set_building(chunk);
            queue.xsk.release_building();
        }
        queue.xsk.reclaim(&mut with_worker);
        assert_eq!(with_worker.len(), count);
    }
    // It never has more than at first, which is what its rings have room for.
    queue.behave(Behaviour::Budget(5));
    for millis in 1100..2000 {
        queue.turn(millis);
        queue.xsk.reclaim(&mut with_worker);
        assert!(with_worker.len() <= most);
    }
    assert_eq!(with_worker.len(), most);
    assert!(queue.xsk.can_send());
}

/// Nobody takes what was received: the kernel has chunks left nevertheless.
#[test]
fn fill_ring_does_not_run_dry_though_nobody_takes_what_comes() {
    let mut queue = Queue::new(BindMode::ZeroCopy, false);
    let mut side = queue.kernel.side.borrow_mut();
    let came = (0..64u8)
        .take_while(|&number| side.receive(256, &[number; 60]))
        .count();
    assert_eq!(came, 64, "as many as the ring holds");
    let left: Vec<u64> = std::iter::from_fn(|| side.take()).collect();
    assert_eq!(left.len(), (COUNTS.receive - 64) as usize);
    drop(side);
    let packets = queue.received();
    assert!(
        packets.len() == 64
            && packets
                .iter()
                .zip(0..)
                .all(|(packet, number)| *packet == [number; 60])
    );
    // And gets them back at once.
    assert_eq!(
        std::iter::from_fn(|| queue.kernel.side.borrow_mut().take()).count(),
        64
    );
    assert_eq!(queue.stats().refused_descriptors, 0);
}

#[test]
fn packet_of_several_chunks_is_joined_or_counted() {
    for multi_buffer in [true, false] {
        let mut queue = Queue::new(BindMode::Copy, multi_buffer);
        let mut side = queue.kernel.side.borrow_mut();
        for (part, more) in [
            (vec![1; 1700], true),
            (vec![2; 300], false),
            (vec![3; 100], false),
        ] {
            let address = side.take().unwrap() + 256;
            side.write(address, &part);
            assert!(side.deliver(address, part.len() as u32, more));
        }
        drop(side);
        let packets: Vec<usize> = queue.received().iter().map(Vec::len).collect();
        let (expected, dropped): (&[usize], u64) = if multi_buffer {
            (&[2000, 100], 0)
        } else {
            (&[100], 1)
        };
        assert_eq!((&packets[..], queue.stats().too_long_drops), (expected, dropped));
    }
    let mut queue = Queue::new(BindMode::Copy, true);
    let packet: Vec<u8> = (0..5000).map(|index| index as u8).collect();
    assert!(queue.send(&packet) && queue.send(b"short"));
    queue.xsk.flush();
    assert_eq!(*queue.kernel.sent.borrow(), [packet, b"short".to_vec()]);
}

/// Whoever keeps all that it can get has a part of the chunks at most; the rest goes on to the kernel, and theirs when they are let go.
#[test]
fn kept_frames_stay_as_they_are_and_never_take_the_kernels_last_chunks() {
    for mode in [BindMode::Copy, BindMode::ZeroCopy] {
        let mut queue = Queue::new(mode, false);
        let mut kept: Vec<(u8, LentBytes)> = Vec::new();
        let (mut came, mut copied, mut most) = (0u32, 0, 0);
        for round in 0..40 {
            for _ in 0..16 {
                let number = came as u8;
                assert!(
                    queue.kernel.side.borrow_mut().receive(256, &[number; 300]),
                    "the kernel has a chunk for it"
                );
                came += 1;
            }
            // Miri knows no such instructions.
            queue
                .xsk
                .receive_from(|| cfg!(not(miri)), &mut |memory: ReceivedMemory<'_>| {
                    let (bytes, lender) = memory.visit();
                    // As packets are opened in place.
                    let number = bytes[0];
                    bytes[100..].fill(!number);
                    match lender.loan(bytes).keep() {
                        Some(held) => kept.push((held[0], held.slice(1..))),
                        None => copied += 1,
                    }
                });
            most = most.max(queue.xsk.lent_bytes() / CHUNK);
            assert!(queue.xsk.rings.receiving() >= COUNTS.receive - COUNTS.lent - REFILLED);
            if round % 10 == 9 {
                // Some, on another thread; the last round leaves none.
                let gone = kept.split_off(if round == 39 { 0 } else { kept.len() / 2 });
                std::thread::spawn(move || {
                    for (number, held) in gone {
                        assert!(held[..99].iter().all(|&byte| byte == number));
                        assert!(held[99..].iter().all(|&byte| byte == !number));
                    }
                })
                .join()
                .unwrap();
            }
        }
        assert_eq!(most, COUNTS.lent as usize);
        assert!(copied > 100 && came == 640, "{copied}");
        assert!(queue.received().is_empty());
        assert_eq!(queue.xsk.lent_bytes(), 0);
        let in_hand = queue.xsk.visited.len() as u32;
        assert_eq!(queue.xsk.rings.receiving() + in_hand, COUNTS.receive);
        assert_eq!(queue.stats().refused_descriptors, 0);
    }
}

/// The socket is gone, and its memory is there for as long as somebody reads it.
#[test]
fn kept_frame_outlives_its_queue() {
    let mut queue = Queue::new(BindMode::Copy, false);
    queue.kernel.side.borrow_mut().receive(256, &[7; 300]);
    let mut kept = None;
    queue
        .xsk
        .receive_from(|| false, &mut |memory: ReceivedMemory<'_>| {
            let (bytes, lender) = memory.visit();
            kept = lender.loan(bytes).keep();
        });
    drop(queue);
    assert_eq!(*kept.unwrap(), [7; 300]);
}

/// Chunks rest here until so many go to the kernel together.
const REFILLED: u32 = 32;
