//! Requests and responses.

mod common;

use bytes::{Buf, Bytes};
use common::{Pair, accept, closed, content, get, peer_code, run, serve_echo};
use h3::error::Code;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use ringway_async::ringway::Settings;
use ringway_h3::settings;

#[test]
fn response_has_status_headers_content_and_trailers() {
    run(async {
        let pair = Pair::new();
        let (mut driver, mut send_request, mut server) = pair.connect().await;
        let serve = async {
            let (request, mut stream) = accept(&mut server).await;
            assert_eq!(
                (request.method().as_str(), request.uri().path()),
                ("GET", "/page")
            );
            assert_eq!(request.headers()["accept"], "text/html");
            assert!(stream.recv_data().await.unwrap().is_none());
            let response = Response::builder().status(418).header("x", "y").body(()).unwrap();
            stream.send_response(response).await.unwrap();
            stream.send_data(Bytes::from_static(b"short and ")).await.unwrap();
            stream.send_data(Bytes::from_static(b"stout")).await.unwrap();
            let trailers = HeaderMap::from_iter([("sum".parse().unwrap(), HeaderValue::from_static("15"))]);
            stream.send_trailers(trailers).await.unwrap();
            stream.finish().await.unwrap();
            let end = server.accept().await.err().unwrap();
            assert_eq!(peer_code(&end), Code::H3_NO_ERROR.value());
        };
        let ask = async {
            let mut request = get("/page");
            let html = HeaderValue::from_static("text/html");
            request.headers_mut().insert("accept", html);
            let mut stream = send_request.send_request(request).await.unwrap();
            stream.finish().await.unwrap();
            let response = stream.recv_response().await.unwrap();
            assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
            assert_eq!(response.headers()["x"], "y");
            assert_eq!(content(&mut stream).await.unwrap(), b"short and stout");
            let trailers = stream.recv_trailers().await.unwrap().unwrap();
            assert_eq!(trailers["sum"], "15");
            drop((stream, send_request));
            assert!(closed(&mut driver).await.is_h3_no_error());
        };
        tokio::join!(serve, ask);
    });
}

#[test]
fn content_of_megabytes_goes_both_ways_at_once() {
    run(async {
        let pair = Pair::new();
        let (mut driver, mut send_request, server) = pair.connect().await;
        let ask = async move {
            let request = Request::post("https://localhost/echo").body(()).unwrap();
            let (mut send, mut receive) = send_request.send_request(request).await.unwrap().split();
            let sent: Vec<u8> = (0..5_000_000u32).map(|at| (at * 7 / 3) as u8).collect();
            let write = async {
                // One larger than what a stream holds, then small ones.
                let (first, rest) = sent.split_at(3_000_000);
                send.send_data(Bytes::copy_from_slice(first)).await.unwrap();
                for piece in rest.chunks(997) {
                    send.send_data(Bytes::copy_from_slice(piece)).await.unwrap();
                }
                let trailers = HeaderMap::from_iter([("t".parse().unwrap(), HeaderValue::from_static("1"))]);
                send.send_trailers(trailers).await.unwrap();
                send.finish().await.unwrap();
            };
            let read = async {
                assert_eq!(receive.recv_response().await.unwrap().status(), StatusCode::OK);
                let mut received = Vec::new();
                while let Some(mut data) = receive.recv_data().await.unwrap() {
                    received.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                }
                assert_eq!(receive.recv_trailers().await.unwrap().unwrap()["t"], "1");
                received
            };
            let (received, ()) = tokio::join!(read, write);
            assert!(received == sent);
            drop(send_request);
        };
        let (end, (), error) = tokio::join!(serve_echo(server), ask, closed(&mut driver));
        assert!(error.is_h3_no_error(), "{error}");
        assert!(end.unwrap().is_h3_no_error());
    });
}

#[test]
fn more_requests_than_streams_are_allowed_wait_for_their_turn() {
    run(async {
        let pair = Pair::with(Settings {
            peer_bidi_stream_count: 3,
            ..settings()
        });
        let (mut driver, send_request, server) = pair.connect().await;
        let ask = async move {
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..100 {
                let mut send_request = send_request.clone();
                tasks.spawn(async move {
                    let request = Request::post("https://localhost/").body(()).unwrap();
                    let mut stream = send_request.send_request(request).await.unwrap();
                    let data = format!("request {number}");
                    stream.send_data(data.clone().into()).await.unwrap();
                    stream.finish().await.unwrap();
                    stream.recv_response().await.unwrap();
                    assert_eq!(content(&mut stream).await.unwrap(), data.as_bytes());
                });
            }
            let mut count = 0;
            while let Some(result) = tasks.join_next().await {
                result.unwrap();
                count += 1;
            }
            assert_eq!(count, 100);
        };
        let (end, (), _) = tokio::join!(serve_echo(server), ask, closed(&mut driver));
        assert!(end.unwrap().is_h3_no_error());
    });
}

#[test]
fn headers_of_many_packets_arrive() {
    run(async {
        let pair = Pair::new();
        let (mut driver, mut send_request, mut server) = pair.connect().await;
        let value = "v".repeat(3000);
        let serve = async {
            let (request, mut stream) = accept(&mut server).await;
            let mut response = Response::new(());
            *response.headers_mut() = request.headers().clone();
            stream.send_response(response).await.unwrap();
            stream.finish().await.unwrap();
            let _ = server.accept().await;
        };
        let ask = async {
            let mut request = get("/");
            for number in 0..10 {
                let name = format!("large-{number}").parse::<http::HeaderName>().unwrap();
                request.headers_mut().insert(name, value.parse().unwrap());
            }
            let mut stream = send_request.send_request(request).await.unwrap();
            stream.finish().await.unwrap();
            let response = stream.recv_response().await.unwrap();
            let large = response
                .headers()
                .values()
                .filter(|found| **found == value)
                .count();
            assert_eq!(large, 10);
            drop((stream, send_request));
        };
        tokio::join!(serve, ask, closed(&mut driver));
    });
}

#[test]
fn request_that_never_begins_does_not_hold_up_others() {
    run(async {
        let pair = Pair::new();
        let (client, server) = pair.transport().await;
        let server = h3::server::Connection::new(ringway_h3::Connection::new(server));
        let server = server.await.unwrap();
        let connection = ringway_h3::Connection::new(client.clone());
        let (mut driver, mut send_request) = h3::client::new(connection).await.unwrap();
        let ask = async move {
            let (mut idle, _receive) = client.open_bi().await.unwrap();
            // Half of a frame's header.
            idle.write_all(&[1]).await.unwrap();
            let mut stream = send_request.send_request(get("/")).await.unwrap();
            stream.finish().await.unwrap();
            assert_eq!(stream.recv_response().await.unwrap().status(), StatusCode::OK);
            drop(send_request);
        };
        tokio::join!(serve_echo(server), ask, closed(&mut driver));
    });
}
