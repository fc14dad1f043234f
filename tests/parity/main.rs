//! Every item of MsQuic's interface is here under a name of ours, with a test that calls it, or has a reason why it is not.
//!
//! `msquic.txt` is the list, and says how its lines are read. This holds it to the code: names and tests exist, tests mention the names, no item
//! is missing, and the page of the manual is made of the same lines.

mod names;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use self::names::Names;

/// How many items MsQuic has in each section, by its headers of version 2.7.
const SECTIONS: &[(&str, &str, usize)] = &[
    ("functions", "Functions", 41),
    ("objects", "Objects", 6),
    (
        "events",
        "Events (listener L, connection C, stream S; I: what a new connection says)",
        41,
    ),
    ("settings", "Settings (of the library G, of versions V)", 52),
    (
        "params",
        "Parameters (library G, configuration CF, listener L, connection C, TLS T, stream S)",
        64,
    ),
    ("flags", "Flags", 45),
    ("creds", "Credentials", 32),
    (
        "stats",
        "Statistics (listener L, network N, counters of partitions P, stream S; handshake information HI, TLS secrets TS)",
        113,
    ),
];

/// How many items are here, mean nothing on Linux or in Rust, or belong to later work on the protocol. Renew them with the list: fewer than these
/// is a loss.
const HERE_AT_LEAST: usize = 310;
/// What may be left for later, and nothing else.
const LATER: &[&str] = &[
    "BBR",
    "RELIABLE_RESET",
    "ONE_WAY_DELAY",
    "CIBIR",
    "load balancing modes",
];
/// Where users read it.
const PAGE: &str = "src/ringway/src/manual/msquic.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package lies below the root")
}

/// One line of the list.
#[derive(Debug)]
struct Item {
    section: &'static str,
    msquic: String,
    /// Names of ours.
    names: Vec<String>,
    what: What,
}

#[derive(Debug, PartialEq)]
enum What {
    /// Tests that call it: file and function.
    Here(Vec<(String, String)>),
    /// Why there is no use for it.
    None(String),
    /// The work that it belongs to.
    Later(String),
    /// It is to come.
    Missing,
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

fn items() -> Vec<Item> {
    let text = read("tests/parity/msquic.txt").expect("the list is there");
    let mut section = None;
    let mut items = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = SECTIONS.iter().find(|(section, ..)| *section == name);
            assert!(section.is_some(), "line {}: no such section", number + 1);
            continue;
        }
        let parts: Vec<_> = line.splitn(3, '|').map(str::trim).collect();
        let [msquic, names, what] = parts[..] else {
            panic!("line {}: item | names | test or reason", number + 1);
        };
        let what = if let Some(reason) = what.strip_prefix("none: ") {
            What::None(reason.to_owned())
        } else if let Some(work) = what.strip_prefix("later: ") {
            What::Later(work.to_owned())
        } else if what == "missing" {
            What::Missing
        } else {
            let test = |test: &str| {
                let (file, function) = test
                    .trim()
                    .split_once(".rs::")
                    .unwrap_or_else(|| panic!("line {}: file.rs::test", number + 1));
                (format!("{file}.rs"), function.to_owned())
            };
            What::Here(what.split(',').map(test).collect())
        };
        items.push(Item {
            section: section.expect("items are in sections").0,
            msquic: msquic.to_owned(),
            names: names
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| name != "-")
                .collect(),
            what,
        });
    }
    items
}

/// The other files of a test that is a folder: what its tests call is there, too.
fn beside(file: &str) -> String {
    let folder = Path::new(file).parent().expect("files are in folders");
    if !folder.starts_with("tests/") || folder == Path::new("tests/") {
        return String::new();
    }
    let files = fs::read_dir(root().join(folder)).expect("the folder is there");
    let texts = files.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    texts.collect()
}

/// The text of a test function is in this file, with `#[test]` among the lines right before it.
fn has_test(text: &str, function: &str) -> bool {
    text.match_indices(&format!("fn {function}(")).any(|(at, _)| {
        let before = text[..at].trim_end().lines().rev();
        before
            .take_while(|line| !line.trim().is_empty())
            .any(|line| line.trim() == "#[test]")
    })
}

#[test]
fn every_item_of_msquic_is_here_or_has_a_reason() {
    let items = items();
    let mut wrong = Vec::new();
    for &(section, _, count) in SECTIONS {
        let found: Vec<_> = items.iter().filter(|item| item.section == section).collect();
        if found.len() != count {
            wrong.push(format!(
                "{section}: {} items, but MsQuic has {count}",
                found.len()
            ));
        }
        let different: HashSet<_> = found.iter().map(|item| &item.msquic).collect();
        if different.len() != found.len() {
            wrong.push(format!("{section}: an item is there twice"));
        }
    }
    let names = Names::of_ringway(root());
    let mut files = HashMap::new();
    let mut helpers = HashMap::new();
    for Item {
        section,
        msquic,
        names: ours,
        what,
    } in &items
    {
        let mut complain = |problem: String| wrong.push(format!("{section} {msquic}: {problem}"));
        for name in ours {
            if !names.has(name) {
                complain(format!("`{name}` is not public"));
            }
        }
        match what {
            What::Here(tests) => {
                if ours.is_empty() {
                    complain("a test, but no name".to_owned());
                }
                let mut mentioned = false;
                for (file, function) in tests {
                    let text = files.entry(file.clone()).or_insert_with(|| read(file));
                    match text {
                        None => complain(format!("there is no file {file}")),
                        Some(text) if !has_test(text, function) => {
                            complain(format!("{file} has no test {function}"))
                        }
                        Some(text) => {
                            let others = helpers.entry(file.clone()).or_insert_with(|| beside(file));
                            let calls = |name: &String| {
                                [&*text, &*others]
                                    .iter()
                                    .any(|text| text.contains(names::last(name)))
                            };
                            mentioned |= ours.iter().any(calls);
                        }
                    }
                }
                if !mentioned {
                    complain("no file of its tests mentions the name".to_owned());
                }
            }
            What::None(reason) if reason.len() < 20 => complain("that is no reason".to_owned()),
            What::Later(work) if !LATER.contains(&work.as_str()) => {
                complain("what is later must be on the list of it".to_owned())
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
    let count = |is: fn(&What) -> bool| items.iter().filter(|item| is(&item.what)).count();
    let here = count(|what| matches!(what, What::Here(_)));
    let sums = format!(
        "{} items: {here} here, {} without use, {} later, {} missing",
        items.len(),
        count(|what| matches!(what, What::None(_))),
        count(|what| matches!(what, What::Later(_))),
        count(|what| *what == What::Missing),
    );
    assert!(here >= HERE_AT_LEAST, "{sums}; there were {HERE_AT_LEAST}");
}

/// The tables of the manual's page.
fn tables(items: &[Item]) -> String {
    let mut out = String::new();
    for (section, title, _) in SECTIONS {
        let _ = writeln!(out, "# {title}\n\n| MsQuic | Ringway |\n|---|---|");
        for item in items.iter().filter(|item| item.section == *section) {
            let ours: Vec<_> = item
                .names
                .iter()
                .map(|name| format!("[`{name}`](crate::{name})"))
                .collect();
            let ours = ours.join(", ");
            let text = match &item.what {
                What::Here(_) => ours,
                What::None(reason) if ours.is_empty() => reason.clone(),
                What::None(reason) => format!("{ours}: {reason}"),
                What::Later(work) => format!("later, with {work}"),
                What::Missing => "not yet".to_owned(),
            };
            let _ = writeln!(out, "| {} | {text} |", item.msquic);
        }
        out.push('\n');
    }
    out
}

/// Set `RENEW` to write the page anew.
#[test]
fn page_of_the_manual_says_what_the_list_says() {
    let page = read(PAGE).expect("the page is there");
    let (introduction, before) = page
        .split_once("# Functions")
        .expect("the tables begin with the functions");
    let tables = tables(&items());
    if std::env::var_os("RENEW").is_some() {
        fs::write(
            root().join(PAGE),
            format!("{introduction}{}", tables.trim_end().to_owned() + "\n"),
        )
        .expect("it can be written");
        return;
    }
    let before = format!("# Functions{before}");
    assert!(
        before.trim_end() == tables.trim_end(),
        "{PAGE} is not what tests/parity/msquic.txt says: RENEW=1 cargo test -p ringway-tests --test parity"
    );
}
