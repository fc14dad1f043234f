use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::meta::{Ecn, Partitioning};

fn device(options: SocketOptions, local: &str) -> (SocketDevice, SocketAddr) {
    let mut device = SocketDevice::new(&options).unwrap();
    let port = SocketPort::bind(local.parse().unwrap(), &options).unwrap();
    let local = port.local();
    device.attach(PortId(1), port).unwrap();
    (device, local)
}

fn meta(remote: SocketAddr, segment_size: usize) -> TransmitMeta {
    TransmitMeta {
        port: PortId(1),
        remote,
        local_ip: None,
        ecn: Ecn::NotEct,
        segment_size,
    }
}

fn send(device: &mut SocketDevice, meta: &TransmitMeta, bytes: &[u8]) {
    device.slot().expect("not blocked")[..bytes.len()].copy_from_slice(bytes);
    device.commit(meta, bytes.len());
}

/// Receives until `count` datagrams have come, or for two seconds.
fn receive(device: &mut SocketDevice, count: usize) -> Vec<(ReceiveMeta, Vec<u8>)> {
    let mut bursts = Vec::new();
    let mut datagrams = 0;
    let start = Instant::now();
    while datagrams < count && start.elapsed() < Duration::from_secs(2) {
        datagrams += device
            .receive(&mut |burst| bursts.push((burst.meta, burst.data.to_vec())))
            .unwrap();
    }
    assert_eq!(datagrams, count);
    bursts
}

#[test]
fn run_of_datagrams_arrives_whole_with_and_without_offloads() {
    for (gso, gro) in [(true, true), (false, true), (true, false), (false, false)] {
        let options = SocketOptions {
            gso,
            gro,
            ..SocketOptions::default()
        };
        let (mut a, _) = device(options, "127.0.0.1:0");
        let (mut b, to) = device(options, "127.0.0.1:0");
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
        assert_eq!(
            received
                .iter()
                .flat_map(|(_, bytes)| bytes.clone())
                .collect::<Vec<_>>(),
            data
        );
        assert_eq!(a.stats().sent_datagrams, 11);
    }
}

#[test]
fn ecn_marks_and_addresses_arrive_over_both_address_families() {
    for (bind_a, bind_b, target) in [
        ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "[::1]:0", "::1"),
        ("127.0.0.1:0", "[::]:0", "127.0.0.1"),
        ("[::]:0", "127.0.0.1:0", "127.0.0.1"),
        ("0.0.0.0:0", "0.0.0.0:0", "127.0.0.5"),
    ] {
        let (mut a, from) = device(SocketOptions::default(), bind_a);
        let (mut b, at) = device(SocketOptions::default(), bind_b);
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

#[test]
fn source_address_is_the_one_asked_for() {
    let (mut a, _) = device(SocketOptions::default(), "0.0.0.0:0");
    let (mut b, to) = device(SocketOptions::default(), "127.0.0.1:0");
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

#[test]
fn refused_datagram_is_counted_and_the_next_ones_go() {
    let (mut a, _) = device(SocketOptions::default(), "127.0.0.1:0");
    let (mut b, to) = device(SocketOptions::default(), "127.0.0.1:0");
    send(&mut a, &meta("255.255.255.255:9".parse().unwrap(), 3), b"no!");
    send(&mut a, &meta(to, 3), b"yes");
    a.flush();
    assert_eq!(receive(&mut b, 1)[0].1, b"yes");
    assert_eq!(a.stats().send_errors, 1);
}

#[test]
fn port_in_use_is_an_error_for_groups_too() {
    let options = SocketOptions::default();
    let partitioning = Partitioning::new(2);
    let group = SocketPort::bind_group("127.0.0.1:0".parse().unwrap(), partitioning, &options).unwrap();
    let local = group[0].local();
    let error = SocketPort::bind_group(local, partitioning, &options).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(
        SocketPort::bind(local, &options).unwrap_err().kind(),
        io::ErrorKind::AddrInUse
    );
}

#[test]
fn datagrams_are_steered_by_the_partition_in_the_connection_id() {
    const PARTITIONS: usize = 3;
    let options = SocketOptions::default();
    let partitioning = Partitioning::new(PARTITIONS);
    let group = SocketPort::bind_group("127.0.0.1:0".parse().unwrap(), partitioning, &options).unwrap();
    let to = group[0].local();
    let mut devices: Vec<SocketDevice> = group
        .into_iter()
        .map(|port| {
            let mut device = SocketDevice::new(&options).unwrap();
            device.attach(PortId(1), port).unwrap();
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
                let (mut sender, _) = device(options, "127.0.0.1:0");
                send(&mut sender, &meta(to, datagram.len()), &datagram);
                sender.flush();
                assert_eq!(receive(receiver, 1)[0].1, datagram);
            }
        }
    }
    // A client's first packets stay together, whatever connection ID it chose.
    let (mut sender, _) = device(options, "127.0.0.1:0");
    for byte in 0..20 {
        let datagram = long(0xc0, 1, [byte * 13; 8]);
        send(&mut sender, &meta(to, datagram.len()), &datagram);
    }
    sender.flush();
    std::thread::sleep(Duration::from_millis(50));
    let drain = |device: &mut SocketDevice| {
        std::iter::from_fn(|| Some(device.receive(&mut |_| {}).unwrap()).filter(|&count| count > 0))
            .sum::<usize>()
    };
    let counts: Vec<usize> = devices.iter_mut().map(drain).collect();
    assert_eq!(counts.iter().sum::<usize>(), 20);
    assert!(counts.contains(&20), "{counts:?}");
}

#[test]
fn sender_that_is_blocked_goes_on_when_there_is_room_and_loses_nothing_itself() {
    let options = SocketOptions {
        send_buffer_bytes: 4096,
        ..SocketOptions::default()
    };
    let queue = EventQueue::new().unwrap();
    let (mut a, _) = device(options, "127.0.0.1:0");
    a.register(&queue).unwrap();
    let (mut b, to) = device(SocketOptions::default(), "127.0.0.1:0");
    let mut committed = 0;
    for _ in 0..200 {
        match a.slot() {
            Some(slot) => {
                slot[..1200].fill(7);
                a.commit(&meta(to, 1200), 1200);
                committed += 1;
            }
            None => {
                a.flush();
                b.receive(&mut |_| {}).unwrap();
            }
        }
    }
    while !a.staged.is_empty() {
        a.flush();
    }
    assert_eq!(a.stats().sent_datagrams, committed);
}
