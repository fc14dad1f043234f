//! The end that answers.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use ringway::{Registration, SourceRule};

use super::{Reply, Request};
use crate::sources::SourceRuleReport;

/// A socket at which requests are answered, until it is dropped.
pub(crate) struct ControlSocket {
    path: PathBuf,
}

/// What requests are about.
struct Subject {
    registration: Registration,
    /// One at a time changes rules.
    rules: Mutex<()>,
}

impl ControlSocket {
    /// Begins to answer, on threads of its own. A socket that a process has left behind which was killed is replaced.
    pub(crate) fn open(path: &Path, registration: &Registration) -> Result<Self> {
        let listener =
            listen(path).with_context(|| format!("opening the control socket {}", path.display()))?;
        let subject = Arc::new(Subject {
            registration: registration.clone(),
            rules: Mutex::default(),
        });
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let subject = Arc::clone(&subject);
                    // Whoever asked hears of it by the connection that is closed.
                    let _ = std::thread::Builder::new()
                        .name("control".to_owned())
                        .spawn(move || serve(&subject, stream));
                }
            })
            .context("starting a thread")?;
        Ok(ControlSocket {
            path: path.to_owned(),
        })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn listen(path: &Path) -> Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                bail!("another process answers there");
            }
            // Not a file of another kind.
            let is_socket =
                UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
            if !is_socket {
                bail!("there is another file, or one that may not be used");
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        listener => listener?,
    };
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers the requests of one connection.
fn serve(subject: &Subject, stream: UnixStream) {
    let Ok(replies) = stream.try_clone() else { return };
    let mut replies = Replies(replies);
    let mut requests = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let mut limited = (&mut requests).take(REQUEST_BYTES_MAX);
        if !limited.read_line(&mut line).is_ok_and(|read| read > 0) {
            return;
        }
        let reply = match serde_json::from_str(&line) {
            Ok(Request::Sources { set, remove }) => subject.change_rules(&set, &remove).map(Reply::Sources),
            Err(error) => Err(anyhow::anyhow!("the request is not understood: {error}")),
        };
        let reply = reply.unwrap_or_else(|error| Reply::Error(format!("{error:#}")));
        if replies.send(&reply).is_err() {
            return;
        }
    }
}

/// Where replies go.
struct Replies(UnixStream);

impl Replies {
    fn send(&mut self, reply: &Reply) -> io::Result<()> {
        let line = serde_json::to_string(reply)? + "\n";
        self.0.write_all(line.as_bytes())
    }
}

impl Subject {
    fn change_rules(
        &self,
        set: &[SourceRule],
        remove: &[ringway::ipnet::IpNet],
    ) -> Result<Vec<SourceRuleReport>> {
        let _one_at_a_time = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if !(set.is_empty() && remove.is_empty()) {
            let there = self.registration.source_rules()?;
            let mut rules: Vec<SourceRule> = there.into_iter().map(|stats| stats.rule).collect();
            for prefix in remove {
                let index = rules.iter().position(|rule| rule.prefix == *prefix);
                let index = index.with_context(|| format!("there is no rule for {prefix}"))?;
                rules.remove(index);
            }
            rules.retain(|rule| !set.iter().any(|set| set.prefix == rule.prefix));
            rules.extend(set);
            self.registration.set_source_rules(&rules)?;
        }
        SourceRuleReport::all(&self.registration)
    }
}

/// More than any request has.
const REQUEST_BYTES_MAX: u64 = 1 << 20;
