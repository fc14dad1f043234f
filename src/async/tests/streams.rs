//! Streams, as tasks use them.

mod common;

use std::time::Duration;

use common::{Pair, run, settings};
use ringway::Settings;
use ringway_async::{Bytes, ReadError, ReadExactError, StoppedError, VarInt, WriteError};

#[test]
fn echo_comes_back() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let echo = async {
            let (mut send, mut receive) = server.accept_bi().await.unwrap();
            while let Some(chunk) = receive.read_chunk(usize::MAX).await.unwrap() {
                send.write_chunk(chunk).await.unwrap();
            }
            send.finish().unwrap();
            assert_eq!(send.stopped().await, Ok(None));
        };
        let ask = async {
            let (mut send, mut receive) = client.open_bi().await.unwrap();
            let sent: Vec<u8> = (0..3_000_000u32).map(|at| (at * 7) as u8).collect();
            let write = async {
                send.write_all(&sent).await.unwrap();
                send.finish().unwrap();
            };
            let (received, ()) = tokio::join!(receive.read_to_end(usize::MAX), write);
            assert!(received.unwrap() == sent);
        };
        tokio::join!(echo, ask);
    });
}

#[test]
fn what_is_finished_with_arrives_with_the_end() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        for last in [Bytes::from_static(b"world"), Bytes::new()] {
            let mut send = client.open_uni().await.unwrap();
            assert_eq!(send.acknowledged(), 0);
            send.write_chunk(Bytes::from_static(b"hello ")).await.unwrap();
            send.finish_with(last.clone()).await.unwrap();
            // Nothing follows.
            let again = send.finish_with(last.clone()).await;
            assert_eq!(again, Err(WriteError::ClosedStream));
            let mut receive = server.accept_uni().await.unwrap();
            let all = receive.read_to_end(100).await.unwrap();
            assert_eq!(all, [b"hello ", &last[..]].concat());
            assert_eq!(send.stopped().await, Ok(None));
            assert_eq!(send.acknowledged(), "hello ".len() as u64);
        }
    });
}

#[test]
fn reader_that_stops_stops_the_writer() {
    run(async {
        let window = 64 << 10;
        let server = Settings {
            stream_receive_window: window,
            connection_flow_control_window: 2 * window,
            ..settings()
        };
        let pair = Pair::with(server, settings());
        let (client, server) = pair.connect().await;
        let mut send = client.open_uni().await.unwrap();
        let piece = Bytes::from(vec![1; 16 << 10]);
        let mut written = 0;
        // What is held on the way: windows, the receiver's buffer, and what the sender keeps.
        while let Ok(sent) =
            tokio::time::timeout(Duration::from_millis(500), send.write_chunk(piece.clone())).await
        {
            sent.unwrap();
            written += piece.len();
            assert!(written < 16 << 20, "it never stops");
        }
        assert!(
            written < (512 << 10) + 4 * (64 << 10) + 4 * (128 << 10),
            "{written}"
        );
        let mut receive = server.accept_uni().await.unwrap();
        let mut read = 0;
        let more = 8 << 20;
        let write = async {
            let mut left: usize = more;
            while left > 0 {
                send.write_chunk(piece.clone()).await.unwrap();
                left -= piece.len();
            }
            send.finish().unwrap();
        };
        let count = async {
            while let Some(chunk) = receive.read_chunk(10_000).await.unwrap() {
                assert!(chunk.len() <= 10_000);
                read += chunk.len();
            }
        };
        tokio::join!(write, count);
        assert_eq!(read, written + more);
    });
}

#[test]
fn reset_and_stop_reach_the_other_side_with_their_codes() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let (mut send, mut receive) = client.open_bi().await.unwrap();
        send.write_all(b"hello").await.unwrap();
        let (mut answer, mut question) = server.accept_bi().await.unwrap();
        let mut five = [0; 5];
        question.read_exact(&mut five).await.unwrap();
        assert_eq!(&five, b"hello");
        send.reset(VarInt::from_u32(7)).unwrap();
        assert!(send.reset(VarInt::from_u32(7)).is_err());
        assert_eq!(send.stopped().await, Err(StoppedError::ClosedStream));
        assert_eq!(send.write(b"x").await, Err(WriteError::ClosedStream));
        let reset = ReadError::Reset(VarInt::from_u32(7));
        assert_eq!(question.read_chunk(1).await, Err(reset.clone()));
        assert_eq!(
            question.read_exact(&mut five).await,
            Err(ReadExactError::ReadError(reset))
        );
        assert_eq!(question.received_reset().await, Ok(Some(VarInt::from_u32(7))));

        receive.stop(VarInt::from_u32(9)).unwrap();
        assert!(receive.stop(VarInt::from_u32(9)).is_err());
        assert_eq!(receive.read_chunk(1).await, Err(ReadError::ClosedStream));
        assert_eq!(answer.stopped().await, Ok(Some(VarInt::from_u32(9))));
        assert_eq!(
            answer.write(b"x").await,
            Err(WriteError::Stopped(VarInt::from_u32(9)))
        );
    });
}

#[test]
fn unidirectional_stream_that_has_arrived_outlives_its_connection() {
    run(async {
        for stream_multi_receive_enabled in [false, true] {
            let of_server = Settings {
                stream_multi_receive_enabled,
                ..settings()
            };
            let pair = Pair::with(of_server, settings());
            let (client, server) = pair.connect().await;
            let mut send = client.open_uni().await.unwrap();
            send.write_all(b"all of it").await.unwrap();
            send.finish().unwrap();
            // The server has acknowledged it, and so answers for it.
            assert_eq!(send.stopped().await, Ok(None));
            client.close(0u32.into(), b"");
            server.closed().await;
            let mut receive = server.accept_uni().await.unwrap();
            assert_eq!(receive.read_to_end(100).await.unwrap(), b"all of it");
        }
    });
}

#[test]
fn unidirectional_stream_larger_than_what_is_kept_unaccepted_arrives_whole() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let data: Vec<u8> = (0..3_000_000u32).map(|at| (at / 7) as u8).collect();
        let send = async {
            let mut send = client.open_uni().await.unwrap();
            send.write_all(&data).await.unwrap();
            send.finish().unwrap();
            assert_eq!(send.stopped().await, Ok(None));
        };
        let receive = async {
            // Until the windows are full.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut receive = server.accept_uni().await.unwrap();
            assert!(receive.read_to_end(usize::MAX).await.unwrap() == data);
        };
        tokio::join!(send, receive);
    });
}

#[cfg(feature = "futures")]
#[test]
fn streams_have_the_traits_of_futures_io() {
    use futures_util::io::{AsyncReadExt, AsyncWriteExt, copy};
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let echo = async {
            let (mut send, receive) = server.accept_bi().await.unwrap();
            assert_eq!(copy(receive, &mut send).await.unwrap(), 1_000_000);
            send.close().await.unwrap();
            // Nothing follows.
            assert!(AsyncWriteExt::write(&mut send, b"x").await.is_err());
            assert_eq!(send.stopped().await, Ok(None));
        };
        let ask = async {
            let (mut send, mut receive) = client.open_bi().await.unwrap();
            let sent: Vec<u8> = (0..1_000_000u32).map(|at| (at * 7) as u8).collect();
            let write = async {
                let slices = [0..3, 3..10].map(|part| std::io::IoSlice::new(&sent[part]));
                let written = AsyncWriteExt::write_vectored(&mut send, &slices).await.unwrap();
                assert_eq!(written, 10);
                AsyncWriteExt::write_all(&mut send, &sent[10..]).await.unwrap();
                send.flush().await.unwrap();
                send.close().await.unwrap();
            };
            let mut received = Vec::new();
            let (read, ()) = tokio::join!(AsyncReadExt::read_to_end(&mut receive, &mut received), write);
            assert_eq!(read.unwrap(), sent.len());
            assert!(received == sent);
        };
        tokio::join!(echo, ask);

        let mut send = client.open_uni().await.unwrap();
        send.write_all(b"x").await.unwrap();
        let mut receive = server.accept_uni().await.unwrap();
        AsyncReadExt::read_exact(&mut receive, &mut [0]).await.unwrap();
        send.reset(VarInt::from_u32(7)).unwrap();
        let error = AsyncReadExt::read(&mut receive, &mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}
