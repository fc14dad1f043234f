//! TLS for stacks that take rustls: AES-128-GCM preferred, and every handshake a full one, unless something else is asked for. ringperf is measured
//! beside them with the same `--group`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::{Resumption as Store, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, KeyLogFile, RootCertStore, ServerConfig};

use crate::{ALPN, ALPN_HTTP3, ClientArgs, Group, Http3ClientArgs, Http3ServerArgs, Resumption, ServerArgs};

/// A client of HTTP/3.
pub fn http3_client(args: &Http3ClientArgs) -> Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider(Group::X25519))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(&args.ca)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP3.to_vec()];
    Ok(config)
}

/// A server of HTTP/3.
pub fn http3_server(args: &Http3ServerArgs) -> Result<ServerConfig> {
    let mut config = server(&args.server())?;
    config.alpn_protocols = vec![ALPN_HTTP3.to_vec()];
    Ok(config)
}

/// The server's side.
pub fn server(args: &ServerArgs) -> Result<ServerConfig> {
    let provider = provider(args.group);
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13])?;
    let builder = match &args.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots(file)?), provider).build()?,
        ),
    };
    let mut config = builder.with_single_cert(certificates(&args.cert)?, key(&args.key)?)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // To the file that SSLKEYLOGFILE names, if it names one.
    config.key_log = Arc::new(KeyLogFile::new());
    config.send_tls13_tickets = usize::from(args.resumption != Resumption::None);
    // QUIC knows no other limits (RFC 9001, section 4.6.1).
    config.max_early_data_size = match args.resumption {
        Resumption::ZeroRtt => u32::MAX,
        _ => 0,
    };
    Ok(config)
}

/// The client's side, which keeps tickets in `store`.
pub fn client(args: &ClientArgs, store: Store) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider(args.group))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(&args.ca)?);
    let mut config = match args.identity() {
        Some((chain, private)) => builder.with_client_auth_cert(certificates(chain)?, key(private)?)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.key_log = Arc::new(KeyLogFile::new());
    config.resumption = store;
    config.enable_early_data = args.is_early();
    Ok(config)
}

/// Whom a client trusts.
pub fn verifier(args: &ClientArgs) -> Result<Arc<WebPkiServerVerifier>> {
    let roots = Arc::new(roots(&args.ca)?);
    Ok(WebPkiServerVerifier::builder_with_provider(roots, provider(args.group)).build()?)
}

fn roots(file: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("reading certificates (PEM) from {}", file.display()))
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file)
        .with_context(|| format!("reading a private key (PEM) from {}", file.display()))
}

fn provider(group: Group) -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    // Whatever others that use rustls here have switched on.
    let mut kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    if group == Group::X25519MlKem768 {
        kx_groups.insert(0, kx_group::X25519MLKEM768);
    }
    Arc::new(CryptoProvider {
        cipher_suites,
        kx_groups,
        ..aws_lc_rs::default_provider()
    })
}
