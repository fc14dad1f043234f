//! The completion handlers of an event loop.

use std::collections::HashMap;

use super::application::Completion;

type Handler<S> = Box<dyn FnMut(&mut S, &mut CompletionHandlers<S>, Completion)>;

/// Completion handlers by the number that the event queue brings back with each event: `epoll_event.data.u64`,
/// `io_uring_cqe.user_data`. Handlers of the application and of execution contexts stand next to each other.
///
/// `S` is what all handlers of a loop share. A number is never given twice: what a queue brings after its handler was
/// removed finds nobody. One thread.
pub struct CompletionHandlers<S> {
    /// `None` while a handler runs.
    handlers: HashMap<u64, Option<Handler<S>>>,
    next: u64,
}

impl<S> Default for CompletionHandlers<S> {
    fn default() -> Self {
        CompletionHandlers {
            handlers: HashMap::new(),
            next: 0,
        }
    }
}

impl<S> std::fmt::Debug for CompletionHandlers<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompletionHandlers")
            .field("handlers", &self.handlers.len())
            .finish_non_exhaustive()
    }
}

impl<S> CompletionHandlers<S> {
    /// Adds a handler, and gives its number. A handler may add and remove handlers, itself included.
    pub fn add(
        &mut self,
        handler: impl FnMut(&mut S, &mut CompletionHandlers<S>, Completion) + 'static,
    ) -> u64 {
        let number = self.next;
        self.next += 1;
        self.handlers.insert(number, Some(Box::new(handler)));
        number
    }

    /// Removes a handler; false if there is none of this number.
    pub fn remove(&mut self, number: u64) -> bool {
        self.handlers.remove(&number).is_some()
    }

    /// Calls the handler of a completion; false if there is none any more.
    pub fn dispatch(&mut self, shared: &mut S, completion: Completion) -> bool {
        let Some(mut handler) = self
            .handlers
            .get_mut(&completion.user_data)
            .and_then(Option::take)
        else {
            return false;
        };
        handler(shared, self, completion);
        // Unless it has removed itself.
        if let Some(place) = self.handlers.get_mut(&completion.user_data) {
            *place = Some(handler);
        }
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn handler_that_removes_itself_and_others_is_not_called_again() {
        let mut handlers = CompletionHandlers::<Vec<u64>>::default();
        let other = handlers.add(|_, _, _| panic!("removed"));
        let this = handlers.add(move |calls, handlers, completion| {
            calls.push(completion.user_data);
            assert!(handlers.remove(completion.user_data));
            assert!(handlers.remove(other));
            handlers.add(|calls, _, completion| calls.push(completion.user_data));
        });
        let mut calls = Vec::new();
        assert!(handlers.dispatch(&mut calls, Completion::epoll(this, 1)));
        assert!(!handlers.dispatch(&mut calls, Completion::epoll(this, 1)));
        assert!(!handlers.dispatch(&mut calls, Completion::epoll(other, 1)));
        assert!(handlers.dispatch(&mut calls, Completion::epoll(this + 1, 1)));
        assert_eq!(calls, [this, this + 1]);
    }
}
