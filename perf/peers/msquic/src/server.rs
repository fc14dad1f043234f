//! The server.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, Result};
use msquic::{
    Addr, AllowedCipherSuiteFlags, BufferRef, CertificateFile, ConnectionEvent, ConnectionRef, Credential,
    CredentialConfig, CredentialFlags, Listener, ListenerEvent, ServerResumptionLevel, Settings, Status,
    StreamEvent, StreamRef, StreamShutdownFlags,
};
use ringway_peers::{ALPN, Group, Pattern, Request, Resumption, ServerArgs, cannot, listening};

use crate::outgoing::Outgoing;
use crate::sys::{self, Ended};
use crate::{configure, register, settings};

pub fn run(args: &ServerArgs) -> Result<()> {
    let registration = register()?;
    sys::set_globally(&unlimited())?;
    if args.retry {
        sys::always_retry()?;
    }
    let file = |path: &std::path::Path| {
        let path = path.to_str().context("paths must be UTF-8")?;
        Ok::<_, anyhow::Error>(path.to_owned())
    };
    // By itself MsQuic prefers AES-256.
    let mut credential = CredentialConfig::new()
        .set_allowed_cipher_suites(AllowedCipherSuiteFlags::AES_128_GCM_SHA256)
        .set_credential(Credential::CertificateFile(CertificateFile::new(
            file(&args.key)?,
            file(&args.cert)?,
        )));
    if let Some(ca) = &args.client_ca {
        credential = credential
            .set_credential_flags(CredentialFlags::REQUIRE_CLIENT_AUTHENTICATION)
            .set_ca_certificate_file(file(ca)?);
    }
    if args.group == Group::X25519MlKem768 {
        cannot("exchange keys by X25519MLKEM768: its OpenSSL does not know it");
    }
    let settings = settings().set_ServerResumptionLevel(match args.resumption {
        Resumption::None => ServerResumptionLevel::NoResume,
        Resumption::Resume => ServerResumptionLevel::ResumeOnly,
        Resumption::ZeroRtt => ServerResumptionLevel::ResumeAndZerortt,
    });
    let gives_tickets = args.resumption != Resumption::None;
    let configuration = configure(&registration, &settings, &credential)?;
    let pattern = Pattern::default();
    let verify = args.verify;
    let (ended, connections) = channel();
    let listener = Listener::open(&registration, move |_, event| {
        if let ListenerEvent::NewConnection { connection, .. } = event {
            let secrets = sys::Secrets::of(&connection)?;
            connection.set_configuration(&configuration)?;
            let served = Served {
                pattern: pattern.clone(),
                verify,
                gives_tickets,
                secrets,
                streams: Ended::default(),
            };
            serve(&connection, Arc::new(served), ended.clone());
        }
        Ok(())
    })
    .context("making a listener")?;
    listener
        .start(&[BufferRef::from(ALPN)], Some(&Addr::from(args.bind)))
        .with_context(|| format!("listening on {}: is the address there, and free?", args.bind))?;
    let address = listener.get_local_addr().context("asking for the address")?;
    listening(address.as_socket().context("the address is of no known family")?);
    // A connection cannot be closed by its own handler: it would free itself.
    connections.iter().for_each(drop);
    Ok(())
}

/// Many clients at once, all of one address, are no attack here: by itself MsQuic refuses connections that wait for 250 ms, and answers
/// an address with at most one Retry in 100 ms.
fn unlimited() -> Settings {
    Settings::new()
        .set_MaxWorkerQueueDelayUs(10_000_000)
        .set_MaxStatelessOperations(u32::from(u16::MAX))
        .set_MaxBindingStatelessOperations(u16::MAX)
        .set_StatelessOperationExpirationMs(0)
}

/// What the streams of one connection need.
struct Served {
    pattern: Pattern,
    verify: bool,
    gives_tickets: bool,
    secrets: Option<sys::Secrets>,
    streams: Ended,
}

fn serve(connection: &ConnectionRef, served: Arc<Served>, ended: Sender<msquic::Connection>) {
    connection.set_callback_handler(move |connection: ConnectionRef, event: ConnectionEvent| {
        match event {
            ConnectionEvent::PeerStreamStarted { stream, .. } => {
                let mut responder = Responder {
                    served: Arc::clone(&served),
                    request: Request::default(),
                    response: Outgoing::new(0),
                };
                stream.set_callback_handler(move |stream: StreamRef, event: StreamEvent| {
                    responder.on_event(&stream, event)
                });
            }
            ConnectionEvent::Connected { .. } => {
                if let Some(secrets) = &served.secrets {
                    secrets.write();
                }
                if served.gives_tickets {
                    sys::give_ticket(&connection)?;
                }
            }
            ConnectionEvent::ShutdownComplete { .. } => {
                served.streams.close();
                // The other end goes away with the program.
                let _ = ended.send(sys::take(&connection));
            }
            _ => {}
        }
        Ok(())
    });
}

/// Answers one request.
struct Responder {
    served: Arc<Served>,
    request: Request,
    response: Outgoing,
}

impl Responder {
    fn on_event(&mut self, stream: &StreamRef, event: StreamEvent) -> Result<(), Status> {
        match event {
            StreamEvent::Receive { buffers, .. } => {
                let verify = self.served.verify.then_some(&self.served.pattern);
                for buffer in buffers {
                    self.request.take(buffer.as_bytes(), verify);
                }
            }
            StreamEvent::PeerSendShutdown => match self.request.response_len() {
                Some(0) => stream.shutdown(StreamShutdownFlags::GRACEFUL, 0)?,
                Some(len) => {
                    self.response.set_end(len);
                    self.response.send(stream, &self.served.pattern)?;
                }
                None => stream.shutdown(StreamShutdownFlags::ABORT_SEND, 1)?,
            },
            StreamEvent::SendComplete {
                cancelled,
                client_context,
            } => {
                self.response.on_sent(sys::sent(client_context));
                if !cancelled {
                    self.response.send(stream, &self.served.pattern)?;
                }
            }
            StreamEvent::PeerSendAborted { .. } => stream.shutdown(StreamShutdownFlags::ABORT_SEND, 0)?,
            StreamEvent::ShutdownComplete { .. } => self.served.streams.take(stream),
            _ => {}
        }
        Ok(())
    }
}
