//! Data before the handshake is complete, in both directions.

mod common;

use std::time::Duration;

use common::{Pair, run, settings};
use ringway::{ResumptionLevel, Settings, TicketKey, ZeroRtt};
use ringway_async::{Bytes, Connection, SendDatagramError, VarInt};

fn resuming() -> Settings {
    Settings {
        server_resumption_level: ResumptionLevel::ResumeAndZeroRtt,
        ..settings()
    }
}

/// A connection whose server gives a ticket, which the client keeps.
async fn get_ticket(pair: &Pair) {
    let (client, server) = pair.connect().await;
    server.callback_handle().send_resumption_ticket(b"").unwrap();
    // The ticket comes with the acknowledgement of what follows it.
    let mut send = server.open_uni().await.unwrap();
    send.write_all(b"x").await.unwrap();
    send.finish().unwrap();
    let mut receive = client.accept_uni().await.unwrap();
    assert_eq!(receive.read_to_end(10).await.unwrap(), b"x");
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.close(VarInt::from_u32(0), b"");
}

async fn ask(client: &Connection) -> Vec<u8> {
    let (mut send, mut receive) = client.open_bi().await.unwrap();
    send.write_all(b"early").await.unwrap();
    send.finish().unwrap();
    receive.read_to_end(100).await.unwrap()
}

#[test]
fn client_with_a_ticket_asks_in_0_rtt_and_the_server_answers_in_0_5_rtt() {
    run(async {
        let pair = Pair::with(resuming(), settings());
        get_ticket(&pair).await;
        let connecting = pair
            .client
            .connect(pair.listener.local_addr(), "localhost")
            .unwrap();
        let (client, accepted) = connecting.into_0rtt().unwrap();
        let serve = async {
            let incoming = pair.listener.accept().await.unwrap();
            // What the client sends in 0-RTT is there meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let (server, connected) = incoming.accept().into_0rtt().unwrap();
            let (mut send, mut receive) = server.accept_bi().await.unwrap();
            assert!(receive.is_0rtt());
            send.write_all(&receive.read_to_end(100).await.unwrap())
                .await
                .unwrap();
            send.finish().unwrap();
            assert!(connected.await);
            server.closed().await;
        };
        let use_it = async {
            assert_eq!(ask(&client).await, b"early");
            assert!(accepted.await);
            client.close(VarInt::from_u32(0), b"");
        };
        tokio::join!(serve, use_it);
    });
}

#[test]
fn without_a_ticket_or_where_it_is_rejected_all_is_sent_with_the_handshake() {
    run(async {
        let pair = Pair::with(resuming(), settings());
        for has_ticket in [false, true] {
            if has_ticket {
                get_ticket(&pair).await;
                // The key that sealed it is gone.
                pair.server_config
                    .set_ticket_keys(&[TicketKey::random().unwrap()]);
            }
            let connecting = pair
                .client
                .connect(pair.listener.local_addr(), "localhost")
                .unwrap();
            let (client, accepted) = connecting.into_0rtt().unwrap();
            let serve = async {
                let server = pair.listener.accept().await.unwrap().await.unwrap();
                let (mut send, mut receive) = server.accept_bi().await.unwrap();
                assert!(!receive.is_0rtt());
                send.write_all(&receive.read_to_end(100).await.unwrap())
                    .await
                    .unwrap();
                send.finish().unwrap();
                server.closed().await;
            };
            let use_it = async {
                assert_eq!(ask(&client).await, b"early");
                assert!(!accepted.await);
                let expected = if has_ticket {
                    ZeroRtt::Rejected
                } else {
                    ZeroRtt::NotOffered
                };
                assert_eq!(client.stats().await.unwrap().zero_rtt, expected);
                client.close(VarInt::from_u32(0), b"");
            };
            tokio::join!(serve, use_it);
        }
    });
}

#[test]
fn datagrams_before_the_handshake_is_complete_arrive() {
    run(async {
        let pair = Pair::with(resuming(), settings());
        for has_ticket in [false, true] {
            if has_ticket {
                get_ticket(&pair).await;
            }
            let connecting = pair
                .client
                .connect(pair.listener.local_addr(), "localhost")
                .unwrap();
            let (client, _) = connecting.into_0rtt().unwrap();
            assert_eq!(client.send_datagram(Bytes::from_static(b"early")), Ok(()));
            let serve = async {
                let server = pair.listener.accept().await.unwrap().await.unwrap();
                assert_eq!(&server.read_datagram().await.unwrap()[..], b"early");
                server
                    .send_datagram_wait(Bytes::from_static(b"late"))
                    .await
                    .unwrap();
                server.closed().await;
            };
            let use_it = async {
                assert_eq!(&client.read_datagram().await.unwrap()[..], b"late");
                client.close(VarInt::from_u32(0), b"");
            };
            tokio::join!(serve, use_it);
        }
    });
}

#[test]
fn that_the_server_takes_no_datagrams_is_told_as_soon_as_it_is_known() {
    run(async {
        let without = Settings {
            datagram_receive_enabled: false,
            ..settings()
        };
        let pair = Pair::with(without, settings());
        let connecting = pair
            .client
            .connect(pair.listener.local_addr(), "localhost")
            .unwrap();
        let (client, _) = connecting.into_0rtt().unwrap();
        let data = Bytes::from_static(b"x");
        assert_eq!(client.send_datagram(data.clone()), Ok(()));
        let serve = async { pair.listener.accept().await.unwrap().await.unwrap() };
        let (_server, refused) = tokio::join!(serve, client.send_datagram_wait(data.clone()));
        assert_eq!(refused, Err(SendDatagramError::UnsupportedByPeer));
        assert_eq!(
            client.send_datagram(data),
            Err(SendDatagramError::UnsupportedByPeer)
        );
    });
}
