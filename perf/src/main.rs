//! `ringperf`: see the library.

fn main() -> std::process::ExitCode {
    ringway_perf::command_line::run()
}
