//! What two ends of a device promise each other, on a virtual network.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;
use std::{array, thread};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringway_types::{Ecn, Instant, PortId};

use super::*;
use crate::contract::Burst;
use crate::device::Device;
use crate::meta::TransmitMeta;
use crate::port::BoundPort;
use crate::sim::{SimDevice, SimNetwork};

const PORT: PortId = PortId(3);

/// A host whose device is split, and one whose device is not.
struct Hosts {
    network: SimNetwork,
    end: DatapathEnd,
    worker: Device,
    other: Device,
    addresses: [SocketAddr; 2],
    now: Instant,
}

impl Hosts {
    fn new(seed: u64) -> Hosts {
        Hosts::with_lending(seed, 0)
    }

    fn with_lending(seed: u64, lent_bytes: usize) -> Hosts {
        let network = SimNetwork::new(seed);
        let waker = || Arc::new(Waker::new().unwrap());
        let device = || LocalDevice::Sim(SimDevice::new(&network, 4).lending(lent_bytes));
        let (end, worker) = split(device(), waker(), waker());
        let (mut worker, mut other) = (Device::from(worker), Device::from(device()));
        let bind = |device: &mut Device, address: &str| {
            let port = BoundPort::Sim(network.bind(address.parse().unwrap()).unwrap());
            let local = port.local_addr();
            device.attach(PORT, port).unwrap();
            local
        };
        let addresses = [bind(&mut worker, "10.0.0.1:1"), bind(&mut other, "10.0.0.2:2")];
        Hosts {
            network,
            end,
            worker,
            other,
            addresses,
            now: Instant::from_nanos(0),
        }
    }
}

fn transmit_meta(remote: SocketAddr, segment_size: usize) -> TransmitMeta {
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

/// Sends `count` numbers, each in a datagram; false if the device takes nothing.
fn send(device: &mut Device, now: Instant, remote: SocketAddr, next: &mut u32, count: u32) -> bool {
    let Some(slot) = device.slot() else { return false };
    for (bytes, number) in slot.chunks_mut(4).zip(*next..*next + count) {
        bytes.copy_from_slice(&number.to_be_bytes());
    }
    device.commit(now, &transmit_meta(remote, 4), 4 * count as usize);
    *next += count;
    true
}

fn receive(device: &mut Device, now: Instant, from: SocketAddr, numbers: &mut Vec<u32>) {
    let mut visit = |burst: Burst<'_>| {
        assert_eq!((burst.meta.remote, burst.meta.segment_size), (from, 4));
        let datagrams = burst.into_data().chunks(4);
        numbers.extend(datagrams.map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap())));
        ControlFlow::Continue(())
    };
    device.receive(now, &mut visit).unwrap();
}

/// Far more turns than there are chunks: none is lost on the way.
#[test]
fn datagrams_pass_in_order_however_the_ends_take_turns() {
    let seeds = if cfg!(miri) { 0..1 } else { 0..8 };
    for seed in seeds {
        let mut hosts = Hosts::new(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        let [here, there] = hosts.addresses;
        let (mut to_there, mut to_here) = (0, 0);
        let (mut at_there, mut at_here) = (Vec::new(), Vec::new());
        let turns = if cfg!(miri) { 300 } else { 20_000 };
        for _ in 0..turns {
            let now = hosts.now;
            match rng.random_range(0..8) {
                0 | 1 => {
                    send(
                        &mut hosts.worker,
                        now,
                        there,
                        &mut to_there,
                        rng.random_range(1..5),
                    );
                }
                2 => hosts.worker.flush(),
                3 => {
                    send(&mut hosts.other, now, here, &mut to_here, rng.random_range(1..5));
                }
                4 => receive(&mut hosts.worker, now, there, &mut at_here),
                5 => receive(&mut hosts.other, now, here, &mut at_there),
                6 => drop(hosts.end.poll(now).unwrap()),
                _ => hosts.now += Duration::from_millis(rng.random_range(0..3)),
            }
        }
        for _ in 0..2000 {
            hosts.worker.flush();
            hosts.end.poll(hosts.now).unwrap();
            hosts.now += Duration::from_millis(2);
            hosts.end.poll(hosts.now).unwrap();
            receive(&mut hosts.worker, hosts.now, there, &mut at_here);
            receive(&mut hosts.other, hosts.now, here, &mut at_there);
        }
        assert_eq!(hosts.end.stats().worker_behind_drops, 0, "seed {seed}");
        assert_eq!(at_there, (0..to_there).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(at_here, (0..to_here).collect::<Vec<_>>(), "seed {seed}");
        // Neither end is left wanting.
        assert!(
            send(&mut hosts.worker, hosts.now, there, &mut to_there, 1),
            "seed {seed}"
        );
    }
}

/// Whoever waits for the port would bind it in vain before.
#[test]
fn port_that_the_worker_gives_up_counts_as_free_when_the_other_thread_has_closed_it() {
    let mut hosts = Hosts::new(1);
    let bind = |hosts: &Hosts| hosts.network.bind(hosts.addresses[0]).map(drop);
    let given_up = Arc::new(());
    hosts.worker.detach(PORT, Box::new(Arc::clone(&given_up)));
    assert_eq!(Arc::strong_count(&given_up), 2, "nobody has closed it");
    bind(&hosts).unwrap_err();
    hosts.end.poll(hosts.now).unwrap();
    assert_eq!(Arc::strong_count(&given_up), 1);
    bind(&hosts).unwrap();
}

#[test]
fn worker_without_slots_is_woken_when_there_are_some() {
    let mut hosts = Hosts::new(1);
    let mut next = 0;
    while send(&mut hosts.worker, hosts.now, hosts.addresses[1], &mut next, 1) {}
    assert!(hosts.worker.prepare_sleep(), "nothing is there for it");
    assert!(hosts.end.poll(hosts.now).unwrap());
    assert!(!hosts.worker.prepare_sleep(), "slots are");
    assert!(hosts.worker.slot().is_some());
}

#[test]
fn device_whose_worker_has_gone_ends_after_what_that_sent() {
    let mut hosts = Hosts::new(1);
    let mut next = 0;
    send(&mut hosts.worker, hosts.now, hosts.addresses[1], &mut next, 3);
    hosts.worker.flush();
    drop(hosts.worker);
    assert!(!hosts.end.is_abandoned());
    hosts.end.poll(hosts.now).unwrap();
    assert!(hosts.end.is_abandoned());
    let mut numbers = Vec::new();
    receive(
        &mut hosts.other,
        hosts.now + Duration::from_millis(2),
        hosts.addresses[0],
        &mut numbers,
    );
    assert_eq!(numbers, [0, 1, 2]);
}

/// A worker that keeps all it can get has a part of the chunks, the other thread the rest, and all again when it has let them go.
#[test]
fn kept_chunks_are_bounded_and_come_back_to_the_other_thread() {
    const LENT: u64 = 400_000;
    let mut hosts = Hosts::with_lending(3, LENT as usize);
    let [here, there] = hosts.addresses;
    let (mut received, mut copied) = (0u32, 0);
    let mut kept = Vec::new();
    let rounds = if cfg!(miri) { 300 } else { 2000 };
    for round in 0..rounds {
        let slot = hosts.other.slot().unwrap();
        slot[..1000].fill(round as u8);
        hosts.other.commit(hosts.now, &transmit_meta(here, 1000), 1000);
        hosts.now += Duration::from_millis(1);
        hosts.end.poll(hosts.now).unwrap();
        let mut visit = |burst: Burst<'_>| {
            assert_eq!(burst.meta.remote, there);
            let (bytes, lender) = burst.into_lendable();
            for datagram in bytes.chunks(1000) {
                assert!(*datagram == [received as u8; 1000]);
                match lender.loan(datagram).keep() {
                    Some(held) => kept.push((received as u8, held)),
                    None => copied += 1,
                }
                received += 1;
            }
            ControlFlow::Continue(())
        };
        hosts.worker.receive(hosts.now, &mut visit).unwrap();
        assert!(hosts.end.stats().lent_bytes <= LENT);
    }
    assert!(
        copied > 0 && kept.len() > 100 && received > rounds - 10,
        "{copied} {} {received}",
        kept.len()
    );
    assert_eq!(hosts.end.stats().worker_behind_drops, 0, "none is lost for it");
    assert!(kept.iter().all(|(number, held)| **held == [*number; 1000]));
    kept.clear();
    for _ in 0..20 {
        hosts
            .worker
            .receive(hosts.now, &mut |_| ControlFlow::Continue(()))
            .unwrap();
    }
    assert_eq!(hosts.end.stats().lent_bytes, 0);
}

/// The sender of a packet: addresses change every few packets, so that they pass beside them all the time.
fn peer_of(number: u32) -> usize {
    number as usize / 3 % 2
}

/// Those of one sender in a row have one size, and pass as a run.
fn packet(number: u32) -> Vec<u8> {
    let mut bytes = vec![number as u8; 100 + number as usize / 3 * 37 % 1300];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The worker sends back what it receives. More packets are under way than it has slots, and more pass than there are chunks; under Miri, where a
/// device takes its time, fewer.
#[test]
fn device_and_its_worker_on_two_threads_lose_no_packet_either_way() {
    const UNDER_WAY_MAX: u32 = 240;
    /// What does not come by then has been lost.
    const PATIENCE: Duration = Duration::from_secs(100);
    let count = if cfg!(miri) { 60 } else { 50_000 };
    let hosts = Hosts::new(5);
    let start = std::time::Instant::now();
    let (network, mut end, mut worker) = (hosts.network, hosts.end, hosts.worker);
    let [here, _] = hosts.addresses;
    // On the thread of the device alone: the lock of the network would order what the two do.
    let ports =
        ["10.0.0.3:3", "10.0.0.4:4"].map(|address| network.bind_raw(address.parse().unwrap()).unwrap());
    let peers: [SocketAddr; 2] = array::from_fn(|peer| ports[peer].local_addr());
    thread::scope(move |scope| {
        let datapath = scope.spawn(move || {
            let mut now = Instant::from_nanos(0);
            let (mut sent, mut returned) = (0, 0);
            while returned < count && !end.is_abandoned() && start.elapsed() < PATIENCE {
                while sent < count && sent - returned < UNDER_WAY_MAX {
                    network.send(now, peers[peer_of(sent)], here, &packet(sent));
                    sent += 1;
                }
                now += Duration::from_millis(1);
                end.poll(now).unwrap();
                while let Some((from, bytes)) = ports[peer_of(returned)].receive(now) {
                    assert_eq!(from, here);
                    assert!(bytes == packet(returned), "{returned} was sent: {bytes:?}");
                    returned += 1;
                }
                thread::yield_now();
            }
            (returned, end.stats().worker_behind_drops)
        });
        let now = Instant::from_nanos(0);
        let mut received = 0;
        let mut runs: VecDeque<(TransmitMeta, Vec<u8>)> = VecDeque::new();
        while !datapath.is_finished() {
            let mut visit = |burst: Burst<'_>| {
                let (remote, segment_size) = (burst.meta.remote, burst.meta.segment_size);
                let bytes = burst.into_data();
                for datagram in bytes.chunks(segment_size) {
                    assert_eq!(remote, peers[peer_of(received)], "{received}");
                    assert!(
                        datagram == packet(received),
                        "{received} has arrived: {datagram:?}"
                    );
                    received += 1;
                }
                runs.push_back((transmit_meta(remote, segment_size), bytes.to_vec()));
                ControlFlow::Continue(())
            };
            worker.receive(now, &mut visit).unwrap();
            while !runs.is_empty()
                && let Some(slot) = worker.slot()
                && let Some((meta, bytes)) = runs.pop_front()
            {
                slot[..bytes.len()].copy_from_slice(&bytes);
                worker.commit(now, &meta, bytes.len());
            }
            worker.flush();
            thread::yield_now();
        }
        // What the other thread has found comes first.
        assert_eq!(datapath.join().unwrap(), (count, 0));
        assert_eq!(received, count);
    });
}
