//! A small program as quinn's users write them, moved over: an echo, a file transfer that is cancelled and one that is not, and datagrams. What has
//! changed is how it begins: the configurations, and the endpoint; see the page `moving_from_quinn` of the manual.
#![allow(clippy::print_stdout, reason = "what it prints")]

use std::time::Duration;

use ringway::{ExecutionConfig, ListenerOptions, Registration, Settings};
use ringway_async::{Connection, Endpoint, Incoming, RecvStream, SendStream, VarInt, WriteError, ringway};

#[path = "common/mod.rs"]
mod common;
use common::{Done, configurations};

/// The receiver wants no more of a file.
const ENOUGH: VarInt = VarInt::from_u32(17);
const FILE_LEN: usize = 4 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    println!("{:?}", run().await?);
    Ok(())
}

/// What the client has seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) echo: Vec<u8>,
    /// Of the file that was cancelled; of the whole one.
    pub(crate) received: (usize, usize),
    pub(crate) datagram: Vec<u8>,
}

pub(crate) async fn run() -> Done<Seen> {
    let settings = Settings {
        peer_bidi_stream_count: 100,
        datagram_receive_enabled: true,
        ..Settings::default()
    };
    let (server_config, client_config) = configurations(b"hq", settings)?;
    let registration = Registration::open("from-quinn", &ExecutionConfig::default())?;
    let mut endpoint = Endpoint::new(&registration);
    let listener = endpoint.listen(
        ListenerOptions::new("127.0.0.1:0".parse()?, &[b"hq"]),
        server_config,
    )?;
    let address = listener.local_addr();
    let server = tokio::spawn(async move {
        let incoming = listener.accept().await.ok_or("the listener was closed")?;
        serve(incoming).await
    });

    endpoint.set_default_client_config(client_config);
    let connection = endpoint.connect(address, "localhost")?.await?;

    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(b"echo hello").await?;
    send.finish()?;
    let echo = recv.read_to_end(1000).await?;

    let mut partial = get(&connection).await?;
    let mut received = (0, 0);
    while received.0 < FILE_LEN / 4 {
        let chunk = partial
            .read_chunk(usize::MAX)
            .await?
            .ok_or("the file is too short")?;
        received.0 += chunk.len();
    }
    partial.stop(ENOUGH)?;

    let mut whole = get(&connection).await?;
    let mut buffer = vec![0; 64 << 10];
    while let Some(len) = whole.read(&mut buffer).await? {
        received.1 += len;
    }

    connection.send_datagram(b"datagram".as_slice().into())?;
    let datagram = tokio::time::timeout(Duration::from_secs(10), connection.read_datagram()).await??;
    connection.close(0u32.into(), b"done");
    server.await??;
    Ok(Seen {
        echo,
        received,
        datagram: datagram.into(),
    })
}

async fn get(connection: &Connection) -> Done<RecvStream> {
    let (mut send, recv) = connection.open_bi().await?;
    send.write_all(b"get file").await?;
    send.finish()?;
    Ok(recv)
}

async fn serve(incoming: Incoming) -> Done {
    let connection = incoming.await?;
    loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => drop(tokio::spawn(answer(send, recv))),
                // The client has closed.
                Err(_) => return Ok(()),
            },
            Ok(datagram) = connection.read_datagram() => connection.send_datagram(datagram)?,
        }
    }
}

async fn answer(mut send: SendStream, mut recv: RecvStream) -> Done {
    let request = recv.read_to_end(1000).await?;
    if let Some(text) = request.strip_prefix(b"echo ") {
        send.write_all(text).await?;
    } else {
        let piece = vec![7; 32 << 10];
        for _ in 0..FILE_LEN / piece.len() {
            match send.write_all(&piece).await {
                // The client has enough.
                Err(WriteError::Stopped(ENOUGH)) => return Ok(()),
                written => written?,
            }
        }
    }
    send.finish()?;
    Ok(())
}
