//! A small program as s2n-quic's users write them, moved over: an echo, a file transfer that is cancelled and one that is not, and datagrams. See the
//! page `moving_from_s2n_quic` of the manual.
#![allow(clippy::print_stdout, reason = "what it prints")]

use std::time::Duration;

use ringway::{ExecutionConfig, ListenerOptions, Registration, Settings};
use ringway_async::{Bytes, Connection, Endpoint, ReadError, RecvStream, SendStream, VarInt, ringway};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[path = "common/mod.rs"]
mod common;
use common::{Done, configurations};

/// The sender gives up.
const GIVEN_UP: VarInt = VarInt::from_u32(23);
const FILE_LEN: usize = 4 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    println!("{:?}", run().await?);
    Ok(())
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) echo: Vec<u8>,
    /// What the server has got of the file that was cancelled ended with this code; the length of the whole one.
    pub(crate) cancelled: VarInt,
    pub(crate) received: usize,
    pub(crate) datagram: Bytes,
}

pub(crate) async fn run() -> Done<Seen> {
    let settings = Settings {
        peer_bidi_stream_count: 100,
        peer_uni_stream_count: 100,
        datagram_receive_enabled: true,
        ..Settings::default()
    };
    let (server_config, client_config) = configurations(b"files", settings)?;
    let registration = Registration::open("from-s2n-quic", &ExecutionConfig::default())?;
    let mut client = Endpoint::new(&registration);
    let server = client.listen(
        ListenerOptions::new("127.0.0.1:0".parse()?, &[b"files"]),
        server_config,
    )?;
    let address = server.local_addr();
    let serving = tokio::spawn(async move {
        let connection = server.accept().await.ok_or("the server was closed")?.await?;
        serve(connection).await
    });

    client.set_default_client_config(client_config);
    let connection = client.connect(address, "localhost")?.await?;

    let (mut send, mut receive) = connection.open_bi().await?;
    // As tokio has it.
    AsyncWriteExt::write_all(&mut send, b"hello").await?;
    send.shutdown().await?;
    let mut echo = Vec::new();
    AsyncReadExt::read_to_end(&mut receive, &mut echo).await?;

    let mut cancelled = connection.open_uni().await?;
    send_file(&mut cancelled, FILE_LEN / 4).await?;
    cancelled.reset(GIVEN_UP)?;
    let mut whole = connection.open_uni().await?;
    send_file(&mut whole, FILE_LEN).await?;
    whole.finish()?;
    // All has arrived.
    whole.stopped().await?;

    connection.send_datagram(Bytes::from_static(b"datagram"))?;
    let datagram = tokio::time::timeout(Duration::from_secs(10), connection.read_datagram()).await??;
    connection.close(0u32.into(), b"");
    let (cancelled, received) = serving.await??;
    Ok(Seen {
        echo,
        cancelled,
        received,
        datagram,
    })
}

async fn send_file(stream: &mut SendStream, len: usize) -> Done {
    let piece = Bytes::from(vec![7; 32 << 10]);
    for _ in 0..len / piece.len() {
        // Not copied: as s2n-quic's `send`.
        stream.write_chunk(piece.clone()).await?;
    }
    Ok(())
}

/// Gives the code of the file that was cancelled, and the length of the whole one.
async fn serve(connection: Connection) -> Done<(VarInt, usize)> {
    let (mut send, mut receive) = connection.accept_bi().await?;
    while let Some(chunk) = receive.read_chunk(usize::MAX).await? {
        send.write_chunk(chunk).await?;
    }
    send.finish()?;

    let first = receive_file(connection.accept_uni().await?).await;
    let second = receive_file(connection.accept_uni().await?).await;
    let datagram = connection.read_datagram().await?;
    connection.send_datagram(datagram)?;
    connection.closed().await;
    match first {
        Err(ReadError::Reset(code)) => Ok((code, second?)),
        other => Err(format!("the first file ended with {other:?}").into()),
    }
}

async fn receive_file(mut stream: RecvStream) -> Result<usize, ReadError> {
    let mut len = 0;
    while let Some(chunk) = stream.read_chunk(usize::MAX).await? {
        len += chunk.len();
    }
    Ok(len)
}
