//! What the kernel knows of a process: the same for every stack, from outside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::ClockId;
use nix::unistd::Pid;
use procfs::process::Process;

/// Processor time of all threads of a process, also of those that have ended.
pub(super) fn cpu_time(process: u32) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(process.cast_signed()));
    let time = clock.and_then(ClockId::now);
    Ok(time.context("reading the processor time of a program")?.into())
}

/// Processor time of all child processes that have ended and were waited for, with theirs.
pub(super) fn ended_children_cpu_time() -> Result<Duration> {
    cpu_time_of(UsageWho::RUSAGE_CHILDREN)
}

/// Processor time of this process.
pub(super) fn own_cpu_time() -> Result<Duration> {
    cpu_time_of(UsageWho::RUSAGE_SELF)
}

fn cpu_time_of(who: UsageWho) -> Result<Duration> {
    let usage = getrusage(who).context("reading the processor time of programs")?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

/// Bytes of memory of a process that are in RAM.
pub(super) fn resident_bytes(process: u32) -> Result<u64> {
    let rollup = open(process)?
        .smaps_rollup()
        .context("reading the memory of a program")?;
    let map = rollup.memory_map_rollup.into_iter().next();
    let bytes = map.and_then(|map| map.extension.map.get("Rss").copied());
    bytes.context("the memory of a program has no Rss")
}

/// Fails if a thread of a process may run elsewhere than where it was put: then its figures are not those of one processor.
pub(super) fn check_pinned(process: u32, processor: usize) -> Result<()> {
    let process = open(process)?;
    for task in process
        .tasks()
        .context("reading the threads of a program")?
        .flatten()
    {
        // A thread may have ended by now.
        let Ok(status) = task.status() else {
            continue;
        };
        let allowed = status.cpus_allowed_list.unwrap_or_default();
        ensure!(
            allowed == [(processor as u32, processor as u32)],
            "its thread {} may run on processors {}, not on {processor} alone",
            status.name,
            ranges(&allowed)
        );
    }
    ensure!(process.is_alive(), "it has ended");
    Ok(())
}

fn open(process: u32) -> Result<Process> {
    Process::new(process.cast_signed()).context("reading /proc of a program")
}

/// As the kernel writes lists of processors.
fn ranges(list: &[(u32, u32)]) -> String {
    let range = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    list.iter().map(range).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process;

    #[test]
    fn the_time_of_this_process_passes_and_it_has_memory() {
        let own = std::process::id();
        let before = cpu_time(own).unwrap();
        let memory = vec![1u8; 50 << 20];
        assert!(resident_bytes(own).unwrap() > memory.len() as u64);
        assert!(cpu_time(own).unwrap() > before);
    }

    #[test]
    fn the_time_of_a_program_is_known_when_it_has_ended() {
        let before = ended_children_cpu_time().unwrap();
        let script = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done";
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        assert!(ended_children_cpu_time().unwrap() > before);
    }

    #[test]
    fn a_program_that_may_run_elsewhere_is_found_out() {
        let mut command = Command::new("sleep");
        let process = process::Process::start_on(0, command.arg("60")).unwrap();
        check_pinned(process.id(), 0).unwrap();
        let error = check_pinned(process.id(), 1).unwrap_err().to_string();
        assert!(error.contains("processors 0, not on 1"), "{error}");
    }
}
