//! Futures over [`ringway`]: connections and streams as tasks use them, on any runtime.
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

mod connecting;
mod connection;
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
mod sync;
#[cfg(feature = "tokio")]
mod tokio_drive;
#[cfg(feature = "tokio")]
mod tokio_io;
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
