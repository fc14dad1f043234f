//! A future that is dropped at any of its await points has taken nothing, or what its documentation says, and leaves nothing behind.

mod common;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use common::{Pair, run, settings};
use ringway::Settings;
use ringway_async::{Bytes, Connection, ConnectionError, RecvStream, SendStream, VarInt};

/// Runs a case beside Ringway's threads, and beside a context of both ends on its own: there, what tasks want is done at once.
fn each_way(of_server: &Settings, case: impl AsyncFn(Pair)) {
    run(case(Pair::with(of_server.clone(), settings())));
    #[cfg(feature = "tokio")]
    run(async {
        let (endpoint, context) = common::local();
        let driver = tokio::spawn(ringway_async::drive(context));
        case(Pair::of(
            [endpoint.clone(), endpoint],
            of_server.clone(),
            settings(),
        ))
        .await;
        driver.abort();
    });
}

/// Polls a future so many times, each when it is woken, and drops it then, unless it is ready before.
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
    each_way(&settings(), async |pair| {
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
fn stream_that_the_peer_allows_goes_to_the_next_who_asks() {
    let one = Settings {
        peer_bidi_stream_count: 1,
        ..settings()
    };
    each_way(&one, async |pair| {
        let (client, server) = pair.connect().await;
        let ask = async {
            for number in 0..50 {
                let (mut send, mut receive) = persistently(|| client.open_bi()).await.unwrap();
                assert_eq!(send.id().index(), number.into());
                // As long as this one is open.
                assert!(polled(1, client.open_bi()).await.is_none());
                send.write_all(&[number]).await.unwrap();
                send.finish().unwrap();
                assert_eq!(receive.read_to_end(10).await.unwrap(), [number]);
            }
            client.close(0u32.into(), b"");
        };
        let answer = async {
            let mut accepted = 0;
            while let Ok((mut send, mut receive)) = persistently(|| server.accept_bi()).await {
                assert_eq!(receive.id().index(), accepted);
                accepted += 1;
                let question = receive.read_to_end(10).await.unwrap();
                send.finish_with(question.into()).await.unwrap();
            }
            assert_eq!(accepted, 50);
        };
        tokio::join!(ask, answer);
    });
}

#[test]
fn who_waits_for_a_reset_in_vain_takes_no_data() {
    each_way(&settings(), async |pair| {
        let (client, server) = pair.connect().await;
        let mut send = client.open_uni().await.unwrap();
        send.write_all(b"data").await.unwrap();
        let mut receive = server.accept_uni().await.unwrap();
        assert!(polled(1, receive.received_reset()).await.is_none());
        assert_eq!(receive.read_chunk(10).await.unwrap().unwrap()[..], b"data"[..]);
        assert!(polled(1, receive.received_reset()).await.is_none());
        send.reset(VarInt::from_u32(7)).unwrap();
        let code = Ok(Some(VarInt::from_u32(7)));
        assert_eq!(persistently!(receive.received_reset()), code);
        assert_eq!(receive.received_reset().await, code);
    });
}

/// More of a stream than is on the way while nobody reads it: once it is written, what follows waits.
const MUCH: usize = 4 << 20;

/// A stream on which writing waits until somebody reads.
async fn full(client: &Connection, server: &Connection) -> (SendStream, RecvStream) {
    let mut send = client.open_uni().await.unwrap();
    send.write_chunk(vec![0; MUCH].into()).await.unwrap();
    (send, server.accept_uni().await.unwrap())
}

#[test]
fn stream_is_not_finished_by_who_gives_up_to_finish_it() {
    each_way(&settings(), async |pair| {
        let (client, server) = pair.connect().await;
        let (mut send, mut receive) = full(&client, &server).await;
        let last = Bytes::from_static(b"the last piece");
        for _ in 0..10 {
            assert!(polled(1, send.finish_with(last.clone())).await.is_none());
        }
        let finish = async {
            persistently!(send.finish_with(last.clone())).unwrap();
            assert_eq!(send.stopped().await, Ok(None));
        };
        let (all, ()) = tokio::join!(receive.read_to_end(usize::MAX), finish);
        assert!(all.unwrap() == [&[0; MUCH], &last[..]].concat());
    });
}

#[test]
fn chunks_that_are_left_are_those_that_were_not_written() {
    each_way(&settings(), async |pair| {
        let (client, server) = pair.connect().await;
        let mut send = client.open_uni().await.unwrap();
        let mut chunks = [b"first".to_vec(), vec![0; MUCH], b"last".to_vec()].map(Bytes::from);
        assert!(polled(1, send.write_all_chunks(&mut chunks)).await.is_none());
        assert_eq!(chunks.each_ref().map(Bytes::len), [0, 0, 4]);
        let mut receive = server.accept_uni().await.unwrap();
        let write = async {
            persistently!(send.write_all_chunks(&mut chunks)).unwrap();
            assert_eq!(chunks.each_ref().map(Bytes::len), [0; 3]);
            send.finish().unwrap();
        };
        let (all, ()) = tokio::join!(receive.read_to_end(usize::MAX), write);
        assert!(all.unwrap() == [b"first", &[0; MUCH][..], b"last"].concat());
    });
}

#[test]
fn who_gives_up_to_write_all_has_written_a_part() {
    each_way(&settings(), async |pair| {
        let (client, server) = pair.connect().await;
        let mut send = client.open_uni().await.unwrap();
        let data: Vec<u8> = (0..MUCH).map(|at| (at * 31) as u8).collect();
        assert!(polled(1, send.write_all(&data)).await.is_none());
        send.finish().unwrap();
        let mut receive = server.accept_uni().await.unwrap();
        let part = receive.read_to_end(usize::MAX).await.unwrap();
        assert!(!part.is_empty() && part.len() < MUCH && data.starts_with(&part));
    });
}

#[test]
fn who_gives_up_to_read_all_has_lost_what_was_there() {
    each_way(&settings(), async |pair| {
        let (client, server) = pair.connect().await;
        let mut send = client.open_uni().await.unwrap();
        let mut receive = None;
        for reads_to_end in [false, true] {
            send.write_chunk(Bytes::from_static(b"xlost")).await.unwrap();
            let receive = match &mut receive {
                Some(receive) => receive,
                none => none.insert(server.accept_uni().await.unwrap()),
            };
            // With that, all that was sent is there.
            assert_eq!(receive.read_chunk(1).await.unwrap().unwrap()[..], b"x"[..]);
            if reads_to_end {
                assert!(polled(1, receive.read_to_end(100)).await.is_none());
                send.finish_with(Bytes::from_static(b"kept")).await.unwrap();
                assert_eq!(receive.read_to_end(100).await.unwrap(), b"kept");
            } else {
                let mut buffer = [0; 4];
                assert!(polled(1, receive.read_exact(&mut [0; 10])).await.is_none());
                send.write_all(b"kept").await.unwrap();
                receive.read_exact(&mut buffer).await.unwrap();
                assert_eq!(&buffer, b"kept");
            }
        }
    });
}

#[test]
fn datagrams_whose_senders_gave_up_take_no_place() {
    each_way(&settings(), async |pair| {
        let (client, _server) = pair.connect().await;
        let data = Bytes::from(vec![1; 1000]);
        let mut given_up = 0;
        // More often than there are places.
        while given_up < 2000 {
            while client.send_datagram(data.clone()).is_ok() {}
            match polled(1, client.send_datagram_wait(data.clone())).await {
                None => given_up += 1,
                Some(sent) => assert_eq!(sent, Ok(())),
            }
        }
        for _ in 0..2000 {
            let sent = persistently(|| client.send_datagram_wait(data.clone())).await;
            assert_eq!(sent, Ok(()));
        }
    });
}

#[test]
fn handshake_goes_on_when_nobody_waits_for_it_any_more() {
    each_way(&settings(), async |pair| {
        let connect = || {
            pair.client
                .connect(pair.listener.local_addr(), "localhost")
                .unwrap()
        };
        let mut connecting = connect();
        assert!(polled(1, &mut connecting).await.is_none());
        let accepted = pair.listener.accept().await.unwrap().accept();
        let (client, server) = tokio::join!(connecting, accepted);
        drop((client.unwrap(), server.unwrap()));

        let (client, mut zero_rtt) = connect().into_0rtt().unwrap();
        assert!(polled(1, &mut zero_rtt).await.is_none());
        drop(zero_rtt);
        let mut send = client.open_uni().await.unwrap();
        send.finish_with(Bytes::from_static(b"early")).await.unwrap();
        let server = pair.listener.accept().await.unwrap().await.unwrap();
        let mut receive = server.accept_uni().await.unwrap();
        assert_eq!(receive.read_to_end(10).await.unwrap(), b"early");
        assert_eq!(client.close_reason(), None);

        // Kept alone, it is a handle.
        let (client, zero_rtt) = connect().into_0rtt().unwrap();
        drop(client);
        let server = pair.listener.accept().await.unwrap().await.unwrap();
        assert!(!zero_rtt.await);
        assert!(matches!(
            server.closed().await,
            ConnectionError::ApplicationClosed(_)
        ));
    });
}

#[test]
fn waits_that_were_given_up_hold_no_task() {
    struct Task;
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let none = Settings {
        peer_bidi_stream_count: 0,
        peer_uni_stream_count: 2,
        ..settings()
    };
    each_way(&none, async |pair| {
        let (client, server) = pair.connect().await;
        let task = Arc::new(Task);
        let waker = Waker::from(Arc::clone(&task));
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
        let (mut send, mut unread) = full(&client, &server).await;
        assert!(pin!(send.write(b"x")).poll(&mut cx).is_pending());
        assert!(pin!(client.open_bi()).poll(&mut cx).is_pending());
        assert!(pin!(client.open_uni()).poll(&mut cx).is_pending());
        assert!(pin!(server.accept_bi()).poll(&mut cx).is_pending());
        assert!(pin!(server.accept_uni()).poll(&mut cx).is_pending());
        assert!(pin!(server.read_datagram()).poll(&mut cx).is_pending());
        assert!(pin!(server.closed()).poll(&mut cx).is_pending());
        assert!(pin!(pair.listener.accept()).poll(&mut cx).is_pending());
        drop(pin!(receive.read_chunk(1)).poll(&mut cx));
        drop(pin!(client.stats()).poll(&mut cx));
        let connect = || {
            pair.client
                .connect(pair.listener.local_addr(), "localhost")
                .unwrap()
        };
        assert!(Pin::new(&mut connect()).poll(&mut cx).is_pending());
        let (_connection, mut zero_rtt) = connect().into_0rtt().unwrap();
        assert!(Pin::new(&mut zero_rtt).poll(&mut cx).is_pending());
        // The worker has not done with the stream that is not read.
        drop((receive, send, zero_rtt));
        // In its answer it has woken whom it was about to wake.
        assert!(client.stats().await.is_ok());
        assert_eq!(Arc::strong_count(&task), 2);
        assert!(pin!(unread.received_reset()).poll(&mut cx).is_pending());
        drop(unread);
        assert!(server.stats().await.is_ok());
        drop(waker);
        assert_eq!(Arc::strong_count(&task), 1);
    });
}
