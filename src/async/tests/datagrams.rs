//! Datagrams, as tasks use them.

mod common;

use std::time::Duration;

use common::{Pair, run, settings};
use ringway::Settings;
use ringway_async::{Bytes, SendDatagramError};

#[test]
fn datagrams_go_both_ways() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let echo = async {
            while let Ok(datagram) = server.read_datagram().await {
                server.send_datagram_wait(datagram).await.unwrap();
            }
        };
        let ask = async {
            while client.max_datagram_size().is_none() {
                tokio::task::yield_now().await;
            }
            for number in 0..100u32 {
                // One at a time on loopback: none is lost.
                client
                    .send_datagram(Bytes::copy_from_slice(&number.to_be_bytes()))
                    .unwrap();
                assert_eq!(client.read_datagram().await.unwrap()[..], number.to_be_bytes());
            }
            client.close(0u32.into(), b"");
        };
        tokio::join!(echo, ask);
    });
}

#[test]
fn datagram_that_does_not_fit_or_that_nobody_takes_is_an_error() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let max = client.max_datagram_size().unwrap();
        let large = Bytes::from(vec![0; max + 1000]);
        assert_eq!(client.send_datagram(large), Err(SendDatagramError::TooLarge));
        // One at a time can have AF_XDP.
        drop((client, server, pair));

        let without = Settings {
            datagram_receive_enabled: false,
            ..settings()
        };
        let pair = Pair::with(without, settings());
        let (client, _server) = pair.connect().await;
        assert_eq!(client.max_datagram_size(), None);
        let refused = client.send_datagram(Bytes::from_static(b"x"));
        assert_eq!(refused, Err(SendDatagramError::UnsupportedByPeer));
    });
}

#[test]
fn those_that_nobody_reads_are_bounded_and_counted() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let data = Bytes::from(vec![1; 100]);
        for _ in 0..3000 {
            client.send_datagram_wait(data.clone()).await.unwrap();
        }
        while server.dropped_datagrams() < 500 {
            client.send_datagram_wait(data.clone()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut read = 0;
        while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(300), server.read_datagram()).await {
            read += 1;
        }
        assert!(read >= 1024, "{read}");
    });
}

#[test]
fn more_than_can_wait_are_refused_or_waited_for() {
    run(async {
        let pair = Pair::new();
        let (client, _server) = pair.connect().await;
        let data = Bytes::from(vec![1; 1000]);
        let refused =
            (0..100_000).any(|_| client.send_datagram(data.clone()) == Err(SendDatagramError::QueueFull));
        assert!(refused);
        client.send_datagram_wait(data).await.unwrap();
    });
}
