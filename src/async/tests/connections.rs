//! How connections begin and end, as tasks see it.

mod common;

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use common::{ALPN, Pair, configurations, registration, run, settings};
use ringway::{
    Configuration, ConnectTarget, ListenerOptions, Registration, Settings, SetupError, TransportErrorCode,
};
use ringway_async::{
    ConnectionError, Endpoint, Listener, ReadError, SendDatagramError, VarInt, WriteError, block_on,
};
use tokio::time::timeout;

#[test]
fn close_of_one_side_is_told_to_everything_on_both() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let (mut send, mut receive) = client.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        let (mut answer, _question) = server.accept_bi().await.unwrap();
        let close = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            server.close(VarInt::from_u32(42), b"enough");
        };
        let (bi, uni, datagram, closed, read, ()) = tokio::join!(
            client.accept_bi(),
            client.accept_uni(),
            client.read_datagram(),
            client.closed(),
            receive.read_chunk(10),
            close
        );
        let ConnectionError::ApplicationClosed(why) = &closed else {
            panic!("{closed:?}")
        };
        assert_eq!(
            (why.error_code, &why.reason[..]),
            (VarInt::from_u32(42), "enough")
        );
        assert_eq!(bi.unwrap_err(), closed);
        assert_eq!(uni.unwrap_err(), closed);
        assert_eq!(datagram.unwrap_err(), closed);
        assert_eq!(read.unwrap_err(), ReadError::ConnectionLost(closed.clone()));
        assert_eq!(
            send.write(b"y").await,
            Err(WriteError::ConnectionLost(closed.clone()))
        );
        assert_eq!(client.open_bi().await.unwrap_err(), closed);
        assert_eq!(client.close_reason(), Some(closed.clone()));
        assert_eq!(
            client.send_datagram("z".into()),
            Err(SendDatagramError::ConnectionLost(closed))
        );
        // And here at once.
        assert_eq!(server.closed().await, ConnectionError::LocallyClosed);
        assert_eq!(
            answer.write(b"y").await,
            Err(WriteError::ConnectionLost(ConnectionError::LocallyClosed))
        );
        assert!(client.stats().await.unwrap().received_packets > 0);
    });
}

#[test]
fn drop_of_the_last_handle_closes_with_code_0_and_not_before() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let (mut send, receive) = client.open_bi().await.unwrap();
        let another = client.clone();
        drop(client);
        drop(another);
        // A stream is a handle too.
        drop(receive);
        send.write_all(b"still there").await.unwrap();
        let (_answer, mut question) = server.accept_bi().await.unwrap();
        let mut text = [0; 11];
        question.read_exact(&mut text).await.unwrap();
        assert_eq!(server.close_reason(), None);
        drop(send);
        let ConnectionError::ApplicationClosed(why) = server.closed().await else {
            panic!()
        };
        assert_eq!(why.error_code, VarInt::from_u32(0));
    });
}

#[test]
fn connecting_that_is_dropped_is_given_up() {
    run(async {
        let pair = Pair::new();
        let connecting = pair
            .client
            .connect(pair.listener.local_addr(), "localhost")
            .unwrap();
        let incoming = pair.listener.accept().await.unwrap();
        drop(connecting);
        // It is over before it was accepted, or soon afterwards.
        if let Ok(connection) = incoming.await {
            connection.closed().await;
        }
        wait_until_none(&pair).await;
    });
}

/// No connection is left at either end.
async fn wait_until_none(pair: &Pair) {
    let left = || {
        [&pair.server, &pair.client].map(|endpoint| {
            let stats = endpoint.registration().stats();
            stats
                .iter()
                .map(|partition| partition.worker.connections)
                .sum::<u64>()
        })
    };
    while left() != [0, 0] {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn client_that_is_not_accepted_is_refused() {
    run(async {
        let pair = Pair::new();
        let connect = || {
            pair.client
                .connect(pair.listener.local_addr(), "localhost")
                .unwrap()
        };
        let connecting = connect();
        let incoming = pair.listener.accept().await.unwrap();
        assert_eq!(
            (incoming.alpn(), incoming.server_name()),
            (ALPN, Some("localhost"))
        );
        drop(incoming);
        assert_eq!(
            refused(connecting.await.unwrap_err()),
            TransportErrorCode::CONNECTION_REFUSED
        );
        let connecting = connect();
        let code = TransportErrorCode::crypto(49);
        pair.listener.accept().await.unwrap().refuse_with(code).unwrap();
        assert_eq!(refused(connecting.await.unwrap_err()), code);
        // Those that wait when it stops.
        let connecting = connect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        pair.listener.stop();
        assert!(pair.listener.accept().await.is_none());
        assert_eq!(
            refused(connecting.await.unwrap_err()),
            TransportErrorCode::CONNECTION_REFUSED
        );
    });
}

#[test]
fn server_whose_certificate_is_not_trusted_is_no_connection() {
    run(async {
        let pair = Pair::new();
        let (_, stranger) = configurations(settings(), settings());
        let target = ConnectTarget::new(pair.listener.local_addr(), "localhost");
        let connecting = pair.client.connect_with(&stranger, &target).unwrap();
        let accepted = pair.listener.accept().await.unwrap().accept();
        let error = connecting.await.unwrap_err();
        assert!(matches!(error, ConnectionError::TransportError(_)), "{error:?}");
        let error = accepted.await.unwrap_err();
        assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error:?}");
    });
}

#[test]
fn server_that_is_not_there_is_a_timeout_or_unreachable() {
    run(async {
        let mut client = Endpoint::new(&registration());
        let client_settings = Settings {
            handshake_idle_timeout: Duration::from_millis(300),
            ..settings()
        };
        client.set_default_client_config(configurations(settings(), client_settings).1);
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let connecting = client.connect(silent.local_addr().unwrap(), "localhost");
        assert_eq!(connecting.unwrap().await.unwrap_err(), ConnectionError::TimedOut);
    });
}

#[test]
fn connect_without_a_configuration_says_what_to_call() {
    let client = Endpoint::new(&registration());
    let error = client.connect("127.0.0.1:1".parse().unwrap(), "localhost");
    let SetupError::InvalidConfig(text) = error.unwrap_err() else {
        panic!()
    };
    assert!(text.contains("set_default_client_config"), "{text}");
}

#[test]
fn both_sides_know_of_each_other_what_the_handshake_has_agreed_on() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        assert_eq!(client.remote_address(), pair.listener.local_addr());
        assert_eq!(server.remote_address().port(), client.local_address().port());
        assert_ne!(client.stable_id(), server.stable_id());
        assert_eq!(client.alpn().as_deref(), Some(ALPN));
        assert_eq!(
            server.handshake_data().unwrap().server_name.as_deref(),
            Some("localhost")
        );
        assert_eq!(client.peer_identity().unwrap().len(), 1);
        assert!(server.peer_identity().is_none());
        let export = |connection: &ringway_async::Connection| {
            let mut key = [0; 32];
            connection
                .export_keying_material(&mut key, b"label", b"context")
                .unwrap();
            key
        };
        assert_eq!(export(&client), export(&server));
        assert!(client.export_keying_material(&mut [], b"", b"").is_err());
        assert!(client.stats().await.unwrap().sent_packets > 0);
    });
}

#[test]
fn connections_end_with_their_registration() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.connect().await;
        let (mut send, _receive) = client.open_bi().await.unwrap();
        let Pair {
            server: endpoint,
            client: client_endpoint,
            listener,
            ..
        } = pair;
        drop(client_endpoint);
        assert_eq!(client.closed().await, ConnectionError::LocallyClosed);
        assert!(send.write(b"x").await.is_err());
        assert!(client.stats().await.is_ok());
        assert!(matches!(
            server.closed().await,
            ConnectionError::ApplicationClosed(_)
        ));
        drop((listener, endpoint));
    });
}

#[test]
fn configuration_of_a_listener_can_be_replaced() {
    run(async {
        let pair = Pair::new();
        let (wrong, _) = configurations(settings(), settings());
        pair.listener.set_server_config(wrong);
        let connecting = pair
            .client
            .connect(pair.listener.local_addr(), "localhost")
            .unwrap();
        let accepted = pair.listener.accept().await.unwrap().accept();
        let (client, server) = tokio::join!(connecting, accepted);
        assert!(client.is_err() && server.is_err());
    });
}

#[test]
fn second_listener_for_the_same_protocol_is_refused() {
    let (configuration, _): (std::sync::Arc<Configuration>, _) = configurations(settings(), settings());
    let server = Endpoint::new(&registration());
    let listen = |local| {
        let options = ListenerOptions::new(local, &[ALPN]);
        server.listen(options, configuration.clone())
    };
    let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    assert!(listen(first.local_addr()).is_err());
}

/// The code with which a server has refused.
fn refused(error: ConnectionError) -> TransportErrorCode {
    match error {
        ConnectionError::ConnectionClosed(close) => close.error_code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn connections_begin_on_sockets_that_the_application_has_opened() {
    run(async {
        let (server_config, client_config) = configurations(settings(), settings());
        let adopt = |registration: &Registration| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            registration.adopt_socket(socket, None).unwrap()
        };
        let (server, client) = (adopt(&registration()), adopt(&registration()));
        let address = server.local_address();
        let options = ListenerOptions::new(address, &[ALPN]);
        let listener = Endpoint::listen_on(&server, options, server_config).unwrap();
        assert_eq!(listener.local_addr(), address);
        let target = ConnectTarget::new(address, "localhost");
        let connecting = Endpoint::connect_on(&client, &client_config, &target).unwrap();
        let incoming = listener.accept().await.unwrap();
        assert_eq!(incoming.remote_address(), client.local_address());
        let (connected, accepted) = tokio::join!(connecting, incoming.accept());
        let (connected, _accepted) = (connected.unwrap(), accepted.unwrap());
        assert_eq!(connected.remote_address(), address);
    });
}

#[test]
fn clients_of_a_partition_whose_listener_was_dropped_are_refused_and_those_of_others_served() {
    run(async {
        let (server_config, client_config) = configurations(settings(), settings());
        let mut execution = common::execution();
        let threads = execution.processors.as_ref().map_or(1, Vec::len);
        execution.processors = Some((0..2 * threads).collect());
        let server = Endpoint::new(&Registration::open("test", &execution).unwrap());
        let options = ListenerOptions::new("127.0.0.1:0".parse().unwrap(), &[ALPN]);
        let mut listeners = server.listen_on_each(options, server_config).unwrap();
        let (dropped, stays) = (listeners.remove(1), listeners.remove(0));
        let client = common::client_registration();
        let target = ConnectTarget::new(stays.local_addr(), "localhost");
        // From a port of its own each: that decides on the partition.
        let connect = || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let socket = client.adopt_socket(socket, None).unwrap();
            Endpoint::connect_on(&socket, &client_config, &target).unwrap()
        };
        // Some wait to be accepted when it goes, the others come behind it.
        let mut connecting = Vec::new();
        let mut one_for = async |listener: &Listener| {
            for _ in 0..64 {
                connecting.extend((0..16).map(|_| connect()));
                if let Ok(incoming) = timeout(Duration::from_millis(500), listener.accept()).await {
                    return incoming.unwrap();
                }
            }
            panic!("of {} ports, none leads to the partition", connecting.len());
        };
        let first = one_for(&stays).await.accept();
        let waits = one_for(&dropped).await;
        drop((waits, dropped));
        connecting.extend((0..16).map(|_| connect()));
        let accepts = async {
            let mut accepted = vec![first];
            while let Some(incoming) = stays.accept().await {
                accepted.push(incoming.accept());
            }
        };
        let ends = async {
            let (mut served, mut turned_away) = (Vec::new(), 0);
            for connecting in connecting {
                match connecting.await {
                    Ok(connection) => served.push(connection),
                    Err(error) => {
                        assert_eq!(refused(error), TransportErrorCode::CONNECTION_REFUSED);
                        turned_away += 1;
                    }
                }
            }
            assert!(!served.is_empty() && turned_away > 0, "{} served", served.len());
            stays.stop();
        };
        tokio::join!(accepts, ends);
    });
}

#[cfg(feature = "futures")]
#[test]
fn listener_is_a_stream_of_clients_until_it_is_stopped() {
    use futures_util::StreamExt;
    run(async {
        let mut pair = Pair::new();
        let address = pair.listener.local_addr();
        for _ in 0..3 {
            // It is waited for before the client is there.
            let connect = async {
                tokio::task::yield_now().await;
                pair.client.connect(address, "localhost").unwrap().await
            };
            let accept = async { pair.listener.next().await.unwrap().await };
            let (accepted, connected) = tokio::join!(accept, connect);
            assert!(accepted.is_ok() && connected.is_ok());
        }
        pair.listener.stop();
        assert!(pair.listener.next().await.is_none());
    });
}

#[test]
fn endpoint_is_idle_when_all_of_its_connections_have_ended() {
    run(async {
        let pair = Pair::new();
        let mut cx = Context::from_waker(Waker::noop());
        let client = pair.client.clone();
        client.wait_idle().await;
        let connections = [pair.connect().await, pair.connect().await];
        let open = || [&pair.server, &pair.client].map(Endpoint::open_connections);
        assert_eq!(open(), [2, 2]);
        for (left, (connection, _)) in [1, 0].into_iter().zip(&connections) {
            assert!(pin!(client.wait_idle()).poll(&mut cx).is_pending());
            connection.close(VarInt::from_u32(0), b"");
            while open() != [left; 2] {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        tokio::join!(client.wait_idle(), pair.server.wait_idle());
        // Tasks that wait for nothing else are woken.
        let (connection, _accepted) = pair.connect().await;
        let waits = [pair.server.clone(), client].map(|endpoint| {
            let wait = async move { endpoint.wait_idle().await };
            tokio::spawn(wait)
        });
        tokio::task::yield_now().await;
        connection.close(VarInt::from_u32(0), b"");
        for wait in waits {
            wait.await.unwrap();
        }
        assert_eq!(open(), [0, 0]);
    });
}

#[test]
fn peers_of_an_endpoint_that_is_idle_have_been_told() {
    let (server_config, client_config) = configurations(settings(), settings());
    let server = Endpoint::new(&registration());
    let options = ListenerOptions::new("127.0.0.1:0".parse().unwrap(), &[ALPN]);
    let listener = server.listen(options, server_config).unwrap();
    let (mut client, mut context) = common::local();
    client.set_default_client_config(client_config);
    let idle = async {
        let connecting = client.connect(listener.local_addr(), "localhost").unwrap();
        let accept = async { listener.accept().await.unwrap().await.unwrap() };
        let (connected, accepted) = futures_util::future::join(connecting, accept).await;
        connected.unwrap().close(VarInt::from_u32(7), b"");
        client.wait_idle().await;
        accepted
    };
    let too_long = async {
        smol::Timer::after(Duration::from_secs(60)).await;
        panic!("it takes too long");
    };
    let accepted = block_on(&mut context, smol::future::or(idle, too_long));
    // Nobody drives the client any more.
    let ConnectionError::ApplicationClosed(why) = run(accepted.closed()) else {
        panic!()
    };
    assert_eq!(why.error_code, VarInt::from_u32(7));
}
