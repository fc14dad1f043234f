//! Tickets: whatever was sealed with a server's key, or exported by a client, is read without a panic, and written as it was read. The first byte says
//! which of them it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_engine::crypto::tickets::fuzz;

fuzz_target!(|data: &[u8]| {
    match data {
        [0, text @ ..] => fuzz::sealed(text),
        [_, text @ ..] => fuzz::exported(text),
        [] => {}
    }
});
