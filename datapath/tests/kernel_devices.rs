//! What the devices on kernel sockets promise, on loopback: the same tests for each of them.
//!
//! A device that this system refuses is reported as ignored, with the reason.

#[path = "kernel_devices/adopted.rs"]
mod adopted;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::{ControlFlow, Deref, DerefMut};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use nix::sched::{CloneFlags, unshare};
use ringway_datapath::clock::Clock;
use ringway_datapath::config::{Backend, DatapathConfig, Placement, Threading};
use ringway_datapath::contract::DeviceStats;
use ringway_datapath::device::Device;
use ringway_datapath::event::EventQueue;
use ringway_datapath::local::LocalDevice;
use ringway_datapath::meta::{ReceiveMeta, TransmitMeta};
use ringway_datapath::open::open_devices;
use ringway_datapath::partition::Partitioning;
use ringway_datapath::port::BoundPort;
use ringway_datapath::refusals::{Refusal, RefusalReason};
use ringway_datapath::sim::{SimDevice, SimNetwork};
use ringway_datapath::split::{DatapathEnd, split};
use ringway_datapath::thread;
use ringway_datapath::uring::leaked_packet_memory;
use ringway_types::{Ecn, PortId};

/// Makes a device of one kind.
type Make = fn(&DatapathConfig) -> io::Result<Subject>;

/// Panics if a promise is broken.
type Test = fn(Make);

/// A device, with the queue that its thread would sleep on.
struct Subject {
    device: Device,
    queue: EventQueue,
    /// If it is split: the other end, and the thread that polls it.
    other: Option<Other>,
}

struct Other {
    end: Weak<Mutex<DatapathEnd>>,
    thread: Option<JoinHandle<()>>,
}

impl Subject {
    fn open(backend: Backend, config: &DatapathConfig, one_thread: bool) -> io::Result<Subject> {
        let threading = Threading {
            one_thread,
            split: false,
        };
        let queue = EventQueue::new()?;
        let mut device = one_device(backend, config, threading)?;
        device.register(&queue)?;
        Ok(Subject {
            device: device.into(),
            queue,
            other: None,
        })
    }

    /// On a thread of its own, as in max-throughput mode.
    fn open_split(backend: Backend, config: &DatapathConfig) -> io::Result<Subject> {
        let threading = Threading {
            one_thread: true,
            split: true,
        };
        let mut device = one_device(backend, config, threading)?;
        let (queue, device_queue) = (EventQueue::new()?, EventQueue::new()?);
        device.register(&device_queue)?;
        let (end, device) = split(
            device,
            Arc::clone(device_queue.waker()),
            Arc::clone(queue.waker()),
        );
        let polled = Arc::new(Mutex::new(end));
        let end = Arc::downgrade(&polled);
        // Its thread makes an end of it, too.
        let poll = move || {
            loop {
                let mut end = polled.lock().unwrap();
                if end.is_abandoned() {
                    return;
                }
                if end.poll(Clock::shared().now()).unwrap() {
                    continue;
                }
                device_queue.waker().prepare_sleep();
                let may_sleep = end.prepare_sleep();
                drop(end);
                if may_sleep {
                    device_queue.wait(Some(Duration::from_secs(1))).unwrap();
                }
                device_queue.waker().end_sleep();
                polled.lock().unwrap().end_sleep();
            }
        };
        Ok(Subject {
            device: device.into(),
            queue,
            other: Some(Other {
                end,
                thread: Some(std::thread::spawn(poll)),
            }),
        })
    }

    fn stats(&self) -> DeviceStats {
        match &self.other {
            Some(other) => other.end.upgrade().unwrap().lock().unwrap().stats(),
            None => self.device.stats(),
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Some(Other { thread, .. }) = &mut self.other {
            self.device = LocalDevice::Sim(SimDevice::new(&SimNetwork::new(0), 1)).into();
            thread.take().unwrap().join().unwrap();
        }
    }
}

impl Deref for Subject {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}

impl DerefMut for Subject {
    fn deref_mut(&mut self) -> &mut Device {
        &mut self.device
    }
}

fn one_device(backend: Backend, config: &DatapathConfig, threading: Threading) -> io::Result<LocalDevice> {
    let config = DatapathConfig {
        backend,
        ..config.clone()
    };
    open_devices(&config, &[Placement::default()], threading).map(|mut devices| devices.remove(0))
}

fn socket(config: &DatapathConfig) -> io::Result<Subject> {
    Subject::open(Backend::Socket, config, true)
}

fn socket_split(config: &DatapathConfig) -> io::Result<Subject> {
    Subject::open_split(Backend::Socket, config)
}

fn io_uring(config: &DatapathConfig) -> io::Result<Subject> {
    Subject::open(Backend::IoUring, config, true)
}

fn io_uring_split(config: &DatapathConfig) -> io::Result<Subject> {
    Subject::open_split(Backend::IoUring, config)
}

/// For threads that take turns.
fn io_uring_of_any_thread(config: &DatapathConfig) -> io::Result<Subject> {
    Subject::open(Backend::IoUring, config, false)
}

#[allow(clippy::print_stdout, reason = "the reason why tests are ignored")]
fn main() {
    let arguments = Arguments::from_args();
    let kinds: [(&str, Make); 5] = [
        ("socket", socket),
        ("socket_split", socket_split),
        ("io_uring", io_uring),
        ("io_uring_split", io_uring_split),
        ("io_uring_of_any_thread", io_uring_of_any_thread),
    ];
    let tests: &[(&str, Test)] = &[
        (
            "run_of_datagrams_arrives_whole_with_and_without_offloads",
            run_of_datagrams,
        ),
        (
            "ecn_marks_and_addresses_arrive_over_both_address_families",
            ecn_and_addresses,
        ),
        ("source_address_is_the_one_asked_for", source_address),
        (
            "refused_datagram_is_counted_and_the_next_ones_go",
            refused_datagram,
        ),
        (
            "datagrams_are_steered_by_the_partition_in_the_connection_id",
            steering,
        ),
        (
            "datagrams_of_no_connection_are_steered_by_the_processor_that_receives_them",
            first_packets,
        ),
        (
            "blocked_sender_goes_on_when_there_is_room_and_loses_nothing",
            blocked_sender,
        ),
        (
            "more_messages_than_buffers_all_arrive",
            more_messages_than_buffers,
        ),
        (
            "datagrams_that_come_one_by_one_are_taken_many_in_a_turn",
            many_in_a_turn,
        ),
        (
            "visitor_that_has_enough_gets_no_more_in_a_turn_than_a_call_brings",
            enough_for_a_turn,
        ),
        (
            "ports_that_find_no_buffer_get_their_turn",
            more_ports_than_buffers,
        ),
        ("sleeper_is_woken_by_a_datagram", sleeper_is_woken),
        (NARROW_LINK, refused_for_its_size),
        ("port_that_was_given_up_can_be_bound_again_at_once", port_given_up),
        (
            "socket_of_the_application_is_received_from_by_one_device_and_sent_by_by_all",
            adopted::one_receives_and_all_send,
        ),
        (
            "descriptor_that_the_application_keeps_wakes_nobody_when_its_port_is_given_up",
            adopted::kept_descriptor_wakes_nobody,
        ),
        (
            "device_made_on_one_thread_is_used_by_another",
            used_by_another_thread,
        ),
        (
            "memory_of_requests_that_wait_is_freed_with_their_device",
            freed_with_the_device,
        ),
        (
            "thread_that_made_a_device_is_not_interrupted_when_it_goes",
            maker_is_not_interrupted,
        ),
    ];
    let no_namespace = on_narrow_loopback(|| ()).err();
    if let Some(error) = &no_namespace {
        println!("SKIP {NARROW_LINK}: {error}");
    }
    let mut trials = Vec::new();
    for (kind, make) in kinds {
        let refused = make(&DatapathConfig::default()).err();
        if let Some(error) = &refused {
            println!("SKIP {kind}: {error}");
        }
        for &(name, test) in tests {
            // A worker that is not there yet costs datagrams, where the device does not wait for it.
            if kind.ends_with("_split") && name == "ports_that_find_no_buffer_get_their_turn" {
                continue;
            }
            let run = move || {
                test(make);
                Ok(())
            };
            let is_ignored = refused.is_some() || (name == NARROW_LINK && no_namespace.is_some());
            trials.push(Trial::test(format!("{kind}::{name}"), run).with_ignored_flag(is_ignored));
        }
    }
    trials.push(Trial::test(
        "socket_split::worker_that_is_behind_costs_datagrams_that_are_counted_and_later_ones_arrive",
        || {
            worker_behind();
            Ok(())
        },
    ));
    trials.push(Trial::test("port_in_use_is_an_error_for_groups_too", || {
        port_in_use();
        Ok(())
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

const PORT: PortId = PortId(1);

fn device(make: Make, options: &DatapathConfig, local: &str) -> (Subject, SocketAddr) {
    let mut device = make(options).expect("tried before");
    let port = BoundPort::socket(local.parse().unwrap(), options).unwrap();
    let local = port.local_addr();
    device.attach(PORT, port).unwrap();
    (device, local)
}

fn meta(remote: SocketAddr, segment_size: usize) -> TransmitMeta {
    TransmitMeta {
        port: PORT,
        remote,
        local_ip: None,
        ecn: Ecn::NotEct,
        dscp: 0,
        segment_size,
        sender: 7,
        probe_timeouts: 0,
    }
}

fn send(device: &mut Device, meta: &TransmitMeta, bytes: &[u8]) {
    // A device on another thread may have to give slots back first.
    assert!(until(|| device.slot().is_some()), "blocked");
    device.slot().unwrap()[..bytes.len()].copy_from_slice(bytes);
    device.commit(Clock::shared().now(), meta, bytes.len());
}

fn receive_once(device: &mut Device, bursts: &mut Vec<(ReceiveMeta, Vec<u8>)>) -> usize {
    receive_saying(ControlFlow::Continue(()), device, bursts)
}

/// Receives once, with a visitor that says this each time.
fn receive_saying(
    flow: ControlFlow<()>,
    device: &mut Device,
    bursts: &mut Vec<(ReceiveMeta, Vec<u8>)>,
) -> usize {
    let received = device
        .receive(Clock::shared().now(), &mut |burst| {
            bursts.push((burst.meta, burst.into_data().to_vec()));
            flow
        })
        .unwrap();
    device.flush();
    received
}

/// Polls until `done`, for two seconds at most.
fn until(mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        if done() {
            return true;
        }
    }
    false
}

/// Receives until `count` datagrams have come.
fn receive(device: &mut Device, count: usize) -> Vec<(ReceiveMeta, Vec<u8>)> {
    let mut bursts = Vec::new();
    let mut datagrams = 0;
    until(|| {
        datagrams += receive_once(device, &mut bursts);
        datagrams >= count
    });
    assert_eq!(datagrams, count);
    bursts
}

/// Counters once all that was committed is sent or given up.
fn settle(device: &mut Subject, committed: u64) -> DeviceStats {
    assert!(until(|| {
        receive_once(device, &mut Vec::new());
        let stats = device.stats();
        stats.sent_datagrams + stats.send_errors == committed
    }));
    device.stats()
}

fn run_of_datagrams(make: Make) {
    for (gso, gro) in [(true, true), (false, true), (true, false), (false, false)] {
        let options = DatapathConfig {
            gso,
            gro,
            ..DatapathConfig::default()
        };
        let (mut a, _) = device(make, &options, "127.0.0.1:0");
        let (mut b, to) = device(make, &options, "127.0.0.1:0");
        receive_once(&mut b, &mut Vec::new());
        let data: Vec<u8> = (0..10 * 1200 + 77).map(|at| (at / 1200) as u8).collect();
        if gso {
            send(&mut a, &meta(to, 1200), &data);
        } else {
            assert_eq!(a.capabilities().send_segments_max, 1);
            data.chunks(1200)
                .for_each(|datagram| send(&mut a, &meta(to, datagram.len()), datagram));
        }
        a.flush();
        let received = receive(&mut b, 11);
        let bytes: Vec<u8> = received.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        assert_eq!(bytes, data);
        assert_eq!(settle(&mut a, 11).sent_datagrams, 11);
    }
}

fn ecn_and_addresses(make: Make) {
    for (bind_a, bind_b, target) in [
        ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "[::1]:0", "::1"),
        ("127.0.0.1:0", "[::]:0", "127.0.0.1"),
        ("[::]:0", "127.0.0.1:0", "127.0.0.1"),
        ("0.0.0.0:0", "0.0.0.0:0", "127.0.0.5"),
    ] {
        let (mut a, from) = device(make, &DatapathConfig::default(), bind_a);
        let (mut b, at) = device(make, &DatapathConfig::default(), bind_b);
        let to = SocketAddr::new(target.parse().unwrap(), at.port());
        for ecn in [Ecn::Ect0, Ecn::Ce, Ecn::NotEct] {
            send(&mut a, &TransmitMeta { ecn, ..meta(to, 5) }, b"hello");
            a.flush();
            let (meta, bytes) = receive(&mut b, 1).remove(0);
            assert_eq!(
                (meta.ecn, &bytes[..]),
                (ecn, &b"hello"[..]),
                "{bind_a} to {bind_b}"
            );
            assert_eq!(meta.remote.port(), from.port());
            assert_eq!(meta.local, to, "{bind_a} to {bind_b}");
        }
    }
}

fn source_address(make: Make) {
    let (mut a, _) = device(make, &DatapathConfig::default(), "0.0.0.0:0");
    let (mut b, to) = device(make, &DatapathConfig::default(), "127.0.0.1:0");
    let ip = "127.0.0.9".parse().unwrap();
    send(
        &mut a,
        &TransmitMeta {
            local_ip: Some(ip),
            ..meta(to, 2)
        },
        b"hi",
    );
    a.flush();
    assert_eq!(receive(&mut b, 1)[0].0.remote.ip(), ip);
}

const NARROW_LINK: &str =
    "datagrams_that_the_link_is_too_narrow_for_are_told_to_their_sender_and_smaller_ones_go";

/// Does something on a thread in a network namespace of its own, whose loopback interface has the MTU of IPv6 through a tunnel.
fn on_narrow_loopback<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let in_namespace = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
        let mut ip = Command::new("ip");
        ip.args(["link", "set", "lo", "mtu", "1280", "up"]);
        let done = ip.status().map_err(|error| format!("ip: {error}"))?;
        if !done.success() {
            return Err(format!("ip link set lo mtu 1280: {done}"));
        }
        Ok(run())
    };
    std::thread::spawn(in_namespace).join().unwrap()
}

fn refused_for_its_size(make: Make) {
    let test = move || {
        // 1280 bytes of IPv6, and of IPv4.
        for (local, fits) in [("[::1]:0", 1232), ("127.0.0.1:0", 1252)] {
            for gso in [true, false] {
                refused_above(make, gso, local, fits);
            }
        }
    };
    on_narrow_loopback(test).unwrap();
}

fn refused_above(make: Make, gso: bool, local: &str, fits: usize) {
    let options = DatapathConfig {
        gso,
        ..DatapathConfig::default()
    };
    let (mut a, _) = device(make, &options, local);
    let (mut b, to) = device(make, &options, local);
    receive_once(&mut b, &mut Vec::new());
    // The last of a run would have fitted: the kernel takes all of it or nothing.
    let runs: &[usize] = if gso { &[1, 3] } else { &[1] };
    let large = fits + 1;
    for count in runs {
        let bytes = large * count - (count - 1) * 100;
        send(&mut a, &meta(to, large), &vec![1; bytes]);
        a.flush();
        let mut refusal = None;
        assert!(until(|| {
            receive_once(&mut a, &mut Vec::new());
            refusal = a.take_refusal();
            refusal.is_some()
        }));
        let expected = Refusal {
            reason: RefusalReason::TooBig,
            sender: 7,
            remote: to,
            segment_size: large,
            bytes,
        };
        assert_eq!(refusal, Some(expected));
        assert_eq!(a.take_refusal(), None);
    }
    let refused = runs.iter().sum::<usize>() as u64;
    let stats = settle(&mut a, refused);
    assert_eq!((stats.send_too_big, stats.send_errors), (refused, refused));
    for count in runs {
        send(&mut a, &meta(to, fits), &vec![2; fits * count]);
    }
    a.flush();
    receive(&mut b, refused as usize);
    assert_eq!(
        a.capabilities().send_segments_max > 1,
        gso,
        "the link was too narrow, not GSO at fault"
    );
}

fn refused_datagram(make: Make) {
    let (mut a, _) = device(make, &DatapathConfig::default(), "127.0.0.1:0");
    let (mut b, to) = device(make, &DatapathConfig::default(), "127.0.0.1:0");
    send(&mut a, &meta("255.255.255.255:9".parse().unwrap(), 3), b"no!");
    send(&mut a, &meta(to, 3), b"yes");
    a.flush();
    assert_eq!(receive(&mut b, 1)[0].1, b"yes");
    assert_eq!(settle(&mut a, 2).send_errors, 1);
}

fn port_in_use() {
    let options = DatapathConfig::default();
    let partitioning = Partitioning::new(2);
    let group = BoundPort::socket_group("127.0.0.1:0".parse().unwrap(), partitioning, &[], &options).unwrap();
    let local = group[0].local_addr();
    let in_group = BoundPort::socket_group(local, partitioning, &[], &options).unwrap_err();
    let alone = BoundPort::socket(local, &options).unwrap_err();
    assert_eq!([in_group.kind(), alone.kind()], [io::ErrorKind::AddrInUse; 2]);
}

fn steering(make: Make) {
    const PARTITIONS: usize = 3;
    let options = DatapathConfig::default();
    let partitioning = Partitioning::new(PARTITIONS);
    let group = BoundPort::socket_group("127.0.0.1:0".parse().unwrap(), partitioning, &[], &options).unwrap();
    let to = group[0].local_addr();
    let mut devices: Vec<Subject> = group
        .into_iter()
        .map(|port| {
            let mut device = make(&options).unwrap();
            device.attach(PORT, port).unwrap();
            device
        })
        .collect();
    let short = |cid: [u8; 8]| [&[0x41][..], &cid, &[0; 20]].concat();
    let long = |first: u8, version: u32, cid: [u8; 8]| {
        [&[first][..], &version.to_be_bytes(), &[8], &cid, &[0], &[0; 40]].concat()
    };
    for (partition, receiver) in devices.iter_mut().enumerate() {
        for random in [0x00, 0xa5, 0xff] {
            let mut cid = [random; 8];
            partitioning.write(partition, &mut cid);
            for datagram in [short(cid), long(0xe0, 1, cid), long(0xf0, 0x6b33_43cf, cid)] {
                let (mut sender, _) = device(make, &options, "127.0.0.1:0");
                send(&mut sender, &meta(to, datagram.len()), &datagram);
                sender.flush();
                // What was sent goes out, also if nobody waits for it.
                drop(sender);
                assert_eq!(receive(receiver, 1)[0].1, datagram);
            }
        }
    }
    // A client's first packets stay together, whatever connection ID it chose.
    let (mut sender, _) = device(make, &options, "127.0.0.1:0");
    for byte in 0..20 {
        let datagram = long(0xc0, 1, [byte * 13; 8]);
        send(&mut sender, &meta(to, datagram.len()), &datagram);
    }
    sender.flush();
    let mut counts = [0; PARTITIONS];
    until(|| {
        for (count, device) in counts.iter_mut().zip(&mut devices) {
            *count += receive_once(device, &mut Vec::new());
        }
        counts.iter().sum::<usize>() == 20
    });
    assert!(counts.contains(&20), "{counts:?}");
}

/// On loopback the processor that sends is the one that receives.
fn first_packets(make: Make) {
    let options = DatapathConfig::default();
    let processors = thread::processors().unwrap();
    let partitioning = Partitioning::new(processors.len() + 1);
    let bound: Vec<usize> = processors.iter().rev().copied().collect();
    let local = "127.0.0.1:0".parse().unwrap();
    let group = BoundPort::socket_group(local, partitioning, &bound, &options).unwrap();
    let to = group[0].local_addr();
    let mut devices: Vec<Subject> = group
        .into_iter()
        .map(|port| {
            let mut device = make(&options).unwrap();
            device.attach(PORT, port).unwrap();
            device
        })
        .collect();
    let initial = [&[0xc0, 0, 0, 0, 1, 8][..], &[0xff; 48]].concat();
    for (partition, processor) in bound.into_iter().enumerate() {
        let sent = initial.clone();
        std::thread::spawn(move || {
            thread::pin(processor).unwrap();
            let (mut sender, _) = device(make, &DatapathConfig::default(), "127.0.0.1:0");
            send(&mut sender, &meta(to, sent.len()), &sent);
            sender.flush();
            // So that an io_uring has sent it.
            settle(&mut sender, 1);
        })
        .join()
        .unwrap();
        assert_eq!(receive(&mut devices[partition], 1)[0].1, initial);
    }
}

fn blocked_sender(make: Make) {
    let options = DatapathConfig {
        send_buffer_bytes: 4096,
        ..DatapathConfig::default()
    };
    let (mut a, _) = device(make, &options, "127.0.0.1:0");
    let (mut b, to) = device(make, &DatapathConfig::default(), "127.0.0.1:0");
    let mut committed = 0;
    for _ in 0..500 {
        match a.slot() {
            Some(slot) => {
                slot[..1200].fill(7);
                a.commit(Clock::shared().now(), &meta(to, 1200), 1200);
                committed += 1;
            }
            None => {
                receive_once(&mut a, &mut Vec::new());
                receive_once(&mut b, &mut Vec::new());
            }
        }
    }
    assert_eq!(settle(&mut a, committed).sent_datagrams, committed);
}

fn more_messages_than_buffers(make: Make) {
    let options = DatapathConfig {
        gso: false,
        gro: false,
        ..DatapathConfig::default()
    };
    let (mut a, _) = device(make, &options, "127.0.0.1:0");
    let (mut b, to) = device(make, &options, "127.0.0.1:0");
    receive_once(&mut b, &mut Vec::new());
    for round in 0..10u8 {
        for index in 0..60u8 {
            send(&mut a, &meta(to, 2), &[round, index]);
        }
        a.flush();
        let received = receive(&mut b, 60);
        for (index, (_, bytes)) in received.iter().enumerate() {
            assert_eq!(bytes[..], [round, index as u8]);
        }
    }
}

fn many_in_a_turn(make: Make) {
    const MANY: usize = 16;
    let (mut device, to) = device(make, &DatapathConfig::default(), "127.0.0.1:0");
    receive_once(&mut device, &mut Vec::new());
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Twice, for buffers that were used before.
    for _ in 0..2 {
        for index in 0..MANY {
            sender.send_to(&[index as u8], to).unwrap();
        }
        let mut bursts = Vec::new();
        let mut taken = Vec::new();
        until(|| {
            taken.push(receive_once(&mut device, &mut bursts));
            bursts.len() == MANY
        });
        let numbers: Vec<_> = bursts.iter().map(|(_, bytes)| bytes[0]).collect();
        assert_eq!(numbers, Vec::from_iter(0..MANY as u8));
        if device.other.is_none() {
            assert_eq!(taken, [MANY], "of turns");
        }
    }
}

fn enough_for_a_turn(make: Make) {
    const MANY: usize = 16;
    let (mut device, to) = device(make, &DatapathConfig::default(), "127.0.0.1:0");
    receive_once(&mut device, &mut Vec::new());
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for index in 0..MANY {
        sender.send_to(&[index as u8], to).unwrap();
    }
    let mut bursts = Vec::new();
    let mut most = 0;
    until(|| {
        most = most.max(receive_saying(ControlFlow::Break(()), &mut device, &mut bursts));
        bursts.len() == MANY
    });
    let numbers: Vec<_> = bursts.iter().map(|(_, bytes)| bytes[0]).collect();
    assert_eq!(numbers, Vec::from_iter(0..MANY as u8), "what is left comes later");
    assert!(most <= 4, "{most} in a turn");
}

fn more_ports_than_buffers(make: Make) {
    const PORTS: u32 = 40;
    const MESSAGES: u32 = 20;
    let mut device = make(&DatapathConfig::default()).unwrap();
    let mut targets = Vec::new();
    for id in 0..PORTS {
        let port = BoundPort::socket("127.0.0.1:0".parse().unwrap(), &DatapathConfig::default()).unwrap();
        targets.push(port.local_addr());
        device.attach(PortId(id), port).unwrap();
    }
    receive_once(&mut device, &mut Vec::new());
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for message in 0..MESSAGES {
        for target in &targets {
            sender.send_to(&message.to_be_bytes(), target).unwrap();
        }
    }
    let mut next = [0; PORTS as usize];
    let mut turns = 0;
    let all = until(|| {
        let mut bursts = Vec::new();
        turns += 1;
        receive_once(&mut device, &mut bursts);
        for (meta, bytes) in bursts {
            for message in bytes.chunks(meta.segment_size) {
                let expected: &mut u32 = &mut next[meta.port.0 as usize];
                assert_eq!(message, expected.to_be_bytes());
                *expected += 1;
            }
        }
        next.iter().all(|&count| count == MESSAGES)
    });
    assert!(all, "{next:?}");
    // Ports that find no buffer must not keep the device busy with nothing else.
    assert!(turns < 4 * PORTS * MESSAGES, "{turns} turns");
}

fn sleeper_is_woken(make: Make) {
    let mut b = make(&DatapathConfig::default()).unwrap();
    let port = BoundPort::socket("127.0.0.1:0".parse().unwrap(), &DatapathConfig::default()).unwrap();
    let to = port.local_addr();
    b.attach(PORT, port).unwrap();
    receive_once(&mut b, &mut Vec::new());
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0..20u8 {
        let copy = sender.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(u64::from(round % 3)));
            copy.send_to(&[round], to).unwrap();
        });
        let start = Instant::now();
        let mut bursts = Vec::new();
        while receive_once(&mut b, &mut bursts) == 0 {
            b.queue.waker().prepare_sleep();
            if b.prepare_sleep() {
                b.queue.wait(Some(Duration::from_secs(5))).unwrap();
            }
            b.queue.waker().end_sleep();
            b.end_sleep();
            assert!(
                start.elapsed() < Duration::from_secs(4),
                "the queue did not tell of a datagram"
            );
        }
        assert_eq!(bursts[0].1, [round]);
        thread.join().unwrap();
    }
}

fn worker_behind() {
    const SENT: usize = 2000;
    let (mut device, to) = device(socket_split, &DatapathConfig::default(), "127.0.0.1:0");
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for index in 0..SENT as u32 {
        sender.send_to(&index.to_be_bytes(), to).unwrap();
        // As far as the kernel keeps them, the device has had them all before the next.
        assert!(until(|| device.stats().received_datagrams == u64::from(index) + 1));
    }
    let dropped = device.stats().worker_behind_drops as usize;
    assert!(dropped > 0);
    let received = receive(&mut device, SENT - dropped);
    // The first ones: what was passed on is not taken back.
    for (index, (_, bytes)) in received.iter().enumerate() {
        assert_eq!(bytes[..], (index as u32).to_be_bytes());
    }
    sender.send_to(b"later", to).unwrap();
    assert_eq!(receive(&mut device, 1)[0].1, b"later");
}

fn port_given_up(make: Make) {
    let (mut a, local) = device(make, &DatapathConfig::default(), "127.0.0.1:0");
    receive_once(&mut a, &mut Vec::new());
    for id in 2..10 {
        a.detach(PortId(id - 1), Box::new(()));
        // Another thread takes a moment.
        let split = a.other.is_some();
        assert!(!split || until(|| BoundPort::socket(local, &DatapathConfig::default()).is_ok()));
        let port = BoundPort::socket(local, &DatapathConfig::default()).expect("the port is free");
        a.attach(PortId(id), port).unwrap();
        receive_once(&mut a, &mut Vec::new());
    }
    drop(a);
    BoundPort::socket(local, &DatapathConfig::default()).expect("the port is free");
}

fn freed_with_the_device(make: Make) {
    let (mut a, to) = device(make, &DatapathConfig::default(), "127.0.0.1:0");
    // It waits for datagrams now, and sends one.
    receive_once(&mut a, &mut Vec::new());
    send(&mut a, &meta(to, 3), b"own");
    drop(a);
    assert_eq!(leaked_packet_memory(), 0);
}

fn maker_is_not_interrupted(make: Make) {
    // A thread that no other test has used a device on.
    let maker = std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let timeout = Some(Duration::from_millis(50));
        socket.set_read_timeout(timeout).unwrap();
        for _ in 0..5 {
            let device = make(&DatapathConfig::default()).unwrap();
            std::thread::spawn(move || drop(device)).join().unwrap();
            let nothing = socket.recv(&mut [0; 1]).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
    });
    maker.join().unwrap();
}

fn used_by_another_thread(make: Make) {
    let (mut a, _) = device(make, &DatapathConfig::default(), "127.0.0.1:0");
    let (mut b, to) = device(make, &DatapathConfig::default(), "127.0.0.1:0");
    std::thread::spawn(move || {
        send(&mut a, &meta(to, 3), b"far");
        a.flush();
        assert_eq!(receive(&mut b, 1)[0].1, b"far");
    })
    .join()
    .unwrap();
}
