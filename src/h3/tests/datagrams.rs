//! Datagrams (RFC 9297) by the traits of h3-datagram.
#![cfg(feature = "datagram")]

mod common;

use bytes::Bytes;
use common::{Driver, Pair, accept, closed, get, peer_code, run};
use h3::error::{Code, ConnectionError, LocalError, StreamError};
use h3_datagram::datagram_handler::{HandleDatagramsExt, SendDatagramError};
use ringway_async::ConnectionError as TransportClosed;
use ringway_async::ringway::Settings;
use ringway_h3::{Connection, settings};

#[test]
fn datagrams_of_a_request_go_both_ways() {
    run(async {
        let pair = Pair::new();
        let (driver, mut send_request, mut server) = pair.connect().await;
        let stream = send_request.send_request(get("/")).await.unwrap();
        let (_, served) = accept(&mut server).await;
        let mut ask = driver.get_datagram_sender(stream.id());
        let mut answer = server.get_datagram_sender(served.id());
        let (mut asked, mut answered) = (server.get_datagram_reader(), driver.get_datagram_reader());
        for content in [Bytes::new(), Bytes::from_static(b"x"), Bytes::from(vec![7; 1000])] {
            ask.send_datagram(content.clone()).unwrap();
            let found = asked.read_datagram().await.unwrap();
            assert_eq!((found.stream_id(), found.payload()), (served.id(), &content));
            answer.send_datagram(found.into_payload()).unwrap();
            let found = answered.read_datagram().await.unwrap();
            assert_eq!((found.stream_id(), found.payload()), (stream.id(), &content));
        }
    });
}

#[test]
fn datagram_that_no_packet_holds_is_refused_and_the_next_one_sent() {
    run(async {
        let pair = Pair::new();
        let (driver, mut send_request, server) = pair.connect().await;
        let stream = send_request.send_request(get("/")).await.unwrap();
        let mut sender = driver.get_datagram_sender(stream.id());
        let error = sender.send_datagram(Bytes::from(vec![0; 70_000])).unwrap_err();
        assert!(matches!(error, SendDatagramError::TooLarge { .. }), "{error:?}");
        sender.send_datagram(Bytes::from_static(b"small")).unwrap();
        let found = server.get_datagram_reader().read_datagram().await.unwrap();
        assert_eq!(found.payload(), "small");
    });
}

#[test]
fn datagrams_that_the_peer_does_not_take_are_not_available() {
    run(async {
        let pair = Pair::with(Settings {
            datagram_receive_enabled: false,
            ..settings()
        });
        let (driver, mut send_request, _server) = pair.connect().await;
        let stream = send_request.send_request(get("/")).await.unwrap();
        let mut sender = driver.get_datagram_sender(stream.id());
        let error = sender.send_datagram(Bytes::from_static(b"x")).unwrap_err();
        assert!(
            matches!(error, SendDatagramError::NotAvailable { .. }),
            "{error:?}"
        );
    });
}

#[test]
fn datagrams_beyond_what_may_wait_are_dropped_without_an_error() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.transport().await;
        let (driver, mut send_request): (Driver, common::SendRequest) =
            h3::client::new(Connection::new(client.clone())).await.unwrap();
        let stream = send_request.send_request(get("/")).await.unwrap();
        let mut sender = driver.get_datagram_sender(stream.id());
        let content = Bytes::from(vec![0; 1000]);
        for _ in 0..100 {
            while client.send_datagram(content.clone()).is_ok() {}
            sender.send_datagram(content.clone()).unwrap();
        }
        assert!(server.close_reason().is_none());
    });
}

#[test]
fn datagrams_end_as_their_connection_does() {
    run(async {
        let pair = Pair::new();
        let (mut driver, mut send_request, server) = pair.connect().await;
        let stream = send_request.send_request(get("/")).await.unwrap();
        let (mut sender, mut reader) = (
            driver.get_datagram_sender(stream.id()),
            driver.get_datagram_reader(),
        );
        drop(server);
        let error = reader.read_datagram().await.unwrap_err();
        assert!(error.is_h3_no_error(), "{error:?}");
        let error = sender.send_datagram(Bytes::from_static(b"x")).unwrap_err();
        let SendDatagramError::ConnectionError { 0: error, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(peer_code(&error), Code::H3_NO_ERROR.value());
        assert_eq!(peer_code(&closed(&mut driver).await), Code::H3_NO_ERROR.value());
    });
}

#[test]
fn datagram_that_names_no_request_ends_the_connection() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.transport().await;
        let mut server: common::Server = h3::server::Connection::new(Connection::new(server))
            .await
            .unwrap();
        // The first of two bytes.
        client.send_datagram(Bytes::from_static(&[0x40])).unwrap();
        let error = server.get_datagram_reader().read_datagram().await.unwrap_err();
        let expected = |error: &ConnectionError| {
            matches!(
                error,
                ConnectionError::Local {
                    error: LocalError::Application {
                        code: Code::H3_DATAGRAM_ERROR,
                        ..
                    },
                    ..
                }
            )
        };
        assert!(
            matches!(&error, StreamError::ConnectionError(error) if expected(error)),
            "{error:?}"
        );
        let error = server.accept().await.err().unwrap();
        assert!(expected(&error), "{error:?}");
        let TransportClosed::ApplicationClosed(close) = client.closed().await else {
            panic!("not closed by HTTP/3");
        };
        assert_eq!(close.error_code.into_inner(), Code::H3_DATAGRAM_ERROR.value());
    });
}
