//! quinn as a peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, MtuDiscoveryConfig, TransportConfig, VarInt};
use ringway_interop::{
    ALPN, Args, ClientArgs, Command, DATAGRAM, Pattern, Request, Scenario, WINDOW, report,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Args::parse().command {
        Command::Server {
            listen,
            cert,
            key,
            retry,
        } => {
            let chain: Vec<_> = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
            let mut tls = rustls::ServerConfig::builder()
                .with_no_client_auth()
                .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
            tls.alpn_protocols = vec![ALPN.to_vec()];
            let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
            config.transport = Arc::new(transport());
            let endpoint = Endpoint::server(config, listen)?;
            println!("LISTENING {}", endpoint.local_addr()?);
            while let Some(incoming) = endpoint.accept().await {
                if retry && !incoming.remote_address_validated() {
                    incoming.retry().map_err(|_| anyhow::anyhow!("retry refused"))?;
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    while let Ok((send, receive)) = connection.accept_bi().await {
                        tokio::spawn(answer(send, receive));
                    }
                });
            }
            Ok(())
        }
        Command::Client(args) => client(args).await,
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .initial_mtu(1200)
        .keep_alive_interval(Some(Duration::from_millis(300)))
        .max_idle_timeout(Some(Duration::from_secs(30).try_into().expect("fits")));
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM);
    transport.mtu_discovery_config(Some(mtu));
    transport
}

async fn answer(mut send: quinn::SendStream, mut receive: quinn::RecvStream) -> Result<()> {
    let pattern = Pattern::default();
    let mut request = Request::default();
    while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
        request.take(&chunk.bytes, &pattern);
    }
    let Some(len) = request.response_len() else {
        send.reset(VarInt::from_u32(1))?;
        return Ok(());
    };
    let mut sent = 0;
    while sent < len {
        let piece = pattern.piece(sent, len - sent);
        sent += piece.len() as u64;
        send.write_chunk(piece).await?;
    }
    send.finish()?;
    send.stopped().await?;
    Ok(())
}

async fn client(args: ClientArgs) -> Result<()> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&args.ca)? {
        roots.add(certificate?)?;
    }
    let mut tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport()));
    let mut endpoint = Endpoint::client("0.0.0.0:0".parse()?)?;
    endpoint.set_default_client_config(config);
    let connection = endpoint
        .connect(args.connect, &args.server_name)?
        .await
        .context("connecting")?;
    let start = Instant::now();
    let end = args.end();
    let is_over = || end.is_some_and(|end| Instant::now() >= end);
    let pattern = Pattern::default();
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&args.response_len().to_be_bytes()).await?;
    let len = args.upload_len();
    let mut moved = 0;
    let mut update = args.key_update;
    while moved < len && !is_over() {
        let piece = pattern.piece(moved, len - moved);
        moved += piece.len() as u64;
        send.write_chunk(piece).await?;
        if update && moved > args.bytes / 2 {
            update = false;
            connection.force_key_update();
        }
    }
    send.finish()?;
    while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
        // A timed run compares speed: nobody else checks content there.
        ensure!(
            args.seconds.is_some() || pattern.matches(chunk.offset, &chunk.bytes),
            "wrong content"
        );
        if args.scenario == Scenario::Download {
            moved += chunk.bytes.len() as u64;
        }
        if update && moved > args.bytes / 2 {
            update = false;
            connection.force_key_update();
        }
        if args.scenario == Scenario::Download && is_over() {
            break;
        }
    }
    ensure!(
        args.seconds.is_some() || moved == args.bytes,
        "{moved} bytes were transferred, not {}",
        args.bytes
    );
    report(moved, start);
    connection.close(VarInt::from_u32(0), b"");
    endpoint.wait_idle().await;
    Ok(())
}
