//! An interface that goes away, and returns.
//!
//! Deleted, unbound from its driver, or moved away, it takes its queues with it: their sockets are closed, and everything goes by the kernel's.
//! When one of its name is there again, the first partition attaches the program to that, and each one serves its queues as before, with the packet
//! memory that it has and sockets that were kept for it. So chunks stay where they are, with a worker on another thread and with the application,
//! and none of it takes a privilege.

use std::io;

use super::explain::of_queue;
use super::socket::XskSocket;
use super::xsk::Xsk;
use super::{AfXdpDevice, topology};

impl AfXdpDevice {
    /// Lets go of queues of an interface that is gone, and serves those of one that has returned.
    pub(super) fn follow_interface(&mut self) {
        let attached = self.program.attached();
        let has_returned = attached != self.attached;
        if !has_returned && !self.to_reopen && !self.queues.iter().any(Xsk::is_lost) {
            return;
        }
        if let Err(error) = self.watch(false) {
            tracing::debug!(%error, "AF_XDP sockets stay in the event queue");
        }
        if has_returned {
            self.attached = attached;
            // The lower half.
            self.interface_index = attached as u32;
            self.route = None;
            self.neighbours.forget();
            self.to_reopen = true;
        }
        for xsk in &mut self.queues {
            if has_returned {
                xsk.on_sockets_removed();
                // One that is bound by now, as a queue that was new, stays so.
                xsk.let_go();
            } else if xsk.is_lost() {
                xsk.let_go();
                self.program.on_unbound(attached);
            }
        }
        if !self.to_reopen {
            return;
        }
        let interface = self.interface.clone();
        let partition = self.late.index;
        match self.serve_again() {
            Ok(()) => {
                self.to_reopen = false;
                if !self.queues.is_empty() {
                    tracing::info!(partition, "AF_XDP: {interface} is back, and served");
                }
            }
            // The driver may be about to start its queues, or the memory of the former sockets be accounted still: it is tried again.
            Err(error) if has_returned => {
                tracing::warn!(%error, partition, "AF_XDP: {interface} is back, and not all of its queues are served");
            }
            Err(error) => tracing::debug!(%error, "AF_XDP: a queue is still not served again"),
        }
    }

    /// Serves what is not served of its queues; gives the first error.
    fn serve_again(&mut self) -> io::Result<()> {
        let mtu = topology::mtu(&self.interface).ok_or(io::ErrorKind::NotFound)?;
        let mut queues = std::mem::take(&mut self.queues);
        let mut result = Ok(());
        for (xsk, index) in queues.iter_mut().zip(0..).filter(|(xsk, _)| !xsk.is_served()) {
            let bound = match xsk.is_bound() {
                true => Ok(()),
                false => self.bind_again(xsk, index, mtu),
            };
            let served = bound.and_then(|()| self.receive_by(xsk));
            result = result.and(served);
        }
        self.queues = queues;
        self.capabilities.zero_copy = self.capabilities.queues.iter().all(|queue| queue.zero_copy);
        result
    }

    /// Binds the queue that has this place.
    fn bind_again(&mut self, xsk: &mut Xsk<XskSocket>, index: usize, mtu: u32) -> io::Result<()> {
        let copy = self.late.config.af_xdp.copy;
        let served = xsk.serve_again(self.interface_index, mtu, copy, &self.program.reserve);
        let reason = served.map_err(|error| of_queue(xsk.queue(), &error))?;
        if let Some(reason) = &reason {
            self.note_copies(xsk.queue(), reason);
        }
        let capabilities = &mut self.capabilities.queues[index];
        capabilities.zero_copy = xsk.is_zero_copy();
        if reason.is_some() || capabilities.zero_copy {
            capabilities.copy_reason = reason;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::ops::ControlFlow;
    use std::os::fd::AsRawFd;
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use nix::sched::{CloneFlags, unshare};
    use ringway_types::PortId;

    use super::*;
    use crate::af_xdp::program::{Port, Program};
    use crate::af_xdp::socket::Kernel;
    use crate::clock::Clock;
    use crate::config::{AttachMode, DatapathConfig, Placement, Threading};
    use crate::contract::{DeviceBackend, XdpStats};
    use crate::event::{EventQueue, Interest};
    use crate::thread;

    fn run(program: &str, words: &str) {
        let status = Command::new(program).args(words.split(' ')).status();
        assert!(status.unwrap().success(), "{program} {words}");
    }

    fn ip(words: &str) {
        run("ip", words);
    }

    const ADD: &str =
        "link add rw0 numrxqueues 2 numtxqueues 2 type veth peer name rw1 numrxqueues 2 numtxqueues 2";

    /// So that datagrams go from rw1 to rw0, to an address that the kernel does not have.
    const LINKS: [&str; 4] = [
        "link set rw0 up address 02:00:00:00:09:01",
        "link set rw1 up",
        "addr add 10.9.0.2/24 dev rw1",
        "neigh add 10.9.0.1 lladdr 02:00:00:00:09:01 dev rw1",
    ];
    const TO: &str = "10.9.0.1:4433";

    fn port() -> Port {
        Port {
            id: PortId(1),
            local: TO.parse().unwrap(),
        }
    }

    /// From another port each time: by all queues.
    fn send() {
        let socket = UdpSocket::bind("10.9.0.2:0").unwrap();
        socket.send_to(b"one", TO).unwrap();
    }

    /// The device of an interface with two queues, on a thread of its own in a network namespace of its own.
    #[allow(clippy::print_stdout, reason = "the reason why a test is skipped")]
    fn with_device(test: impl FnOnce(AfXdpDevice, EventQueue) + Send) {
        let test = || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
                return println!("SKIP namespaces are needed: {error}");
            }
            run("mount", "--make-rprivate /");
            // That of the network namespace, which shows its interfaces.
            run("mount", "-t sysfs sysfs /sys");
            ip(ADD);
            let mut config = DatapathConfig::default();
            config.af_xdp.interface = Some("rw0".to_owned());
            let opened = AfXdpDevice::open(&config, &[Placement::default()], Threading::default());
            let mut device = match opened {
                Ok(mut devices) => devices.remove(0),
                Err(error) => return println!("SKIP {error}"),
            };
            let events = EventQueue::new().unwrap();
            device.register(&events).unwrap();
            test(device, events);
        };
        std::thread::scope(|scope| scope.spawn(test).join()).unwrap();
    }

    /// Takes turns until something is so.
    fn turns(device: &mut AfXdpDevice, events: &EventQueue, is_so: impl Fn(&AfXdpDevice) -> bool) {
        let start = Instant::now();
        while !is_so(device) {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "it does not come to that"
            );
            events.waker().prepare_sleep();
            if device.prepare_sleep() {
                events.wait(Some(Duration::from_millis(10))).unwrap();
            }
            device.end_sleep();
            events.waker().end_sleep();
            let now = Clock::shared().now();
            device.receive(now, &mut |_| ControlFlow::Continue(())).unwrap();
        }
    }

    /// Another one keeps the capabilities, and changes the interface.
    #[test]
    fn queues_of_an_interface_that_returns_are_served_without_capabilities_and_no_chunk_is_lost() {
        with_device(|mut device, events| {
            let (change, changes) = mpsc::channel::<&str>();
            let (changed, is_changed) = mpsc::channel();
            std::thread::spawn(move || {
                for words in changes {
                    ip(words);
                    changed.send(()).unwrap();
                }
            });
            let change = |words| {
                change.send(words).unwrap();
                is_changed.recv().unwrap();
            };
            thread::drop_capabilities().unwrap();
            let chunks =
                |device: &AfXdpDevice| -> Vec<u32> { device.queues.iter().map(Xsk::chunks).collect() };
            let all = chunks(&device);
            for _ in 0..3 {
                let before = device.interface_index;
                change("link del rw0");
                // Some are with the kernel, and stay so for now.
                assert_eq!(chunks(&device), all);
                change(ADD);
                change("link set rw0 up");
                turns(&mut device, &events, |device| {
                    !device.to_reopen && device.interface_index != before
                });
                assert!(device.queues.iter().all(|xsk| xsk.is_served() && xsk.can_send()));
                let mut kernels = device.queues.iter().filter_map(Xsk::kernel);
                assert!(kernels.all(|kernel| !kernel.is_unbound()));
                assert_eq!(chunks(&device), all);
                assert_eq!(
                    device.interface_index,
                    nix::net::if_::if_nametoindex("rw0").unwrap()
                );
            }
        });
    }

    /// As one that was opened when the interface was back, and before the program was attached to it.
    #[test]
    fn queue_that_stays_bound_while_the_program_is_attached_again_gets_what_comes_in() {
        with_device(|mut device, events| {
            for words in LINKS {
                ip(words);
            }
            device.program.follow_links();
            device.program.add(port()).unwrap();
            let came = |device: &AfXdpDevice| {
                let stats = device.stats().xdp;
                (stats.redirected, stats.pass_no_socket)
            };
            let send_all = |device: &mut AfXdpDevice| {
                let before = came(device);
                (0..16).for_each(|_| send());
                turns(device, &events, |device| {
                    let (past, left) = came(device);
                    past + left >= before.0 + before.1 + 16
                });
                assert_eq!(came(device), (before.0 + 16, 0));
            };
            send_all(&mut device);
            let before = device.attached;
            device.program.on_unbound(before);
            turns(&mut device, &events, |device| {
                device.attached != before && !device.to_reopen
            });
            assert!(device.queues.iter().all(Xsk::is_served));
            send_all(&mut device);
        });
    }

    #[test]
    fn thread_that_has_nothing_to_do_tries_again_to_serve_a_queue() {
        with_device(|mut device, events| {
            turns(&mut device, &events, |_| true);
            device.queues.iter_mut().for_each(Xsk::on_sockets_removed);
            device.to_reopen = true;
            events.waker().prepare_sleep();
            assert!(device.prepare_sleep());
            let start = Instant::now();
            events.wait(Some(Duration::from_secs(20))).unwrap();
            assert!(start.elapsed() < Duration::from_secs(10), "it sleeps on");
            device.end_sleep();
            events.waker().end_sleep();
            turns(&mut device, &events, |device| {
                !device.to_reopen && device.queues.iter().all(Xsk::is_served)
            });
        });
    }

    /// While another program is on it, which no news says that it is taken off.
    #[test]
    fn interface_that_was_back_with_another_program_is_served_once_that_is_gone() {
        with_device(|mut device, events| {
            let before = device.attached;
            ip("link del rw0");
            ip(ADD);
            let index = nix::net::if_::if_nametoindex("rw0").unwrap();
            let other = Program::attach("rw0", index, AttachMode::Auto, false).unwrap();
            ip("link set rw0 up");
            turns(&mut device, &events, |device| device.program.tries_again());
            drop(other);
            turns(&mut device, &events, |device| {
                device.attached != before && device.queues.iter().all(Xsk::is_served)
            });
        });
    }

    #[test]
    fn all_sockets_are_in_the_event_queue_though_one_was_not_taken_out_and_one_was_out_already() {
        with_device(|mut device, events| {
            let registry = events.registry().unwrap();
            let descriptors: Vec<i32> = device
                .queues
                .iter()
                .filter_map(Xsk::kernel)
                .map(|kernel| kernel.descriptor().as_raw_fd())
                .collect();
            device.watch(true).unwrap();
            registry.remove(descriptors[0]).unwrap();
            device.watch(false).unwrap();
            registry.add(descriptors[1], Interest::Readable).unwrap();
            device.watch(true).unwrap();
            for descriptor in descriptors {
                registry.change(descriptor, Interest::Readable).unwrap();
            }
        });
    }

    #[test]
    fn new_queues_of_an_interface_that_has_returned_wait_for_the_program() {
        with_device(|mut device, events| {
            let before = device.interface_index;
            device.late.known = 1;
            ip("link del rw0");
            ip(ADD);
            assert_eq!(device.late.look("rw0", before, &device.program), None);
            ip("link set rw0 up");
            turns(&mut device, &events, |device| {
                !device.to_reopen && device.interface_index != before && device.late.known == 2
            });
            assert!(device.queues.len() == 2 && device.queues.iter().all(Xsk::is_served));
        });
    }

    #[test]
    fn frames_that_an_interface_takes_with_it_are_counted() {
        with_device(|mut device, _| {
            for words in LINKS {
                ip(words);
            }
            device.program.follow_links();
            device.program.add(port()).unwrap();
            (0..16).for_each(|_| send());
            let start = Instant::now();
            let mut stats = XdpStats::default();
            while stats.redirected < 16 {
                assert!(start.elapsed() < Duration::from_secs(30), "{stats:?}");
                device.program.count_news(&mut stats).unwrap();
            }
            ip("link del rw0");
            let xsk = &mut device.queues[0];
            for _ in 0..3 {
                xsk.frame().unwrap();
                xsk.commit(60);
            }
            xsk.flush();
            xsk.frame().unwrap();
            xsk.commit(60);
            device.queues.iter_mut().for_each(Xsk::let_go);
            let mut stats = XdpStats::default();
            for xsk in &device.queues {
                assert!(xsk.kernel().is_none());
                xsk.count(&mut stats).unwrap();
            }
            assert_eq!((stats.other_drops, stats.refused_sends), (16, 4));
        });
    }
}
