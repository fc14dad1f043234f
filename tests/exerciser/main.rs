//! Random calls on random handles, from several threads and from inside handlers, with handles closed at the worst time: whatever an application
//! does, events come in the promised order, each call completes once, and nothing is left behind.
//!
//! `TEST_SECONDS=600 cargo test -p ringway-tests --test exerciser` goes on for longer than the default 5 seconds; `TEST_SEED=n` starts with that
//! round. Over the virtual network a seed repeats a round exactly; with real threads it repeats the calls, but not how they interleave.

mod app;
mod content;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringway::sim::Link;
use ringway::{ExecutionConfig, ExecutionFlags, ExecutionMode, Registration, Steering};
use ringway_perf::event_loop::EventLoop;
use ringway_tests::order::end_with_panics;
use ringway_tests::{World, address, number, with_seed};

use self::app::{App, Caller};

fn over_a_virtual_network(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(seed);
    if rng.random_bool(0.5) {
        world.network.disable_steering();
    }
    let ips = [address("192.0.2.1:0").ip(), address("198.51.100.7:0").ip()];
    for (from, to) in [(ips[0], ips[1]), (ips[1], ips[0])] {
        let delay = Duration::from_millis(rng.random_range(0..20));
        world.network.set_link(
            from,
            to,
            Link {
                delay,
                loss: rng.random_range(0.0..0.05),
                ..Link::default()
            },
        );
    }
    let server = world.host(ips[0], rng.random_range(1..4), 8);
    let client = world.host(ips[1], rng.random_range(1..3), 8);
    let app = App::new(server, client, seed);
    for _ in 0..rng.random_range(50..400) {
        for _ in 0..rng.random_range(0..4) {
            app.act(&mut rng, Caller::default());
        }
        world.run_for(Duration::from_millis(rng.random_range(0..10)));
    }
    app.listen(&mut rng);
    app.give_up(&mut rng);
    world.run_for(Duration::from_secs(30));
    app.drop_handles(&mut rng);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.turn(), None, "a timer is left");
    app.check();
    assert_eq!(Arc::strong_count(&app), 1, "a handler is left");
}

fn with_threads(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let open = |rng: &mut StdRng| {
        let mut execution = ringway_tests::execution(rng.random_range(1..4));
        execution.mode = ExecutionMode::LowLatency;
        if rng.random_bool(0.3) {
            execution.mode = ExecutionMode::MaxThroughput;
            let threads = 2 * execution.processors.as_ref().map_or(1, Vec::len);
            execution.processors = Some((0..threads).collect());
            execution.flags = ringway_tests::flags(threads);
        }
        if rng.random_bool(0.5) {
            execution.datapath.steering = Steering::Flow;
        }
        let on_loops = ExecutionConfig {
            flags: ExecutionFlags::empty(),
            ..execution.clone()
        };
        match rng.random_range(0..4) {
            0 => EventLoop::Epoll.open("test", &on_loops).unwrap().0,
            1 => EventLoop::IoUring.open("test", &on_loops).unwrap().0,
            _ => Registration::open("test", &execution).unwrap(),
        }
    };
    let app = App::new(open(&mut rng), open(&mut rng), seed);
    app.listen(&mut rng);
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (app, stop, mut rng) = (
                Arc::clone(&app),
                Arc::clone(&stop),
                StdRng::seed_from_u64(rng.random()),
            );
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    app.act(&mut rng, Caller::default());
                    if rng.random_bool(0.02) {
                        std::thread::sleep(Duration::from_micros(rng.random_range(0..3000)));
                    }
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(rng.random_range(20..400)));
    app.give_up(&mut rng);
    std::thread::sleep(Duration::from_millis(rng.random_range(0..20)));
    stop.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let start = Instant::now();
    loop {
        app.drop_handles(&mut rng);
        if Arc::strong_count(&app) == 1 {
            break;
        }
        if start.elapsed() > Duration::from_secs(20) {
            app.check();
            panic!("{} handlers are left", Arc::strong_count(&app) - 1);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    app.check();
}

fn rounds(name: &str, round: fn(u64)) {
    end_with_panics();
    let time = Duration::from_secs(number("TEST_SECONDS").unwrap_or(5));
    let start = Instant::now();
    for seed in number("TEST_SEED").unwrap_or(0).. {
        if start.elapsed() >= time {
            break;
        }
        with_seed(seed, &format!("exerciser {name}"), round);
    }
}

#[test]
fn promises_are_kept_whatever_is_called_over_a_virtual_network() {
    rounds("virtual", over_a_virtual_network);
}

#[test]
fn promises_are_kept_whatever_is_called_from_several_threads() {
    rounds("threads", with_threads);
}
