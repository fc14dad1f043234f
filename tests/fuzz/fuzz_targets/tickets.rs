//! Tickets: whatever was sealed with a server's key, or exported by a client, is read without a panic, and written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_engine::crypto::tickets::fuzz;

fuzz_target!(|data: &[u8]| {
    fuzz::sealed(data);
    fuzz::exported(data);
});
