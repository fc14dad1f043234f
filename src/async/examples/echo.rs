//! Sends back whatever comes, on tokio: a server, and a client beside it.
#![allow(clippy::print_stdout, reason = "what it prints")]

use ringway::{ExecutionConfig, ListenerOptions, Registration, Settings};
use ringway_async::{Endpoint, Incoming, ringway};

#[path = "common/mod.rs"]
mod common;
use common::{Done, configurations};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    println!("{}", run("hello").await?);
    Ok(())
}

/// Gives what comes back.
pub(crate) async fn run(text: &str) -> Done<String> {
    let registration = Registration::open("echo", &ExecutionConfig::default())?;
    let settings = Settings {
        peer_bidi_stream_count: 100,
        ..Settings::default()
    };
    let (server, client) = configurations(b"echo", settings)?;
    let mut endpoint = Endpoint::new(&registration);
    let listener = endpoint.listen(ListenerOptions::new("127.0.0.1:0".parse()?, &[b"echo"]), server)?;
    let address = listener.local_addr();
    tokio::spawn(async move {
        while let Some(incoming) = listener.accept().await {
            tokio::spawn(serve(incoming));
        }
    });

    endpoint.set_default_client_config(client);
    let connection = endpoint.connect(address, "localhost")?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(text.as_bytes()).await?;
    send.finish()?;
    let echo = receive.read_to_end(1 << 20).await?;
    connection.close(0u32.into(), b"done");
    Ok(String::from_utf8(echo)?)
}

async fn serve(incoming: Incoming) -> Done {
    let connection = incoming.await?;
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        // Streams are tokio's readers and writers. A stream that fails ends by itself.
        tokio::spawn(async move {
            tokio::io::copy(&mut receive, &mut send).await?;
            send.finish()?;
            Ok::<_, std::io::Error>(())
        });
    }
    Ok(())
}
