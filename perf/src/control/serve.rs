//! The end that answers.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringway::ipnet::IpNet;
use ringway::{CaptureOptions, Registration, SourceRule};

use super::protocol::{Reply, Request};
use super::requests::Requests;
use crate::source_rules::SourceRuleReport;

/// A socket that waits for requests.
pub(crate) struct ControlListener {
    listener: UnixListener,
    file: SocketFile,
}

/// A socket at which requests are answered, until it is dropped.
pub(crate) struct ControlSocket {
    subject: Arc<Subject>,
    _file: SocketFile,
}

/// The file of a socket, which is deleted with it.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What requests are about.
struct Subject {
    registration: Registration,
    /// One at a time changes rules.
    rules: Mutex<()>,
    /// Cloned for each request that has no answer yet.
    under_way: Arc<()>,
    is_closing: AtomicBool,
}

impl ControlListener {
    /// Makes the socket. One that a process has left behind which was killed is replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self> {
        let listener =
            listen(path).with_context(|| format!("opening the control socket {}", path.display()))?;
        let file = SocketFile(path.to_owned());
        Ok(ControlListener { listener, file })
    }

    /// Begins to answer, on threads of its own, which have the capabilities of the calling one.
    pub(crate) fn serve(self, registration: &Registration) -> Result<ControlSocket> {
        let subject = Arc::new(Subject {
            registration: registration.clone(),
            rules: Mutex::default(),
            under_way: Arc::default(),
            is_closing: AtomicBool::new(false),
        });
        let (served, listener) = (Arc::clone(&subject), self.listener);
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                for stream in listener.incoming() {
                    let stream = match stream {
                        Ok(stream) => stream,
                        Err(error) => {
                            tracing::warn!(%error, "the control socket cannot be answered at");
                            std::thread::sleep(ACCEPT_AGAIN);
                            continue;
                        }
                    };
                    let subject = Arc::clone(&served);
                    // Whoever asked hears of it by the connection that is closed.
                    let _ = std::thread::Builder::new()
                        .name("control".to_owned())
                        .spawn(move || serve(&subject, stream));
                }
            })
            .context("starting a thread")?;
        Ok(ControlSocket {
            subject,
            _file: self.file,
        })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.subject.is_closing.store(true, Ordering::Relaxed);
        let start = Instant::now();
        while Arc::strong_count(&self.subject.under_way) > 1 {
            if start.elapsed() > ANSWERS_END {
                tracing::warn!("the control socket ends before all requests have their answers");
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn listen(path: &Path) -> Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            // Files of other kinds refuse connections, too.
            let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
            ensure!(is_socket, "there is a file of that name, which is no socket");
            match UnixStream::connect(path) {
                Ok(_) => bail!("another process answers there"),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    return Err(error).context("there is a socket of that name, which may not be used");
                }
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
    let mut requests = Requests::new(stream);
    while let Ok(Some(line)) = requests.next() {
        // Until the reply is sent.
        let _under_way = Arc::clone(&subject.under_way);
        let reply = match serde_json::from_str(&line) {
            Ok(Request::Sources { set, remove }) => subject.change_rules(&set, &remove).map(Reply::Sources),
            Ok(Request::Capture(options)) => subject.capture(&options, &mut requests, &mut replies),
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
    fn change_rules(&self, set: &[SourceRule], remove: &[IpNet]) -> Result<Vec<SourceRuleReport>> {
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

    /// Captures until the other end has nothing more to say, or it has what it was to take, or this process is about to end.
    fn capture(
        &self,
        options: &CaptureOptions,
        requests: &mut Requests,
        replies: &mut Replies,
    ) -> Result<Reply> {
        let file = requests
            .file()
            .context("no file to write to came with the request")?;
        let capture = self.registration.capture(File::from(file), options)?;
        replies.send(&Reply::CaptureBegun)?;
        requests.set_timeout(Some(LOOK_EVERY))?;
        while !capture.is_over() && !self.is_closing.load(Ordering::Relaxed) {
            match requests.receive() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => break,
            }
        }
        requests.set_timeout(None)?;
        let stats = capture.finish().context("writing the capture")?;
        Ok(Reply::CaptureEnded(stats.into()))
    }
}

/// After a connection could not be accepted, as there were too many descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How often a capture looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the end of a process waits for captures to be written, and what was asked to be answered.
const ANSWERS_END: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn socket_that_nobody_answers_at_is_replaced_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let refusal = |name| listen(&path(name)).unwrap_err().to_string();
        fs::write(path("file"), "kept").unwrap();
        symlink(path("file"), path("link to a file")).unwrap();
        symlink(path("nowhere"), path("link to nowhere")).unwrap();
        drop(UnixListener::bind(path("left behind")).unwrap());
        symlink(path("left behind"), path("link to a socket")).unwrap();
        for name in ["file", "link to a file", "link to nowhere", "link to a socket"] {
            assert!(refusal(name).contains("no socket"), "{name}: {}", refusal(name));
            assert!(fs::symlink_metadata(path(name)).is_ok(), "{name} is gone");
        }
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "kept");
        let _listener = listen(&path("left behind")).unwrap();
        assert!(refusal("left behind").contains("another process answers"));
    }
}
