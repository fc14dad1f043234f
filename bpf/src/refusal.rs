//! Why the kernel does not load a program: which privileges the process lacks, or what the verifier says.

use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use libbpf_rs::{PrintLevel, set_print};

/// What libbpf has warned of since [`with_words`] began. It has one function for all that it says in a process.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Lines of the verifier that an error repeats: the last ones say what it objects to.
const WORDS_MAX: usize = 6;

/// linux/capability.h
const CAPABILITIES: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (39, "CAP_BPF")];
const CAP_SYS_ADMIN: u32 = 21;

/// Loads something, and says in the error why that failed.
pub(super) fn with_words<T>(load: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // What libbpf has to say, in our log rather than on standard error.
    set_print(Some((PrintLevel::Debug, |level, text| {
        let text = text.trim_end();
        match level {
            PrintLevel::Warn => {
                tracing::debug!("libbpf: {text}");
                warnings(|warnings| warnings.extend(text.lines().map(str::to_owned)));
            }
            _ => tracing::trace!("libbpf: {text}"),
        }
    })));
    warnings(Vec::clear);
    load().map_err(|error| {
        let why = missing().or_else(|| warnings(|warnings| verifier(warnings)));
        match why {
            Some(why) => io::Error::new(error.kind(), format!("loading the XDP program: {why}: {error}")),
            None => error,
        }
    })
}

fn warnings<T>(look: impl FnOnce(&mut Vec<String>) -> T) -> T {
    look(&mut WARNINGS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The privileges that loading needs and this process lacks.
fn missing() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    lacks(u64::from_str_radix(line.trim(), 16).ok()?)
}

fn lacks(effective: u64) -> Option<String> {
    let has = |capability: u32| effective >> capability & 1 == 1;
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        // Before there was CAP_BPF it was CAP_SYS_ADMIN, which still serves.
        .filter(|(number, name)| !(has(*number) || *name == "CAP_BPF" && has(CAP_SYS_ADMIN)))
        .map(|(_, name)| *name)
        .collect();
    (!missing.is_empty()).then(|| format!("the process lacks {}", missing.join(" and ")))
}

/// What the verifier objects to, out of libbpf's warnings, which hold its whole log.
fn verifier(warnings: &[String]) -> Option<String> {
    let begin = warnings
        .iter()
        .rposition(|line| line.contains("BEGIN PROG LOAD LOG"))?
        + 1;
    let log = &warnings[begin..];
    let end = log
        .iter()
        .position(|line| line.contains("END PROG LOAD LOG"))
        .unwrap_or(log.len());
    let said: Vec<&str> = log[..end]
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty() && !line.starts_with("processed "))
        .collect();
    let said = &said[said.len().saturating_sub(WORDS_MAX)..];
    (!said.is_empty()).then(|| format!("the kernel's verifier refuses it ({})", said.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_that_is_there_is_not_said_to_be_missing() {
        let both = 1 << 12 | 1 << 39;
        assert_eq!(lacks(both), None);
        assert_eq!(lacks(1 << 12), Some("the process lacks CAP_BPF".into()));
        assert_eq!(lacks(1 << 39), Some("the process lacks CAP_NET_ADMIN".into()));
        assert_eq!(
            lacks(0),
            Some("the process lacks CAP_NET_ADMIN and CAP_BPF".into())
        );
        assert_eq!(lacks(1 << 12 | 1 << CAP_SYS_ADMIN), None);
    }

    #[test]
    fn what_the_verifier_objects_to_is_found_in_its_log() {
        let lines = [
            "libbpf: prog 'ringway': BPF program load failed: Permission denied",
            "libbpf: prog 'ringway': -- BEGIN PROG LOAD LOG --",
            "0: R1=ctx() R10=fp0",
            "56: (0f) r2 += r3",
            "R2 has unknown scalar with mixed signed bounds, pointer arithmetic with it prohibited for !root",
            "processed 57 insns (limit 1000000) max_states_per_insn 0",
            "-- END PROG LOAD LOG --",
            "libbpf: prog 'ringway': failed to load: -EACCES",
        ]
        .map(str::to_owned);
        assert_eq!(
            verifier(&lines).unwrap(),
            "the kernel's verifier refuses it (0: R1=ctx() R10=fp0; 56: (0f) r2 += r3; R2 has unknown scalar with mixed signed bounds, \
             pointer arithmetic with it prohibited for !root)"
        );
        assert_eq!(verifier(&[]), None);
    }
}
