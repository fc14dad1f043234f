//! When a thread that finds no work stops polling, and sleeps.

use std::time::Duration;

use ringway_types::Instant;

use super::adaptive_spin::AdaptiveSpin;

/// Says when a thread that polls a context should stop polling and sleep: after
/// [`polling_idle_timeout`](crate::ExecutionConfig::polling_idle_timeout) without work;
/// and, if its last sleeps were shorter than a sleep and a wake-up cost, some microseconds later.
#[derive(Debug)]
pub(crate) struct IdlePolicy {
    polling_idle_timeout: Duration,
    spin: AdaptiveSpin,
    last_work: Instant,
    idle: bool,
}

impl IdlePolicy {
    /// Of a thread that begins to poll now.
    pub(crate) fn new(polling_idle_timeout: Duration, now: Instant) -> Self {
        IdlePolicy {
            polling_idle_timeout,
            spin: AdaptiveSpin::new(),
            last_work: now,
            idle: false,
        }
    }

    /// A turn has found work, and is over.
    pub(crate) fn on_work(&mut self, now: Instant) {
        if std::mem::take(&mut self.idle) {
            self.spin.on_found();
        }
        self.last_work = now;
    }

    /// The thread has found no work for the time that it is to poll, whatever its last sleeps were.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        now.since(self.last_work) >= self.polling_idle_timeout
    }

    /// A turn has found nothing. True if the thread should sleep now, rather than poll again.
    pub(crate) fn on_idle(&mut self, now: Instant) -> bool {
        self.idle = true;
        let sleeps = now.since(self.last_work) >= self.polling_idle_timeout.max(self.spin.budget());
        if sleeps {
            self.spin.on_sleep();
        }
        sleeps
    }

    /// The thread has slept.
    pub(crate) fn on_slept(&mut self, from: Instant, until: Instant) {
        self.spin.on_slept(until.since(from));
        self.last_work = until;
        self.idle = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_polls_for_as_long_as_it_is_told_to() {
        let at = |micros: u64| Instant::from_nanos(micros * 1000);
        let mut policy = IdlePolicy::new(Duration::from_micros(50), at(0));
        assert!(!policy.on_idle(at(49)));
        policy.on_work(at(60));
        assert!(!policy.on_idle(at(100)));
        assert!(policy.on_idle(at(110)));
        policy.on_slept(at(110), at(200));
        assert!(!policy.on_idle(at(201)));
    }
}
