//! What the benchmark prints.

/// A line of figures.
#[allow(clippy::print_stdout, reason = "the figures are its output")]
pub(crate) fn print_line(text: &str) {
    println!("{text}");
}

/// An error.
#[allow(clippy::print_stderr, reason = "what was wrong with the arguments")]
pub(crate) fn print_error(text: &str) {
    eprintln!("engine_costs: {text}");
}
