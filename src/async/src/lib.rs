//! Futures over [`ringway`]: connections and streams as tasks use them, on any runtime.
//!
//! There is no runtime in here, only wakers: tokio, smol or any other executor will do, and the features `tokio` and `futures` add their I/O
//! traits to streams. Everything stands on the callback API of `ringway`, in which configurations, settings, datapaths and threads are made; this
//! is what runs on them.
//!
//! ```
//! use ringway_async::{Endpoint, ringway::*};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
//! # let chain = vec![made.cert.der().clone()];
//! # let key = pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
//! # let settings = Settings { peer_bidi_stream_count: 100, ..Settings::default() };
//! # let server = Configuration::server(&[b"echo"], settings, ServerCredentials::new(chain.clone(), key))?;
//! # let client = Configuration::client(&[b"echo"], Settings::default(), ClientCredentials::roots(chain))?;
//! # futures_executor::block_on(async {
//! let registration = Registration::open("app", &ExecutionConfig::default())?;
//! let mut endpoint = Endpoint::new(&registration);
//! let listener = endpoint.listen(ListenerOptions::new("127.0.0.1:0".parse()?, &[b"echo"]), server)?;
//! endpoint.set_default_client_config(client);
//! let connecting = endpoint.connect(listener.local_addr(), "localhost")?;
//!
//! let incoming = listener.accept().await.ok_or("the listener was stopped")?;
//! let (accepted, connected) = futures_util::future::join(incoming.accept(), connecting).await;
//! let (accepted, connected) = (accepted?, connected?);
//! let (mut send, mut receive) = connected.open_bi().await?;
//! send.write_all(b"hello").await?;
//! send.finish()?;
//! let (mut answer, mut question) = accepted.accept_bi().await?;
//! answer.write_all(&question.read_to_end(1000).await?).await?;
//! answer.finish()?;
//! assert_eq!(receive.read_to_end(1000).await?, b"hello");
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! - [`manual::tasks`]: how tasks and workers meet, which threads there are, what holds how much, what a drop means.
//! - [`manual::moving_from_quinn`] and [`manual::moving_from_s2n_quic`]: their names and ours.
//! - [`block_on`], and `drive` with the feature `tokio`: tasks on the worker's own thread.
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

mod batch;
mod connecting;
mod connection;
mod counted;
mod endpoint;
mod error;
mod events;
#[cfg(feature = "futures")]
mod futures_io;
mod handover;
mod local;
mod received;
mod recv_stream;
mod send_stream;
mod shared;
mod slots;
mod stream_call;
mod stream_ref;
mod sync;
#[cfg(feature = "tokio")]
mod tokio_drive;
#[cfg(feature = "tokio")]
mod tokio_io;
mod turn;
mod var_int;
mod waiters;

pub use bytes::Bytes;
pub use ringway;

pub use self::connecting::{Connecting, ZeroRttAccepted};
pub use self::connection::Connection;
pub use self::endpoint::{Endpoint, Incoming, Listener};
pub use self::error::{
    ApplicationClose, ClosedStream, ConnectionClose, ConnectionError, ReadError, ReadExactError,
    ReadToEndError, SendDatagramError, StoppedError, WriteError,
};
pub use self::local::block_on;
pub use self::recv_stream::RecvStream;
pub use self::send_stream::SendStream;
#[cfg(feature = "tokio")]
pub use self::tokio_drive::drive;
pub use self::var_int::{Dir, StreamId, VarInt, VarIntBoundsExceeded};
pub use self::waiters::Waiter;

/// The manual.
pub mod manual {
    #[doc = include_str!("manual/tasks.md")]
    pub mod tasks {}

    #[doc = include_str!("manual/moving_from_quinn.md")]
    pub mod moving_from_quinn {}

    #[doc = include_str!("manual/moving_from_s2n_quic.md")]
    pub mod moving_from_s2n_quic {}
}
