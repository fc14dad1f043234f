//! What ringperf prints: lines for programs that wait for them, reports for people and as JSON, errors.

use std::fmt::Display;
use std::io::Write;

use anyhow::Result;
use serde::Serialize;

/// Prints an error.
pub(crate) fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "ringperf: {text}");
}

/// Prints a line of output, and gets it out at once: another program may wait for it.
pub(crate) fn print_line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// Prints a report: as one line of JSON, or for people.
pub(crate) fn print_report(json: bool, report: &(impl Serialize + Display)) -> Result<()> {
    print_line(&if json {
        serde_json::to_string(report)?
    } else {
        report.to_string().trim_end().to_owned()
    });
    Ok(())
}
