//! The order of events that the API promises, asserted around any handler.
//!
//! A breach aborts the process: a panic in a handler would only end its connection, which some tests expect anyway.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use ringway::{
    Connection, ConnectionEvent, ConnectionHandler, CorrelationId, EventStatus, Stream, StreamEvent,
    StreamHandler,
};

use crate::seeds::{tell_running, write_error};

/// What all handlers of a connection and its streams share.
#[derive(Default)]
struct Course {
    inside: AtomicBool,
    ended: AtomicBool,
    open_streams: AtomicUsize,
    thread: Mutex<Option<ThreadId>>,
}

impl Course {
    /// That of a connection.
    fn of(connection: &Connection) -> Arc<Course> {
        // Not with a handle, which would keep the connection.
        static COURSES: Mutex<Vec<(CorrelationId, Arc<Course>)>> = Mutex::new(Vec::new());
        let id = connection.correlation_id();
        let mut courses = COURSES.lock().unwrap();
        if let Some((_, course)) = courses.iter().find(|(known, _)| *known == id) {
            return Arc::clone(course);
        }
        courses.retain(|(_, course)| !course.ended.load(Ordering::SeqCst));
        let course = Arc::new(Course::default());
        courses.push((id, Arc::clone(&course)));
        course
    }

    /// Runs a handler, which nothing else of the connection may do meanwhile.
    fn run<R>(&self, event: &str, handler: impl FnOnce() -> R) -> R {
        let here = std::thread::current().id();
        if event.starts_with("IdealProcessorChanged") {
            *self.thread.lock().unwrap() = Some(here);
        }
        let there = *self.thread.lock().unwrap().get_or_insert(here);
        check(here == there, event, "on another thread than the events before");
        check(
            !self.inside.swap(true, Ordering::SeqCst),
            event,
            "within or beside another event of the connection",
        );
        check(
            !self.ended.load(Ordering::SeqCst),
            event,
            "after the last event of the connection",
        );
        let inside = Inside(self);
        let result = handler();
        drop(inside);
        result
    }
}

/// Handlers may panic, and their connections go on to end.
struct Inside<'a>(&'a Course);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.store(false, Ordering::SeqCst);
    }
}

/// Holds, or ends the process and says of which event it does not.
pub fn check(holds: bool, event: &str, breach: &str) {
    if !holds {
        write_error(&format!("{event}: {breach}"));
        tell_running();
        std::process::abort();
    }
}

/// From now on, a panic on any thread ends the process, and says with which seeds.
pub fn end_with_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            tell(panic);
            check(false, "panic", "nothing panics here");
        }));
    });
}

/// Calls, within a handler of the stream's connection, what has the stream's own handler run within that.
pub fn inline<R>(stream: &Stream, call: impl FnOnce() -> R) -> R {
    let course = Course::of(stream.connection());
    course.inside.store(false, Ordering::SeqCst);
    let result = call();
    course.inside.store(true, Ordering::SeqCst);
    result
}

/// A handler of a connection, or of a stream.
pub struct Ordered<H> {
    handler: H,
    course: Option<Arc<Course>>,
    started: bool,
    /// Has heard more than that sends were given up.
    under_way: bool,
    ended: bool,
}

/// Around a handler.
pub fn ordered<H>(handler: H) -> Ordered<H> {
    Ordered {
        handler,
        course: None,
        started: false,
        under_way: false,
        ended: false,
    }
}

impl<H: ConnectionHandler> ConnectionHandler for Ordered<H> {
    fn on_event(&mut self, connection: &Connection, event: ConnectionEvent<'_>) -> EventStatus {
        let course = Arc::clone(self.course.get_or_insert_with(|| Course::of(connection)));
        let name = format!("{event:?}");
        let is_last = matches!(event, ConnectionEvent::ShutdownComplete { .. });
        let answer = course.run(&name, || self.handler.on_event(connection, event));
        if is_last {
            let open = course.open_streams.load(Ordering::SeqCst);
            check(open == 0, &name, "before the last events of its streams");
            course.ended.store(true, Ordering::SeqCst);
            self.ended = true;
        }
        answer
    }
}

impl<H: StreamHandler> StreamHandler for Ordered<H> {
    fn on_event(&mut self, stream: &Stream, event: StreamEvent<'_>) -> EventStatus {
        let name = format!("{event:?}");
        let is_first = self.course.is_none();
        let course = Arc::clone(self.course.get_or_insert_with(|| Course::of(stream.connection())));
        check(!self.ended, &name, "after the last event of the stream");
        if let StreamEvent::StartComplete(_) = event {
            check(!self.started, &name, "twice");
            check(!self.under_way, &name, "after other events of the stream");
            self.started = true;
        }
        // A send that is given up before the stream has started is told at once.
        self.under_way |= !matches!(event, StreamEvent::SendComplete { canceled: true, .. });
        if is_first {
            course.open_streams.fetch_add(1, Ordering::SeqCst);
        }
        self.ended = matches!(event, StreamEvent::ShutdownComplete { .. });
        let answer = course.run(&name, || self.handler.on_event(stream, event));
        if self.ended {
            course.open_streams.fetch_sub(1, Ordering::SeqCst);
        }
        answer
    }
}

impl<H> Drop for Ordered<H> {
    fn drop(&mut self) {
        // One that never heard anything belongs to a connection or stream that never was. What a test that has failed leaves says nothing, and
        // the end of the process here would keep it from telling its seed.
        check(
            self.ended || self.course.is_none() || std::thread::panicking(),
            "dropped handler",
            "never heard the last event",
        );
    }
}
