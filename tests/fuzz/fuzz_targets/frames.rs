//! Frames: nothing panics, and ranges of acknowledgements are disjoint and descending.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_engine::wire::frame::{Frame, FrameReader};

fuzz_target!(|data: &[u8]| {
    let mut reader = FrameReader::new(data);
    while let Some(Ok(frame)) = reader.next_frame() {
        match frame {
            Frame::Ack(ack) => {
                let mut below = u64::MAX;
                for range in ack.ranges() {
                    assert!(range.start < range.end && range.end < below);
                    below = range.start;
                }
            }
            Frame::Stream(stream) => assert!(stream.offset + (stream.data.len() as u64) < 1 << 62),
            _ => {}
        }
    }
});
