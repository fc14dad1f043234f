//! Tasks on a virtual network that delays, loses and reorders, in virtual time.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::{ALPN, configurations, settings};
use ringway::sim::{Link, SimNetwork};
use ringway::{ExecutionConfig, Instant, ListenerOptions, Registration, Wait};
use ringway_async::{Endpoint, VarInt};

/// Moves data both ways on many streams. Gives when it was done.
fn transfer(seed: u64, segments: usize) -> Instant {
    let network = SimNetwork::new(seed);
    network.set_default_link(Link {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(5),
        loss: 0.03,
        ..Link::default()
    });
    let mut now = Instant::from_nanos(1);
    let host = |ip: &str| {
        let ip = ip.parse().unwrap();
        Registration::open_simulated(&network, ip, 1, segments, &ExecutionConfig::default(), now).unwrap()
    };
    let (server, mut contexts) = host("192.0.2.1");
    let (client, of_client) = host("192.0.2.2");
    contexts.extend(of_client);
    let (server_config, client_config) = configurations(settings(), settings());
    let mut client = Endpoint::new(&client);
    client.set_default_client_config(client_config);
    let options = ListenerOptions::new("192.0.2.1:443".parse().unwrap(), &[ALPN]);
    let listener = Endpoint::new(&server).listen(options, server_config).unwrap();

    let executor = Rc::new(async_executor::LocalExecutor::new());
    let spawner = Rc::clone(&executor);
    executor
        .spawn(async move {
            let connection = listener.accept().await.unwrap().await.unwrap();
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                spawner
                    .spawn(async move {
                        while let Some(chunk) = receive.read_chunk(4096).await.unwrap() {
                            send.write_chunk(chunk).await.unwrap();
                        }
                        send.finish().unwrap();
                    })
                    .detach();
            }
        })
        .detach();
    let done = Rc::new(RefCell::new(0));
    let spawner = Rc::clone(&executor);
    let count = Rc::clone(&done);
    executor
        .spawn(async move {
            let target = "192.0.2.1:443".parse().unwrap();
            let connection = client.connect(target, "localhost").unwrap().await.unwrap();
            let streams = (0..10u8).map(|number| {
                let connection = connection.clone();
                spawner.spawn(async move {
                    let (mut send, mut receive) = connection.open_bi().await.unwrap();
                    let data: Vec<u8> = (0..50_000u32).map(|at| at as u8 ^ number).collect();
                    let write = async {
                        send.write_all(&data).await.unwrap();
                        send.finish().unwrap();
                    };
                    let read = receive.read_to_end(usize::MAX);
                    let ((), back) = futures_util::future::join(write, read).await;
                    assert!(back.unwrap() == data);
                })
            });
            for stream in streams.collect::<Vec<_>>() {
                stream.await;
                *count.borrow_mut() += 1;
            }
            connection.close(VarInt::from_u32(0), b"");
        })
        .detach();

    while *done.borrow() < 10 {
        while executor.try_tick() {}
        let waits: Vec<_> = contexts.iter_mut().map(|context| context.poll(now)).collect();
        if waits.contains(&Wait::NoWait) {
            continue;
        }
        if executor.try_tick() {
            continue;
        }
        let timers = waits.into_iter().filter_map(|wait| match wait {
            Wait::Until(at) => Some(at),
            _ => None,
        });
        let next = timers.chain(network.next_arrival()).min();
        now = next.expect("something is left to happen").max(now);
        assert!(now < Instant::from_nanos(120_000_000_000), "seed {seed}");
    }
    now
}

#[test]
fn data_arrives_over_networks_that_lose_and_reorder() {
    for seed in 0..6 {
        transfer(seed, if seed % 2 == 0 { 1 } else { 16 });
    }
}
