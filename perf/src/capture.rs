//! Captures: those of `ringperf capture`, of a running server or client, and those that these make from their beginning.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytesize::ByteSize;
use clap::Args;
use ringway::{Capture, CaptureOptions, Registration};

use crate::control::{Call, CaptureReport, Reply, Request};
use crate::processors::ProcessorList;
use crate::signals::Signals;
use crate::{output, ranges};

/// Options of `capture`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CaptureArgs {
    /// The control socket of the server or client (its option --control)
    #[arg(long, value_name = "PATH")]
    pub control: PathBuf,
    /// The file to write, in pcapng format; - is standard output
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Take one of so many packets
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub every: u32,
    /// Take so many bytes of each packet, with its headers
    #[arg(long, value_name = "BYTES", default_value_t = CaptureOptions::default().snap_length)]
    pub snap: u32,
    /// End after so many packets
    #[arg(long, value_name = "N")]
    pub packets: Option<u64>,
    /// End before the file is larger than this
    #[arg(long, value_name = "SIZE", value_parser = ranges::size(1, u64::MAX))]
    pub bytes: Option<ByteSize>,
    /// End after this time (default: when interrupted)
    #[arg(long, value_name = "TIME", value_parser = ranges::time)]
    pub time: Option<Duration>,
    /// Partitions whose packets are taken, such as 0-3,8 (default: all)
    #[arg(long, value_name = "LIST")]
    pub partitions: Option<ProcessorList>,
    /// Receive queues whose frames are taken, and nothing of the sockets (AF_XDP; default: all, and the sockets)
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub queues: Option<Vec<u32>>,
    /// Bytes that packets of each partition may wait in until they are written
    #[arg(long, value_name = "SIZE", value_parser = ranges::size(1, u64::MAX))]
    pub buffer: Option<ByteSize>,
    /// Print what was done as one line of JSON
    #[arg(long)]
    pub json: bool,
}

impl CaptureArgs {
    fn options(&self) -> CaptureOptions {
        let default = CaptureOptions::default();
        CaptureOptions {
            every: self.every,
            snap_length: self.snap,
            packets: self.packets,
            bytes: self.bytes.map(|bytes| bytes.as_u64()),
            duration: self.time,
            partitions: self.partitions.clone().map(|list| list.0),
            queues: self.queues.clone(),
            buffer_bytes: self
                .buffer
                .map_or(default.buffer_bytes, |bytes| bytes.as_u64() as usize),
        }
    }
}

/// A capture that begins with a server or client.
#[derive(Args, Clone, Debug)]
pub(crate) struct CaptureFromStartArgs {
    /// Write what is received and sent to this file, in pcapng format (of one that runs already: ringperf capture)
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    /// End that before the file is larger than this
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = ranges::size(1, u64::MAX))]
    pub capture_bytes: ByteSize,
}

impl CaptureFromStartArgs {
    /// Makes its file, if there is to be one.
    pub(crate) fn create(&self) -> Result<Option<File>> {
        self.capture.as_deref().map(create).transpose()
    }

    /// Begins it.
    pub(crate) fn begin(&self, file: File, registration: &Registration) -> Result<Capture> {
        let options = CaptureOptions {
            bytes: Some(self.capture_bytes.as_u64()),
            ..CaptureOptions::default()
        };
        Ok(registration.capture(file, &options)?)
    }
}

/// Waits for its end, when its registration is closed, and says what it has done.
pub(crate) fn finish(capture: Option<Capture>) -> Result<()> {
    let Some(capture) = capture else { return Ok(()) };
    let stats = capture.finish().context("writing the capture")?;
    write_to_stderr(&CaptureReport::from(stats).to_string())
}

pub(crate) fn run(args: &CaptureArgs) -> Result<()> {
    let signals = Signals::catch()?;
    let to_stdout = args.output == Path::new("-");
    let file: OwnedFd = if to_stdout {
        ensure!(
            !io::stdout().is_terminal(),
            "a capture is no text for a terminal: name a file, or read it with another program"
        );
        let stdout = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned();
        stdout.context("using standard output")?
    } else {
        create(&args.output)?.into()
    };
    let mut call = Call::send_with_file(&args.control, &Request::Capture(args.options()), file)?;
    match call.reply()? {
        Reply::CaptureBegun => {}
        reply => bail!("another answer than to this request: {reply:?}"),
    }
    let mut told = false;
    let report = loop {
        match call.reply_within(LOOK_EVERY)? {
            Some(Reply::CaptureEnded(report)) => break report,
            Some(reply) => bail!("another answer than to this request: {reply:?}"),
            None if signals.received().is_some() && !told => {
                told = true;
                call.end()?;
            }
            None => {}
        }
    };
    if to_stdout {
        return write_to_stderr(&report.to_string());
    }
    output::print_report(args.json, &report)
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("creating {}", path.display()))
}

fn write_to_stderr(text: &str) -> Result<()> {
    writeln!(io::stderr(), "{text}").context("writing to standard error")
}

/// How often it is looked for signals.
const LOOK_EVERY: Duration = Duration::from_millis(50);
