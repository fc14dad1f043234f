//! An interface that goes away, and returns.
//!
//! Deleted, unbound from its driver, or moved away, it takes its queues with it: their sockets are closed, and everything goes by the kernel's.
//! When one of its name is there again, the first partition attaches the program to that, and each one serves its queues as before, with the packet
//! memory that it has and sockets that were kept for it. So chunks stay where they are, with a worker on another thread and with the application,
//! and none of it takes a privilege.

use std::io;

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
            if has_returned || xsk.is_lost() {
                xsk.let_go();
            }
        }
        if !self.to_reopen {
            return;
        }
        let interface = self.interface.clone();
        match self.serve_again() {
            Ok(()) => {
                self.to_reopen = false;
                tracing::info!("AF_XDP: {interface} is back, and served");
            }
            // The driver may be about to start its queues, or the memory of the former sockets be accounted still: it is tried again.
            Err(error) if has_returned => {
                tracing::warn!(%error, "AF_XDP: {interface} is back, and not all of its queues are served");
            }
            Err(error) => tracing::debug!(%error, "AF_XDP: a queue is still not served again"),
        }
    }

    /// Serves what is not served of its queues; gives the first error.
    fn serve_again(&mut self) -> io::Result<()> {
        let program = std::sync::Arc::clone(&self.program);
        let mtu = topology::mtu(&self.interface).ok_or(io::ErrorKind::NotFound)?;
        let mut queues = std::mem::take(&mut self.queues);
        let mut result = Ok(());
        for (xsk, index) in queues.iter_mut().zip(0..).filter(|(xsk, _)| !xsk.is_served()) {
            let served = xsk
                .serve_again(self.interface_index, mtu, &program.reserve)
                .and_then(|()| self.receive_by(xsk));
            self.capabilities.queues[index].zero_copy = xsk.is_zero_copy();
            result = result.and(served);
        }
        self.queues = queues;
        self.capabilities.zero_copy = self.capabilities.queues.iter().all(|queue| queue.zero_copy);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::af_xdp::socket::Kernel;
    use crate::clock::Clock;
    use crate::config::{DatapathConfig, Placement, Threading};
    use crate::contract::DeviceBackend;
    use crate::event::EventQueue;
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

    /// On a thread of its own, in a network namespace of its own. Another one keeps the capabilities, and changes the interface.
    #[test]
    #[allow(clippy::print_stdout, reason = "the reason why a test is skipped")]
    fn queues_of_an_interface_that_returns_are_served_without_capabilities_and_no_chunk_is_lost() {
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
                let start = Instant::now();
                while device.to_reopen || device.interface_index == before {
                    assert!(start.elapsed() < Duration::from_secs(30), "it is not served");
                    events.waker().prepare_sleep();
                    if device.prepare_sleep() {
                        events.wait(Some(Duration::from_millis(10))).unwrap();
                    }
                    device.end_sleep();
                    events.waker().end_sleep();
                    device
                        .receive(
                            Clock::shared().now(),
                            &mut |_| std::ops::ControlFlow::Continue(()),
                        )
                        .unwrap();
                }
                assert!(device.queues.iter().all(|xsk| xsk.is_served() && xsk.can_send()));
                assert!(
                    device
                        .queues
                        .iter()
                        .filter_map(Xsk::kernel)
                        .all(|kernel| !kernel.is_unbound())
                );
                assert_eq!(chunks(&device), all);
                assert_eq!(
                    device.interface_index,
                    nix::net::if_::if_nametoindex("rw0").unwrap()
                );
            }
            drop(device);
        };
        std::thread::scope(|scope| scope.spawn(test).join()).unwrap();
    }
}
