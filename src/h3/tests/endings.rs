//! How requests and connections end before they are complete.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Pair, accept, answer, closed, content, get, peer_code, run, serve_echo, terminated_with};
use h3::error::{Code, ConnectionError, StreamError};
use http::{Request, Response, StatusCode};
use ringway_async::ringway::Settings;
use ringway_h3::settings;

#[test]
fn server_that_is_dropped_closes_without_an_error() {
    run(async {
        let pair = Pair::new();
        let (mut driver, mut send_request, server) = pair.connect().await;
        let mut stream = send_request.send_request(get("/")).await.unwrap();
        drop(server);
        let error = stream.recv_response().await.unwrap_err();
        assert!(error.is_h3_no_error(), "{error:?}");
        assert_eq!(peer_code(&closed(&mut driver).await), Code::H3_NO_ERROR.value());
    });
}

#[test]
fn client_closes_with_the_last_of_its_senders() {
    run(async {
        let pair = Pair::new();
        let (mut driver, mut first, server) = pair.connect().await;
        let mut second = first.clone();
        let ask = async move {
            first.send_request(get("/")).await.unwrap();
            drop(first);
            let mut stream = second.send_request(get("/")).await.unwrap();
            stream.finish().await.unwrap();
            assert_eq!(stream.recv_response().await.unwrap().status(), StatusCode::OK);
        };
        let (end, (), error) = tokio::join!(serve_echo(server), ask, closed(&mut driver));
        assert_eq!(peer_code(&end.unwrap()), Code::H3_NO_ERROR.value());
        assert!(matches!(error, ConnectionError::Local { .. }), "{error:?}");
    });
}

#[test]
fn server_that_resets_and_stops_gives_its_codes() {
    run(async {
        let pair = Pair::new();
        let (_driver, mut send_request, mut server) = pair.connect().await;
        let mut stream = send_request.send_request(get("/")).await.unwrap();
        let (_, mut served) = accept(&mut server).await;
        served.stop_stream(Code::H3_REQUEST_REJECTED);
        served.stop_sending(Code::H3_EXCESSIVE_LOAD);
        let error = stream.recv_response().await.unwrap_err();
        assert_eq!(terminated_with(&error), Code::H3_REQUEST_REJECTED);
        // As soon as the client hears of it.
        let piece = Bytes::from(vec![0; 10_000]);
        let error = loop {
            if let Err(error) = stream.send_data(piece.clone()).await {
                break error;
            }
        };
        assert_eq!(terminated_with(&error), Code::H3_EXCESSIVE_LOAD);
    });
}

#[test]
fn request_that_is_dropped_is_cancelled() {
    run(async {
        let pair = Pair::new();
        let (_driver, mut send_request, mut server) = pair.connect().await;
        let mut stream = send_request.send_request(get("/")).await.unwrap();
        stream.send_data(Bytes::from_static(b"half")).await.unwrap();
        let (_, mut served) = accept(&mut server).await;
        assert!(served.recv_data().await.unwrap().is_some());
        drop(stream);
        let error = served.recv_data().await.map(|_| ()).unwrap_err();
        assert_eq!(terminated_with(&error), Code::H3_REQUEST_CANCELLED);
        let response = served.send_response(Response::new(())).await;
        let piece = Bytes::from(vec![0; 10_000]);
        let mut result = response;
        while result.is_ok() {
            result = served.send_data(piece.clone()).await;
        }
        assert_eq!(terminated_with(&result.unwrap_err()), Code::H3_REQUEST_CANCELLED);
        // The connection lives on.
        let mut stream = send_request.send_request(get("/")).await.unwrap();
        let (_, mut served) = accept(&mut server).await;
        answer(&mut served).await;
        assert_eq!(stream.recv_response().await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn response_that_is_dropped_half_is_not_taken_for_a_whole_one() {
    run(async {
        let pair = Pair::new();
        let (_driver, mut send_request, mut server) = pair.connect().await;
        let mut stream = send_request.send_request(get("/")).await.unwrap();
        stream.finish().await.unwrap();
        let (_, mut served) = accept(&mut server).await;
        served.send_response(Response::new(())).await.unwrap();
        served.send_data(Bytes::from_static(b"half")).await.unwrap();
        stream.recv_response().await.unwrap();
        assert!(stream.recv_data().await.unwrap().is_some());
        drop(served);
        let error = content(&mut stream).await.unwrap_err();
        assert_eq!(terminated_with(&error), Code::H3_REQUEST_CANCELLED);
    });
}

#[test]
fn response_whose_task_panics_behind_its_headers_is_not_taken_for_an_empty_one() {
    run(async {
        let pair = Pair::new();
        let (_driver, mut send_request, mut server) = pair.connect().await;
        let mut stream = send_request.send_request(get("/")).await.unwrap();
        stream.finish().await.unwrap();
        let (_, mut served) = accept(&mut server).await;
        let task = tokio::spawn(async move {
            served.send_response(Response::new(())).await.unwrap();
            panic!("as it should");
        });
        assert!(task.await.unwrap_err().is_panic());
        let error = match stream.recv_response().await {
            Ok(_) => content(&mut stream).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(terminated_with(&error), Code::H3_INTERNAL_ERROR);
    });
}

#[test]
fn answer_before_the_request_is_complete_stops_it_without_an_error() {
    run(async {
        let pair = Pair::new();
        let (_driver, mut send_request, mut server) = pair.connect().await;
        let request = Request::post("https://localhost/").body(()).unwrap();
        let (mut send, mut receive) = send_request.send_request(request).await.unwrap().split();
        let (_, mut served) = accept(&mut server).await;
        answer(&mut served).await;
        drop(served);
        assert_eq!(receive.recv_response().await.unwrap().status(), StatusCode::OK);
        assert!(receive.recv_data().await.unwrap().is_none());
        let piece = Bytes::from(vec![0; 10_000]);
        let error = loop {
            if let Err(error) = send.send_data(piece.clone()).await {
                break error;
            }
        };
        assert_eq!(terminated_with(&error), Code::H3_NO_ERROR);
    });
}

#[test]
fn request_whose_end_has_arrived_is_not_stopped() {
    run(async {
        let pair = Pair::new();
        let (_driver, mut send_request, mut server) = pair.connect().await;
        let mut stream = send_request.send_request(get("/")).await.unwrap();
        stream.send_data(Bytes::from_static(b"unread")).await.unwrap();
        stream.finish().await.unwrap();
        let (_, mut served) = accept(&mut server).await;
        served.recv_data().await.unwrap();
        served.recv_data().await.unwrap();
        answer(&mut served).await;
        drop(served);
        assert_eq!(stream.recv_response().await.unwrap().status(), StatusCode::OK);
        assert!(stream.recv_data().await.unwrap().is_none());
    });
}

#[test]
fn goaway_rejects_later_requests_and_ends_when_all_are_answered() {
    run(async {
        let pair = Pair::new();
        let (mut driver, mut send_request, mut server) = pair.connect().await;
        let mut first = send_request.send_request(get("/1")).await.unwrap();
        let mut second = send_request.send_request(get("/2")).await.unwrap();
        let serve = async {
            let (_, mut stream) = accept(&mut server).await;
            server.shutdown(0).await.unwrap();
            answer(&mut stream).await;
            drop(stream);
            assert!(server.accept().await.unwrap().is_none());
        };
        let ask = async {
            assert_eq!(first.recv_response().await.unwrap().status(), StatusCode::OK);
            let error = second.recv_response().await.unwrap_err();
            assert_eq!(terminated_with(&error), Code::H3_REQUEST_REJECTED);
        };
        tokio::join!(serve, ask);
        drop((first, second));
        // As soon as the client has read the GOAWAY, it asks no more.
        let error = loop {
            tokio::select! {
                biased;
                error = closed(&mut driver) => panic!("{error:?}"),
                result = send_request.send_request(get("/3")) => if let Err(error) = result { break error },
            }
        };
        assert!(matches!(error, StreamError::RemoteClosing), "{error:?}");
        drop(server);
        assert_eq!(peer_code(&closed(&mut driver).await), Code::H3_NO_ERROR.value());
    });
}

#[test]
fn goaway_leaves_room_for_requests_that_are_on_their_way() {
    run(async {
        let pair = Pair::new();
        let (_driver, mut send_request, mut server) = pair.connect().await;
        let mut streams = Vec::new();
        for path in ["/1", "/2", "/3", "/4"] {
            streams.push(send_request.send_request(get(path)).await.unwrap());
        }
        let serve = async {
            let mut served = vec![accept(&mut server).await];
            // Two more.
            server.shutdown(2).await.unwrap();
            served.push(accept(&mut server).await);
            served.push(accept(&mut server).await);
            for ((request, mut stream), path) in served.into_iter().zip(["/1", "/2", "/3"]) {
                assert_eq!(request.uri().path(), path);
                answer(&mut stream).await;
            }
            assert!(server.accept().await.unwrap().is_none());
        };
        let ask = async {
            let mut last = streams.pop().unwrap();
            for mut stream in streams {
                assert_eq!(stream.recv_response().await.unwrap().status(), StatusCode::OK);
            }
            let error = last.recv_response().await.unwrap_err();
            assert_eq!(terminated_with(&error), Code::H3_REQUEST_REJECTED);
        };
        tokio::join!(serve, ask);
    });
}

#[test]
fn client_that_goes_away_ends_the_server() {
    run(async {
        let pair = Pair::new();
        let (mut driver, _send_request, mut server) = pair.connect().await;
        driver.shutdown(0).await.unwrap();
        assert!(server.accept().await.unwrap().is_none());
        drop(server);
        assert_eq!(peer_code(&closed(&mut driver).await), Code::H3_NO_ERROR.value());
    });
}

#[test]
fn silence_is_a_timeout_on_both_sides() {
    run(async {
        let pair = Pair::with(Settings {
            idle_timeout: Duration::from_millis(200),
            ..settings()
        });
        let (mut driver, mut send_request, mut server) = pair.connect().await;
        let mut stream = send_request.send_request(get("/")).await.unwrap();
        let (_, mut served) = accept(&mut server).await;
        let client = async {
            let error = stream.recv_response().await.unwrap_err();
            assert!(
                matches!(error, StreamError::ConnectionError(ConnectionError::Timeout)),
                "{error:?}"
            );
            assert!(matches!(closed(&mut driver).await, ConnectionError::Timeout));
        };
        let server = async {
            let error = served.recv_data().await.map(|_| ()).unwrap_err();
            assert!(
                matches!(error, StreamError::ConnectionError(ConnectionError::Timeout)),
                "{error:?}"
            );
            let error = server.accept().await.err().unwrap();
            assert!(matches!(error, ConnectionError::Timeout), "{error:?}");
        };
        tokio::join!(client, server);
    });
}

#[test]
fn server_that_falls_silent_in_its_response_is_a_timeout() {
    run(async {
        let pair = Pair::with(Settings {
            idle_timeout: Duration::from_millis(500),
            ..settings()
        });
        let (mut driver, mut send_request, mut server) = pair.connect().await;
        let mut stream = send_request.send_request(get("/")).await.unwrap();
        stream.finish().await.unwrap();
        let (_, mut served) = accept(&mut server).await;
        served.send_response(Response::new(())).await.unwrap();
        served.send_data(Bytes::from_static(b"half")).await.unwrap();
        assert_eq!(stream.recv_response().await.unwrap().status(), StatusCode::OK);
        let error = content(&mut stream).await.unwrap_err();
        assert!(
            matches!(error, StreamError::ConnectionError(ConnectionError::Timeout)),
            "{error:?}"
        );
        assert!(matches!(closed(&mut driver).await, ConnectionError::Timeout));
    });
}
