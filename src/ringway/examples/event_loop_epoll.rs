//! An epoll loop that serves QUIC, a timer, and a pipe of its own, on one thread.
//!
//! `event_loop_epoll [socket|io_uring|af_xdp]` answers `ringperf client` until a line `stop` comes in; then it prints how often the timer has
//! fired and how many lines have come.
#![allow(clippy::print_stdout, reason = "what it prints")]

#[path = "event_loops/server.rs"]
mod server;

use std::error::Error;
use std::io::{PipeReader, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use ringway::{Completion, CompletionHandlers, ContextConfig, Execution};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// What the handlers of the loop share.
struct App {
    execution: Execution,
    epoll: OwnedFd,
    ticks: u64,
    lines: u64,
    stopping: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut handlers = CompletionHandlers::<App>::default();

    let quic = handlers.add(|app, _, completion| {
        app.execution.complete(&completion);
    });
    let context = ContextConfig::new(0).with_event_queue(&epoll, quic);
    let (registration, mut executions) = Execution::create(&server::execution(), vec![context])?;
    let listener = server::listen(&registration)?;

    // What is watched stays open.
    let _timer = watch_timer(&epoll, &mut handlers)?;
    let _pipe = watch_pipe(&epoll, &mut handlers)?;

    let execution = executions.remove(0);
    let mut app = App {
        execution,
        epoll,
        ticks: 0,
        lines: 0,
        stopping: false,
    };
    while !app.stopping {
        let wait = app.execution.poll();
        let timeout = app
            .execution
            .begin_wait(wait, &app.epoll)?
            .map(Timespec::try_from)
            .transpose()?;
        let mut events = [MaybeUninit::uninit(); 16];
        let ready = match epoll::wait(&app.epoll, &mut events, timeout.as_ref()) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for &mut epoll::Event { flags, data } in ready {
            handlers.dispatch(&mut app, Completion::epoll(data.u64(), flags.bits()));
        }
    }
    println!("{} ticks, {} lines", app.ticks, app.lines);
    // In any order, with connections open or not.
    app.execution.delete(&app.epoll)?;
    drop(listener);
    drop(registration);
    Ok(())
}

/// Counts the ticks of a timer, ten a second.
fn watch_timer(epoll: &OwnedFd, handlers: &mut CompletionHandlers<App>) -> Result<OwnedFd, Box<dyn Error>> {
    let timer = timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
    )?;
    let tenth = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    timerfd_settime(
        &timer,
        TimerfdTimerFlags::empty(),
        &Itimerspec {
            it_interval: tenth,
            it_value: tenth,
        },
    )?;
    let watched = timer.try_clone()?;
    let tick = handlers.add(move |app, _, _| {
        let mut expirations = [0; 8];
        if rustix::io::read(&watched, &mut expirations).is_ok() {
            app.ticks += u64::from_ne_bytes(expirations);
        }
    });
    epoll::add(
        epoll,
        &timer,
        epoll::EventData::new_u64(tick),
        epoll::EventFlags::IN,
    )?;
    Ok(timer)
}

/// Counts lines that another thread writes into a pipe, and stops after the line `stop`, or the last.
fn watch_pipe(epoll: &OwnedFd, handlers: &mut CompletionHandlers<App>) -> Result<PipeReader, Box<dyn Error>> {
    let (reader, writer) = std::io::pipe()?;
    std::thread::spawn(move || pass_on(writer));
    let watched = reader.try_clone()?;
    let line = handlers.add(move |app, _, _| {
        let mut text = [0; 256];
        let len = rustix::io::read(&watched, &mut text).unwrap_or(0);
        app.lines += text[..len].iter().filter(|&&byte| byte == b'\n').count() as u64;
        app.stopping |= len == 0
            || text[..len]
                .split(|&byte| byte == b'\n')
                .any(|line| line == b"stop");
    });
    epoll::add(
        epoll,
        &reader,
        epoll::EventData::new_u64(line),
        epoll::EventFlags::IN,
    )?;
    Ok(reader)
}

/// Another part of the application, which writes what it reads into the pipe.
fn pass_on(mut pipe: impl Write) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        if pipe.write_all(format!("{line}\n").as_bytes()).is_err() {
            return;
        }
    }
}
