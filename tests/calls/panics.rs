//! What of the application panics on a worker's thread harms its own connection at most.

use std::sync::Arc;

use ringway::{
    Connection, Direction, EventStatus, ResumptionTicket, Settings, Stream, StreamEvent, TicketScope,
    TicketStore,
};
use ringway_tests::{configurations, settings};

use crate::scene::{Scene, echo, open};

struct Panics;

impl TicketStore for Panics {
    fn put(&self, _: &TicketScope, _: ResumptionTicket) {
        panic!("as the test asked");
    }

    fn take(&self, _: &TicketScope) -> Option<ResumptionTicket> {
        panic!("as the test asked");
    }
}

#[test]
fn ticket_store_that_panics_costs_resumption_and_nothing_else() {
    let (accepting, connecting) = configurations(settings(), Settings::default());
    connecting.set_ticket_store(Arc::new(Panics));
    let mut scene = Scene::configured(accepting, connecting, |connection, event| {
        if let ringway::ConnectionEvent::Connected { .. } = event {
            let _ = connection.send_resumption_ticket(b"");
        }
        echo(connection, event)
    });
    let (connection, log) = scene.connect();
    let (stream, streams) = open(&connection, Direction::Bidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send("x".into(), 0, true).unwrap();
    scene.settle();
    assert!(
        log.has("Connected") && streams.has("PeerSendShutdown"),
        "{:?}",
        log.all()
    );
    assert!(!log.has("Shutdown"), "{:?}", log.all());
}

/// What a handler may hold: it asks its connection when it goes, which must not wait for the worker that drops it, and then panics.
struct Troublemaker(Connection);

impl Drop for Troublemaker {
    fn drop(&mut self) {
        assert!(self.0.stats().is_ok(), "as the test asked");
    }
}

#[test]
fn handler_that_waits_or_panics_when_it_is_dropped_harms_nobody() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, log) = scene.connect();
    let (other, _) = scene.connect();
    let held = Troublemaker(connection.clone());
    let handler = move |_: &Stream, _: StreamEvent<'_>| {
        let _ = &held;
        EventStatus::Done
    };
    let stream = Stream::open(&connection, Direction::Bidirectional, handler).unwrap();
    stream.start(false).unwrap();
    stream.send("x".into(), 0, true).unwrap();
    scene.settle();
    assert_eq!(stream.send("y".into(), 0, true), Err(ringway::CallError::Closed));
    for connection in [&connection, &other] {
        let (stream, streams) = open(connection, Direction::Bidirectional, EventStatus::Done);
        stream.start(false).unwrap();
        stream.send("x".into(), 0, true).unwrap();
        scene.settle();
        assert!(streams.has("PeerSendShutdown"), "{:?}", streams.all());
    }
    assert!(!log.has("Shutdown"), "{:?}", log.all());
}
