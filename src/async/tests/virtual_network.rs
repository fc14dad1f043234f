//! Tasks on a virtual network that delays, loses and reorders, in virtual time.

mod common;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use async_executor::LocalExecutor;
use common::{ALPN, configurations, settings};
use futures_executor::block_on;
use futures_util::future::select;
use ringway::sim::{Link, SimNetwork};
use ringway::{Execution, ExecutionConfig, Instant, ListenerOptions, Registration, Settings, Wait};
use ringway_async::{Bytes, Endpoint, Listener, ReadError, StoppedError, VarInt};

/// Runs tasks and contexts, in virtual time, until it is done. Gives when that was; or what is too late.
fn run(
    executor: &LocalExecutor<'_>,
    contexts: &mut [Execution],
    network: &SimNetwork,
    mut now: Instant,
    is_done: impl Fn() -> bool,
) -> Instant {
    while !is_done() && now < Instant::from_nanos(120_000_000_000) {
        while executor.try_tick() {}
        let waits: Vec<_> = contexts.iter_mut().map(|context| context.poll_at(now)).collect();
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
    }
    now
}

/// Two hosts, each with a context: the server's, which listens at 192.0.2.1:443, and the client's.
fn server_and_client(
    network: &SimNetwork,
    segments: usize,
    now: Instant,
    of_server: Settings,
    of_client: Settings,
) -> ([Registration; 2], Listener, Endpoint, Vec<Execution>) {
    let host = |ip: &str| {
        let ip = ip.parse().unwrap();
        Execution::create_simulated(network, ip, 1, segments, &ExecutionConfig::default(), now).unwrap()
    };
    let (server, mut contexts) = host("192.0.2.1");
    let (client, other) = host("192.0.2.2");
    contexts.extend(other);
    let (server_config, client_config) = configurations(of_server, of_client);
    let mut endpoint = Endpoint::new(&client);
    endpoint.set_default_client_config(client_config);
    let options = ListenerOptions::new("192.0.2.1:443".parse().unwrap(), &[ALPN]);
    let listener = Endpoint::new(&server).listen(options, server_config).unwrap();
    ([server, client], listener, endpoint, contexts)
}

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
    let (_hosts, listener, client, mut contexts) =
        server_and_client(&network, segments, now, settings(), settings());

    let executor = Rc::new(LocalExecutor::new());
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

    let is_done = || *done.borrow() == 10;
    now = run(&executor, &mut contexts, &network, now, is_done);
    assert!(now < Instant::from_nanos(120_000_000_000), "seed {seed}");
    now
}

#[test]
fn data_arrives_over_networks_that_lose_and_reorder() {
    for seed in 0..6 {
        transfer(seed, if seed % 2 == 0 { 1 } else { 16 });
    }
}

/// How many packets a server sends whose tasks answer requests of several packets, one after the other.
fn packets_of_answers(receives_last: bool) -> u64 {
    let network = SimNetwork::new(1);
    let now = Instant::from_nanos(1);
    let (_hosts, listener, client, mut contexts) =
        server_and_client(&network, 16, now, settings(), settings());
    if receives_last {
        contexts[0].receive_last();
    }

    let executor = LocalExecutor::new();
    let served = executor.spawn(async move {
        let connection = listener.accept().await.unwrap().await.unwrap();
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            receive.read_to_end(REQUEST_LEN).await.unwrap();
            send.finish_with(Bytes::from_static(b"answer")).await.unwrap();
        }
        connection.stats().await.unwrap().sent_packets
    });
    let asked = executor.spawn(async move {
        let target = "192.0.2.1:443".parse().unwrap();
        let connection = client.connect(target, "localhost").unwrap().await.unwrap();
        for _ in 0..REQUESTS {
            let (mut send, mut receive) = connection.open_bi().await.unwrap();
            send.finish_with(vec![0; REQUEST_LEN].into()).await.unwrap();
            assert_eq!(receive.read_to_end(6).await.unwrap(), b"answer");
        }
        connection.close(VarInt::from_u32(0), b"");
    });
    let is_done = || served.is_finished() && asked.is_finished();
    run(&executor, &mut contexts, &network, now, is_done);
    assert!(is_done());
    block_on(executor.run(served))
}

const REQUESTS: u64 = 20;
const REQUEST_LEN: usize = 5000;

#[test]
fn answers_of_tasks_leave_with_the_acknowledgements_of_their_requests() {
    assert!(packets_of_answers(true) + REQUESTS <= packets_of_answers(false));
}

#[test]
fn timeout_that_passed_while_tasks_ran_counts_what_came_meanwhile() {
    let network = SimNetwork::new(1);
    let mut now = Instant::from_nanos(1);
    let idle = Settings {
        idle_timeout: Duration::from_millis(500),
        ..settings()
    };
    let keeping = Settings {
        keep_alive_interval: Duration::from_millis(400),
        ..idle.clone()
    };
    let (_hosts, listener, client, mut contexts) = server_and_client(&network, 1, now, idle, keeping);
    contexts[0].receive_last();
    let executor = LocalExecutor::new();
    let ended = executor.spawn(async move {
        let connection = listener.accept().await.unwrap().await.unwrap();
        connection.closed().await
    });
    let _connected = executor.spawn(async move {
        let target = "192.0.2.1:443".parse().unwrap();
        let connection = client.connect(target, "localhost").unwrap().await.unwrap();
        connection.closed().await
    });
    let mut turn = |now: Instant, with_server: bool| {
        while executor.try_tick() {}
        let contexts = contexts[usize::from(!with_server)..].iter_mut();
        let waits: Vec<_> = contexts.map(|context| context.poll_at(now)).collect();
        waits.contains(&Wait::NoWait)
    };
    let millisecond = Duration::from_millis(1);
    while now < Instant::from_nanos(2_000_000_000) {
        while turn(now, true) {}
        now += millisecond;
    }
    // The server's thread runs a task that takes long, while the client's next PING arrives.
    while network.next_arrival().is_none() {
        while turn(now, false) {}
        now += millisecond;
    }
    now += Duration::from_millis(200);
    for _ in 0..100 {
        while turn(now, true) {}
        now += millisecond;
    }
    assert!(!ended.is_finished());
}

#[test]
fn panic_that_takes_a_context_along_ends_what_waits_on_its_streams() {
    let network = SimNetwork::new(1);
    let now = Instant::from_nanos(1);
    let (_hosts, listener, client, mut contexts) =
        server_and_client(&network, 1, now, settings(), settings());

    let executor = LocalExecutor::new();
    let accept = async move {
        let connection = listener.accept().await.unwrap().await.unwrap();
        let stream = connection.accept_bi().await.unwrap();
        (listener, connection, stream)
    };
    let served = executor.spawn(accept);
    let connect = async move {
        let target = "192.0.2.1:443".parse().unwrap();
        let connection = client.connect(target, "localhost").unwrap().await.unwrap();
        let (mut send, receive) = connection.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        (client, connection, send, receive)
    };
    let connected = executor.spawn(connect);
    let is_done = || served.is_finished() && connected.is_finished();
    run(&executor, &mut contexts, &network, now, is_done);
    let (_served, opened) = block_on(executor.run(async { (served.await, connected.await) }));
    let (_client, connection, mut send, mut receive) = opened;
    // It waits as the context goes.
    let reader = executor.spawn(async move { receive.read_chunk(1).await });
    let writer = executor.spawn(async move { send.stopped().await });
    while executor.try_tick() {}
    let taken_along = catch_unwind(AssertUnwindSafe(move || {
        let _contexts = contexts;
        panic!("as it should");
    }));
    assert!(taken_along.is_err());
    while executor.try_tick() {}
    assert!(reader.is_finished() && writer.is_finished());
    assert!(connection.close_reason().is_some());
    block_on(async {
        assert!(matches!(reader.await, Err(ReadError::ConnectionLost(_))));
        assert!(matches!(writer.await, Err(StoppedError::ConnectionLost(_))));
    });
}

/// Two streams with as much to send, of these priorities: which one is complete first.
fn first_complete(priorities: [i32; 2]) -> u64 {
    let network = SimNetwork::new(1);
    network.set_default_link(Link {
        delay: Duration::from_millis(20),
        ..Link::default()
    });
    let now = Instant::from_nanos(1);
    // The path alone decides what leaves when.
    let windows = Settings {
        stream_receive_window: 4 << 20,
        ..settings()
    };
    let (_hosts, listener, client, mut contexts) = server_and_client(&network, 1, now, windows, settings());
    let executor = LocalExecutor::new();
    let served = executor.spawn(async move {
        let connection = listener.accept().await.unwrap().await.unwrap();
        let read = async || {
            let mut receive = connection.accept_uni().await.unwrap();
            assert_eq!(receive.read_to_end(usize::MAX).await.unwrap().len(), 1 << 20);
            receive.id().index()
        };
        let (first, second) = (pin!(read()), pin!(read()));
        select(first, second).await.factor_first().0
    });
    let _connected = executor.spawn(async move {
        let target = "192.0.2.1:443".parse().unwrap();
        let connection = client.connect(target, "localhost").unwrap().await.unwrap();
        for priority in priorities {
            let mut send = connection.open_uni().await.unwrap();
            send.set_priority(priority).unwrap();
            send.finish_with(vec![0; 1 << 20].into()).await.unwrap();
            assert!(send.set_priority(priority).is_err());
        }
        connection
    });
    run(&executor, &mut contexts, &network, now, || served.is_finished());
    block_on(executor.run(served))
}

#[test]
fn stream_of_higher_priority_is_complete_first() {
    for (priorities, first) in [
        ([0, 0], 0),
        ([0, 1], 1),
        ([-1, 0], 1),
        ([i32::MIN, i32::MAX], 1),
        ([i32::MAX, 0], 0),
    ] {
        assert_eq!(first_complete(priorities), first, "{priorities:?}");
    }
}
