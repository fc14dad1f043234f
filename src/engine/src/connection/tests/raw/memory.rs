//! What a peer can make a connection hold, whatever it sends: [`Connection::memory`] stays within its bound after each packet, before and after
//! the caller has taken the events.

use super::*;
use crate::streams::{StreamEvent, StreamsConfig};

/// A peer that sends frames in full packets, and a connection whose memory is looked at all the time.
struct Attack {
    bench: Bench,
    frames: Vec<u8>,
    /// Bytes of datagrams so far.
    sent: usize,
    open: usize,
    /// The connection may find an error in it.
    may_close: bool,
}

impl Attack {
    fn new(streams: StreamsConfig, server: bool) -> Self {
        let config = Config { streams, ..config() };
        Attack {
            bench: bench(config, server),
            frames: Vec::new(),
            sent: 0,
            open: 0,
            may_close: false,
        }
    }

    fn frame(&mut self, frame: &[u8]) {
        if self.frames.len() + frame.len() > 1400 {
            self.flush();
        }
        self.frames.extend(frame);
    }

    fn flush(&mut self) {
        if self.frames.is_empty() {
            return;
        }
        let mut frames = std::mem::take(&mut self.frames);
        frames.resize(frames.len().max(4), 0);
        self.bench.now += Duration::from_micros(100);
        self.bench.receive(&frames);
        self.sent += 1 + 8 + 4 + frames.len() + 16;
        let connection = &mut self.bench.connection;
        let before_events = connection.memory();
        while let Some(event) = connection.next_event() {
            assert!(!matches!(event, Event::Closing(_)) || self.may_close, "{event:?}");
        }
        // Streams that were open at some time since the last look.
        let mut open = self.open;
        while let Some(event) = connection.streams_mut().next_event() {
            match event {
                StreamEvent::PeerOpened { .. } => {
                    self.open += 1;
                    open += 1;
                }
                StreamEvent::ShutdownComplete { key } => {
                    connection.streams_mut().release(key);
                    self.open -= 1;
                }
                _ => {}
            }
        }
        while connection.next_reset_token_change().is_some() {}
        self.check(before_events, open);
        while self.bench.transmit().is_some() {}
        self.check(self.memory(), self.open);
    }

    fn memory(&self) -> usize {
        self.bench.connection.memory()
    }

    fn check(&self, memory: usize, open: usize) {
        let most = 4 * self.sent + 64_000 + 1000 * open;
        assert!(
            memory <= most,
            "{memory} bytes for {} in datagrams and {open} streams",
            self.sent
        );
    }
}

/// The shortest frame there is for this.
fn stream(id: u64, offset: u64, data: &[u8], fin: bool) -> Vec<u8> {
    let mut buffer = [0; 64];
    let mut w = Writer::new(&mut buffer);
    let bits = u64::from(offset != 0) << 2 | 2 | u64::from(fin);
    frame::encode_integers(&mut w, ty::STREAM | bits, &[id]);
    if offset != 0 {
        w.varint(offset);
    }
    w.varint(data.len() as u64);
    w.bytes(data);
    w.into_written().to_vec()
}

fn integers(ty: u64, values: &[u64]) -> Vec<u8> {
    let mut buffer = [0; 64];
    let mut w = Writer::new(&mut buffer);
    frame::encode_integers(&mut w, ty, values);
    w.into_written().to_vec()
}

fn wide(streams: u64) -> StreamsConfig {
    StreamsConfig {
        connection_window: 1 << 30,
        window_bidi_local: 16 << 20,
        window_bidi_remote: 16 << 20,
        window_uni: 16 << 20,
        peer_streams: [streams; 2],
        ..config().streams
    }
}

#[test]
fn one_byte_in_each_4_kib_holds_what_it_is_and_not_the_window() {
    let mut attack = Attack::new(wide(100), true);
    // 132 MB of windows, in 32,000 frames.
    for index in 1..4000 {
        for id in 0..8 {
            attack.frame(&stream(4 * id, 4096 * index, b"x", false));
        }
    }
    attack.flush();
    assert!(
        attack.sent < 340_000 && attack.memory() < 700_000,
        "{}",
        attack.memory()
    );
    // It is no different where much is held, or was: more gaps than are kept are an error.
    attack.may_close = true;
    for index in 1..4000 {
        attack.frame(&stream(0, 4096 * index + 7, b"y", false));
    }
    attack.flush();
    assert!(!attack.bench.connection.is_open() && attack.memory() < 64_000);
}

#[test]
fn bytes_with_gaps_between_are_held_at_most_fourfold_with_the_gaps() {
    for len in [1, 2, 7, 8, 9, 11, 17, 30] {
        for ids in [0..32, 40..60] {
            let mut attack = Attack::new(wide(100), true);
            for id in ids {
                for index in 0..1000 {
                    attack.frame(&stream(
                        2 * id,
                        1 + index * (len + 1),
                        &vec![1; len as usize],
                        false,
                    ));
                }
            }
            attack.flush();
        }
    }
}

#[test]
fn handshake_data_with_gaps_is_held_at_most_fourfold() {
    let mut attack = Attack::new(wide(1), false);
    for index in 0..5000 {
        let mut buffer = [0; 16];
        let mut w = Writer::new(&mut buffer);
        frame::encode_integers(&mut w, ty::CRYPTO, &[1 + 2 * index, 1]);
        w.bytes(&[4]);
        attack.frame(w.into_written());
    }
    attack.flush();
    // More gaps than are kept: all of it is discarded.
    assert!(attack.memory() < 20_000, "{}", attack.memory());
}

#[test]
fn frame_that_opens_all_streams_at_once_holds_one() {
    let mut attack = Attack::new(wide(60_000), true);
    let before = attack.memory();
    for kind in [0, 2] {
        attack.frame(&stream(4 * 59_999 + kind, 0, b"x", false));
    }
    attack.flush();
    let held = attack.memory() - before;
    assert!(held < 2 * 1024, "{held}");
}

#[test]
fn streams_hold_less_than_1_kb_each_and_nothing_when_they_have_ended() {
    for step in [1, 2] {
        let mut attack = Attack::new(wide(60_000), true);
        let ids = move || (0..10_000).map(move |index| 4 * index * step + 2);
        for id in ids() {
            attack.frame(&stream(id, 0, b"x", false));
        }
        attack.flush();
        let each = attack.memory() / 10_000;
        assert!(each < 550, "{each}");
        // The last one stays.
        for id in ids().take(9_999) {
            attack.frame(&stream(id, 1, b"", true));
        }
        attack.flush();
        assert_eq!(attack.open, 1);
        assert!(
            attack.memory() < 250_000 + 320_000 * (step as usize - 1),
            "{}",
            attack.memory()
        );
        if step == 1 {
            attack.frame(&stream(4 * 9_999 + 2, 1, b"", true));
            attack.flush();
            assert!(attack.memory() < 64_000, "{}", attack.memory());
        }
    }
}

#[test]
fn streams_that_are_reset_and_stopped_hold_nothing_afterwards() {
    let mut attack = Attack::new(wide(60_000), true);
    for index in 0..5000 {
        attack.frame(&integers(ty::RESET_STREAM, &[4 * index + 2, 0, 0]));
        attack.frame(&integers(ty::STOP_SENDING, &[4 * index, 0]));
        attack.frame(&stream(4 * index, 1, b"x", false));
    }
    attack.flush();
}

#[test]
fn floods_of_small_frames_hold_no_more_than_they_are() {
    let cid = |sequence: u64| {
        let mut buffer = [0; 64];
        let mut w = Writer::new(&mut buffer);
        let new = NewConnectionId {
            sequence,
            retire_prior_to: sequence,
            cid: ConnectionId::new(&sequence.to_be_bytes()).unwrap(),
            reset_token: ResetToken([sequence as u8; 16]),
        };
        frame::encode_new_connection_id(&mut w, &new);
        w.into_written().to_vec()
    };
    let token = |_| {
        let mut buffer = [0; 8];
        let mut w = Writer::new(&mut buffer);
        frame::encode_new_token(&mut w, b"t");
        w.into_written().to_vec()
    };
    type Flood<'a> = (&'a str, bool, &'a dyn Fn(u64) -> Vec<u8>);
    let floods: [Flood<'_>; 7] = [
        ("NEW_TOKEN", false, &token),
        ("NEW_CONNECTION_ID", true, &cid),
        ("MAX_STREAMS", true, &|index| {
            integers(ty::MAX_STREAMS_BIDI, &[200 + index])
        }),
        ("STREAMS_BLOCKED", true, &|index| {
            integers(ty::STREAMS_BLOCKED_UNI, &[index])
        }),
        ("MAX_DATA", true, &|index| {
            integers(ty::MAX_DATA, &[1 << 30 | index])
        }),
        ("PATH_CHALLENGE", true, &|index| {
            frames(|w| frame::encode_path_challenge(w, index.to_be_bytes()))
        }),
        ("IMMEDIATE_ACK", true, &|_| integers(ty::IMMEDIATE_ACK, &[])),
    ];
    for (what, server, frame) in floods {
        let mut attack = Attack::new(wide(100), server);
        // Connection IDs one in a packet: more at once are an error, and as nothing is acknowledged it comes to that in the end.
        let alone = what == "NEW_CONNECTION_ID";
        attack.may_close = alone;
        for index in 1..20_000 {
            attack.frame(&frame(index));
            if alone {
                attack.flush();
            }
        }
        attack.flush();
    }
}

#[test]
fn flood_of_the_smallest_packets_holds_no_more_than_they_are_although_nothing_is_acknowledged() {
    let mut attack = Attack::new(wide(100), true);
    for index in 0..20_000u32 {
        // Each is answered: every second number is left out.
        attack.bench.number = 2 * index;
        attack.frame(&integers(ty::PING, &[]));
        attack.flush();
    }
}
