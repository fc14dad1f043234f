mod buffered;
mod credit;

use bytes::Bytes;
use proptest::prelude::*;
use ringway_types::Instant;

use super::table::PRIORITY_DEFAULT;
use super::*;
use crate::wire::frame::{StreamFrame, ty};

const CONFIG: StreamsConfig = StreamsConfig {
    connection_window: 100_000,
    window_bidi_local: 10_000,
    window_bidi_remote: 10_000,
    window_uni: 10_000,
    peer_streams: [4, 4],
    scheduling: Scheduling::Fifo,
    send_queue_limit: 0,
    multi_receive: false,
};

fn clock() -> FlowClock {
    FlowClock {
        now: Instant::from_nanos(1_000_000_000),
        rtt: Duration::from_millis(10),
    }
}

fn params(config: &StreamsConfig) -> TransportParameters {
    TransportParameters {
        initial_max_data: config.connection_window,
        initial_max_stream_data_bidi_local: config.window_bidi_local,
        initial_max_stream_data_bidi_remote: config.window_bidi_remote,
        initial_max_stream_data_uni: config.window_uni,
        initial_max_streams_bidi: config.peer_streams[0],
        initial_max_streams_uni: config.peer_streams[1],
        ..TransportParameters::default()
    }
}

/// Streams whose peer allows what `CONFIG` says, with the event about it taken out.
fn streams(side: Side) -> Streams {
    let mut streams = Streams::new(side, CONFIG);
    streams.set_peer_params(&params(&CONFIG));
    assert!(matches!(
        streams.next_event(),
        Some(StreamEvent::StreamsAvailable { bidi: 4, uni: 4 })
    ));
    streams
}

fn events(streams: &mut Streams) -> Vec<StreamEvent> {
    std::iter::from_fn(|| streams.next_event()).collect()
}

fn open(streams: &mut Streams, dir: Dir) -> (StreamKey, StreamId) {
    let key = streams.create(dir);
    streams.start(key, true).unwrap();
    let Some(StreamEvent::Started { key: started, id }) = streams.next_event() else {
        panic!("not started")
    };
    assert_eq!(started, key);
    (key, id)
}

fn frame(id: u64, offset: u64, data: &[u8], fin: bool) -> StreamFrame<'_> {
    StreamFrame {
        id,
        offset,
        data,
        fin,
    }
}

fn code(result: Result<ReceiveAction, TransportError>) -> TransportErrorCode {
    result.unwrap_err().code
}

/// Takes a frame in as an application that consumes everything would.
fn consume(streams: &mut Streams, frame: &StreamFrame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    if let ReceiveAction::Deliver {
        key,
        offset,
        skip,
        fin,
    } = streams.on_stream(clock(), frame).unwrap()
    {
        let data = &frame.data[skip..];
        out.extend_from_slice(data);
        let delivered = StreamFrame {
            id: frame.id,
            offset,
            data,
            fin,
        };
        streams
            .on_delivered(clock(), key, delivered, data.len(), AfterReceive::Continue)
            .unwrap();
    }
    while let Some(key) = streams.next_readable() {
        let Some(ready) = streams.take_ready(key) else {
            continue;
        };
        out.extend(ready.slices().concat());
        let len = ready.len();
        streams.on_ready_delivered(clock(), key, ready, len, AfterReceive::Continue);
    }
    out
}

#[test]
fn stream_ids_name_initiator_and_direction() {
    assert_eq!(StreamId::new(Side::Client, Dir::Bi, 0).value(), 0);
    assert_eq!(StreamId::new(Side::Server, Dir::Bi, 1).value(), 5);
    assert_eq!(StreamId::new(Side::Client, Dir::Uni, 2).value(), 10);
    assert_eq!(StreamId::new(Side::Server, Dir::Uni, 0).value(), 3);
}

#[test]
fn data_in_order_is_delivered_from_the_packet_and_the_rest_is_kept() {
    let mut server = streams(Side::Server);
    let ReceiveAction::Deliver {
        key,
        offset: 0,
        skip: 0,
        fin: false,
    } = server.on_stream(clock(), &frame(0, 0, b"hello", false)).unwrap()
    else {
        panic!()
    };
    assert_eq!(
        events(&mut server),
        [StreamEvent::PeerOpened {
            key,
            id: StreamId::from_value(0)
        }]
    );
    server
        .on_delivered(clock(), key, frame(0, 0, b"hello", false), 2, AfterReceive::Pause)
        .unwrap();
    assert_eq!(
        server.on_stream(clock(), &frame(0, 5, b" world", true)).unwrap(),
        ReceiveAction::Nothing
    );
    assert_eq!(server.next_readable(), None, "paused");
    server.set_receive_enabled(key, true);
    assert_eq!(server.next_readable(), Some(key));
    let ready = server.take_ready(key).unwrap();
    assert_eq!(
        (ready.slices().concat(), ready.fin()),
        (b"llo world".to_vec(), true)
    );
    server.on_ready_delivered(clock(), key, ready, 9, AfterReceive::Continue);
    assert_eq!(events(&mut server), [StreamEvent::PeerSendShutdown { key }]);
}

#[test]
fn pending_receive_holds_back_data_and_credit_until_it_is_completed() {
    let mut server = streams(Side::Server);
    let data = vec![7; 6000];
    let ReceiveAction::Deliver { key, .. } = server.on_stream(clock(), &frame(0, 0, &data, false)).unwrap()
    else {
        panic!()
    };
    server
        .on_delivered(clock(), key, frame(0, 0, &data, false), 0, AfterReceive::Pending)
        .unwrap();
    assert_eq!(
        server.on_stream(clock(), &frame(0, 6000, b"x", false)).unwrap(),
        ReceiveAction::Nothing
    );
    assert_eq!(server.next_readable(), None);
    assert!(!server.has_control(), "no credit yet");
    assert!(
        !server.receive_complete(clock(), key, 6001),
        "more than was given"
    );
    assert!(server.receive_complete(clock(), key, 6000));
    assert_eq!(
        server.next_control(100).unwrap().frame_type,
        ty::MAX_STREAM_DATA,
        "half the window is used"
    );
    assert_eq!(server.next_readable(), Some(key));
    assert!(!server.receive_complete(clock(), key, 0), "nothing is pending");
}

#[test]
fn frame_for_a_higher_stream_opens_the_lower_ones_lazily() {
    let mut server = streams(Side::Server);
    server.on_stream(clock(), &frame(12, 0, b"x", false)).unwrap();
    assert_eq!(server.table.len(), 1, "the lower three cost nothing yet");
    server.on_stream(clock(), &frame(4, 0, b"x", false)).unwrap();
    assert_eq!(server.table.len(), 2);
    assert_eq!(
        code(server.on_stream(clock(), &frame(16, 0, b"x", false))),
        TransportErrorCode::STREAM_LIMIT_ERROR
    );
}

#[test]
fn ended_streams_cost_nothing_and_make_room_for_new_ones() {
    let mut server = streams(Side::Server);
    for index in 0..100 {
        let id = 2 + index * 4;
        assert_eq!(consume(&mut server, &frame(id, 0, b"x", true)), b"x");
        for event in events(&mut server) {
            if let StreamEvent::ShutdownComplete { key } = event {
                server.release(key);
            }
        }
        while server.next_control(100).is_some() {}
        assert_eq!(
            consume(&mut server, &frame(id, 0, b"x", true)),
            b"",
            "a repetition opens nothing"
        );
    }
    assert_eq!(server.table.len(), 0);
    assert!(server.by_id.is_empty());
}

#[test]
fn final_size_that_changes_is_an_error_however_it_is_said() {
    let case = |second: StreamFrame<'_>| {
        let mut server = streams(Side::Server);
        server.on_stream(clock(), &frame(0, 5, b"end", true)).unwrap();
        code(server.on_stream(clock(), &second))
    };
    assert_eq!(
        case(frame(0, 5, b"end!", false)),
        TransportErrorCode::FINAL_SIZE_ERROR
    );
    assert_eq!(
        case(frame(0, 5, b"en", true)),
        TransportErrorCode::FINAL_SIZE_ERROR
    );
    let mut server = streams(Side::Server);
    server.on_stream(clock(), &frame(0, 5, b"data", false)).unwrap();
    assert_eq!(
        code(server.on_stream(clock(), &frame(0, 0, b"x", true))),
        TransportErrorCode::FINAL_SIZE_ERROR
    );
    let error = server.on_reset_stream(clock(), 0, 1, 3).unwrap_err();
    assert_eq!(error.code, TransportErrorCode::FINAL_SIZE_ERROR);
}

#[test]
fn data_beyond_stream_or_connection_credit_is_an_error() {
    let mut server = streams(Side::Server);
    let data = vec![0; 10_001];
    assert_eq!(
        code(server.on_stream(clock(), &frame(0, 0, &data, false))),
        TransportErrorCode::FLOW_CONTROL_ERROR
    );
    let config = StreamsConfig {
        connection_window: 15_000,
        ..CONFIG
    };
    let mut server = Streams::new(Side::Server, config);
    server.on_stream(clock(), &frame(0, 9_999, b"x", false)).unwrap();
    assert_eq!(
        code(server.on_stream(clock(), &frame(4, 9_999, b"x", false))),
        TransportErrorCode::FLOW_CONTROL_ERROR
    );
    let mut server = Streams::new(Side::Server, config);
    server.on_stream(clock(), &frame(0, 9_999, b"x", false)).unwrap();
    let error = server.on_reset_stream(clock(), 4, 0, 9_999).unwrap_err();
    assert_eq!(error.code, TransportErrorCode::FLOW_CONTROL_ERROR);
}

#[test]
fn frames_for_streams_that_cannot_be_are_errors() {
    let mut server = streams(Side::Server);
    let state = TransportErrorCode::STREAM_STATE_ERROR;
    assert_eq!(
        code(server.on_stream(clock(), &frame(1, 0, b"x", false))),
        state,
        "ours, never opened"
    );
    assert_eq!(
        code(server.on_stream(clock(), &frame(3, 0, b"x", false))),
        state,
        "we alone send on it"
    );
    assert_eq!(
        server.on_max_stream_data(2, 1).unwrap_err().code,
        state,
        "the peer alone sends on it"
    );
    assert_eq!(server.on_stop_sending(2, 1).unwrap_err().code, state);
    assert_eq!(server.on_stop_sending(1, 1).unwrap_err().code, state);
}

#[test]
fn frames_for_streams_whose_0_rtt_was_rejected_are_errors_until_they_have_started_again() {
    // Nobody but us knows of them any more.
    let state = TransportErrorCode::STREAM_STATE_ERROR;
    let mut client = Streams::new(Side::Client, CONFIG);
    client.begin_early(&params(&CONFIG));
    events(&mut client);
    let (key, id) = open(&mut client, Dir::Bi);
    let early = SendOptions {
        may_be_early: true,
        fin: true,
        ..SendOptions::default()
    };
    client
        .send_with(key, Bytes::from_static(b"early"), 1, early)
        .unwrap();
    client.next_frame(1000).unwrap();
    // It is the one that a frame was for last, which is found without a search.
    let frame = frame(id.value(), 0, b"x", false);
    assert_eq!(client.on_max_stream_data(id.value(), 20_000), Ok(()));
    client.reject_early();
    assert_eq!(
        client.on_max_stream_data(id.value(), 20_000).unwrap_err().code,
        state
    );
    assert_eq!(client.on_stop_sending(id.value(), 1).unwrap_err().code, state);
    assert_eq!(client.on_stream_data_blocked(id.value()).unwrap_err().code, state);
    let stream = |client: &mut Streams| client.on_stream(clock(), &frame);
    assert_eq!(stream(&mut client).unwrap_err().code, state);
    client.set_peer_params(&params(&CONFIG));
    assert_eq!(client.on_max_stream_data(id.value(), 20_000), Ok(()));
    assert!(stream(&mut client).is_ok());
}

#[test]
fn start_beyond_the_limit_waits_or_fails_as_asked() {
    let mut client = streams(Side::Client);
    let keys: Vec<_> = (0..6).map(|_| client.create(Dir::Bi)).collect();
    for &key in &keys[..5] {
        client.start(key, false).unwrap();
    }
    assert_eq!(events(&mut client).len(), 4);
    assert_eq!(
        client.next_control(100).unwrap().frame_type,
        ty::STREAMS_BLOCKED_BIDI
    );
    client.start(keys[5], true).unwrap();
    assert!(matches!(
        events(&mut client)[..],
        [
            StreamEvent::StartFailed { .. },
            ..,
            StreamEvent::ShutdownComplete { .. }
        ]
    ));
    client.on_max_streams(Dir::Bi, 5);
    assert!(matches!(client.next_event(), Some(StreamEvent::Started { key, .. }) if key == keys[4]));
    assert_eq!(client.start(keys[4], true), Err(SendError::InvalidState));
}

#[test]
fn data_written_before_the_start_goes_out_afterwards() {
    let mut client = streams(Side::Client);
    let key = client.create(Dir::Bi);
    client.send(key, Bytes::from_static(b"early"), 1, true).unwrap();
    assert_eq!(client.next_frame(1000), None);
    client.start(key, true).unwrap();
    let NextFrame {
        range, id, with_len, ..
    } = client.next_frame(1000).unwrap();
    assert_eq!((range.len, range.fin, id, with_len), (5, true, 0, true));
}

#[test]
fn send_is_complete_when_its_last_byte_and_the_end_are_acknowledged() {
    let mut client = streams(Side::Client);
    let (key, _) = open(&mut client, Dir::Uni);
    client.send(key, Bytes::from(vec![1; 1000]), 11, false).unwrap();
    client.send(key, Bytes::from(vec![2; 1000]), 12, true).unwrap();
    let ranges: Vec<_> = std::iter::from_fn(|| client.next_frame(600))
        .map(|frame| frame.range)
        .collect();
    assert!(ranges.last().unwrap().fin);
    for range in ranges.iter().rev() {
        assert_eq!(events(&mut client), []);
        client.on_data_acked(range.key, range.offsets(), range.fin);
    }
    assert_eq!(
        events(&mut client),
        [
            StreamEvent::SendComplete {
                key,
                context: 11,
                canceled: false
            },
            StreamEvent::SendComplete {
                key,
                context: 12,
                canceled: false
            },
            StreamEvent::SendShutdownComplete { key, graceful: true },
            StreamEvent::ShutdownComplete { key },
        ]
    );
}

#[test]
fn lost_data_is_sent_again_once_without_taking_credit() {
    let mut client = streams(Side::Client);
    let (key, _) = open(&mut client, Dir::Uni);
    client.send(key, Bytes::from(vec![1; 3000]), 1, true).unwrap();
    let ranges: Vec<_> = std::iter::from_fn(|| client.next_frame(1003))
        .map(|frame| frame.range)
        .collect();
    let sent = client.sent;
    client.on_data_acked(ranges[1].key, ranges[1].offsets(), ranges[1].fin);
    client.on_data_lost(ranges[0]);
    client.on_data_lost(ranges[1]);
    client.on_data_lost(*ranges.last().unwrap());
    let again: Vec<_> = std::iter::from_fn(|| client.next_frame(1500))
        .map(|frame| frame.range)
        .collect();
    assert_eq!(client.sent, sent);
    assert_eq!((again[0].offset, again[0].len), (ranges[0].offset, ranges[0].len));
    assert!(again.last().unwrap().fin);
    assert!(again.iter().all(|range| range.offset != ranges[1].offset));
    assert!(!client.has_data());
}

#[test]
fn late_acknowledgement_takes_data_off_the_list_of_the_lost() {
    let mut client = streams(Side::Client);
    let (key, _) = open(&mut client, Dir::Uni);
    client.send(key, Bytes::from(vec![1; 500]), 1, false).unwrap();
    let NextFrame { range, .. } = client.next_frame(1000).unwrap();
    client.on_data_lost(range);
    assert!(client.has_data());
    client.on_data_acked(range.key, range.offsets(), range.fin);
    assert_eq!(client.next_frame(1000), None);
}

#[test]
fn blocked_sender_says_so_once_per_limit() {
    let mut client = streams(Side::Client);
    let (key, id) = open(&mut client, Dir::Uni);
    client.send(key, Bytes::from(vec![0; 20_000]), 1, false).unwrap();
    while client.next_frame(1200).is_some() {}
    let control = client.next_control(100).unwrap();
    assert_eq!(
        (control.frame_type, control.values()),
        (ty::STREAM_DATA_BLOCKED, &[id.value(), 10_000][..])
    );
    assert_eq!(client.next_control(100), None);
    client.on_max_stream_data(id.value(), 15_000).unwrap();
    while client.next_frame(1200).is_some() {}
    assert_eq!(client.next_control(100).unwrap().values(), [id.value(), 15_000]);
}

#[test]
fn connection_credit_is_shared_and_its_end_is_told() {
    let mut client = Streams::new(Side::Client, CONFIG);
    client.set_peer_params(&TransportParameters {
        initial_max_data: 12_000,
        ..params(&CONFIG)
    });
    client.next_event();
    for _ in 0..2 {
        let (key, _) = open(&mut client, Dir::Uni);
        client.send(key, Bytes::from(vec![0; 9_000]), 1, false).unwrap();
    }
    let mut total = 0;
    while let Some(NextFrame { range, .. }) = client.next_frame(1200) {
        total += u64::from(range.len);
    }
    assert_eq!(total, 12_000);
    assert_eq!(client.next_control(100).unwrap().frame_type, ty::DATA_BLOCKED);
    client.on_max_data(13_000);
    assert!(client.has_data());
}

#[test]
fn data_that_comes_after_all_credit_was_used_is_told_too() {
    let mut client = Streams::new(Side::Client, CONFIG);
    client.set_peer_params(&TransportParameters {
        initial_max_data: 5_000,
        ..params(&CONFIG)
    });
    client.next_event();
    let (key, _) = open(&mut client, Dir::Uni);
    client.send(key, Bytes::from(vec![0; 5_000]), 1, false).unwrap();
    while client.next_frame(1200).is_some() {}
    assert_eq!(client.next_control(100), None, "there is nothing more to send");
    for _ in 0..2 {
        client.send(key, Bytes::from(vec![0; 100]), 1, false).unwrap();
    }
    let control = client.next_control(100).unwrap();
    assert_eq!(
        (control.frame_type, control.values()),
        (ty::DATA_BLOCKED, &[5_000][..])
    );
    assert_eq!(client.next_control(100), None, "once");
}

#[test]
fn what_limits_keep_back_is_told_again_and_nothing_else() {
    let mut client = Streams::new(Side::Client, CONFIG);
    client.set_peer_params(&TransportParameters {
        initial_max_data: 12_000,
        initial_max_streams_uni: 2,
        ..params(&CONFIG)
    });
    client.next_event();
    assert!(!client.may_be_blocked());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (key, id) = open(&mut client, Dir::Uni);
        client.send(key, Bytes::from(vec![0; 20_000]), 1, false).unwrap();
        ids.push(id.value());
    }
    // It may not start, and is no stream of which the peer could hear.
    let waiting = client.create(Dir::Uni);
    client.start(waiting, false).unwrap();
    client.send(waiting, Bytes::from(vec![0; 100]), 1, false).unwrap();
    while client.next_frame(1200).is_some() {}
    let told = |client: &mut Streams| -> Vec<_> {
        let controls = std::iter::from_fn(|| client.next_control(100));
        controls
            .map(|control| (control.frame_type, control.values().to_vec()))
            .collect()
    };
    let first = told(&mut client);
    assert_eq!(
        first,
        [
            (ty::DATA_BLOCKED, vec![12_000]),
            (ty::STREAMS_BLOCKED_UNI, vec![2]),
            (ty::STREAM_DATA_BLOCKED, vec![ids[0], 10_000]),
        ]
    );
    for _ in 0..2 {
        client.repeat_blocked();
        assert_eq!(told(&mut client), first);
        assert!(client.may_be_blocked());
    }
    client.on_max_data(1 << 20);
    for &id in &ids {
        client.on_max_stream_data(id, 1 << 20).unwrap();
    }
    client.on_max_streams(Dir::Uni, 3);
    while client.next_frame(1200).is_some() {}
    client.repeat_blocked();
    assert_eq!(told(&mut client), []);
    assert!(!client.may_be_blocked());
}

#[test]
fn stop_sending_of_the_peer_resets_and_is_told() {
    let mut client = streams(Side::Client);
    let (key, id) = open(&mut client, Dir::Uni);
    client.send(key, Bytes::from(vec![0; 5_000]), 1, false).unwrap();
    client.next_frame(1200).unwrap();
    client.on_stop_sending(id.value(), 99).unwrap();
    assert_eq!(
        events(&mut client),
        [
            StreamEvent::PeerReceiveAborted { key, code: 99 },
            StreamEvent::SendComplete {
                key,
                context: 1,
                canceled: true
            },
            StreamEvent::SendShutdownComplete { key, graceful: false },
        ]
    );
    assert_eq!(client.next_frame(1200), None);
    let reset = client.next_control(100).unwrap();
    assert_eq!(reset.frame_type, ty::RESET_STREAM);
    assert_eq!(reset.values()[1], 99);
    client.on_control_lost(reset.token);
    let again = client.next_control(100).unwrap();
    assert_eq!(again, reset);
    client.on_control_acked(again.token);
    assert_eq!(events(&mut client), [StreamEvent::ShutdownComplete { key }]);
}

#[test]
fn reset_of_the_peer_gives_back_the_credit_of_what_was_not_consumed() {
    let mut server = streams(Side::Server);
    server.on_stream(clock(), &frame(2, 5_000, b"x", false)).unwrap();
    events(&mut server);
    server.on_reset_stream(clock(), 2, 7, 10_000).unwrap();
    assert_eq!((server.received, server.consumed), (10_000, 10_000));
    let events = events(&mut server);
    assert!(matches!(
        events[..],
        [
            StreamEvent::PeerSendAborted { code: 7, .. },
            StreamEvent::ShutdownComplete { .. }
        ]
    ));
    server.on_reset_stream(clock(), 2, 7, 10_000).unwrap();
    assert_eq!(server.received, 10_000, "a repetition counts nothing");
}

#[test]
fn data_for_a_stream_that_the_application_stopped_is_thrown_away_and_credited() {
    let mut server = streams(Side::Server);
    consume(&mut server, &frame(2, 0, b"x", false));
    let Some(StreamEvent::PeerOpened { key, .. }) = server.next_event() else {
        panic!()
    };
    server.stop_sending(clock(), key, 5);
    assert_eq!(server.next_control(100).unwrap().frame_type, ty::STOP_SENDING);
    for index in 0..9 {
        let data = [0; 1000];
        assert_eq!(
            server
                .on_stream(clock(), &frame(2, 1 + index * 1000, &data, false))
                .unwrap(),
            ReceiveAction::Nothing
        );
    }
    assert_eq!((server.received, server.consumed), (9001, 9001));
    server.on_stream(clock(), &frame(2, 9001, b"", true)).unwrap();
    assert_eq!(events(&mut server), [StreamEvent::ShutdownComplete { key }]);
}

#[test]
fn priorities_go_first_and_round_robin_takes_turns() {
    let mut client = Streams::new(
        Side::Client,
        StreamsConfig {
            scheduling: Scheduling::RoundRobin,
            send_queue_limit: 0,
            multi_receive: false,
            ..CONFIG
        },
    );
    client.set_peer_params(&params(&CONFIG));
    client.next_event();
    let keys: Vec<_> = (0..3).map(|_| open(&mut client, Dir::Uni).0).collect();
    client.set_priority(keys[2], PRIORITY_DEFAULT + 1);
    for &key in &keys {
        client.send(key, Bytes::from(vec![0; 9_000]), 0, false).unwrap();
    }
    let order: Vec<_> = std::iter::from_fn(|| client.next_frame(503))
        .map(|frame| frame.range.key)
        .collect();
    let first = order.iter().take_while(|&&key| key == keys[2]).count();
    assert!(order[first..].iter().all(|&key| key != keys[2]));
    assert!(order[first..first + 8].iter().all(|&key| key == keys[0]));
    assert!(order[first + 8..first + 16].iter().all(|&key| key == keys[1]));
    assert_eq!(order[first + 16], keys[0]);
}

#[test]
fn key_of_a_stream_that_has_gone_leads_nowhere() {
    let mut client = streams(Side::Client);
    let (old, _) = open(&mut client, Dir::Uni);
    client.reset(old, 0);
    let token = client.next_control(100).unwrap().token;
    client.on_control_acked(token);
    events(&mut client);
    client.release(old);
    let (new, _) = open(&mut client, Dir::Uni);
    assert_eq!(old.slot, new.slot);
    assert_eq!(client.send(old, Bytes::new(), 0, false), Err(SendError::Closed));
    client.on_data_lost(StreamRange {
        key: old,
        offset: 0,
        len: 5,
        fin: true,
    });
    assert!(!client.has_data());
}

#[test]
fn end_of_the_connection_ends_every_stream_once() {
    let mut client = streams(Side::Client);
    let (key, _) = open(&mut client, Dir::Bi);
    client.send(key, Bytes::from_static(b"x"), 3, false).unwrap();
    let waiting = client.create(Dir::Bi);
    client.limit = [1, 0];
    client.start(waiting, false).unwrap();
    client.close_all();
    client.close_all();
    let events = events(&mut client);
    let count = |wanted: StreamEvent| events.iter().filter(|&&event| event == wanted).count();
    assert_eq!(
        count(StreamEvent::SendComplete {
            key,
            context: 3,
            canceled: true
        }),
        1
    );
    assert_eq!(count(StreamEvent::ShutdownComplete { key }), 1);
    assert_eq!(
        count(StreamEvent::StartFailed {
            key: waiting,
            blocked: false
        }),
        1
    );
    assert_eq!(count(StreamEvent::ShutdownComplete { key: waiting }), 1);
    assert_eq!(client.send(key, Bytes::new(), 0, false), Err(SendError::Closed));
}

proptest! {
    /// Data of two streams, cut at any size, lost, repeated and reordered at will, arrive whole and in order.
    #[test]
    fn every_byte_arrives_once_and_in_order(
        sizes in prop::collection::vec((0usize..3000, 20usize..1300), 1..20),
        fates in prop::collection::vec(0u8..4, 64),
    ) {
        let mut client = streams(Side::Client);
        let mut server = streams(Side::Server);
        let (key, id) = open(&mut client, Dir::Uni);
        let mut written = Vec::new();
        for (len, _) in &sizes {
            let piece: Vec<u8> = (written.len()..written.len() + len).map(|at| (at % 251) as u8).collect();
            client.send(key, Bytes::from(piece.clone()), 0, false).unwrap();
            written.extend(piece);
        }
        client.finish_sending(key).unwrap();
        let mut received = Vec::new();
        let mut delayed: Vec<(StreamRange, Vec<u8>)> = Vec::new();
        let mut fate = fates.iter().cycle();
        let mut room = sizes.iter().map(|(_, room)| *room).cycle();
        let mut steps = 0;
        let mut deliver = |client: &mut Streams, server: &mut Streams, range: StreamRange, data: &[u8]| {
            let out = consume(server, &frame(id.value(), range.offset, data, range.fin));
            received.extend(out);
            client.on_data_acked(range.key, range.offsets(), range.fin);
            while let Some(control) = server.next_control(100) {
                match control.frame_type {
                    ty::MAX_DATA => client.on_max_data(control.values()[0]),
                    ty::MAX_STREAM_DATA => client.on_max_stream_data(id.value(), control.values()[1]).unwrap(),
                    _ => {}
                }
            }
        };
        loop {
            steps += 1;
            prop_assert!(steps < 100_000);
            while client.next_control(100).is_some() {}
            let Some(NextFrame { range, .. }) = client.next_frame(room.next().unwrap()) else {
                match delayed.pop() {
                    Some((range, data)) => { deliver(&mut client, &mut server, range, &data); continue; }
                    None => if client.has_data() { continue } else { break },
                }
            };
            let mut data = Vec::new();
            while data.len() < usize::from(range.len) {
                let at = range.offset + data.len() as u64;
                let piece = client.bytes_at(key, at, usize::from(range.len) - data.len());
                prop_assert!(!piece.is_empty());
                data.extend_from_slice(piece);
            }
            match fate.next().unwrap() {
                0 => client.on_data_lost(range),
                1 => delayed.push((range, data)),
                2 => { client.on_data_lost(range); delayed.push((range, data)); }
                _ => deliver(&mut client, &mut server, range, &data),
            }
        }
        prop_assert_eq!(received, written);
        let events = events(&mut client);
        let complete = events.iter().filter(|event| matches!(event, StreamEvent::SendComplete { canceled: false, .. })).count();
        prop_assert_eq!(complete, sizes.len());
        prop_assert_eq!(events.last(), Some(&StreamEvent::ShutdownComplete { key }));
    }
}

#[test]
fn stream_that_is_aborted_while_it_waits_to_start_hears_so_and_never_starts() {
    for how in 0..3 {
        let mut client = Streams::new(Side::Client, CONFIG);
        let key = client.create(Dir::Bi);
        client.start(key, false).unwrap();
        client.send(key, Bytes::new(), 5, false).unwrap();
        assert_eq!(
            client.next_event(),
            None,
            "a send of nothing is complete when the stream has started"
        );
        match how {
            0 => client.reset(key, 1),
            1 => client.stop_sending(clock(), key, 1),
            _ => client.abort(clock(), key, 1),
        }
        let seen = events(&mut client);
        let sent = StreamEvent::SendComplete {
            key,
            context: 5,
            canceled: true,
        };
        let failed = StreamEvent::StartFailed { key, blocked: false };
        assert_eq!(
            seen,
            [failed, sent, StreamEvent::ShutdownComplete { key }],
            "{how}"
        );
        client.start(key, false).unwrap();
        assert_eq!(
            events(&mut client),
            [StreamEvent::StartFailed { key, blocked: false }]
        );
        client.release(key);
        client.set_peer_params(&TransportParameters { ..params(&CONFIG) });
        assert!(
            !events(&mut client)
                .iter()
                .any(|event| matches!(event, StreamEvent::Started { .. }))
        );
    }
}

#[test]
fn windows_that_are_frozen_do_not_grow() {
    for frozen in [false, true] {
        let mut server = streams(Side::Server);
        server.freeze_windows(frozen);
        assert_eq!(window_after(&mut server, 0), if frozen { 16_000 } else { 26_000 });
    }
}

#[test]
fn windows_that_were_frozen_before_the_configuration_came_grow_when_they_may_again() {
    let mut server = Streams::new(Side::Server, StreamsConfig::default());
    server.freeze_windows(true);
    server.set_config(CONFIG);
    assert_eq!(window_after(&mut server, 0), 16_000);
    server.freeze_windows(false);
    assert_eq!(window_after(&mut server, 4), 26_000);
}

/// The limit that the peer is told after 6,000 bytes on a new stream.
fn window_after(server: &mut Streams, id: u64) -> u64 {
    assert_eq!(consume(server, &frame(id, 0, &[0; 6000], false)).len(), 6000);
    let mut controls = std::iter::from_fn(|| server.next_control(100));
    controls
        .find(|control| control.frame_type == ty::MAX_STREAM_DATA)
        .unwrap()
        .values()[1]
}

#[test]
fn limits_that_rise_one_by_one_are_one_event() {
    let mut server = streams(Side::Server);
    for max in 5..1000 {
        server.on_max_streams(Dir::Bi, max);
        server.on_streams_blocked(Dir::Uni, 4);
    }
    let events = events(&mut server);
    assert!(events.len() <= 3, "{events:?}");
    assert!(events.contains(&StreamEvent::StreamsAvailable { bidi: 999, uni: 4 }));
}

proptest! {
    /// The sum of what streams hold is kept while they change: whatever happens to them, it is what it would be if it were counted.
    #[test]
    fn memory_of_all_streams_is_known_without_a_count(
        steps in prop::collection::vec((0u8..10, 0u64..4, 0u64..6000, 0usize..1500), 1..120),
    ) {
        let mut server = streams(Side::Server);
        let mut keys = std::collections::HashMap::new();
        for (what, index, offset, len) in steps {
            let id = 4 * index;
            let data = vec![0; len];
            let key = keys.get(&id).copied();
            match (what, key) {
                (0, Some(key)) => server.set_receive_enabled(key, offset % 2 == 0),
                (1, Some(key)) if len > 1400 => server.stop_sending(clock(), key, 1),
                (2, _) if len > 1400 => drop(server.on_reset_stream(clock(), id, 1, 9000)),
                (3, Some(key)) => drop(server.receive_complete(clock(), key, 0)),
                (4, Some(key)) => {
                    // Something may happen to the stream while the application looks at its data.
                    if let Some(ready) = server.take_ready(key) {
                        if len % 8 == 0 {
                            server.stop_sending(clock(), key, 1);
                        }
                        let all = server.is_unordered(key);
                        let eaten = if all { ready.len() } else { ready.len().min(len) };
                        let after = if len % 3 == 0 { AfterReceive::Pause } else { AfterReceive::Continue };
                        server.on_ready_delivered(clock(), key, ready, eaten, after);
                    }
                }
                (5, _) if len > 1490 => server.close_all(),
                _ => {
                    let frame = frame(id, offset, &data, false);
                    if let Ok(ReceiveAction::Deliver { key, offset, skip, .. }) = server.on_stream(clock(), &frame) {
                        let delivered = StreamFrame { data: &data[skip..], offset, ..frame };
                        let all = server.is_unordered(key);
                        let eaten = if all { delivered.data.len() } else { delivered.data.len() / 2 };
                        let after = if what == 6 && !all { AfterReceive::Pending } else { AfterReceive::Continue };
                        server.on_delivered(clock(), key, delivered, eaten, after).unwrap();
                    }
                }
            }
            while let Some(event) = server.next_event() {
                match event {
                    StreamEvent::PeerOpened { key, id } => {
                        keys.insert(id.value(), key);
                        if id.index() % 2 == 1 {
                            server.set_unordered(key).unwrap();
                        }
                    }
                    StreamEvent::ShutdownComplete { key } => {
                        keys.retain(|_, open| *open != key);
                        server.release(key);
                    }
                    _ => {}
                }
            }
            let counted: usize = server
                .table
                .slots()
                .into_iter()
                .filter_map(|slot| server.table[slot].recv.as_ref())
                .map(|recv| {
                    let unordered = recv.unordered.as_deref().map_or(0, unordered::memory);
                    recv.assembler.memory() + unordered
                })
                .sum();
            prop_assert_eq!(server.held.0, counted);
        }
    }
}
