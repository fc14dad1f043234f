//! Credit that a peer never waits for in vain: streams that it may open, bytes that it may send.

use proptest::prelude::*;
use ringway_types::Instant;

use super::super::*;
use crate::wire::frame::{StreamFrame, ty};

const WINDOW: u64 = 64 * 1024;

fn config(streams: u64, connection_window: u64) -> StreamsConfig {
    StreamsConfig {
        connection_window,
        window_bidi_local: WINDOW,
        window_bidi_remote: WINDOW,
        window_uni: WINDOW,
        peer_streams: [streams; 2],
        scheduling: Scheduling::Fifo,
        send_queue_limit: 0,
        multi_receive: false,
    }
}

/// A peer that opens unidirectional streams and sends as much as it may, and our side of it.
struct Field {
    streams: Streams,
    now: Instant,
    limit: u64,
    sent: u64,
    streams_limit: u64,
    opened: Vec<Outgoing>,
}

struct Outgoing {
    limit: u64,
    sent: u64,
    /// Our application reads it.
    reads: bool,
    key: Option<StreamKey>,
}

impl Field {
    fn new(config: StreamsConfig) -> Self {
        Field {
            streams: Streams::new(Side::Server, config),
            now: Instant::from_nanos(1_000_000_000),
            limit: config.connection_window,
            sent: 0,
            streams_limit: config.peer_streams[1],
            opened: Vec::new(),
        }
    }

    fn clock(&self) -> FlowClock {
        FlowClock {
            now: self.now,
            rtt: Duration::from_millis(10),
        }
    }

    /// Opens a stream, if that is allowed.
    fn open(&mut self) -> Option<usize> {
        let index = self.opened.len();
        if index as u64 >= self.streams_limit {
            return None;
        }
        self.opened.push(Outgoing {
            limit: WINDOW,
            sent: 0,
            reads: true,
            key: None,
        });
        self.frame(index, 0, false);
        Some(index)
    }

    /// Sends up to `len` bytes on a stream, and gives how many it might.
    fn send(&mut self, index: usize, len: u64, fin: bool) -> u64 {
        let stream = &self.opened[index];
        let len = len.min(stream.limit - stream.sent).min(self.limit - self.sent);
        self.frame(index, len, fin);
        len
    }

    fn frame(&mut self, index: usize, len: u64, fin: bool) {
        let data = vec![0; len as usize];
        let clock = self.clock();
        let stream = &mut self.opened[index];
        let mut frame = StreamFrame {
            id: 4 * index as u64 + 2,
            offset: stream.sent,
            data: &data,
            fin,
        };
        stream.sent += len;
        self.sent += len;
        let action = self.streams.on_stream(clock, &frame).expect("as it may");
        if let ReceiveAction::Deliver { key, offset, .. } = action {
            frame.offset = offset;
            let (consumed, after) = if stream.reads {
                (data.len(), AfterReceive::Continue)
            } else {
                (0, AfterReceive::Pending)
            };
            self.streams
                .on_delivered(clock, key, frame, consumed, after)
                .unwrap();
        }
        while let Some(event) = self.streams.next_event() {
            match event {
                StreamEvent::PeerOpened { key, id } => self.opened[id.index() as usize].key = Some(key),
                StreamEvent::ShutdownComplete { key } => self.streams.release(key),
                _ => {}
            }
        }
        self.hear();
    }

    /// The control frames arrive at the peer.
    fn hear(&mut self) {
        while let Some(control) = self.streams.next_control(100) {
            let values = control.values();
            match control.frame_type {
                ty::MAX_DATA => self.limit = values[0],
                ty::MAX_STREAM_DATA => self.opened[(values[0] / 4) as usize].limit = values[1],
                ty::MAX_STREAMS_UNI => self.streams_limit = values[0],
                _ => {}
            }
        }
    }
}

#[test]
fn credit_that_a_stream_holds_is_not_given_before_the_peer_knows_of_its_end() {
    for early in [false, true] {
        let mut server = Streams::new(Side::Server, config(1, WINDOW));
        let id = StreamId::new(Side::Client, Dir::Uni, 0);
        let clock = FlowClock {
            now: Instant::from_nanos(1),
            rtt: Duration::from_millis(10),
        };
        let frame = StreamFrame {
            id: id.value(),
            offset: 0,
            data: b"",
            fin: false,
        };
        server.on_stream(clock, &frame).unwrap();
        let Some(StreamEvent::PeerOpened { key, .. }) = server.next_event() else {
            panic!("no stream")
        };
        server.hold_stream_credit(key);
        server.abort_immediately(clock, key, 0);
        assert_eq!(server.next_event(), Some(StreamEvent::ShutdownComplete { key }));
        server.release(key);
        if early {
            server.give_stream_credit(id);
        }
        assert_eq!(server.peer_limit[Dir::Uni as usize], 1);
        server.on_reset_stream(clock, id.value(), 0, 0).unwrap();
        if !early {
            assert_eq!(server.peer_limit[Dir::Uni as usize], 1);
            server.give_stream_credit(id);
        }
        assert_eq!(server.peer_limit[Dir::Uni as usize], 2);
    }
}

#[test]
fn peer_that_holds_most_streams_open_never_waits_to_open_another() {
    for held in [0, 1, 50, 76, 98, 99] {
        let mut field = Field::new(config(100, 1 << 24));
        for _ in 0..held {
            field.open().unwrap();
        }
        for run in 0..500 {
            let index = field
                .open()
                .unwrap_or_else(|| panic!("waits after {run} streams beside {held}"));
            field.send(index, 10, true);
        }
    }
}

#[test]
fn streams_that_are_owed_are_announced_in_batches() {
    let mut field = Field::new(config(100, 1 << 24));
    let mut announcements = 0;
    let mut limit = field.streams_limit;
    for _ in 0..1000 {
        let index = field.open().unwrap();
        field.send(index, 1, true);
        announcements += u32::from(field.streams_limit > limit);
        limit = field.streams_limit;
    }
    assert_eq!(announcements, 40);
}

#[test]
fn peer_that_says_it_is_blocked_gets_what_it_is_owed_and_else_the_application_is_asked() {
    let mut field = Field::new(config(100, 1 << 24));
    for _ in 0..10 {
        let index = field.open().unwrap();
        field.send(index, 1, true);
    }
    assert_eq!(field.streams_limit, 100, "too few to be announced");
    // Says it although it may open 90 more: then it gets the ten.
    field.streams.on_streams_blocked(Dir::Uni, 100);
    field.hear();
    assert_eq!((field.streams_limit, field.streams.next_event()), (110, None));
    field.streams.on_streams_blocked(Dir::Uni, 100);
    assert_eq!(field.streams.next_event(), None, "it has been told of more");
    field.streams.on_streams_blocked(Dir::Uni, 110);
    let asked = StreamEvent::PeerNeedsStreams { dir: Dir::Uni };
    assert_eq!(field.streams.next_event(), Some(asked));
}

#[test]
fn peer_whose_data_is_blocked_gets_what_credit_there_is() {
    let mut field = Field::new(config(1, 1 << 20));
    let index = field.open().unwrap();
    field.send(index, 1000, false);
    assert_eq!((field.opened[index].limit, field.limit), (WINDOW, 1 << 20));
    field.streams.on_stream_data_blocked(2).unwrap();
    field.streams.on_data_blocked();
    field.hear();
    assert_eq!(
        (field.opened[index].limit, field.limit),
        (WINDOW + 1000, (1 << 20) + 1000)
    );
}

/// A stream that is read fast gets a large window. Then it is not read any more, and the peer fills it.
#[test]
fn stream_that_was_read_fast_and_is_left_pending_leaves_room_for_others() {
    let mut field = Field::new(config(4, 1 << 20));
    let first = field.open().unwrap();
    for _ in 0..200 {
        assert!(field.send(first, 40_000, false) > 0);
    }
    let window = field.opened[first].limit - field.opened[first].sent;
    assert!(window > 400 * 1024, "{window}");
    field.opened[first].reads = false;
    while field.send(first, 40_000, false) > 0 {}
    let second = field.open().unwrap();
    let sent: u64 = (0..100).map(|_| field.send(second, 1000, false)).sum();
    assert_eq!(sent, 100_000);
}

#[test]
fn windows_that_have_grown_are_given_back_by_streams_that_slow_down_or_end() {
    let mut field = Field::new(config(8, 1 << 20));
    let grow = |field: &mut Field| {
        let index = field.open().unwrap();
        for _ in 0..100 {
            field.send(index, 40_000, false);
        }
        (index, field.opened[index].limit - field.opened[index].sent)
    };
    let (first, window) = grow(&mut field);
    let (second, late) = grow(&mut field);
    assert!(late < window / 4, "{late} of {window}");
    // The first one goes on, but slowly.
    for _ in 0..100 {
        field.now += Duration::from_secs(1);
        assert!(field.send(first, 10_000, false) > 0);
    }
    field.send(second, 1, true);
    let (_, window_again) = grow(&mut field);
    assert!(window_again > window / 2, "{window_again} of {window}");
}

proptest! {
    /// Whatever is read and whatever is not: the sender of a stream that is read goes on.
    #[test]
    fn reader_that_reads_is_sent_to_whatever_others_do(
        steps in prop::collection::vec((0usize..8, 1u64..60_000, prop::bool::weighted(0.1), 0u64..50), 1..400),
    ) {
        // As many streams as half of the window holds.
        let mut field = Field::new(config(8, 1 << 20));
        for _ in 0..8 {
            field.open().unwrap();
        }
        for (index, len, stalls, pause) in steps {
            field.now += Duration::from_millis(pause);
            // The last one reads for ever.
            field.opened[index].reads &= !stalls || index == 7;
            field.send(index, len, false);
        }
        for index in 0..7 {
            while field.send(index, 60_000, false) > 0 && !field.opened[index].reads {}
        }
        for _ in 0..100 {
            prop_assert_eq!(field.send(7, 10_000, false), 10_000);
        }
    }

    /// Whichever streams are held open, for however long: the peer may open as many as it is allowed, less those that are open.
    #[test]
    fn peer_that_has_streams_to_open_may_open_them(
        limit in 1u64..120, steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..500),
    ) {
        let mut field = Field::new(config(limit, 1 << 30));
        let mut open = Vec::new();
        for (opens, which) in steps {
            if (opens || open.is_empty()) && (open.len() as u64) < limit {
                let index = field.open();
                prop_assert!(index.is_some(), "{} of {} are open", open.len(), limit);
                open.extend(index);
            } else {
                let index = open.swap_remove(which.index(open.len()));
                field.send(index, 1, true);
            }
        }
    }
}
