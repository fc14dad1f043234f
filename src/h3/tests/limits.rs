//! What each end tells the other in its settings, and the limit for headers among it.

mod common;

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use common::{
    Driver, Pair, SendRequest, Server, accept, answer, closed, content, get, run, serve_echo, terminated_with,
};
use h3::ConnectionState;
use h3::error::{Code, StreamError};
use http::{HeaderMap, Request, Response, StatusCode};

/// A request of [`get`] is within it.
const LIMIT: u64 = 200;

/// Headers or trailers beyond it.
fn large() -> HeaderMap {
    HeaderMap::from_iter([("large".parse().unwrap(), "v".repeat(300).parse().unwrap())])
}

fn large_request() -> Request<()> {
    let mut request = get("/");
    *request.headers_mut() = large();
    request
}

fn large_response() -> Response<()> {
    let mut response = Response::new(());
    *response.headers_mut() = large();
    response
}

fn expect_too_big(error: &StreamError) {
    assert!(
        matches!(error, StreamError::HeaderTooBig { max_size: LIMIT, actual_size } if *actual_size > 300),
        "{error:?}"
    );
}

/// Connects to a server with this limit.
async fn limited_server(pair: &Pair) -> (Driver, SendRequest, Server) {
    let mut server = h3::server::builder();
    server.max_field_section_size(LIMIT);
    pair.connect_with(&mut h3::client::builder(), &mut server).await
}

/// Connects with this limit of the client's.
async fn limited_client(pair: &Pair) -> (Driver, SendRequest, Server) {
    let mut client = h3::client::builder();
    client.max_field_section_size(LIMIT);
    pair.connect_with(&mut client, &mut h3::server::builder()).await
}

fn has_settings(end: &impl ConnectionState) -> bool {
    matches!(end.settings(), Cow::Borrowed(_))
}

/// Until the server's settings have come.
async fn settings_of_server(driver: &mut Driver) {
    poll_fn(|cx| match driver.poll_close(cx) {
        Poll::Ready(error) => panic!("{error:?}"),
        Poll::Pending if has_settings(driver) => Poll::Ready(()),
        Poll::Pending => Poll::Pending,
    })
    .await;
}

/// Until the client's settings have come, and before any request.
async fn settings_of_client(server: &mut Server) {
    poll_fn(|cx| match server.poll_accept_request_stream(cx) {
        Poll::Ready(_) => panic!("the connection has ended, or a request came"),
        Poll::Pending if has_settings(server) => Poll::Ready(()),
        Poll::Pending => Poll::Pending,
    })
    .await;
}

#[test]
fn settings_of_each_end_reach_the_other() {
    run(async {
        let (mut client, mut server) = (h3::client::builder(), h3::server::builder());
        client.enable_datagram(true);
        server.enable_extended_connect(true);
        let pair = Pair::new();
        let (mut driver, send_request, mut server) = pair.connect_with(&mut client, &mut server).await;
        tokio::join!(settings_of_server(&mut driver), settings_of_client(&mut server));
        let found = send_request.settings();
        assert_eq!(
            (found.enable_datagram(), found.enable_extended_connect()),
            (false, true)
        );
        let found = server.settings();
        assert_eq!(
            (found.enable_datagram(), found.enable_extended_connect()),
            (true, false)
        );
    });
}

#[test]
fn headers_beyond_the_servers_limit_are_answered_with_431() {
    run(async {
        let pair = Pair::new();
        // The settings of the server, which forbid it, are read by the driver, which is not driven.
        let (_driver, mut send_request, mut server) = limited_server(&pair).await;
        let serve = async {
            let resolver = server.accept().await.unwrap().unwrap();
            expect_too_big(&resolver.resolve_request().await.err().unwrap());
            // The next one is served.
            let (_, mut stream) = accept(&mut server).await;
            answer(&mut stream).await;
        };
        let ask = async {
            let mut stream = send_request.send_request(large_request()).await.unwrap();
            stream.finish().await.unwrap();
            let response = stream.recv_response().await.unwrap();
            assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            let mut stream = send_request.send_request(get("/")).await.unwrap();
            stream.finish().await.unwrap();
            assert_eq!(stream.recv_response().await.unwrap().status(), StatusCode::OK);
        };
        tokio::join!(serve, ask);
    });
}

#[test]
fn trailers_beyond_the_servers_limit_are_an_error_of_their_request_alone() {
    run(async {
        let pair = Pair::new();
        let (_driver, mut send_request, mut server) = limited_server(&pair).await;
        let serve = async {
            let (_, mut stream) = accept(&mut server).await;
            while stream.recv_data().await.unwrap().is_some() {}
            expect_too_big(&stream.recv_trailers().await.unwrap_err());
            answer(&mut stream).await;
        };
        let ask = async {
            let mut stream = send_request.send_request(get("/")).await.unwrap();
            stream.send_data(Bytes::from_static(b"content")).await.unwrap();
            stream.send_trailers(large()).await.unwrap();
            stream.finish().await.unwrap();
            assert_eq!(stream.recv_response().await.unwrap().status(), StatusCode::OK);
        };
        tokio::join!(serve, ask);
    });
}

#[test]
fn what_is_beyond_the_limit_that_the_server_told_is_not_sent() {
    run(async {
        let pair = Pair::new();
        let (mut driver, mut send_request, server) = limited_server(&pair).await;
        settings_of_server(&mut driver).await;
        let ask = async move {
            expect_too_big(&send_request.send_request(large_request()).await.err().unwrap());
            let mut stream = send_request.send_request(get("/")).await.unwrap();
            stream.send_data(Bytes::from_static(b"content")).await.unwrap();
            expect_too_big(&stream.send_trailers(large()).await.unwrap_err());
            stream.finish().await.unwrap();
            assert_eq!(stream.recv_response().await.unwrap().status(), StatusCode::OK);
            assert_eq!(content(&mut stream).await.unwrap(), b"content");
            assert!(stream.recv_trailers().await.unwrap().is_none());
        };
        let (end, (), _) = tokio::join!(serve_echo(server), ask, closed(&mut driver));
        assert!(end.unwrap().is_h3_no_error());
    });
}

#[test]
fn what_is_beyond_the_limit_that_the_client_told_is_not_sent() {
    run(async {
        let pair = Pair::new();
        let (_driver, mut send_request, mut server) = limited_client(&pair).await;
        settings_of_client(&mut server).await;
        let mut stream = send_request.send_request(get("/")).await.unwrap();
        let (_, mut served) = accept(&mut server).await;
        expect_too_big(&served.send_response(large_response()).await.unwrap_err());
        served.send_response(Response::new(())).await.unwrap();
        expect_too_big(&served.send_trailers(large()).await.unwrap_err());
        served.finish().await.unwrap();
        let response = stream.recv_response().await.unwrap();
        assert!(response.headers().is_empty());
        assert!(stream.recv_data().await.unwrap().is_none());
        assert!(stream.recv_trailers().await.unwrap().is_none());
    });
}

#[test]
fn response_beyond_the_clients_limit_is_cancelled() {
    run(async {
        let pair = Pair::new();
        let (_driver, mut send_request, mut server) = limited_client(&pair).await;
        // The server takes its own for what the client's are.
        server.set_settings(server.settings().into_owned());
        let mut stream = send_request.send_request(get("/")).await.unwrap();
        let (_, mut served) = accept(&mut server).await;
        served.send_response(large_response()).await.unwrap();
        expect_too_big(&stream.recv_response().await.unwrap_err());
        // As soon as the server hears of it.
        let piece = Bytes::from(vec![0; 10_000]);
        let error = loop {
            if let Err(error) = served.send_data(piece.clone()).await {
                break error;
            }
        };
        assert_eq!(terminated_with(&error), Code::H3_REQUEST_CANCELLED);
        // The connection lives on; trailers are no different.
        let mut stream = send_request.send_request(get("/")).await.unwrap();
        let (_, mut served) = accept(&mut server).await;
        served.send_response(Response::new(())).await.unwrap();
        served.send_trailers(large()).await.unwrap();
        served.finish().await.unwrap();
        assert_eq!(stream.recv_response().await.unwrap().status(), StatusCode::OK);
        assert!(stream.recv_data().await.unwrap().is_none());
        expect_too_big(&stream.recv_trailers().await.unwrap_err());
    });
}
