//! Sockets that the application has opened.

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_datapath::config::DatapathConfig;
use ringway_datapath::partition::Partitioning;
use ringway_datapath::port::BoundPort;

use super::{Make, PORT, Subject, meta, receive, receive_once, send, until};

/// A device for each of two partitions, the second of which receives.
fn devices(make: Make, socket: OwnedFd) -> Vec<Subject> {
    let config = DatapathConfig::default();
    let ports = BoundPort::adopt(socket, Partitioning::new(2), 1, &config).unwrap();
    let attach = |port| {
        let mut device = make(&config).unwrap();
        device.attach(PORT, port).unwrap();
        device
    };
    ports.into_iter().map(attach).collect()
}

pub(super) fn one_receives_and_all_send(make: Make) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = socket.local_addr().unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let remote = peer.local_addr().unwrap();
    // As a service is started for a datagram that waits on its socket.
    peer.send_to(b"early", local).unwrap();
    let mut devices = devices(make, socket.into());
    let [sender, receiver] = &mut devices[..] else {
        unreachable!("there are two")
    };
    let (early, bytes) = receive(receiver, 1).remove(0);
    assert_eq!(
        (early.remote, early.local, &bytes[..]),
        (remote, local, &b"early"[..])
    );
    for number in 0..20u8 {
        peer.send_to(&[number], local).unwrap();
        assert_eq!(receive_once(sender, &mut Vec::new()), 0);
        assert_eq!(receive(receiver, 1)[0].1, [number]);
        send(sender, &meta(remote, 2), &[number, 1]);
        sender.flush();
        let mut buffer = [0; 10];
        let (len, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&[number, 1][..], local));
    }
    for device in &mut devices {
        device.detach(PORT, Box::new(()));
    }
}

pub(super) fn kept_descriptor_wakes_nobody(make: Make) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = socket.local_addr().unwrap();
    let mut devices = devices(make, socket.try_clone().unwrap().into());
    for device in &mut devices {
        let notice = Arc::new(());
        device.detach(PORT, Box::new(Arc::clone(&notice)));
        let is_given_up = || {
            receive_once(device, &mut Vec::new());
            Arc::strong_count(&notice) == 1
        };
        assert!(until(is_given_up));
        assert!(until(|| {
            device.end_sleep();
            device.prepare_sleep()
        }));
        // What was before may wake it once.
        device.queue.wait(Some(Duration::ZERO)).unwrap();
    }
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .send_to(b"for nobody", local)
        .unwrap();
    for device in &mut devices {
        // Something else may, as the end of a request, but not again and again.
        let sleeps = || {
            let start = Instant::now();
            device.queue.wait(Some(Duration::from_millis(20))).unwrap();
            start.elapsed() >= Duration::from_millis(19)
        };
        assert!((0..10).any(|_| sleeps()), "it is woken again and again");
        device.end_sleep();
    }
    let mut buffer = [0; 20];
    assert_eq!(socket.recv(&mut buffer).unwrap(), b"for nobody".len());
}
