//! Whatever handle is dropped whenever: no stream, no connection and no memory is left behind.

mod common;

use std::time::Duration;

use common::{Pair, run, settings};
use ringway::Settings;
use ringway_async::{Bytes, ConnectionError, ReadError, VarInt, WriteError};

#[test]
fn streams_that_are_dropped_in_any_state_make_room_for_others() {
    run(async {
        let few = Settings {
            peer_bidi_stream_count: 4,
            ..settings()
        };
        let pair = Pair::with(few, settings());
        let (client, server) = pair.connect().await;
        let serve = async {
            let mut number = 0;
            while let Ok((mut send, mut receive)) = server.accept_bi().await {
                number += 1;
                // Each dies in another way.
                match number % 6 {
                    0 => {}
                    1 => drop(receive.read_chunk(10).await),
                    2 => drop(send.write_all(b"part of an answer").await),
                    3 => {
                        drop(receive);
                        let _ = send.finish();
                    }
                    4 => drop(receive.read_to_end(usize::MAX).await),
                    _ => {
                        drop(send);
                        drop(receive.read_to_end(usize::MAX).await);
                    }
                }
            }
        };
        let use_them = async {
            for number in 0..600 {
                let (mut send, mut receive) = client.open_bi().await.unwrap();
                match number % 5 {
                    // Never written to: nobody has heard of it.
                    0 => {}
                    1 => send.write_all(b"part of a request").await.unwrap(),
                    2 => {
                        drop(send.write_all(b"request").await);
                        let _ = send.finish();
                        drop(send);
                        drop(receive.read_to_end(usize::MAX).await);
                    }
                    3 => {
                        drop(send.write_chunk(Bytes::from(vec![1; 100_000])).await);
                        drop(receive);
                    }
                    _ => {
                        let _ = receive.stop(VarInt::from_u32(3));
                        let _ = send.finish();
                    }
                }
            }
            client.close(0u32.into(), b"");
        };
        tokio::join!(serve, use_them);
    });
}

#[test]
fn peer_hears_what_a_drop_means() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let (mut send, receive) = client.open_bi().await.unwrap();
        send.write_all(b"complete").await.unwrap();
        let (mut answer, mut question) = server.accept_bi().await.unwrap();
        // Not finished, and nothing went wrong: that was all.
        drop(send);
        assert_eq!(question.read_to_end(100).await.unwrap(), b"complete");
        // Not read: nobody wants it.
        drop(receive);
        assert_eq!(answer.stopped().await, Ok(Some(VarInt::from_u32(0))));
        assert_eq!(
            answer.write(b"x").await,
            Err(WriteError::Stopped(VarInt::from_u32(0)))
        );
    });
}

#[test]
fn what_was_finished_arrives_behind_the_drop() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let mut send = client.open_uni().await.unwrap();
        send.write_chunk(Bytes::from(vec![5; 1_000_000])).await.unwrap();
        send.finish().unwrap();
        drop(send);
        let mut receive = server.accept_uni().await.unwrap();
        assert!(receive.read_to_end(usize::MAX).await.unwrap() == vec![5; 1_000_000]);
    });
}

#[test]
fn streams_that_nobody_accepts_are_bounded_by_their_limit_although_they_have_ended() {
    run(async {
        let few = Settings {
            peer_uni_stream_count: 8,
            ..settings()
        };
        let pair = Pair::with(few, settings());
        let (client, server) = pair.connect().await;
        let mut opened = 0;
        while let Ok(Ok(mut send)) = tokio::time::timeout(Duration::from_millis(300), client.open_uni()).await
        {
            send.write_all(b"whole").await.unwrap();
            send.finish().unwrap();
            opened += 1;
            assert!(opened <= 8);
        }
        assert_eq!(opened, 8);
        for _ in 0..8 {
            let mut receive = server.accept_uni().await.unwrap();
            assert_eq!(receive.read_to_end(100).await.unwrap(), b"whole");
        }
        client.open_uni().await.unwrap();
    });
}

#[test]
fn streams_that_are_reset_before_they_are_accepted_do_not_pile_up() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        for _ in 0..5000 {
            let (mut send, _receive) = client.open_bi().await.unwrap();
            send.write_all(b"x").await.unwrap();
            send.reset(VarInt::from_u32(1)).unwrap();
        }
        // One that lives comes behind them, and is found.
        let (mut send, _receive) = client.open_bi().await.unwrap();
        send.write_all(b"alive").await.unwrap();
        send.finish().unwrap();
        loop {
            let (_send, mut receive) = server.accept_bi().await.unwrap();
            match receive.read_to_end(100).await {
                Ok(text) => break assert_eq!(text, b"alive"),
                Err(error) => assert!(
                    matches!(error, ringway_async::ReadToEndError::Read(ReadError::Reset(_))),
                    "{error:?}"
                ),
            }
        }
    });
}

#[test]
fn task_that_panics_takes_its_streams_along_and_nothing_else() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let serve = tokio::spawn(async move {
            loop {
                let Ok((mut send, mut receive)) = server.accept_bi().await else {
                    return;
                };
                tokio::spawn(async move {
                    let request = receive.read_to_end(100).await.unwrap();
                    send.write_all(b"half ").await.unwrap();
                    assert_ne!(request, b"bad", "as it should");
                    send.write_all(b"whole").await.unwrap();
                    send.finish().unwrap();
                });
            }
        });
        for request in ["good", "bad", "good", "bad", "good"] {
            let (mut send, mut receive) = client.open_bi().await.unwrap();
            send.write_all(request.as_bytes()).await.unwrap();
            send.finish().unwrap();
            let answer = receive.read_to_end(100).await;
            if request == "good" {
                assert_eq!(answer.unwrap(), b"half whole");
            } else {
                let reset = ReadError::Reset(VarInt::from_u32(0));
                assert_eq!(answer.unwrap_err(), reset.into());
            }
        }
        client.close(0u32.into(), b"");
        serve.await.unwrap();
    });
}

#[test]
fn task_that_is_aborted_closes_what_was_its_own() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let task = tokio::spawn(async move {
            let (_send, _receive) = server.accept_bi().await.unwrap();
            std::future::pending::<()>().await;
        });
        let (mut send, _receive) = client.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        task.abort();
        let end = client.closed().await;
        assert!(matches!(end, ConnectionError::ApplicationClosed(_)), "{end:?}");
    });
}

#[test]
fn unidirectional_streams_that_are_reset_before_they_are_accepted_are_bounded_by_their_limit() {
    run(async {
        let few = Settings {
            peer_uni_stream_count: 8,
            ..settings()
        };
        let pair = Pair::with(few, settings());
        let (client, server) = pair.connect().await;
        let mut opened = 0;
        while let Ok(Ok(mut send)) = tokio::time::timeout(Duration::from_millis(300), client.open_uni()).await
        {
            send.write_all(b"part").await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            send.reset(VarInt::from_u32(1)).unwrap();
            opened += 1;
            assert!(opened <= 8);
        }
        for _ in 0..8 {
            let mut receive = server.accept_uni().await.unwrap();
            assert!(receive.read_to_end(100).await.is_err());
        }
        client.open_uni().await.unwrap();
    });
}
