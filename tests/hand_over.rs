//! What tasks and the worker hand each other costs no allocation for each event, and no wake-up for each event: both are counted over many of them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};

use ringway::{ContextConfig, Execution, ExecutionConfig, ExecutionFlags, ListenerOptions, Settings, Wait};
use ringway_async::{Bytes, Endpoint};
use ringway_tests::{ALPN, configurations, execution, settings};

/// Counts allocations of each thread while it is told to.
struct Counting;

thread_local! {
    static COUNTING: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[allow(
    unsafe_code,
    reason = "an allocator cannot be written without; it passes everything on to the system's"
)]
// SAFETY: all calls go to the system allocator with the arguments that came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTING.get() {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        }
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An endpoint, and its one context, which the test polls.
fn open() -> (Endpoint, Execution) {
    let config = ExecutionConfig {
        flags: ExecutionFlags::empty(),
        ..execution(1)
    };
    let contexts = ContextConfig::for_each_thread(&config).unwrap();
    let (registration, mut contexts) = Execution::create(&config, contexts).unwrap();
    (Endpoint::new(&registration), contexts.remove(0))
}

/// Runs both ends, and their two tasks, on this thread.
#[test]
fn bulk_transfer_allocates_for_what_it_copies_and_wakes_once_a_turn() {
    let windows = Settings {
        stream_receive_window: 1 << 20,
        connection_flow_control_window: 8 << 20,
        ..settings()
    };
    let (server_config, client_config) = configurations(windows.clone(), windows);
    let (server, mut server_context) = open();
    let (mut client, mut client_context) = open();
    client.set_default_client_config(client_config);
    let options = ListenerOptions::new("127.0.0.1:0".parse().unwrap(), &[ALPN]);
    let listener = server.listen(options, server_config).unwrap();
    let connecting = client.connect(listener.local_addr(), "localhost").unwrap();
    let (chunks, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut writer = Box::pin(async {
        let connection = connecting.await.unwrap();
        let mut send = connection.open_uni().await.unwrap();
        let piece = Bytes::from(vec![1; 16 << 10]);
        loop {
            send.write_chunk(piece.clone()).await.unwrap();
        }
    });
    let mut reader = Box::pin(async {
        let connection = listener.accept().await.unwrap().await.unwrap();
        let mut receive = connection.accept_uni().await.unwrap();
        while let Some(chunk) = receive.read_chunk(usize::MAX).await.unwrap() {
            chunks.fetch_add(1, Ordering::Relaxed);
            bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    });
    let (writer_woken, reader_woken) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let wakers = [&writer_woken, &reader_woken].map(|woken| Waker::from(Arc::clone(woken)));
    let (mut to_write, mut to_read) = (true, true);
    let mut turns = 0;
    let mut run_until = |goal: u64| {
        let mut left = 3_000_000;
        while bytes.load(Ordering::Relaxed) < goal {
            left -= 1;
            assert!(left > 0, "{} bytes", bytes.load(Ordering::Relaxed));
            if std::mem::take(&mut to_write) {
                let _: std::task::Poll<()> = writer.as_mut().poll(&mut Context::from_waker(&wakers[0]));
            }
            if std::mem::take(&mut to_read) {
                let _ = reader.as_mut().poll(&mut Context::from_waker(&wakers[1]));
            }
            let before = [&writer_woken, &reader_woken].map(|woken| woken.0.load(Ordering::Relaxed));
            let waits = [client_context.poll(), server_context.poll()];
            turns += 1;
            let after = [&writer_woken, &reader_woken].map(|woken| woken.0.load(Ordering::Relaxed));
            // At most once in a turn, whatever came in it; for the connection and the stream, as long as it is new.
            if goal > 5_000_000 {
                assert!(after[0] - before[0] <= 1 && after[1] - before[1] <= 1);
            }
            to_write = after[0] > before[0];
            to_read = after[1] > before[1];
            if !waits.contains(&Wait::NoWait) && !to_write && !to_read {
                std::thread::yield_now();
            }
        }
        turns
    };
    // Windows and lists have grown to their size by then.
    run_until(5_000_000);
    run_until(60_000_000);
    let from = (chunks.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
    let before = ALLOCATIONS.get();
    COUNTING.set(true);
    run_until(160_000_000);
    COUNTING.set(false);
    let chunks = chunks.load(Ordering::Relaxed) - from.0;
    let sends = (bytes.load(Ordering::Relaxed) - from.1) / (16 << 10);
    let allocations = ALLOCATIONS.get() - before;
    // Of both ends together. Tasks call their connections at once here, without a command, and the memory of chunks serves again: that leaves one for
    // eight sends, and some for lost packets. One for each send, or for each chunk, would be too many.
    let allowed = sends / 2;
    assert!(
        allocations < allowed,
        "{allocations} allocations for {chunks} chunks and {sends} sends"
    );
    // A chunk has 16 KiB at most, as each send has: so much was counted.
    assert!(chunks >= sends && sends > 6_000, "{chunks} chunks, {sends} sends");
}

/// Runs both ends, and their two tasks, on this thread: requests one after the other, each of which the worker and the tasks have forgotten before
/// the next.
#[test]
fn requests_allocate_for_handlers_and_data_alone() {
    let (server_config, client_config) = configurations(settings(), settings());
    let (server, mut server_context) = open();
    let (mut client, mut client_context) = open();
    client.set_default_client_config(client_config);
    let options = ListenerOptions::new("127.0.0.1:0".parse().unwrap(), &[ALPN]);
    let listener = server.listen(options, server_config).unwrap();
    let connecting = client.connect(listener.local_addr(), "localhost").unwrap();
    let answered = AtomicU64::new(0);
    let mut asks = Box::pin(async {
        let connection = connecting.await.unwrap();
        let question = Bytes::from(vec![1; 100]);
        loop {
            let (mut send, mut receive) = connection.open_bi().await.unwrap();
            send.finish_with(question.clone()).await.unwrap();
            while receive.read_chunk(usize::MAX).await.unwrap().is_some() {}
            answered.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut answers = Box::pin(async {
        let connection = listener.accept().await.unwrap().await.unwrap();
        let answer = Bytes::from(vec![2; 100]);
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            while receive.read_chunk(usize::MAX).await.unwrap().is_some() {}
            send.finish_with(answer.clone()).await.unwrap();
        }
    });
    let mut cx = Context::from_waker(Waker::noop());
    let mut run_until = |goal: u64| {
        let mut left = 3_000_000;
        while answered.load(Ordering::Relaxed) < goal {
            left -= 1;
            assert!(left > 0, "{} answers", answered.load(Ordering::Relaxed));
            let _: std::task::Poll<()> = asks.as_mut().poll(&mut cx);
            let _ = answers.as_mut().poll(&mut cx);
            client_context.poll();
            server_context.poll();
        }
    };
    run_until(1000);
    let before = ALLOCATIONS.get();
    COUNTING.set(true);
    run_until(3000);
    COUNTING.set(false);
    let each = (ALLOCATIONS.get() - before) as f64 / 2000.0;
    assert!(each < REQUEST_ALLOCATIONS_MAX, "{each} allocations a request");
}

/// Of both ends: a handler and the data that is kept of each, and the worker's state of the stream that is opened; and shares of what waits in lists.
const REQUEST_ALLOCATIONS_MAX: f64 = 7.0;
