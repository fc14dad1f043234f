//! What ringperf prints: lines for programs that wait for them, reports for people and as JSON, errors.

use std::fmt::Display;
use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;

/// Prints an error.
pub(crate) fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "ringperf: {text}");
}

/// Prints a line of output, and gets it out at once: another program may wait for it. One that does not get out is an error: whoever reads
/// nothing must not take the run for a success.
pub(crate) fn print_line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context("writing to standard output")
}

/// Prints a report: as one line of JSON, or for people.
pub(crate) fn print_report(json: bool, report: &(impl Serialize + Display)) -> Result<()> {
    print_line(&if json {
        serde_json::to_string(report)?
    } else {
        report.to_string().trim_end().to_owned()
    })
}
