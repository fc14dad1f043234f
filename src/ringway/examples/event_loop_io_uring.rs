//! An io_uring loop that serves QUIC and reads a file, on one thread.
//!
//! `event_loop_io_uring [socket|io_uring|af_xdp] FILE` answers `ringperf client` until a line comes in, and prints meanwhile how many bytes the
//! file has.
#![allow(clippy::print_stdout, reason = "what it prints")]

#[path = "event_loops/server.rs"]
mod server;
#[path = "event_loops/sys.rs"]
mod sys;

use std::error::Error;
use std::fs::File;
use std::io;
use std::time::Duration;

use ringway::io_uring::{IoUring, types};
use ringway::{Completion, CompletionHandlers, ContextConfig, Execution};
use rustix::io::Errno;

use self::sys::FileReader;

/// What the handlers of the loop share.
struct App {
    execution: Execution,
    ring: IoUring,
    reader: FileReader,
    bytes: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args()
        .nth(2)
        .ok_or("usage: event_loop_io_uring DATAPATH FILE")?;
    let mut ring = IoUring::new(16)?;
    let mut handlers = CompletionHandlers::<App>::default();

    let quic = handlers.add(|app, _, completion| {
        app.execution.complete(&completion);
    });
    let context = ContextConfig::new(0).with_event_queue(&mut ring, quic);
    let (registration, mut executions) = Execution::create(&server::execution(), vec![context])?;
    let listener = server::listen(&registration)?;

    let read = handlers.add(|app, handlers, completion| match app.reader.finish(&completion) {
        Ok(0) => {
            println!("READ {} bytes", app.bytes);
            handlers.remove(completion.user_data);
        }
        Ok(len) => {
            app.bytes += len as u64;
            app.reader
                .begin(&mut app.ring, completion.user_data)
                .expect("the queue has room for one read");
        }
        Err(error) => panic!("the file cannot be read: {error}"),
    });
    let mut reader = FileReader::new(File::open(path)?);
    reader.begin(&mut ring, read)?;

    // Another thread of the application, which ends it.
    std::thread::spawn(move || {
        let _ = io::stdin().read_line(&mut String::new());
        drop(listener);
        registration.close();
    });

    let mut app = App {
        execution: executions.remove(0),
        ring,
        reader,
        bytes: 0,
    };
    while !app.execution.has_ended() {
        let may_wait = app.execution.poll();
        let timeout = app.execution.begin_wait(may_wait, &mut app.ring)?;
        wait(&mut app.ring, timeout)?;
        let arrived: Vec<_> = app
            .ring
            .completion()
            .map(|entry| Completion::from(&entry))
            .collect();
        for completion in arrived {
            handlers.dispatch(&mut app, completion);
        }
    }
    app.execution.delete(&mut app.ring)?;
    println!("ENDED");
    Ok(())
}

/// Submits what there is, and waits for a completion, for as long at most.
fn wait(ring: &mut IoUring, timeout: Option<Duration>) -> io::Result<()> {
    let waited = match timeout {
        None => ring.submit_and_wait(1),
        Some(Duration::ZERO) => ring.submit(),
        Some(timeout) => {
            let timeout = types::Timespec::from(timeout);
            ring.submitter()
                .submit_with_args(1, &types::SubmitArgs::new().timespec(&timeout))
        }
    };
    match waited.map_err(|error| (Errno::from_io_error(&error), error)) {
        Ok(_) | Err((Some(Errno::TIME | Errno::INTR), _)) => Ok(()),
        Err((_, error)) => Err(error),
    }
}
