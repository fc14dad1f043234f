//! GSO that fails although the kernel has it: it is given up, and not for the fault of something else.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use ringway_types::{Ecn, Instant, PortId};

use super::SocketPort;
use super::sys::set_option;
use crate::config::DatapathConfig;
use crate::contract::{DeviceBackend, DeviceStats};
use crate::event::EventQueue;
use crate::io_uring::IoUringDevice;
use crate::meta::TransmitMeta;
use crate::socket::SocketDevice;

const PORT: PortId = PortId(0);
const SEGMENT: usize = 1000;
const DATAGRAMS: usize = 6;

fn now() -> Instant {
    Instant::from_nanos(0)
}

/// Sends a run from a port, and polls until the kernel has answered to all of it.
fn send_run<D: DeviceBackend>(device: &mut D, to: SocketAddr, local_ip: Option<IpAddr>) -> DeviceStats {
    let before = device.stats();
    let meta = TransmitMeta {
        port: PORT,
        remote: to,
        local_ip,
        ecn: Ecn::NotEct,
        dscp: 0,
        segment_size: SEGMENT,
        sender: 0,
        probe_timeouts: 0,
    };
    device.slot().unwrap()[..DATAGRAMS * SEGMENT].fill(7);
    device.commit(now(), &meta, DATAGRAMS * SEGMENT);
    let settled = |stats: &DeviceStats| {
        stats.sent_datagrams + stats.send_errors
            >= before.sent_datagrams + before.send_errors + DATAGRAMS as u64
    };
    for _ in 0..1000 {
        device.flush();
        device.receive(now(), &mut |_| ControlFlow::Continue(())).unwrap();
        if settled(&device.stats()) {
            return device.stats();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("not settled: {:?}", device.stats());
}

/// Sends a run to an address from another, and gives the counters after it and how many datagrams the device takes as one from now on.
type Send<'a> = &'a mut dyn FnMut(SocketAddr, Option<IpAddr>) -> (DeviceStats, usize);
type Check = fn(Send<'_>);

/// Both devices on kernel sockets, as far as this system has them, each with a port for which GSO fails.
fn with_devices(config: &DatapathConfig, check: Check) {
    fn run<D: DeviceBackend<Port = SocketPort>>(mut device: D, config: &DatapathConfig, check: Check) {
        let queue = EventQueue::new().unwrap();
        device.register(&queue).unwrap();
        let port = SocketPort::bind("0.0.0.0:0".parse().unwrap(), config).unwrap();
        // The kernel cuts no run into datagrams then, and says so when it is to do it.
        set_option(port.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        device.attach(PORT, port).unwrap();
        check(&mut |to, local_ip| {
            let stats = send_run(&mut device, to, local_ip);
            (stats, device.capabilities().send_segments_max)
        });
    }
    run(SocketDevice::new(config).unwrap(), config, check);
    match IoUringDevice::new(config, true) {
        Ok(device) => run(device, config, check),
        Err(error) => skip("io_uring", &error),
    }
}

#[allow(clippy::print_stdout, reason = "the reason why a test is skipped")]
fn skip(what: &str, why: &dyn std::fmt::Display) {
    println!("SKIP {what}: {why}");
}

fn peer() -> (UdpSocket, SocketAddr) {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let address = peer.local_addr().unwrap();
    (peer, address)
}

#[test]
fn gso_that_fails_is_given_up_and_no_datagram_is_lost() {
    with_devices(&DatapathConfig::default(), |send| {
        let (peer, to) = peer();
        for _ in 0..2 {
            let (stats, segments_max) = send(to, None);
            assert_eq!((stats.send_errors, segments_max), (0, 1));
            for _ in 0..DATAGRAMS {
                assert_eq!(peer.recv(&mut [0; 2000]).unwrap(), SEGMENT);
            }
        }
    });
}

/// Of an interface that takes one after the other, at a rate, while the buffer of the socket has room for two.
#[test]
fn datagrams_of_a_run_that_go_by_themselves_wait_for_room() {
    let slow = || -> Result<(), String> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| error.to_string())?;
        let rate = "tc qdisc add dev lo root tbf rate 200kbit burst 1500 latency 2s";
        for command in ["ip link set lo up", rate] {
            let mut words = command.split(' ');
            let program = words.next().unwrap_or_default();
            let output = Command::new(program)
                .args(words)
                .output()
                .map_err(|error| error.to_string())?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
            }
        }
        Ok(())
    };
    let test = || {
        if let Err(why) = slow() {
            return skip("a slow interface", &why);
        }
        let config = DatapathConfig {
            send_buffer_bytes: 1,
            ..DatapathConfig::default()
        };
        with_devices(&config, |send| {
            let (peer, to) = peer();
            let (stats, _) = send(to, None);
            assert_eq!((stats.send_errors, stats.sent_datagrams), (0, DATAGRAMS as u64));
            for _ in 0..DATAGRAMS {
                assert_eq!(peer.recv(&mut [0; 2000]).unwrap(), SEGMENT);
            }
        });
    };
    std::thread::scope(|scope| scope.spawn(test).join()).unwrap();
}

#[test]
fn local_address_that_is_gone_is_no_fault_of_gso() {
    with_devices(&DatapathConfig::default(), |send| {
        let (_peer, to) = peer();
        let gone = "203.0.113.9".parse().unwrap();
        let (stats, segments_max) = send(to, Some(gone));
        assert_eq!(stats.send_errors, DATAGRAMS as u64);
        assert!(segments_max > 1);
    });
}
