//! Downloads by HTTP/3: `download ADDRESS NAME PATH ROOTS.pem` writes the content of https://NAMEPATH, which the server at ADDRESS has, to standard
//! output. It trusts the certificates of ROOTS.pem, such as /etc/ssl/certs/ca-certificates.crt.

use std::net::SocketAddr;

use bytes::{Buf, Bytes};
use http::{Request, StatusCode};
use ringway_async::ringway::ClientCredentials;
use tokio::io::{AsyncWrite, AsyncWriteExt};

#[path = "common/mod.rs"]
mod common;
use common::Done;

#[tokio::main]
async fn main() -> Done {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, address, name, path, roots] = &arguments[..] else {
        return Err("usage: download ADDRESS NAME PATH ROOTS.pem".into());
    };
    let trusted = ClientCredentials::roots_from_pem(&std::fs::read(roots)?)?;
    download(address.parse()?, name, path, trusted, &mut tokio::io::stdout()).await?;
    Ok(())
}

/// Gets a file and writes it. Gives how many bytes it has.
pub(crate) async fn download(
    server: SocketAddr,
    name: &str,
    path: &str,
    trusted: ClientCredentials,
    to: &mut (impl AsyncWrite + Unpin),
) -> Done<u64> {
    let endpoint = common::client(trusted)?;
    let mut send_request = common::connect(&endpoint, server, name).await?;
    let request = Request::get(format!("https://{name}{path}")).body(())?;
    let mut stream = send_request.send_request(request).await?;
    stream.finish().await?;
    let response = stream.recv_response().await?;
    if response.status() != StatusCode::OK {
        return Err(format!("{path}: {}", response.status()).into());
    }
    let mut len = 0;
    while let Some(mut data) = stream.recv_data().await? {
        let mut data: Bytes = data.copy_to_bytes(data.remaining());
        len += data.len() as u64;
        to.write_all_buf(&mut data).await?;
    }
    to.flush().await?;
    Ok(len)
}
