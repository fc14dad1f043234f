//! What of the application panics on a worker's thread harms its own connection at most.

use std::sync::Arc;

use ringway::{Direction, EventStatus, ResumptionTicket, Settings, TicketScope, TicketStore};
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
