//! A bulk transfer in its steady state allocates nothing for packets, on neither side, and no more while both are captured; and what it hands to
//! tasks on other threads costs none for each event: allocations are counted over tens of thousands of packets.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringway::{
    Bytes, CaptureOptions, ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus, Listener,
    ListenerEvent, ListenerOptions, RetryPolicy, Settings, Stream, StreamEvent,
};
use ringway_async::Endpoint;
use ringway_tests::{ALPN, address, client, configurations, server, settings};

/// Counts allocations while it is told to.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// On threads that write captures, which are no part of the packet path.
    static WRITES_CAPTURE: Cell<bool> = const { Cell::new(false) };
}

fn is_counted() -> bool {
    COUNTING.load(Ordering::Relaxed) && !WRITES_CAPTURE.get()
}

/// Allocations are counted as long as this is there.
struct CountingSince;

impl CountingSince {
    fn now() -> Self {
        ALLOCATIONS.store(0, Ordering::SeqCst);
        COUNTING.store(true, Ordering::SeqCst);
        CountingSince
    }

    /// How many there were.
    fn end(self) -> u64 {
        drop(self);
        ALLOCATIONS.load(Ordering::SeqCst)
    }
}

impl Drop for CountingSince {
    fn drop(&mut self) {
        COUNTING.store(false, Ordering::SeqCst);
    }
}

/// Where captures go: nowhere.
struct Nowhere;

impl std::io::Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        WRITES_CAPTURE.set(true);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        WRITES_CAPTURE.set(true);
        Ok(())
    }
}

#[allow(
    unsafe_code,
    reason = "an allocator cannot be written without; it passes everything on to the system's"
)]
// SAFETY: all calls go to the system allocator with the arguments that came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_counted() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_counted() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Allocations of all threads are counted: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TEST: Mutex<()> = Mutex::new(());
    TEST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pieces that are held on to.
const KEPT: usize = 500;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn bulk_transfer_allocates_nothing_for_packets_captured_or_not_nor_for_what_is_kept_of_them() {
    let _alone = alone();
    for keeps in [false, true] {
        transfer(keeps);
    }
}

/// With a receiver that keeps what came last, or does not.
fn transfer(keeps: bool) {
    let settings = Settings {
        stream_receive_window: 8 << 20,
        connection_flow_control_window: 64 << 20,
        ..settings()
    };
    let (server_config, client_config) = configurations(settings.clone(), settings);
    let server = server(1);
    let client = client(1);
    let received = Arc::new(AtomicU64::new(0));

    // What could not stay where it was is copied, into memory of its own.
    let copies = Arc::new(AtomicU64::new(0));
    let counts = (Arc::clone(&received), Arc::clone(&copies));
    let options = ListenerOptions::new(address("127.0.0.1:0"), &[ALPN]).with_retry(RetryPolicy::Never);
    let listener = Listener::start(&server, options, move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        let counts = counts.clone();
        incoming.accept(
            &server_config,
            move |_: &Connection, event: ConnectionEvent<'_>| {
                if let ConnectionEvent::PeerStreamStarted(stream) = event {
                    let (received, copies) = counts.clone();
                    let mut kept = VecDeque::with_capacity(KEPT + 1);
                    stream.accept(move |_: &Stream, event: StreamEvent<'_>| {
                        if let StreamEvent::Receive(receive) = event {
                            received.fetch_add(receive.len() as u64, Ordering::Relaxed);
                            if keeps {
                                let data = receive.keep();
                                if data.is_copy() && COUNTING.load(Ordering::Relaxed) {
                                    copies.fetch_add(1, Ordering::Relaxed);
                                }
                                kept.push_back(data);
                                if kept.len() > KEPT {
                                    kept.pop_front();
                                }
                            }
                        }
                        EventStatus::Done
                    });
                }
                EventStatus::Done
            },
        );
    })
    .unwrap();

    let data = Bytes::from(vec![1; 64 * 1024]);
    let target = ConnectTarget::new(listener.local_address(), "localhost");
    let failed: Arc<Mutex<Option<String>>> = Arc::default();
    let failure = Arc::clone(&failed);
    let connection = Connection::start(
        &client,
        &client_config,
        &target,
        move |connection: &Connection, event: ConnectionEvent<'_>| {
            match event {
                ConnectionEvent::Connected { .. } => {
                    let data = data.clone();
                    let stream = Stream::open(connection, Direction::Unidirectional, {
                        let data = data.clone();
                        move |stream: &Stream, event: StreamEvent<'_>| {
                            if let StreamEvent::SendComplete { canceled: false, .. } = event {
                                let _ = stream.send(data.clone(), 0, false);
                            }
                            EventStatus::Done
                        }
                    })
                    .unwrap();
                    stream.detach();
                    stream.start(true).unwrap();
                    for _ in 0..16 {
                        stream.send(data.clone(), 0, false).unwrap();
                    }
                }
                ConnectionEvent::ShutdownByTransport { reason } => {
                    *failure.lock().unwrap() = Some(reason.to_string())
                }
                _ => {}
            }
            EventStatus::Done
        },
    )
    .unwrap();

    let wait_for = |bytes: u64| {
        let start = Instant::now();
        while received.load(Ordering::Relaxed) < bytes {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{:?}",
                failed.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    // Windows and rings have grown to their size by then.
    wait_for(200_000_000);
    let count = |what: &str| {
        copies.store(0, Ordering::SeqCst);
        let counting = CountingSince::now();
        let from = received.load(Ordering::Relaxed);
        wait_for(from + 100_000_000);
        let allocations = counting.end();
        let packets = (received.load(Ordering::Relaxed) - from) / 1440;
        // A copy is a list of bytes that becomes shared ones.
        let copies = copies.load(Ordering::Relaxed);
        let allocations = allocations.saturating_sub(2 * copies);
        // Rings that grow once more cost a few. On a busy machine packets are lost, and what comes behind a lost one waits in blocks for several
        // packets each: some hundreds were seen. One for each packet, or for each batch of them, would be thousands.
        assert!(
            allocations < packets / 50,
            "{what}: {allocations} allocations for {packets} packets, and {copies} copies"
        );
        // What comes behind a lost packet is put together, and copied: how much that is, the machine decides.
        assert!(copies < packets, "{what}: {copies} copies of {packets} packets");
    };
    count("a transfer");
    let captures = [&server, &client].map(|side| side.capture(Nowhere, &CaptureOptions::default()).unwrap());
    wait_for(received.load(Ordering::Relaxed) + 20_000_000);
    count("a transfer that is captured");
    for capture in captures {
        let stats = capture.finish().unwrap();
        assert!(
            // But for those of a turn that went on at the end.
            stats.seen - stats.packets - stats.dropped < 1000 && stats.packets > 1000,
            "{stats:?}"
        );
    }
    connection.shutdown(0).unwrap();
    client.close();
    drop(listener);
    server.close();
}

/// Each end has a thread of Ringway's, and its task one of its own: what they want of each other crosses threads.
#[test]
fn bulk_transfer_of_tasks_on_other_threads_allocates_for_chunks_and_not_for_sends() {
    let _alone = alone();
    let settings = Settings {
        stream_receive_window: 8 << 20,
        connection_flow_control_window: 64 << 20,
        ..settings()
    };
    let (server_config, client_config) = configurations(settings.clone(), settings);
    let (server, client) = (Endpoint::new(&server(1)), Endpoint::new(&client(1)));
    let options = ListenerOptions::new(address("127.0.0.1:0"), &[ALPN]).with_retry(RetryPolicy::Never);
    let listener = server.listen(options, server_config).unwrap();
    let connecting = client
        .connect_with(
            &client_config,
            &ConnectTarget::new(listener.local_addr(), "localhost"),
        )
        .unwrap();
    const PIECE: usize = 1 << 10;
    let (chunks, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counts = (Arc::clone(&chunks), Arc::clone(&bytes));
    let reader = std::thread::spawn(move || {
        futures_executor::block_on(async {
            let connection = listener.accept().await.unwrap().await.unwrap();
            let mut receive = connection.accept_uni().await.unwrap();
            while let Ok(Some(chunk)) = receive.read_chunk(usize::MAX).await {
                counts.0.fetch_add(1, Ordering::Relaxed);
                counts.1.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
        });
    });
    let writer = std::thread::spawn(move || {
        futures_executor::block_on(async {
            let connection = connecting.await.unwrap();
            let mut send = connection.open_uni().await.unwrap();
            let piece = Bytes::from(vec![1; PIECE]);
            while send.write_chunk(piece.clone()).await.is_ok() {}
        });
    });
    let wait_for = |goal: u64| {
        let start = Instant::now();
        while bytes.load(Ordering::Relaxed) < goal {
            assert!(start.elapsed() < Duration::from_secs(60), "it stands still");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    wait_for(200_000_000);
    let from = (chunks.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
    let counting = CountingSince::now();
    wait_for(from.1 + 100_000_000);
    let allocations = counting.end();
    let chunks = chunks.load(Ordering::Relaxed) - from.0;
    let sends = (bytes.load(Ordering::Relaxed) - from.1) / PIECE as u64;
    server.close(0u32.into());
    client.close(0u32.into());
    reader.join().unwrap();
    writer.join().unwrap();
    // Room in the list of commands for 31 sends each, and where the reader has all that came before, a batch and memory for a chunk. Lists that grow once more.
    assert!(
        allocations < sends / 16 + 2 * chunks + 2000,
        "{allocations} allocations for {sends} sends and {chunks} chunks"
    );
}
