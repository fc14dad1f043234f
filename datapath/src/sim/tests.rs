use std::ops::ControlFlow;

use super::*;
use crate::device::Device;
use crate::local::LocalDevice;
use crate::port::BoundPort;

const A: &str = "10.0.0.1:1000";
const B: &str = "10.0.0.2:2000";

fn ms(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn device(network: &SimNetwork, local: &str) -> Device {
    let mut device = Device::from(LocalDevice::Sim(SimDevice::new(network, 8)));
    device
        .attach(
            PortId(0),
            BoundPort::Sim(network.bind(local.parse().unwrap()).unwrap()),
        )
        .unwrap();
    device
}

fn send(device: &mut Device, at: Instant, to: &str, bytes: &[u8]) {
    device.slot().unwrap()[..bytes.len()].copy_from_slice(bytes);
    let meta = TransmitMeta {
        port: PortId(0),
        remote: to.parse().unwrap(),
        local_ip: None,
        ecn: Ecn::Ect0,
        segment_size: 100,
        sender: 7,
        probe_timeouts: 0,
    };
    device.commit(at, &meta, bytes.len());
}

fn receive(device: &mut Device, now: Instant) -> Vec<(ReceiveMeta, Vec<u8>)> {
    let mut bursts = Vec::new();
    while device
        .receive(now, &mut |burst| {
            bursts.push((burst.meta, burst.into_data().to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap()
        > 0
    {}
    bursts
}

fn trace(seed: u64) -> (SimStats, Vec<Vec<u8>>) {
    let network = SimNetwork::new(seed);
    network.set_default_link(Link {
        loss: 0.1,
        duplication: 0.1,
        corruption: 0.1,
        jitter: Duration::from_millis(20),
        ..Link::default()
    });
    let (mut a, mut b) = (device(&network, A), device(&network, B));
    for index in 0..200u64 {
        send(&mut a, ms(index), B, &[index as u8; 50]);
    }
    let received = receive(&mut b, ms(1000))
        .into_iter()
        .map(|(_, bytes)| bytes)
        .collect();
    (network.stats(), received)
}

#[test]
fn same_seed_gives_the_same_network_and_another_seed_another() {
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1).1, trace(2).1);
    let (stats, received) = trace(1);
    assert_eq!(stats.sent, 200);
    assert!(
        stats.lost > 5 && stats.duplicated > 5 && stats.corrupted > 5,
        "{stats:?}"
    );
    assert_eq!(
        received.iter().map(|run| run.len() / 50).sum::<usize>() as u64,
        stats.delivered
    );
}

#[test]
fn datagrams_take_their_time_and_runs_arrive_together() {
    let network = SimNetwork::new(1);
    let (mut a, mut b) = (device(&network, A), device(&network, B));
    send(&mut a, ms(0), B, &[1; 250]);
    assert_eq!(network.next_arrival(), Some(ms(1)));
    assert!(receive(&mut b, ms(0)).is_empty());
    let (meta, bytes) = receive(&mut b, ms(1)).remove(0);
    assert_eq!((meta.segment_size, bytes.len(), meta.ecn), (100, 250, Ecn::Ect0));
    assert_eq!(meta.remote, A.parse().unwrap());
    assert_eq!(network.next_arrival(), None);
}

#[test]
fn slow_link_delays_and_drops_what_does_not_fit_its_queue() {
    let network = SimNetwork::new(1);
    network.set_default_link(Link {
        rate: Some(100_000),
        queue_bytes: 1000,
        ..Link::default()
    });
    let (mut a, mut b) = (device(&network, A), device(&network, B));
    for _ in 0..20 {
        send(&mut a, ms(0), B, &[1; 100]);
    }
    assert!(network.stats().queue_full >= 8, "{:?}", network.stats());
    // 100 bytes take 1 ms.
    assert_eq!(receive(&mut b, ms(2)).len(), 1);
}

#[test]
fn rebound_host_is_reached_at_its_new_address_only() {
    let network = SimNetwork::new(1);
    let (mut a, mut b) = (device(&network, A), device(&network, B));
    network.rebind(A.parse().unwrap(), "10.0.0.1:9".parse().unwrap());
    send(&mut a, ms(0), B, b"x");
    assert_eq!(receive(&mut b, ms(1))[0].0.remote, "10.0.0.1:9".parse().unwrap());
    send(&mut b, ms(1), "10.0.0.1:9", b"new");
    send(&mut b, ms(1), A, b"old");
    let received = receive(&mut a, ms(2));
    assert_eq!(received.len(), 1);
    assert_eq!(
        (&received[0].1[..], received[0].0.local),
        (&b"new"[..], A.parse().unwrap())
    );
}

#[test]
fn blackout_mtu_and_bleaching_do_what_they_say() {
    let network = SimNetwork::new(1);
    let (mut a, mut b) = (device(&network, A), device(&network, B));
    network.set_default_link(Link {
        blackout: true,
        ..Link::default()
    });
    send(&mut a, ms(0), B, b"x");
    network.set_default_link(Link {
        mtu: 50,
        bleaches_ecn: true,
        ..Link::default()
    });
    send(&mut a, ms(0), B, &[1; 51]);
    send(&mut a, ms(0), B, &[1; 50]);
    let received = receive(&mut b, ms(5));
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].0.ecn, Ecn::NotEct);
    assert_eq!((network.stats().lost, network.stats().too_large), (1, 1));
}

#[test]
fn address_in_use_is_an_error_until_it_is_given_up() {
    let network = SimNetwork::new(1);
    let mut a = device(&network, A);
    assert_eq!(
        network.bind(A.parse().unwrap()).unwrap_err().kind(),
        io::ErrorKind::AddrInUse
    );
    a.detach(PortId(0), Box::new(()));
    network.bind(A.parse().unwrap()).unwrap();
}
