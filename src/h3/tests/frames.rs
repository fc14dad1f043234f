//! What a peer that is not ours sends, byte for byte.

mod common;

use std::time::Duration;

use bytes::{Buf, Bytes};
use common::{Pair, closed, get, peer_code, run, serve_echo};
use h3::error::{Code, ConnectionError, LocalError, StreamError};
use ringway_async::{Connection as Transport, ConnectionError as TransportClosed, SendStream};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CANCEL_PUSH: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// Of those that nobody knows (RFC 9114 section 7.2.8): 0x21.
const RESERVED: u8 = 0x21;

/// A frame whose type and length have one byte each.
fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 64);
    [&[kind, content.len() as u8], content].concat()
}

/// The headers of POST https://localhost/ in QPACK's static table (RFC 9204 appendix A).
fn post() -> Vec<u8> {
    let mut block = vec![0, 0, 0xd4, 0xd7, 0xc1, 0x50, 9];
    block.extend_from_slice(b"localhost");
    frame(HEADERS, &block)
}

fn trailers() -> Vec<u8> {
    // A literal name, and its value.
    frame(HEADERS, &[0, 0, 0x21, b't', 1, b'v'])
}

/// A control stream that begins as it should, and stays open.
async fn control(client: &Transport) -> SendStream {
    let mut stream = client.open_uni().await.unwrap();
    stream.write_all(&[0]).await.unwrap();
    stream.write_all(&frame(SETTINGS, &[])).await.unwrap();
    stream
}

/// The code with which the server of a raw client closes.
async fn close_code(client: &Transport) -> u64 {
    match client.closed().await {
        TransportClosed::ApplicationClosed(close) => close.error_code.into_inner(),
        error => panic!("not closed by HTTP/3: {error}"),
    }
}

/// Sends this as a request, whole or in pieces of `piece` bytes that arrive one after the other. Gives the response's bytes.
async fn ask(client: &Transport, request: &[u8], piece: usize) -> Vec<u8> {
    let (mut send, mut receive) = client.open_bi().await.unwrap();
    for piece in request.chunks(piece) {
        send.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    send.finish().unwrap();
    receive.read_to_end(1 << 20).await.unwrap()
}

/// The content of a response: of all its DATA frames.
fn content(mut response: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while response.has_remaining() {
        let mut next = || {
            let first = response.get_u8();
            let more = (1 << (first >> 6)) - 1;
            (0..more).fold(u64::from(first & 0x3f), |value, _| {
                value << 8 | u64::from(response.get_u8())
            })
        };
        let (kind, len) = (next(), next() as usize);
        if kind == u64::from(DATA) {
            all.extend_from_slice(&response[..len]);
        }
        response.advance(len);
    }
    all
}

/// Runs a raw client against the echo server; gives what it gives, and how the server has ended.
fn raw<R>(client: impl AsyncFnOnce(Transport) -> R) -> (R, ConnectionError) {
    run(async {
        let pair = Pair::new();
        let (transport, server) = pair.transport().await;
        let server = async {
            let connection = ringway_h3::Connection::new(server);
            let server = h3::server::Connection::<_, Bytes>::new(connection).await;
            match server {
                Ok(server) => serve_echo(server).await.expect("no GOAWAY"),
                // The client was quicker.
                Err(error) => error,
            }
        };
        tokio::join!(client(transport), server)
    })
}

#[test]
fn request_is_understood_wherever_it_is_split() {
    raw(async |client| {
        let _control = control(&client).await;
        let request = [
            frame(RESERVED, b"grease"),
            post(),
            frame(RESERVED, b""),
            frame(DATA, b"hello "),
            frame(RESERVED, b"x"),
            frame(DATA, b"world"),
            trailers(),
            frame(RESERVED, b"end"),
        ]
        .concat();
        for piece in (1..8).chain([request.len()]) {
            assert_eq!(
                content(&ask(&client, &request, piece).await),
                b"hello world",
                "{piece}"
            );
        }
        client.close(0x100u32.into(), b"");
    });
}

#[test]
fn sequences_of_frames_that_are_none_end_the_connection() {
    let unexpected = Code::H3_FRAME_UNEXPECTED;
    let cases: &[(&str, Vec<u8>, Code)] = &[
        ("data first", frame(DATA, b"x"), unexpected),
        ("settings first", frame(SETTINGS, &[]), unexpected),
        (
            "a frame of the control stream",
            [post(), frame(CANCEL_PUSH, &[0])].concat(),
            unexpected,
        ),
        (
            "data behind trailers",
            [post(), trailers(), frame(DATA, b"x")].concat(),
            unexpected,
        ),
        (
            "trailers twice",
            [post(), frame(DATA, b"x"), trailers(), trailers()].concat(),
            unexpected,
        ),
        (
            "an end within a frame",
            [post(), vec![DATA, 5, b'x']].concat(),
            Code::H3_FRAME_ERROR,
        ),
        (
            "headers that no table has",
            frame(HEADERS, &[0, 0, 0xff, 0xff, 0x7f]),
            Code::QPACK_DECOMPRESSION_FAILED,
        ),
    ];
    for (what, request, code) in cases {
        let (found, end) = raw(async |client| {
            let _control = control(&client).await;
            let (mut send, _receive) = client.open_bi().await.unwrap();
            send.write_all(request).await.unwrap();
            send.finish().unwrap();
            close_code(&client).await
        });
        assert_eq!(found, code.value(), "{what}: {end:?}");
    }
}

#[test]
fn control_streams_that_are_none_end_the_connection() {
    let cases: &[(&str, Vec<u8>, Code)] = &[
        (
            "no settings",
            [&[0][..], &frame(GOAWAY, &[0])].concat(),
            Code::H3_MISSING_SETTINGS,
        ),
        (
            "settings twice",
            [&[0][..], &frame(SETTINGS, &[]), &frame(SETTINGS, &[])].concat(),
            Code::H3_FRAME_UNEXPECTED,
        ),
        (
            "content on it",
            [&[0][..], &frame(SETTINGS, &[]), &frame(DATA, b"x")].concat(),
            Code::H3_FRAME_UNEXPECTED,
        ),
    ];
    for (what, bytes, code) in cases {
        let (found, end) = raw(async |client| {
            let mut stream = client.open_uni().await.unwrap();
            // Byte for byte.
            for byte in bytes.chunks(1) {
                // Once the server has seen enough, it takes no more.
                let _ = stream.write_all(byte).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            close_code(&client).await
        });
        assert_eq!(found, code.value(), "{what}: {end:?}");
    }
}

#[test]
fn second_control_stream_ends_the_connection() {
    let (code, _) = raw(async |client| {
        let _first = control(&client).await;
        let _second = control(&client).await;
        close_code(&client).await
    });
    assert_eq!(code, Code::H3_STREAM_CREATION_ERROR.value());
}

#[test]
fn control_stream_that_ends_ends_the_connection() {
    let (code, _) = raw(async |client| {
        let mut control = control(&client).await;
        control.finish().unwrap();
        close_code(&client).await
    });
    assert_eq!(code, Code::H3_CLOSED_CRITICAL_STREAM.value());
}

#[test]
fn unidirectional_streams_of_unknown_type_are_stopped_and_nothing_else() {
    raw(async |client| {
        let _control = control(&client).await;
        let mut unknown = client.open_uni().await.unwrap();
        unknown.write_all(&[RESERVED, 1, 2, 3]).await.unwrap();
        let code = unknown.stopped().await.unwrap().unwrap();
        assert_eq!(code.into_inner(), Code::H3_STREAM_CREATION_ERROR.value());
        // Ones that end before their type is known.
        client.open_uni().await.unwrap().finish().unwrap();
        client.open_uni().await.unwrap().reset(0u32.into()).unwrap();
        let request = [post(), frame(DATA, b"on")].concat();
        assert_eq!(content(&ask(&client, &request, usize::MAX).await), b"on");
        client.close(0x100u32.into(), b"");
    });
}

#[test]
fn goaway_for_a_stream_that_is_no_request_is_an_error_of_the_server() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.transport().await;
        let connection = ringway_h3::Connection::new(client);
        let (mut driver, _send_request): (common::Driver, _) = h3::client::new(connection).await.unwrap();
        let mut stream = control(&server).await;
        stream.write_all(&frame(GOAWAY, &[1])).await.unwrap();
        let error = closed(&mut driver).await;
        assert!(
            matches!(
                error,
                ConnectionError::Local {
                    error: LocalError::Application {
                        code: Code::H3_ID_ERROR,
                        ..
                    },
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(close_code(&server).await, Code::H3_ID_ERROR.value());
    });
}

#[test]
fn bidirectional_streams_of_a_server_are_refused() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.transport().await;
        let connection = ringway_h3::Connection::new(client);
        let (mut driver, mut send_request): (common::Driver, common::SendRequest) =
            h3::client::new(connection).await.unwrap();
        let (mut stream, _receive) = server.open_bi().await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let _ = closed(&mut driver).await;
        assert_eq!(close_code(&server).await, Code::H3_STREAM_CREATION_ERROR.value());
        let Err(error) = send_request.send_request(get("/")).await else {
            panic!("a request on a closed connection");
        };
        assert!(matches!(error, StreamError::ConnectionError(_)), "{error:?}");
    });
}

#[test]
fn code_of_a_peer_that_closes_arrives() {
    let (_, end) = raw(async |client| {
        let _control = control(&client).await;
        client.close(0x107u32.into(), b"too much");
    });
    assert_eq!(peer_code(&end), Code::H3_EXCESSIVE_LOAD.value());
}
