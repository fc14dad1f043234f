//! What has become of sessions and 0-RTT, by the word of Ringway, be it client or server.

use anyhow::{Result, ensure};

use crate::case::Test;

#[derive(Default, Debug)]
pub struct Tally {
    resumed: u64,
    accepted: u64,
    rejected: u64,
    /// Those that the server has answered, if it was Ringway.
    requests: Option<u64>,
}

impl Tally {
    /// Adds what a report of ringperf says.
    pub fn add(&mut self, report: &serde_json::Value) {
        let count = |what: &str| report[what].as_u64();
        self.resumed += count("resumed").unwrap_or_default();
        self.accepted += count("zero_rtt_accepted").unwrap_or_default();
        self.rejected += count("zero_rtt_rejected").unwrap_or_default();
        if let Some(requests) = count("requests") {
            *self.requests.get_or_insert(0) += requests;
        }
    }

    /// Whether that is what the test is about. The client has had so many `answers`, and of so many connections the first flight came twice.
    pub fn check(&self, test: Test, answers: u64, replayed: usize) -> Result<()> {
        let what = format!("{self:?}, {answers} answers, {replayed} replays");
        ensure!(answers > 0, "nothing was answered: {what}");
        ensure!(
            (self.resumed > 0) == (test != Test::ZeroRttRejected),
            "sessions: {what}"
        );
        match test {
            Test::ZeroRttRejected => {
                ensure!(self.accepted == 0 && self.rejected > 0, "0-RTT: {what}");
            }
            test if test.is_early() => ensure!(self.accepted > 0, "0-RTT: {what}"),
            _ => {}
        }
        if test == Test::ZeroRttReplayed {
            ensure!(replayed > 2, "hardly anything was sent again: {what}");
            // The first request counts for no client, and that of the last connection may not have been answered.
            let most = answers + 2;
            ensure!(
                self.requests.is_none_or(|requests| requests <= most),
                "requests were answered again: {what}"
            );
        }
        Ok(())
    }
}
