//! A future that is dropped at any of its await points has taken nothing, and leaves nothing behind.

mod common;

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use common::{Pair, run};
use ringway_async::{Bytes, Connection, RecvStream, SendStream};

/// Polls a future so many times and drops it then, unless it is ready before.
async fn polled<R>(times: u32, future: impl Future<Output = R>) -> Option<R> {
    let mut future = pin!(future);
    let mut left = times;
    std::future::poll_fn(|cx| {
        use std::task::Poll;
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        if let Poll::Ready(result) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        if left == 0 {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// Begins it again and again, dropped after its first poll and after its second, until it is ready.
async fn persistently<R, F: Future<Output = R>>(mut begin: impl FnMut() -> F) -> R {
    for attempt in 0.. {
        if let Some(result) = polled(1 + attempt % 2, begin()).await {
            return result;
        }
        if attempt % 8 == 7 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::task::yield_now().await;
    }
    unreachable!()
}

/// The same for what borrows its stream.
macro_rules! persistently {
    ($call:expr) => {
        'done: {
            for attempt in 0u32.. {
                if let Some(result) = polled(1 + attempt % 2, $call).await {
                    break 'done result;
                }
                if attempt % 8 == 7 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                tokio::task::yield_now().await;
            }
            unreachable!()
        }
    };
}

const STREAMS: usize = 120;
const LEN: usize = 300_000;

fn content(stream: usize) -> Vec<u8> {
    (0..LEN).map(|at| (at * 31 + stream) as u8).collect()
}

async fn write(mut send: SendStream, data: Vec<u8>) {
    let data = Bytes::from(data);
    let mut at = 0;
    // Each way of writing in turn.
    for way in (0..3).cycle() {
        let end = (at + 10_000).min(data.len());
        match way {
            0 => at += persistently!(send.write(&data[at..end])).unwrap(),
            1 => {
                persistently!(send.write_chunk(data.slice(at..end))).unwrap();
                at = end;
            }
            _ => {
                let middle = at + (end - at) / 2;
                let slices = [
                    std::io::IoSlice::new(&data[at..middle]),
                    std::io::IoSlice::new(&data[middle..end]),
                ];
                at += persistently!(send.write_vectored(&slices)).unwrap();
            }
        }
        if at == data.len() {
            break;
        }
    }
    send.finish().unwrap();
    assert_eq!(persistently!(send.stopped()), Ok(None));
}

async fn read(mut receive: RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 3000];
    for way in (0..3).cycle() {
        match way {
            0 => match persistently!(receive.read_chunk(5000)).unwrap() {
                Some(chunk) => all.extend_from_slice(&chunk),
                None => break,
            },
            1 => match persistently!(receive.read(&mut buffer)).unwrap() {
                Some(len) => all.extend_from_slice(&buffer[..len]),
                None => break,
            },
            _ => {
                let mut chunks = [Bytes::new(), Bytes::new(), Bytes::new()];
                match persistently!(receive.read_chunks(&mut chunks)).unwrap() {
                    Some(count) => chunks[..count]
                        .iter()
                        .for_each(|chunk| all.extend_from_slice(chunk)),
                    None => break,
                }
            }
        }
    }
    all
}

#[test]
fn nothing_is_lost_however_often_futures_are_dropped() {
    run(async {
        let pair = Pair::new();
        let connecting = pair.client.connect(pair.listener.local_addr(), "localhost");
        let incoming = persistently(|| pair.listener.accept()).await.unwrap();
        let (client, server) = tokio::join!(connecting.unwrap(), incoming.accept());
        let (client, server): (Connection, Connection) = (client.unwrap(), server.unwrap());
        let opening = async {
            let mut writers = Vec::new();
            for number in 0..STREAMS {
                // More than the peer allows at a time: it is waited for.
                let send = persistently(|| client.open_uni()).await.unwrap();
                let mut data = content(number);
                data.truncate(if number % 20 == 0 { LEN } else { 100 });
                writers.push(tokio::spawn(write(send, data)));
            }
            for writer in writers {
                writer.await.unwrap();
            }
        };
        let accepting = async {
            let mut readers = Vec::new();
            for _ in 0..STREAMS {
                let receive = persistently(|| server.accept_uni()).await.unwrap();
                let number = receive.id().index() as usize;
                readers.push(tokio::spawn(async move { (number, read(receive).await) }));
            }
            let mut seen = [false; STREAMS];
            for reader in readers {
                let (number, data) = reader.await.unwrap();
                assert!(data == content(number)[..data.len()], "stream {number}");
                assert_eq!(data.len(), if number % 20 == 0 { LEN } else { 100 });
                assert!(!std::mem::replace(&mut seen[number], true));
            }
        };
        tokio::join!(opening, accepting);

        for number in 0..50u8 {
            persistently(|| client.send_datagram_wait(Bytes::copy_from_slice(&[number])))
                .await
                .unwrap();
            assert_eq!(
                persistently(|| server.read_datagram()).await.unwrap()[..],
                [number]
            );
        }
        assert!(persistently(|| client.stats()).await.is_ok());
        server.close(0u32.into(), b"");
        persistently(|| client.closed()).await;
    });
}

#[test]
fn waits_that_were_given_up_hold_no_task() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        struct Task;
        impl std::task::Wake for Task {
            fn wake(self: std::sync::Arc<Self>) {}
        }
        let task = std::sync::Arc::new(Task);
        let waker = Waker::from(std::sync::Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        let mut receive = {
            let mut send = client.open_uni().await.unwrap();
            send.write_all(b"x").await.unwrap();
            let mut receive = server.accept_uni().await.unwrap();
            assert_eq!(receive.read_chunk(1).await.unwrap().unwrap()[..], b"x"[..]);
            let mut stopped = Box::pin(async move { send.stopped().await.map(|_| ()) });
            assert!(stopped.as_mut().poll(&mut cx).is_pending());
            drop(stopped);
            receive
        };
        assert!(pin!(server.accept_bi()).poll(&mut cx).is_pending());
        assert!(pin!(server.accept_uni()).poll(&mut cx).is_pending());
        assert!(pin!(server.read_datagram()).poll(&mut cx).is_pending());
        assert!(pin!(server.closed()).poll(&mut cx).is_pending());
        assert!(pin!(pair.listener.accept()).poll(&mut cx).is_pending());
        drop(pin!(receive.read_chunk(1)).poll(&mut cx));
        drop(receive);
        drop(waker);
        assert_eq!(std::sync::Arc::strong_count(&task), 1);
    });
}
