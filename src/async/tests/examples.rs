//! Every example runs and does what it says.
#![cfg(feature = "tokio")]
#![allow(dead_code, reason = "the examples' own main functions")]
#![allow(
    clippy::duplicate_mod,
    reason = "each example has what they have in common, as it would by itself"
)]

#[path = "../examples/echo.rs"]
mod echo;
#[path = "../examples/from_quinn.rs"]
mod from_quinn;
#[path = "../examples/from_s2n_quic.rs"]
mod from_s2n_quic;
#[path = "../examples/thread_per_core.rs"]
mod thread_per_core;

fn run<R>(future: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

#[test]
fn echo_comes_back() {
    assert_eq!(run(echo::run("hello")).unwrap(), "hello");
}

#[test]
fn each_thread_answers_its_clients() {
    assert_eq!(thread_per_core::run(3, 50).unwrap(), 150);
}

#[test]
fn program_for_quinn_does_what_it_did() {
    let seen = run(from_quinn::run()).unwrap();
    assert_eq!(
        (&seen.echo[..], &seen.datagram[..]),
        (&b"hello"[..], &b"datagram"[..])
    );
    assert!((1 << 20..4 << 20).contains(&seen.received.0), "{seen:?}");
    assert_eq!(seen.received.1, 4 << 20);
}

#[test]
fn program_for_s2n_quic_does_what_it_did() {
    let seen = run(from_s2n_quic::run()).unwrap();
    assert_eq!(
        (&seen.echo[..], &seen.datagram[..]),
        (&b"hello"[..], &b"datagram"[..])
    );
    assert_eq!(seen.cancelled, ringway_async::VarInt::from_u32(23));
    assert_eq!(seen.received, 4 << 20);
}
