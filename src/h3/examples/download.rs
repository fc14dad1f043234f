//! Downloads by HTTP/3: `download ADDRESS NAME PATH ROOTS.pem [FILE]` writes the content of https://NAMEPATH, which the server at ADDRESS has, to
//! standard output. It trusts the certificates of ROOTS.pem, such as /etc/ssl/certs/ca-certificates.crt. With FILE it sends that one's content there
//! (POST), and writes what is answered.

use std::net::SocketAddr;

use bytes::{Buf, Bytes};
use http::{Method, Request, StatusCode};
use ringway_async::ringway::ClientCredentials;
use tokio::io::{AsyncWrite, AsyncWriteExt};

#[path = "common/mod.rs"]
mod common;
use common::Done;

#[tokio::main]
async fn main() -> Done {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, address, name, path, roots, file @ ..] = &arguments[..] else {
        return Err("usage: download ADDRESS NAME PATH ROOTS.pem [FILE]".into());
    };
    let trusted = ClientCredentials::roots_from_pem(&std::fs::read(roots)?)?;
    let upload = file.first().map(std::fs::read).transpose()?;
    let mut stdout = tokio::io::stdout();
    download(address.parse()?, name, path, trusted, upload, &mut stdout).await?;
    Ok(())
}

/// Gets a file, or what is answered to one that is sent, and writes it. Gives how many bytes it has.
pub(crate) async fn download(
    server: SocketAddr,
    name: &str,
    path: &str,
    trusted: ClientCredentials,
    upload: Option<Vec<u8>>,
    to: &mut (impl AsyncWrite + Unpin),
) -> Done<u64> {
    let endpoint = common::client(trusted)?;
    let mut send_request = common::connect(&endpoint, server, name).await?;
    let method = upload.as_ref().map_or(Method::GET, |_| Method::POST);
    let uri = format!("https://{name}{path}");
    let request = Request::builder().method(method).uri(uri).body(())?;
    let (mut send, mut receive) = send_request.send_request(request).await?.split();
    let sending = async {
        if let Some(content) = upload {
            send.send_data(content.into()).await?;
        }
        send.finish().await
    };
    // It counts, whether or not the server takes all that is sent (RFC 9114 section 4.1).
    let (_, response) = tokio::join!(sending, receive.recv_response());
    let response = response?;
    if response.status() != StatusCode::OK {
        return Err(format!("{path}: {}", response.status()).into());
    }
    let mut len = 0;
    while let Some(mut data) = receive.recv_data().await? {
        let mut data: Bytes = data.copy_to_bytes(data.remaining());
        len += data.len() as u64;
        to.write_all_buf(&mut data).await?;
    }
    to.flush().await?;
    Ok(len)
}
