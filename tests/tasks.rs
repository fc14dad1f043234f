//! Tasks at both ends of a virtual network that loses and reorders: they open and accept streams, write, read, stop, reset, and give up each call
//! after any of its polls, at any moment. What is read is what was written. Behind it no stream, no connection and no timer is left.
//!
//! A seed decides everything in a run. `TEST_SEED=n` runs that seed alone, `TEST_RUNS=n` so many seeds (from `TEST_FIRST=n` on).

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use async_executor::LocalExecutor;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringway::sim::Link;
use ringway::{Instant, ListenerOptions, Settings};
use ringway_async::{Bytes, Connection, Endpoint, RecvStream, SendStream, VarInt};
use ringway_tests::{ALPN, World, address, configurations, pattern, settings, with_seeds};

const SERVER: &str = "10.0.0.1:443";
/// Streams of each kind that each end may have open.
const STREAMS: u64 = 4;
/// Tasks of each end that open streams, and how many each opens.
const OPENERS: usize = 4;
const OPENED: usize = 25;

/// What the tasks of a run share.
struct Run {
    rng: RefCell<StdRng>,
    executor: LocalExecutor<'static>,
    /// Tasks that wait and have patience for so much, and no more.
    impatient: RefCell<Vec<Waker>>,
    /// Streams that somebody has.
    in_use: Cell<usize>,
    /// From now on streams are used as they should be.
    is_calm: Cell<bool>,
    /// From now on none are accepted.
    is_over: Cell<bool>,
}

impl Run {
    fn pick(&self, range: Range<usize>) -> usize {
        self.rng.borrow_mut().random_range(range)
    }

    /// Polls a future when it is woken, and whenever time has gone on, and drops it after any of these polls, unless it is ready before.
    async fn patiently<R>(&self, future: impl Future<Output = R>) -> Option<R> {
        let mut left = [1, 2, 3, 5, 30, 300][self.pick(0..6)];
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            left -= 1;
            if left == 0 {
                return Poll::Ready(None);
            }
            self.impatient.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Does what comes to mind with the halves of a stream, and drops each at some moment.
    async fn use_stream(&self, mut send: Option<SendStream>, mut receive: Option<RecvStream>) {
        self.in_use.set(self.in_use.get() + 1);
        let (mut written, mut read) = (0, 0);
        while send.is_some() || receive.is_some() {
            if let Some(stream) = &mut send
                && !self.write(stream, &mut written).await
            {
                send = None;
            }
            if let Some(stream) = &mut receive
                && !self.read(stream, &mut read).await
            {
                receive = None;
            }
        }
        self.in_use.set(self.in_use.get() - 1);
    }

    /// False if that was the last of it.
    async fn write(&self, stream: &mut SendStream, written: &mut u64) -> bool {
        let data = pattern(*written, self.pick(0..20_000));
        let all = data.len();
        let result = match self.pick(0..12) {
            0..3 => self.patiently(stream.write(&data)).await,
            3..5 => {
                let (first, second) = data.split_at(all / 3);
                let slices = [IoSlice::new(first), IoSlice::new(second)];
                self.patiently(stream.write_vectored(&slices)).await
            }
            5..8 => {
                let write = stream.write_chunk(Bytes::from(data));
                self.patiently(write).await.map(|result| result.map(|()| all))
            }
            8 => {
                // What of it was taken when it is dropped nobody knows.
                let _ = self.patiently(stream.write_all(&data)).await;
                return false;
            }
            9 => {
                let _ = stream.set_priority(self.pick(0..9) as i32);
                return true;
            }
            10 => {
                let _ = match self.pick(0..3) {
                    0 => stream.finish(),
                    1 => stream.reset(VarInt::from_u32(7)),
                    _ => return false,
                };
                return self.patiently(stream.stopped()).await.is_none() && self.pick(0..2) == 0;
            }
            _ => {
                let _ = self.patiently(stream.finish_with(Bytes::from(data))).await;
                return false;
            }
        };
        match result {
            Some(Ok(len)) => *written += len as u64,
            Some(Err(_)) => return false,
            None => {}
        }
        true
    }

    /// The same of the other half, whose content is looked at.
    async fn read(&self, stream: &mut RecvStream, read: &mut u64) -> bool {
        let mut check = |data: &[u8]| {
            assert!(data == pattern(*read, data.len()), "wrong content behind {read}");
            *read += data.len() as u64;
        };
        match self.pick(0..12) {
            0..4 => match self.patiently(stream.read_chunk(self.pick(1..10_000))).await {
                Some(Ok(Some(chunk))) => check(&chunk),
                Some(_) => return false,
                None => {}
            },
            4..7 => {
                let mut buffer = vec![0; self.pick(1..5000)];
                match self.patiently(stream.read(&mut buffer)).await {
                    Some(Ok(Some(len))) => check(&buffer[..len]),
                    Some(_) => return false,
                    None => {}
                }
            }
            7..9 => {
                let mut chunks = [const { Bytes::new() }; 3];
                match self.patiently(stream.read_chunks(&mut chunks)).await {
                    Some(Ok(Some(count))) => chunks[..count].iter().for_each(|chunk| check(chunk)),
                    Some(_) => return false,
                    None => {}
                }
            }
            9 => return self.patiently(stream.received_reset()).await.is_none(),
            10 => {
                let _ = stream.stop(VarInt::from_u32(8));
                return self.pick(0..2) == 0;
            }
            _ => return self.pick(0..3) > 0,
        }
        true
    }

    /// Opens streams, and uses them; in between, datagrams.
    async fn open(&self, connection: &Connection) {
        for _ in 0..OPENED {
            match self.pick(0..5) {
                0..2 => {
                    if let Some(Ok((send, receive))) = self.patiently(connection.open_bi()).await {
                        self.use_stream(Some(send), Some(receive)).await;
                    }
                }
                2..4 => {
                    if let Some(Ok(send)) = self.patiently(connection.open_uni()).await {
                        self.use_stream(Some(send), None).await;
                    }
                }
                _ => {
                    let data = Bytes::from(pattern(0, self.pick(1..1000)));
                    let _ = self.patiently(connection.send_datagram_wait(data)).await;
                    if let Some(Ok(data)) = self.patiently(connection.read_datagram()).await {
                        assert!(data == pattern(0, data.len()));
                    }
                }
            }
        }
    }

    /// Accepts streams of both kinds until the connection ends, or it is over.
    fn accept(self: &Rc<Self>, connection: &Connection) {
        let (run, of) = (Rc::clone(self), connection.clone());
        let bidirectional = async move {
            while !run.is_over.get() {
                // What is not accepted now is later.
                let Some(accepted) = run.patiently(of.accept_bi()).await else {
                    continue;
                };
                let Ok((mut send, mut receive)) = accepted else {
                    return;
                };
                let user = Rc::clone(&run);
                let used = async move {
                    if user.is_calm.get() {
                        let all = receive.read_to_end(usize::MAX).await.unwrap();
                        send.finish_with(all.into()).await.unwrap();
                    } else {
                        user.use_stream(Some(send), Some(receive)).await;
                    }
                };
                run.executor.spawn(used).detach();
            }
        };
        let (run, of) = (Rc::clone(self), connection.clone());
        let unidirectional = async move {
            while !run.is_over.get() {
                let Some(accepted) = run.patiently(of.accept_uni()).await else {
                    continue;
                };
                let Ok(mut receive) = accepted else { return };
                let user = Rc::clone(&run);
                let used = async move {
                    if user.is_calm.get() {
                        assert!(receive.read_to_end(usize::MAX).await.unwrap() == pattern(0, 3000));
                    } else {
                        user.use_stream(None, Some(receive)).await;
                    }
                };
                run.executor.spawn(used).detach();
            }
        };
        self.executor.spawn(bidirectional).detach();
        self.executor.spawn(unidirectional).detach();
    }
}

/// All streams that there may be can be had at once, and carry data.
async fn use_all(connection: &Connection) {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push((
            connection.open_bi().await.unwrap(),
            connection.open_uni().await.unwrap(),
        ));
    }
    for ((mut send, mut receive), mut other) in streams {
        send.finish_with(pattern(0, 5000).into()).await.unwrap();
        other.finish_with(pattern(0, 3000).into()).await.unwrap();
        assert!(receive.read_to_end(usize::MAX).await.unwrap() == pattern(0, 5000));
        assert_eq!(other.stopped().await, Ok(None));
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    world.network.set_default_link(Link {
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(3),
        loss: 0.02,
        ..Link::default()
    });
    let few = Settings {
        peer_bidi_stream_count: STREAMS,
        peer_uni_stream_count: STREAMS,
        datagram_receive_enabled: true,
        ..settings()
    };
    let (server_config, client_config) = configurations(few.clone(), few);
    let hosts = ["10.0.0.1", "10.0.0.2"];
    let [server, mut client] = hosts.map(|ip| Endpoint::new(&world.host(ip.parse().unwrap(), 1, 16)));
    let options = ListenerOptions::new(address(SERVER), &[ALPN]);
    client.set_default_client_config(client_config);
    let listener = server.listen(options, server_config).unwrap();

    let this = Rc::new(Run {
        rng: RefCell::new(StdRng::seed_from_u64(seed)),
        executor: LocalExecutor::new(),
        impatient: RefCell::default(),
        in_use: Cell::new(0),
        is_calm: Cell::new(false),
        is_over: Cell::new(false),
    });
    let go_on = |world: &mut World, what: &str, done: &dyn Fn(Instant) -> bool| {
        let is_done = world.run_until(Duration::from_secs(120), |world| {
            this.impatient.take().into_iter().for_each(Waker::wake);
            while this.executor.try_tick() {}
            done(world.now)
        });
        assert!(is_done, "{what}");
    };

    let accepted = this
        .executor
        .spawn(async move { (listener.accept().await.unwrap().await.unwrap(), listener) });
    let connecting = client.connect(address(SERVER), "localhost").unwrap();
    let connected = this.executor.spawn(async move { connecting.await.unwrap() });
    go_on(&mut world, "they connect", &|_| {
        accepted.is_finished() && connected.is_finished()
    });
    let of_client = futures_executor::block_on(connected);
    let (of_server, listener) = futures_executor::block_on(accepted);
    let ends = [of_client, of_server];
    let mut openers = Vec::new();
    for connection in &ends {
        this.accept(connection);
        for _ in 0..OPENERS {
            let (run, connection) = (Rc::clone(&this), connection.clone());
            openers.push(this.executor.spawn(async move { run.open(&connection).await }));
        }
    }
    if seed % 4 == 3 {
        // The connection ends in the midst of it.
        let until = this.pick(0..openers.len());
        go_on(&mut world, "some have had enough", &|_| {
            openers.iter().filter(|opener| opener.is_finished()).count() >= until
        });
        ends[this.pick(0..2)].close(VarInt::from_u32(1), b"");
    }
    let is_over = |_| openers.iter().all(async_executor::Task::is_finished) && this.in_use.get() == 0;
    go_on(&mut world, "everybody has had enough", &is_over);
    if seed % 4 != 3 {
        // What was opened and nobody has accepted yet is.
        let end = world.now + Duration::from_secs(5);
        go_on(&mut world, "nothing of it comes any more", &|now| {
            now >= end && is_over(now)
        });
        this.is_calm.set(true);
        for connection in ends.clone() {
            let used = this.executor.spawn(async move { use_all(&connection).await });
            go_on(
                &mut world,
                "there is room for all streams that there may be",
                &|_| used.is_finished(),
            );
        }
    }

    drop((ends, openers));
    // Those who still accept have the connections, which end with them.
    this.is_over.set(true);
    go_on(&mut world, "no connection is left", &|_| {
        this.executor.is_empty() && server.open_connections() + client.open_connections() == 0
    });
    // What a peer that has not heard of it would still be told.
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.turn(), None, "something is left to be done at a later time");
    drop((listener, server, client));
    world.turn();
    assert_eq!(world.contexts_ended(), 2);
}

#[test]
fn tasks_that_give_up_at_any_moment_leave_nothing_behind() {
    with_seeds(40, "tasks", run);
}
