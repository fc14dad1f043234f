//! HTTP/3, by the crates h3 and h3-quinn.

use std::sync::Arc;

use anyhow::{Context, Result};
use quinn::VarInt;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use ringway_peers::{Files, Http3ClientArgs, Http3ServerArgs, get, listening, serve, tls};

use crate::{STREAMS, any_address, endpoint, transport};

/// The control streams of both ends, and those of QPACK, leave some for more.
const UNI_STREAMS: u32 = 16;

pub(crate) async fn server(args: Http3ServerArgs) -> Result<()> {
    let files = Arc::new(Files::read(&args.root)?);
    let tls = QuicServerConfig::try_from(tls::http3_server(&args)?)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(transport(STREAMS, UNI_STREAMS, None));
    let endpoint = endpoint(args.bind, Some(config))?;
    listening(endpoint.local_addr()?);
    while let Some(incoming) = endpoint.accept().await {
        let files = Arc::clone(&files);
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                serve(h3_quinn::Connection::new(connection), files).await;
            }
        });
    }
    Ok(())
}

pub(crate) async fn client(args: Http3ClientArgs) -> Result<()> {
    let tls = QuicClientConfig::try_from(tls::http3_client(&args)?)?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(transport(0, UNI_STREAMS, None));
    let endpoint = endpoint(any_address(args.target), None)?;
    let connecting = endpoint.connect_with(config, args.target, &args.server_name)?;
    let connection = connecting.await.context("connecting")?;
    let result = get(h3_quinn::Connection::new(connection.clone()), &args).await;
    connection.close(VarInt::from_u32(0x100), b"");
    endpoint.wait_idle().await;
    result
}
