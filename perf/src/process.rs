//! Child processes: what they print, within a time; and none outlives its owner.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringway_datapath::thread;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Lines that nobody has read yet: a program that prints more has to wait.
const UNREAD_LINES_MAX: usize = 16;
/// How often somebody who waits looks whether the user has interrupted.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a program may take to end in good order.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// What is read of the errors of a program, and what of them is reported.
const ERROR_BYTES_MAX: u64 = 4096;
const ERROR_CHARS_MAX: usize = 400;

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on SIGINT and SIGTERM end waiting with an error, so that what was set up is taken down.
pub(crate) fn catch_signals() -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED)).context("catching signals")?;
    }
    Ok(())
}

/// Whether a signal came.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Runs a command to its end, which is near: gives what it prints.
///
/// # Errors
///
/// The command cannot be started, or does not succeed: what it says.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("starting {name}: is it installed?"))?;
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{name} {}: {}", arguments.join(" "), errors.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program that runs; killed when it is not needed any more.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    errors: File,
}

impl Process {
    /// Starts it, with nothing to read.
    ///
    /// # Errors
    ///
    /// The program cannot be started, or there is no temporary file for what it says.
    pub fn start(command: &mut Command) -> Result<Self> {
        Process::start_with_input(command, Stdio::null())
    }

    /// Starts it; [`Process::write`] gives it what it reads from a pipe.
    ///
    /// # Errors
    ///
    /// As [`Process::start`].
    pub fn start_with_pipe(command: &mut Command) -> Result<Self> {
        Process::start_with_input(command, Stdio::piped())
    }

    fn start_with_input(command: &mut Command, input: Stdio) -> Result<Self> {
        let errors = tempfile::tempfile().context("making a temporary file")?;
        command
            // A reason is wanted, not where in the program it was found.
            .env("RUST_BACKTRACE", "0")
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(errors.try_clone()?);
        let spawned = command.spawn();
        let mut child =
            spawned.with_context(|| format!("starting {}", command.get_program().to_string_lossy()))?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let (sender, lines) = sync_channel(UNREAD_LINES_MAX);
        // Ends with the program, or when the lines are not wanted any more.
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Ok(Process { child, lines, errors })
    }

    /// On one processor, from its first instruction on: it inherits that from the thread that starts it.
    pub(crate) fn start_on(processor: usize, command: &mut Command) -> Result<Self> {
        let start = || {
            thread::pin(processor).with_context(|| format!("binding to processor {processor}"))?;
            Process::start(command)
        };
        let started = std::thread::scope(|scope| scope.spawn(start).join());
        started.map_err(|_| anyhow!("the thread that starts a program has ended with a panic"))?
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    ///
    /// It does not read from a pipe, or not any more.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("it reads from no pipe")?;
        Ok(input.write_all(text.as_bytes())?)
    }

    /// The next line of its output; `None` if none comes within this time.
    ///
    /// # Errors
    ///
    /// It has ended, with what it said if it did not succeed, or this program is to end.
    pub fn next_line(&mut self, timeout: Duration) -> Result<Option<String>> {
        let deadline = Instant::now() + timeout;
        loop {
            ensure!(!is_interrupted(), "interrupted");
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(POLL_INTERVAL)) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Timeout) if left <= POLL_INTERVAL => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.wait(EXIT_TIMEOUT)?;
                    bail!("it ended without output");
                }
            }
        }
    }

    /// Waits for its end, which has to be a success.
    ///
    /// # Errors
    ///
    /// It does not end within this time, or does not succeed: what it says.
    pub fn wait(&mut self, timeout: Duration) -> Result<()> {
        match self.exit_status(timeout)? {
            None => bail!("it does not end"),
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.last_errors(status)),
        }
    }

    /// Why it has ended, if it has, and without success.
    pub(crate) fn failure(&mut self) -> Option<anyhow::Error> {
        match self.exit_status(Duration::ZERO) {
            Ok(Some(status)) if !status.success() => Some(self.last_errors(status)),
            _ => None,
        }
    }

    /// Asks it to end.
    ///
    /// # Errors
    ///
    /// It has ended already, or belongs to another user.
    pub fn terminate(&self) -> Result<()> {
        kill(Pid::from_raw(self.id().cast_signed()), Signal::SIGTERM).context("ending a program")
    }

    /// Asks it to end; kills it if it does not.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.terminate()?;
        self.exit_status(EXIT_TIMEOUT)?;
        Ok(())
    }

    fn exit_status(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The last lines that it wrote to its standard error.
    fn last_errors(&mut self, status: ExitStatus) -> anyhow::Error {
        let mut read = || -> std::io::Result<String> {
            let end = self.errors.seek(SeekFrom::End(0))?;
            self.errors
                .seek(SeekFrom::Start(end.saturating_sub(ERROR_BYTES_MAX)))?;
            let mut bytes = Vec::new();
            self.errors.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines = text.lines().map(str::trim);
        let lines =
            lines.filter(|line| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE"));
        let lines = lines.map(|line| {
            line.trim_start_matches("ringperf: ")
                .trim_start_matches("Error: ")
        });
        let lines: Vec<_> = lines.collect();
        let last = &lines[lines.len().saturating_sub(4)..];
        if last.is_empty() {
            return anyhow!("it ended ({status}) and did not say why");
        }
        anyhow!(last.join(" ").chars().take(ERROR_CHARS_MAX).collect::<String>())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Process {
        Process::start(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn lines_come_one_by_one_and_silence_has_an_end() {
        let mut process = shell("echo one; echo two; sleep 60");
        assert_eq!(process.next_line(LONG).unwrap().as_deref(), Some("one"));
        assert_eq!(process.next_line(LONG).unwrap().as_deref(), Some("two"));
        assert_eq!(process.next_line(Duration::from_millis(20)).unwrap(), None);
        assert!(process.wait(Duration::from_millis(20)).is_err());
        process.stop().unwrap();
    }

    #[test]
    fn what_a_failed_program_wrote_is_the_reason() {
        let mut process = shell("echo 'ringperf: no such thing' >&2; exit 3");
        assert_eq!(process.next_line(LONG).unwrap_err().to_string(), "no such thing");
        let mut process = shell("exit 3");
        assert!(
            process
                .wait(LONG)
                .unwrap_err()
                .to_string()
                .contains("exit status: 3")
        );
        let mut process = shell("true");
        assert!(
            process
                .next_line(LONG)
                .unwrap_err()
                .to_string()
                .contains("without output")
        );
        assert!(Process::start(&mut Command::new("/no/such/program")).is_err());
    }

    #[test]
    fn a_program_that_does_not_want_to_end_is_killed() {
        let mut process = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
        process.next_line(LONG).unwrap();
        let start = Instant::now();
        process.stop().unwrap();
        assert!(start.elapsed() < LONG);
    }
}
