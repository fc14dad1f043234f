//! The queue that a context sleeps on, and how other threads wake it.

mod application;
mod completion_handlers;
mod queue;
mod sleep_state;
mod sys;
mod waker;

pub use self::application::{ApplicationQueue, Completion, Watch};
pub use self::completion_handlers::CompletionHandlers;
pub use self::queue::{EventQueue, Interest, Registry};
pub use self::waker::Waker;
